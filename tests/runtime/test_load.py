"""From a bundle to a running segmenter: devices, canary, heads, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundles import write_good
from sample_photos import sample_pixels

import gransam_sdk as gs
from gransam_sdk.bundle import BUNDLED, open_bundle
from gransam_sdk.errors import BundleError, DeviceError, EnvironmentFault, InputError
from gransam_sdk.runtime.backends import usual_at_once
from gransam_sdk.runtime.canary import canary_outputs, check_canary
from gransam_sdk.runtime.load import load_model, open_sessions
from gransam_sdk.runtime.onnxruntime_session import OrtSession, resolve_device
from gransam_sdk.types import Settings


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_good(tmp_path_factory.mktemp("bundle") / "good")


@pytest.mark.parametrize("name", BUNDLED)
def test_embedded_bundles_open_load_and_answer(name: str) -> None:
    bundle = open_bundle(name)
    assert bundle.has_head and bundle.file_bytes("model-card.md")
    assert sum(graph.bytes for graph in bundle.graphs.values()) < 16e6
    with gs.load(name, device="cpu") as segmenter:
        assert segmenter.provider == "CPUExecutionProvider"
        result = segmenter(sample_pixels("chelsea.png"))[0]
    assert result.names[0] == "cat"


def test_threads_do_not_change_results() -> None:
    pixels = sample_pixels("motorcycle_left.png")
    answers = []
    for threads in (1, 2):
        with gs.load("nano-voc20", device="cpu", threads=threads) as segmenter:
            answers.append((segmenter.segment(pixels), segmenter.segment(pixels)))
    (first, again), (other, _) = answers
    assert len(first) > 3
    assert first.masks == again.masks == other.masks
    np.testing.assert_array_equal(first.confidence, again.confidence)
    np.testing.assert_allclose(first.confidence, other.confidence, atol=1e-4)


def test_photos_at_once_share_the_threads(good: Path) -> None:
    with gs.load(good, device="cpu", threads=5, at_once=2) as two, gs.load(good, device="cpu", threads=5) as one:
        assert (two.at_once, two.threads) == (2, 2)
        assert (one.at_once, one.threads) == (1, 5)
    with gs.load("nano-voc20", device="cpu", threads=3, at_once=None) as small:
        assert (small.at_once, small.threads) == (3, 1)
    bundle = open_bundle("nano-voc20")
    at_once = partial(usual_at_once, device="cpu", threads=64)
    assert at_once(bundle, backend="auto") == 8
    assert at_once(replace(bundle, input_side=1024), backend="auto") == 1
    assert at_once(bundle, backend="openvino") == 1
    with pytest.raises(InputError, match="photos at once"):
        gs.load(good, at_once=0)


def test_photos_at_once_write_the_same_records(sample_photos: dict[str, Path], tmp_path: Path) -> None:
    photos = list(sample_photos.values())
    for at_once in (1, 2):
        out = tmp_path / f"{at_once}"
        gs.annotate_folder(photos, out, device="cpu", threads=at_once, at_once=at_once, to=(), report=False)
        assert json.loads((out / "run.json").read_text())["environment"]["photos_at_once"] == at_once
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / n / "records").rglob("*.json")} for n in "12")
    assert one == two and len(one) == len(photos)


def test_chunk_size_changes_nothing_but_rounding() -> None:
    pixels = sample_pixels("chelsea.png")
    answers = []
    for chunk in (4, 100):
        with gs.load("nano-voc20", device="cpu", settings=Settings(chunk=chunk)) as segmenter:
            answers.append(segmenter.segment(pixels))
    np.testing.assert_allclose(answers[0].confidence, answers[1].confidence, atol=1e-4)
    assert answers[0].names == answers[1].names


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "cpu:1", ""])
def test_unknown_devices_are_usage_errors(device: str) -> None:
    with pytest.raises(InputError, match="device"):
        resolve_device(device)


def test_a_missing_gpu_is_an_error_and_auto_is_not() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(DeviceError, match="--device cpu"):
        gs.load("nano-voc20", device="cuda")
    assert resolve_device("auto") == "cpu"


def test_a_provider_that_silently_falls_back_is_an_error(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime returns a CPU session, with a warning at most, when CUDA cannot be loaded."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    honest = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, providers: honest(data, options, ["CPUExecutionProvider"]),
    )
    bundle = open_bundle(good)
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        open_sessions(bundle, resolve_device("cuda"), None)


def test_a_gpu_computes_in_the_bundles_precision(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's CUDA provider turns TF32 on by itself, and says nothing."""
    asked = []

    class Cuda:
        def __init__(self, data: bytes, options: object, providers: list[tuple[str, dict[str, str]]]) -> None:
            asked.extend(providers)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Cuda)
    bundle = open_bundle(good)
    assert OrtSession(b"", bundle.graphs["image"], device="cuda:2").provider == "CUDAExecutionProvider"
    plain = {"device_id": "2", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    assert asked == [("CUDAExecutionProvider", plain)]
    OrtSession(b"", bundle.graphs["image"], device="cuda:2", memory_limit=1 << 30)
    assert asked[1] == ("CUDAExecutionProvider", plain | {"gpu_mem_limit": "1073741824"})


@pytest.mark.parametrize("limit", [0, -5, True, 1.5, "1G"])
def test_a_memory_limit_is_a_number_of_bytes(good: Path, limit: object) -> None:
    with pytest.raises(InputError, match="memory limit"):
        OrtSession(b"", open_bundle(good).graphs["image"], device="cuda", memory_limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_only_a_gpus_memory_can_be_limited(backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    with pytest.raises(InputError, match="CUDA"):
        gs.load("nano-voc20", device="cpu", backend=backend, memory_limit=1 << 30)


def test_feeds_are_compared_with_the_manifest(good: Path) -> None:
    bundle = open_bundle(good)
    session = OrtSession(bundle.graph_bytes("image"), bundle.graphs["image"])
    image = np.zeros((1, 3, bundle.input_side, bundle.input_side), dtype=np.float32)
    assert session.run({"image": image})
    for feeds in ({}, {"image": image, "more": image}, {"image": image.astype(np.float64)}, {"image": image[:, :2]}):
        with pytest.raises(InputError, match=r"input"):
            session.run(feeds)
    session.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        session.run({"image": image})


def test_canary_refuses_another_computation(good: Path) -> None:
    bundle = open_bundle(good)
    model = open_sessions(bundle, "cpu", None)
    check_canary(model)
    outputs = canary_outputs(model, bundle.canary.points)
    for name, values in outputs.items():
        wrong = {**bundle.canary.expected, name: values + 2 * bundle.canary.tolerance}
        model.bundle = replace(bundle, canary=replace(bundle.canary, expected=wrong))
        with pytest.raises(BundleError, match=name):
            check_canary(model)


def test_head_of_another_bundle_is_caught_even_with_fresh_hashes(tmp_path: Path) -> None:
    """Somebody swaps the head and repairs every hash: only the canary can tell."""
    import hashlib

    mine = write_good(tmp_path / "mine", seed=0)
    other = write_good(tmp_path / "other", seed=1)
    shutil.copy(other / "head.onnx", mine / "head.onnx")
    manifest = json.loads((mine / "gransam.json").read_text())
    data = (mine / "head.onnx").read_bytes()
    manifest["graphs"]["head"] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (mine / "gransam.json").write_text(json.dumps(manifest))
    bundle = open_bundle(mine)
    with pytest.raises(BundleError, match="canary"):
        load_model(bundle, device="cpu")


def test_a_bundle_without_a_head_names_the_command_that_trains_one(tmp_path: Path) -> None:
    path = write_good(tmp_path / "bare", head=False)
    with pytest.raises(BundleError, match="gransam train") as caught:
        gs.load(path)
    assert caught.value.exit_code == 5
    load_model(open_bundle(path), device="cpu").close()


def test_arguments_are_checked(good: Path) -> None:
    with pytest.raises(InputError, match="backend"):
        gs.load(good, backend="tensorrt")
    with pytest.raises(InputError, match="threads"):
        gs.load(good, threads=0)
    with pytest.raises(BundleError, match="nano-voc20"):
        gs.load("no-such-bundle")
