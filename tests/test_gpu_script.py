"""What is timed on a GPU, as far as it can be told without one: the same masks, nothing left on the host, every row."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fused_pair import assert_alike, classes_of
from nano_random import random_nano
from narrow_sam import sam_bundle
from sam_random import NARROW_TINY, NARROW_VIT, random_sam
from sample_photos import CHECKPOINT, sample_path, sample_pixels
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import DeviceError, InputError
from gransam_sdk.export.nano import PlainNano
from gransam_sdk.export.reference import PlainSegmenter, read_plain
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.rle import rle_encode
from gransam_sdk.runtime.fused import FusedSegmenter
from gransam_sdk.runtime.fused_canary import check_fused_canary
from gransam_sdk.runtime.fused_spec import FusedSpec
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import gpu
import gpu_report
from eager import read_head
from gpu_module import FusedModule, How, TorchFusedSession, made_for, positions_on_the_device
from gpu_sections import REFERENCE, SECTIONS, Section, Told, arithmetic
from kept import Kept
from random_bundle import CLASSES

ROOT = Path(__file__).parents[1]


def torch_segmenter(
    plain: PlainSegmenter, bundle: Bundle, head: nn.Module, settings: Settings, kept: int
) -> FusedSegmenter:
    """The module behind the fused segmenter, on the CPU."""
    classes = classes_of(bundle, settings)
    spec = FusedSpec.of(bundle, classes, settings, kept=kept)
    module = FusedModule(plain, bundle, head, spec)
    session = TorchFusedSession(module, spec.graph(bundle, b""), "cpu", How())
    return FusedSegmenter(open_sessions(bundle, "cpu", 1), classes, settings, session, kept=kept)


def test_the_torch_module_is_the_embedded_bundle() -> None:
    """Against ONNX Runtime on the bundle's four graphs, whose weights come from this checkpoint."""
    bundle, settings = open_bundle("nano-voc20"), Settings(record_floor=0.1)
    plain = read_plain(CHECKPOINT, "nano", bundle.precision)
    with torch_segmenter(plain, bundle, read_head(bundle), settings, 100) as found:
        check_fused_canary(found)
        expected = Segmenter(found.four_graphs, found.classes, settings)
        for name in ("motorcycle_left.png", "chelsea.png"):
            answer = found.answer(sample_pixels(name))
            assert_alike(answer.result, expected.segment(sample_pixels(name)))
            assert not answer.fell_back and len(answer.result) > 0
        assert found.provider == "PyTorch cpu eager"


@pytest.mark.slow
def test_the_torch_module_of_a_letterboxed_sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, head = sam_bundle(tmp_path, monkeypatch)
    settings = Settings(conf=0.3, nms_iou=0.9, containment=1.0, points_per_side=6, record_floor=0.2)
    plain = read_plain(tmp_path / "tiny.pt", "mobile-sam", bundle.precision)
    masks, confident = 0, []
    with torch_segmenter(plain, bundle, head, settings, 30) as found:
        check_fused_canary(found)
        expected = Segmenter(found.four_graphs, found.classes, settings)
        for name in ("coffee.png", "astronaut.png"):
            pixels = sample_pixels(name)
            for photo in (pixels, np.ascontiguousarray(pixels[100:130])):
                answer = found.answer(photo)
                confident.append(answer.confident)
                assert_alike(answer.result, expected.segment(photo))
                masks += len(answer.result)
    assert masks > 10 and min(confident) < 36, "background wins some clicks"


class OnOneDevice(TorchDispatchMode):
    """Refuses an operator that reads or makes a tensor elsewhere than on ``meta``; there, no number can be read."""

    seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}, out))
        for value in flat:
            assert not isinstance(value, Tensor) or value.device.type == "meta", f"{func}: {value.device}"
        self.seen += 1
        return out


