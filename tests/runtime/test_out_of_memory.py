"""A device whose memory is full: the engine's own words become one error, and the chunk is halved until it fits."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fused_pair import assert_alike, classes_of
from onnx import TensorProto, helper
from sample_photos import sample_path, sample_pixels

import gransam_sdk as gs
from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.photo_source import PhotoSource
from gransam_sdk.annotate.publish import Products
from gransam_sdk.annotate.run import RunOptions, run_photos
from gransam_sdk.bundle import Graph, Tensor, open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import DeviceError, EnvironmentFault, OutOfMemoryError
from gransam_sdk.runtime.chunks import Chunks
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import FakeSession
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.out_of_memory import is_out_of_memory, out_of_memory
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.session import Session
from gransam_sdk.shapes import AnyArray
from gransam_sdk.types import Settings

ARENA = "Failed to allocate memory for requested buffer of size 939524096"


class Tight:
    """A session that has memory for so many rows and no more, as ONNX Runtime would say it.

    Args:
        session: What answers where they fit.
        rows: The input whose rows are counted.
        most: How many fit.
    """

    threads = 1

    def __init__(self, session: Session, rows: str, most: int) -> None:
        self._session, self._rows, self._most = session, rows, most
        self.provider = session.provider
        self.asked: list[int] = []

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        self.asked.append(len(feeds[self._rows]))
        if self.asked[-1] > self._most:
            raise out_of_memory("a run", ARENA)
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()


def tight_model(prompts: int, masks: int) -> tuple[Model, Tight, Tight]:
    """The fake bundle, 36 clicks in chunks of 16."""
    bundle = fake_bundle()
    sessions: dict[str, Session] = {name: FakeSession(bundle, name) for name in bundle.graphs}
    prompt, mask = Tight(sessions["prompt"], "points", prompts), Tight(sessions["mask"], "choice", masks)
    return Model(bundle, sessions | {"prompt": prompt, "mask": mask}), prompt, mask


def segmenter_of(model: Model) -> Segmenter:
    return Segmenter(model, select_classes(model.bundle.classes), Settings(record_floor=0.05))


def test_the_chunk_is_halved_until_it_fits_and_stays_there() -> None:
    photo = sample_pixels("coffee.png")
    expected = segmenter_of(tight_model(99, 99)[0]).segment(photo)
    model, prompt, mask = tight_model(prompts=5, masks=2)
    segmenter = segmenter_of(model)
    before = segmenter.fingerprint
    with pytest.warns(RuntimeWarning) as said:
        result = segmenter.segment(photo)
    assert [str(warning.message).partition(". ")[0] for warning in said] == [
        "prompt graph: the device's memory does not hold 16 prompts at a time; from here on 4",
        "mask graph: the device's memory does not hold 16 prompts at a time; from here on 2",
    ]
    assert ARENA in str(said[0].message)
    assert prompt.asked == [16, 8, *[4] * 9]
    assert mask.asked[0] == 16 and set(mask.asked[4:]) <= {1, 2}
    assert segmenter.reduced_chunks == {"prompt": 4, "mask": 2}
    assert segmenter.fingerprint == before, "what was asked for is the same run"
    assert len(result) == len(expected) >= 3 and result.masks == expected.masks
    np.testing.assert_array_equal(result.confidence, expected.confidence)
    prompt.asked.clear()
    mask.asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.segment(photo)
    assert prompt.asked == [4] * 9 and max(mask.asked) == 2, "nothing is tried in vain again, or said twice"


def test_without_room_for_one_prompt_there_is_an_error() -> None:
    model, prompt, _ = tight_model(prompts=0, masks=9)
    with pytest.raises(OutOfMemoryError, match="a run"):
        segmenter_of(model).segment(sample_pixels("coffee.png"))
    assert prompt.asked == [16, 8, 4, 2, 1]


def test_other_faults_are_not_answered_with_smaller_runs() -> None:
    asked = []

    def part(rows: slice) -> None:
        asked.append(rows)
        raise EnvironmentFault("graph", found="a broken engine")

    with pytest.raises(EnvironmentFault, match="broken"):
        list(Chunks().run("prompt", 10, 4, part))
    assert len(asked) == 1


@pytest.mark.parametrize(("rows", "chunk", "most"), [(36, 16, 99), (37, 10, 3), (5, 64, 1), (0, 4, 1), (7, 7, 6)])
def test_every_row_runs_once_and_in_order(rows: int, chunk: int, most: int) -> None:
    done: list[int] = []

    def part(given: slice) -> list[int]:
        found = list(range(rows)[given])
        if len(found) > most:
            raise out_of_memory("a run", ARENA)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in Chunks().run("prompt", rows, chunk, part):
            assert 0 < len(found) <= min(chunk, most)
            done += found
    assert done == list(range(rows))


def test_results_of_a_real_bundle_change_by_rounding_alone() -> None:
    bundle = open_bundle("nano-voc20")
    settings = Settings(record_floor=0.1, chunk=50)
    classes = classes_of(bundle, settings)
    whole, small = open_sessions(bundle, "cpu", 1), open_sessions(bundle, "cpu", 1)
    small._sessions["prompt"] = Tight(small._sessions["prompt"], "points", 7)
    with Segmenter(whole, classes, settings) as plain, Segmenter(small, classes, settings) as tight:
        for number, name in enumerate(("motorcycle_left.png", "chelsea.png")):
            expected = plain.segment(sample_pixels(name))
            if number == 0:
                with pytest.warns(RuntimeWarning, match="from here on 6"):
                    found = tight.segment(sample_pixels(name))
            else:
                found = tight.segment(sample_pixels(name))
            assert_alike(found, expected)
            assert len(found) > 0


def test_a_run_says_that_its_chunk_was_reduced_and_goes_on(tmp_path: Path) -> None:
    """``run.json`` holds it; the fingerprint is that of what was asked for, so the same command goes on."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("coffee.png", "chelsea.png"):
        (photos / name).write_bytes(sample_path(name).read_bytes())

    def annotate(segmenter: Segmenter, limit: int | None) -> dict[str, object]:
        with OutputFolder.open(tmp_path / "run") as out:
            source = PhotoSource(photos, exclude=tmp_path / "run", limit=limit)
            run_photos(segmenter, source, out, RunOptions(products=Products(report=False)))
        found: dict[str, object] = json.loads((tmp_path / "run" / "run.json").read_text())
        return found

    with pytest.warns(RuntimeWarning):
        first = annotate(segmenter_of(tight_model(prompts=5, masks=99)[0]), limit=1)
    assert first["reduced_chunks"] == {"prompt": 4}
    second = annotate(segmenter_of(tight_model(99, 99)[0]), limit=None)
    assert second["counts"]["done"] == 1 and second["counts"]["new"] == 1  # type: ignore[index]
    assert "reduced_chunks" not in second


