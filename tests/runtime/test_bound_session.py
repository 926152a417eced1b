"""Bound inputs and outputs: the plain run's answers bit for bit, and on a GPU the places and calls that are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from bundles import write_good
from fused_pair import assert_alike, classes_of
from sample_photos import sample_pixels

from gransam_sdk.bundle import Bundle, Graph, open_bundle
from gransam_sdk.errors import EnvironmentFault, InputError, OutOfMemoryError
from gransam_sdk.export.fused import fuse
from gransam_sdk.runtime.bound_session import BoundSession
from gransam_sdk.runtime.fused import FusedSegmenter, fused_on_onnxruntime
from gransam_sdk.runtime.fused_answer import fused_feeds
from gransam_sdk.runtime.fused_canary import check_fused_canary
from gransam_sdk.runtime.fused_spec import FusedSpec
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

PHOTOS = ("astronaut.png", "coffee.png", "rocket.jpg", "astronaut.png")


def fused_graph(bundle: Bundle, settings: Settings) -> tuple[bytes, Graph]:
    """A bundle's fused graph and its declaration."""
    classes = classes_of(bundle, settings)
    data = fuse(bundle, classes=classes, settings=settings)
    return data, FusedSpec.of(bundle, classes, settings).graph(bundle, data)


def test_bound_runs_are_plain_runs_bit_for_bit() -> None:
    """Photo after photo, the first one again at the end; an answer stays as it was when the next one is made."""
    bundle = open_bundle("nano-voc20")
    data, graph = fused_graph(bundle, Settings())
    model = Model(bundle, {})
    plain, bound = OrtSession(data, graph, threads=1), BoundSession(data, graph, threads=1)
    answers = []
    for name in PHOTOS:
        feeds = fused_feeds(sample_pixels(name), model.frame(sample_pixels(name)))
        answers.append((bound.run(feeds), plain.run(feeds)))
    for found, expected in answers:
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert not np.array_equal(answers[0][0]["logits"], answers[1][0]["logits"])
    assert bound.provider == plain.provider
    bound.close()
    plain.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return open_bundle(write_good(tmp_path / "bundle", seed=32))


def test_what_cannot_be_bound_or_fed_is_refused(tiny: Bundle) -> None:
    with pytest.raises(InputError, match="free axes in points"):
        BoundSession(tiny.graph_bytes("prompt"), tiny.graphs["prompt"])
    data, graph = fused_graph(tiny, Settings(conf=0.1))
    session = BoundSession(data, graph)
    valid = np.array([16, 16], dtype=np.int64)
    for feeds in ({"valid": valid}, {"valid": valid, "photo": np.zeros((16, 16, 3), dtype=np.float32)}):
        with pytest.raises(InputError, match="input"):
            session.run(feeds)
    scattered = {"valid": valid, "photo": np.zeros((3, 16, 16), dtype=np.uint8).transpose(1, 2, 0)}
    assert session.run(scattered)["logits"].shape == (min(64, tiny.points_per_side**2), 4, 4)
    session.close()
    session.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        session.run(scattered)


class Calls(list[tuple[Any, ...]]):
    """What was asked of ONNX Runtime, in order."""

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self if call[0] == name]


def recorded(calls: Calls, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        calls.append((name, *args[:1]))
        return real(self, *args)

    return call


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """ONNX Runtime as on a machine with two GPUs: each call goes on to the real one, on the CPU, with its arguments."""
    calls = Calls()

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, data: bytes, options: Any, providers: Sequence[Any]) -> None:
            calls.append(("open", *providers))
            super().__init__(data, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def run(self, *args: Any, **more: Any) -> Any:
            calls.append(("run",))
            return super().run(*args, **more)

        def run_with_iobinding(self, binding: Any, *more: Any) -> None:
            calls.append(("run_with_iobinding",))
            super().run_with_iobinding(binding, *more)

    class Value(onnxruntime.OrtValue):  # type: ignore[misc]
        @classmethod
        def ortvalue_from_shape_and_type(
            cls, shape: Sequence[int], kind: Any, device: str = "cpu", index: int = 0
        ) -> Any:
            calls.append(("reserve", tuple(shape), device, index))
            return super().ortvalue_from_shape_and_type(shape, kind, "cpu", 0)

        def update_inplace(self, data: Any) -> None:
            calls.append(("update_inplace", data.shape))
            super().update_inplace(data)

    binding = onnxruntime.IOBinding
    for name in ("bind_ortvalue_input", "bind_ortvalue_output", "copy_outputs_to_cpu"):
        monkeypatch.setattr(binding, name, recorded(calls, name, getattr(binding, name)))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "OrtValue", Value)
    yield calls


def on_gpu(bundle: Bundle, settings: Settings, **more: Any) -> FusedSegmenter:
    classes = classes_of(bundle, settings)
    data = fuse(bundle, classes=classes, settings=settings)
    model = open_sessions(bundle, "cuda:1", 1, memory_limit=more.get("memory_limit"))
    return fused_on_onnxruntime(data, model, classes, settings, device="cuda:1", threads=1, **more)


def test_on_a_gpu_the_fused_graph_is_bound_there(tiny: Bundle, gpu: Calls) -> None:
    settings = Settings(conf=0.1, nms_iou=1.0, containment=1.0)
    with on_gpu(tiny, settings, memory_limit=3 << 30) as fused:
        assert fused.provider == "CUDAExecutionProvider"
        names = [tensor.name for tensor in fused.spec.outputs(tiny)]
        assert gpu.named("bind_ortvalue_input") == [("photo",), ("valid",)]
        assert gpu.named("bind_ortvalue_output") == [(name,) for name in names]
        reserved = gpu.named("reserve")
        assert [where for _, *where in reserved] == [["cuda", 1]] * (2 + len(names))
        assert reserved[0][0] == (16, 16, 3) and reserved[-1][0] == ()
        opened = gpu.named("open")
        assert len(opened) == 5 and {options["gpu_mem_limit"] for ((_, options),) in opened} == {str(3 << 30)}
        check_fused_canary(fused)
        gpu.clear()
        photo = np.ascontiguousarray(sample_pixels("coffee.png")[::10, ::10])
        answer = fused.answer(photo)
        order = ["update_inplace", "update_inplace", "run_with_iobinding", "copy_outputs_to_cpu"]
        assert [name for name, *_ in gpu] == order
        assert not answer.fell_back and len(answer.result) > 0
        assert_alike(answer.result, Segmenter(fused.four_graphs, fused.classes, settings).segment(photo))


def test_a_gpu_without_room_for_the_buffers_says_so(tiny: Bundle, gpu: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 8")

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", full)
    data, graph = fused_graph(tiny, Settings(conf=0.1))
    with pytest.raises(OutOfMemoryError, match="fewer prompts") as caught:
        BoundSession(data, graph, device="cuda")
    assert caught.value.exit_code == 5