@pytest.mark.parametrize("arch", ["nano", "mobile-sam", "sam-vit-b"])
def test_nothing_of_the_module_is_left_to_the_host(arch: str) -> None:
    """As the capture of a CUDA graph wants it: every tensor on the device, and no number asked of it."""
    bundle = open_bundle("nano-voc20")
    plain: PlainSegmenter
    if arch == "nano":
        plain = PlainNano(random_nano())
    else:
        plain = PlainSam(random_sam(NARROW_TINY if arch == "mobile-sam" else NARROW_VIT))
        side = 128 if arch == "mobile-sam" else 256
        bundle = resized(bundle, side, feature_width=256)
    settings = Settings(points_per_side=4)
    spec = FusedSpec.of(bundle, classes_of(bundle, settings), settings, kept=10)
    head = read_head(open_bundle("nano-voc20")) if arch == "nano" else FixedHead(256)
    module = FusedModule(plain, bundle, head, spec).to("meta")
    inputs = [made_for(tensor).to("meta") for tensor in spec.graph(bundle, b"").inputs]
    with positions_on_the_device(), OnOneDevice() as watch, torch.no_grad():
        out = module(*inputs)
    assert watch.seen > 300
    for value, tensor in zip(out, spec.outputs(bundle), strict=True):
        assert tuple(value.shape) == tensor.axes and str(value.dtype) == f"torch.{tensor.dtype}", tensor.name