def too_large() -> tuple[bytes, Graph]:
    """A graph of one node that asks for as many numbers as it is told."""
    node = helper.make_node("ConstantOfShape", ["sizes"], ["filled"])
    declared = [
        helper.make_tensor_value_info("sizes", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("filled", TensorProto.FLOAT, ["n"]),
    ]
    graph = helper.make_graph([node], "fill", declared[:1], declared[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data = model.SerializeToString()
    onnx.checker.check_model(model)
    inputs, outputs = (Tensor("sizes", "int64", (1,)),), (Tensor("filled", "float32", ("n",)),)
    return data, Graph("fill.onnx", "0" * 64, len(data), inputs, outputs)


def test_onnx_runtimes_own_words_are_understood() -> None:
    """256 TiB: no machine has them, and the arena says so as it would on a GPU."""
    data, graph = too_large()
    session = OrtSession(data, graph, threads=1)
    assert session.run({"sizes": np.array([3], dtype=np.int64)})["filled"].tolist() == [0, 0, 0]
    with pytest.raises(OutOfMemoryError, match=r"fill\.onnx") as caught:
        session.run({"sizes": np.array([1 << 46], dtype=np.int64)})
    assert isinstance(caught.value, DeviceError) and "Failed to allocate" in caught.value.found
    with pytest.raises(EnvironmentFault) as other:
        session.run({"sizes": np.array([-3], dtype=np.int64)})
    assert not isinstance(other.value, OutOfMemoryError)


SAID = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'c' "
    "Status Message: /o/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to "
    "allocate memory for requested buffer of size 4585490524",
    "BFCArena::AllocateRawInternal Available memory of 34699008 is smaller than requested bytes of 945041920",
    "[ONNXRuntimeError] : 1 : FAIL : /o/cuda_call.cc:121 onnxruntime::CudaCall CUDA failure 2: out of memory ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);",
    "ERROR: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)",
    "ERROR: [defaultAllocator.cpp::allocate::63] Error Code 1: Cuda Runtime (out of memory)",
)
OTHERS = (
    "CUDA failure 700: an illegal memory access was encountered",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "Error Code 3: API Usage Error (Parameter check failed)",
    "The input tensor cannot be reshaped to the requested shape",
    "",
)


@pytest.mark.parametrize(("messages", "expected"), [(SAID, True), (OTHERS, False)])
def test_words_of_engines(messages: Sequence[str], expected: bool) -> None:
    for message in messages:
        assert is_out_of_memory(message) is expected, message


def test_the_error_is_public_and_names_what_to_do() -> None:
    error = gs.OutOfMemoryError("graph", expected="memory")
    assert isinstance(error, gs.DeviceError) and error.exit_code == 5
    assert "chunk" in out_of_memory("graph", "full").do


def test_a_chunk_of_its_own_stays_within_what_was_learnt() -> None:
    model, prompt, _ = tight_model(prompts=5, masks=9)
    model.bundle = replace(model.bundle, prompt_chunk=3)
    segmenter_of(model).segment(sample_pixels("coffee.png"))
    assert prompt.asked == [3] * 12 and model.reduced_chunks == {}