class FixedHead(nn.Module):
    """Features to as many classes as the embedded bundle has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 21)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.linear(features)
        return out


def resized(bundle: Bundle, side: int, feature_width: int) -> Bundle:
    """The embedded bundle's description with another segmenter's sizes."""
    return replace(
        bundle,
        input_side=side,
        embedding_side=side // 16,
        low_res_side=side // 4,
        feature_width=feature_width,
    )


def test_positions_of_the_vit_are_the_packages() -> None:
    sam = random_sam(NARROW_VIT)
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    encoder = sam.get_submodule("image_encoder")
    with torch.no_grad():
        expected = encoder(image)
        with positions_on_the_device():
            torch.testing.assert_close(encoder(image), expected, rtol=0, atol=0)
        assert not torch.equal(encoder(-image), expected)


def test_arithmetic_is_put_back() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for tf32 in (False, True):
        with arithmetic(tf32):
            assert (torch.get_float32_matmul_precision() == "high") is tf32 is torch.backends.cudnn.allow_tf32
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def test_a_cuda_graph_needs_cuda() -> None:
    with pytest.raises(InputError, match="CUDA graph"):
        TorchFusedSession(None, None, "cpu", How(captured=True))  # type: ignore[arg-type]


def masks_of(*rows: int) -> Kept:
    """Masks that are a row of eight pixels each; where the last row is one, the four graphs answered."""
    codes = []
    for row in rows:
        mask = np.zeros((8, 8), dtype=bool)
        mask[row] = True
        codes.append(rle_encode(mask))
    return Kept(masks=tuple(codes), names=("cat",) * len(codes), extra=Told(graph=0.004, fell_back=7 in rows))


def section(run: Any) -> Section:
    @contextmanager
    def opened(bench: Any) -> Iterator[Any]:
        yield run

    return Section(title="path", open=opened, share=1.0)


CPU = argparse.Namespace(device="cpu")


def take(run: Any, seconds: float = 30.0) -> gpu.Measured:
    found = gpu.Measured()
    gpu.take(section(run), CPU, [Path("a"), Path("b"), Path("c")], seconds, found)  # type: ignore[arg-type]
    return found


def test_a_section_takes_a_photo_for_nothing_and_then_all() -> None:
    taken: list[str] = []

    def run(photo: Path) -> Kept:
        taken.append(photo.name)
        return masks_of(1)

    found = take(run)
    assert taken == ["c", "a", "b", "c"] and len(found.seconds) == len(found.kept) == 3
    assert found.reason == "" and found.setup is not None and found.memory is None


def test_what_goes_wrong_ends_its_section_alone_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def refuses(photo: Path) -> Kept:
        raise DeviceError("device cuda", expected="CUDAExecutionProvider", found="this has none | at all")

    def breaks(photo: Path) -> Kept:
        if photo.name == "b":
            raise RuntimeError("CUDA error:\nan illegal memory access")
        return masks_of(1)

    def slow(photo: Path) -> Kept:
        time.sleep(0.0 if photo.name != "b" else 60.0)
        return masks_of(1)

    refused, broken, stopped, late = take(refuses), take(breaks), take(slow, 0.4), take(slow, -1.0)
    assert refused.reason == "device cuda, expected CUDAExecutionProvider, this has none / at all"
    assert broken.reason == "RuntimeError: CUDA error:" and len(broken.seconds) == 1
    assert stopped.reason == "out of time after 0 s" and len(stopped.seconds) == 1
    assert late.reason == "out of time after 0 s" and not late.seconds
    assert "illegal memory access" in capsys.readouterr().err


def test_no_library_takes_the_end_of_time_for_an_error_of_its_own() -> None:
    def swallows(photo: Path) -> Kept:
        for _ in range(100):
            try:
                time.sleep(60)
            except Exception:
                continue
        return masks_of(1)

    begun = time.monotonic()
    assert take(swallows, 0.2).reason.startswith("out of time")
    assert time.monotonic() - begun < 30


def test_the_table_has_every_row_with_its_figures_or_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "gpu.py"), "--quick"])
    options = argparse.Namespace(arch="nano", device="cpu", measured=["a", "b"], json=tmp_path / "result.json")
    plain = [replace(kept, extra=None) for kept in (masks_of(1, 3), masks_of(1, 7))]
    reference = gpu.Measured(seconds=[8.0, 12.0], kept=plain)
    fast = gpu.Measured(seconds=[2.0], kept=[masks_of(7)], reason="out of time after 9 s", setup=1.25, memory=1 << 21)
    absent = gpu.Measured(reason="tensorrt is not installed")
    gpu_report.report(options, {"eager": reference, "captured": fast, "tensorrt": absent})
    result = json.loads(options.json.read_text(encoding="utf-8"))
    rows = [dict(zip(result["columns"], row, strict=True)) for row in result["rows"]]
    assert [row["state"] for row in rows] == [
        "measured",
        "stopped: out of time after 9 s",
        "did not run: tensorrt is not installed",
    ]
    assert (rows[0]["ms a photo"], rows[0]["times as fast"], rows[0]["graphs, ms"]) == (10000.0, 1.0, None)
    assert (rows[1]["times as fast"], rows[1]["graphs, ms"], rows[1]["fell back"]) == (4.0, 4.0, 1)
    assert rows[1]["kept, matched"] == "2 / 1, 0" and rows[1]["device MiB"] == 2 and rows[1]["photos"] == 1
    assert set(rows[2].values()) == {SECTIONS["tensorrt"].title, rows[2]["state"], 0, None}
    assert result["command"] == "python benchmarks/gpu.py --quick"
    assert any("fewer than 1,000" in note for note in result["notes"]), "nothing is claimed of so few masks"


def test_photos_for_the_stand_in_are_not_measured(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        (photos / f"{number:02}.png").write_bytes(sample_path("coffee.png").read_bytes())
    words = ["--photos", str(photos), "--work", str(tmp_path / "work")]
    options = gpu.parse(words)
    assert options.rows == list(SECTIONS)
    assert [photo.name for photo in options.setup] == ["18.png", "19.png"]
    assert [photo.name for photo in options.measured] == [f"{number:02}.png" for number in range(6)]
    assert sorted(path.parent.name for path in options.pictures.rglob("*.png")) == sorted(2 * CLASSES)
    given = gpu.parse([*words, "--pictures", str(photos), "--rows", "eager", "four"])
    assert len(given.measured) == 18 and given.rows == ["eager", "four"]
    assert gpu.parse([*words, "--rows"]).rows == [], "only the stand-in is made"
    for photo in list(photos.iterdir())[:6]:
        photo.unlink()
    with pytest.raises(SystemExit):
        gpu.parse(words)


def test_shares_are_known_rows_and_the_reference_is_first() -> None:
    assert next(iter(SECTIONS)) == REFERENCE and set(gpu.QUICK) <= set(SECTIONS)
    assert all(0 < entry.share <= 0.5 for entry in SECTIONS.values())
    assert len({entry.title for entry in SECTIONS.values()}) == len(SECTIONS)


@pytest.mark.slow
def test_the_whole_script_on_a_processor(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        (photos / name).write_bytes(sample_path(name).read_bytes())
    file = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--arch", "nano", "--photos", str(photos)]
    command += ["--checkpoint", str(CHECKPOINT), "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [*command, "--device", "cpu", "--quick", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    result = json.loads(file.read_text(encoding="utf-8"))
    rows = {row[0]: dict(zip(result["columns"], row, strict=True)) for row in result["rows"]}
    assert list(rows) == [SECTIONS[name].title for name in gpu.QUICK]
    for name in ("module", "four", "bound"):
        found = rows[SECTIONS[name].title]
        assert found["state"] == "measured" and found["photos"] == 1 and found["same label"] == "100.00%", name
        assert float(found["IoU min"]) > 0.99 and found["fell back"] == 0
    for name, reason in (("captured", "CUDA graph"), ("tensorrt-fused", "tensorrt")):
        assert reason in rows[SECTIONS[name].title]["state"] and not rows[SECTIONS[name].title]["photos"]
    assert "this says nothing about a GPU" in result["notes"][0]
    assert done.stdout.count("mask generator") == 1, "one table, at the end"
