"""Back ends by name: who runs, who is refused, and that the answers are the same photo's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_good
from sample_photos import sample_pixels

from gransam_sdk.annotate.fingerprint import differences, run_fingerprint
from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import DeviceError, InputError
from gransam_sdk.rle import rle_decode
from gransam_sdk.runtime.backends import BACKENDS, BF16_FIGURES, session_maker
from gransam_sdk.runtime.canary import check_canary
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.openvino_session import describe_openvino
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import PointGrid, Settings

PHOTOS = ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "astronaut.png")
PASSING = {
    "masks": 2000,
    "tokens_cosine_min": 0.9999,
    "tokens_relative_norm": 1e-3,
    "sign_flips": 1e-3,
    "mask_iou_mean": 0.995,
    "mask_iou_p1": 0.97,
}
"""Figures within all bars of bf16 that may not be missing."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_good(tmp_path_factory.mktemp("bundle") / "good"))


def open_model(bundle: Bundle, backend: str, device: str = "auto") -> Model:
    make = session_maker(bundle, backend=backend, device=device, threads=None)
    return Model(bundle, {name: make(name) for name in bundle.graphs})


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Segmenter, Segmenter]]:
    """The embedded bundle on ONNX Runtime and on OpenVINO."""
    bundle = open_bundle("nano-voc20")
    settings = Settings(record_floor=0.1)
    models = [open_model(bundle, backend) for backend in ("onnxruntime", "openvino")]
    chosen = select_classes(bundle.classes, None)
    with Segmenter(models[0], chosen, settings) as reference, Segmenter(models[1], chosen, settings) as found:
        yield reference, found


def test_openvino_keeps_the_same_masks_under_the_same_names(pair: tuple[Segmenter, Segmenter]) -> None:
    overlaps = []
    for photo in PHOTOS:
        pixels = sample_pixels(photo)
        expected, found = (segmenter.segment(pixels) for segmenter in pair)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.points, expected.points)
        np.testing.assert_allclose(found.confidence, expected.confidence, rtol=0, atol=1e-4)
        for one, other in zip(found.masks, expected.masks, strict=True):
            a, b = rle_decode(one) > 0, rle_decode(other) > 0
            overlaps.append((a & b).sum() / (a | b).sum())
    assert len(overlaps) >= 15
    assert np.mean(overlaps) >= 0.9995


@pytest.mark.parametrize("photo", ["coffee.png", "motorcycle_left.png"])
def test_openvino_gives_the_same_tokens(pair: tuple[Segmenter, Segmenter], photo: str) -> None:
    """All prompts of the grid: whole chunks, and one that is short."""
    pixels = sample_pixels(photo)
    points = PointGrid(per_side=7).points()
    answers = []
    for segmenter in pair:
        model = segmenter._model
        frame = model.frame(pixels)
        hoisted = model.hoist(model.prepare(pixels, frame))
        answers.append(list(model.prompt(hoisted, frame, points, 10)))
    assert [len(part.points) for part in answers[0]] == [10, 10, 10, 10, 9]
    for expected, found in zip(*answers, strict=True):
        assert np.abs(expected.tokens).max() > 1.0
        np.testing.assert_allclose(found.tokens, expected.tokens, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.iou, expected.iou, rtol=0, atol=1e-3)


def test_openvino_passes_the_canary_and_repeats_itself(pair: tuple[Segmenter, Segmenter]) -> None:
    _, found = pair
    check_canary(found._model)
    pixels = sample_pixels("chelsea.png")
    first, second = found.segment(pixels), found.segment(pixels)
    assert first.masks == second.masks
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_a_resumed_run_cannot_mix_back_ends(pair: tuple[Segmenter, Segmenter]) -> None:
    old, new = (run_fingerprint(segmenter, scale16=False) for segmenter in pair)
    assert list(differences(old, new)) == ['provider: "CPUExecutionProvider" → "OpenVINO CPU f32"']


def test_auto_is_onnxruntime(good: Bundle) -> None:
    for backend in ("auto", "onnxruntime"):
        assert open_model(good, backend, "cpu").provider == "CPUExecutionProvider"


@pytest.mark.parametrize("backend", ["OpenVINO", "tensor", "", "openvino-int8"])
def test_an_unknown_back_end_is_a_usage_error(good: Bundle, backend: str) -> None:
    with pytest.raises(InputError, match="onnxruntime, openvino or openvino-bf16") as caught:
        session_maker(good, backend=backend, device="auto", threads=None)
    assert repr(backend) in str(caught.value)


def test_devices_are_checked_before_sessions_are_opened(good: Bundle) -> None:
    for backend in BACKENDS:
        with pytest.raises(InputError, match="device"):
            session_maker(with_figures(good, PASSING), backend=backend, device="toaster", threads=None)
    with pytest.raises(DeviceError, match="OpenVINO"):
        session_maker(good, backend="openvino", device="cuda", threads=None)


def with_figures(bundle: Bundle, figures: dict[str, Any]) -> Bundle:
    measured = {f"{BF16_FIGURES}{name}": value for name, value in figures.items()}
    return replace(bundle, parity={**bundle.parity, **measured})


def test_bf16_is_refused_to_a_bundle_that_was_never_measured_in_it(good: Bundle) -> None:
    with pytest.raises(DeviceError, match="never measured") as caught:
        session_maker(good, backend="openvino-bf16", device="auto", threads=None)
    assert "openvino_bf16_tokens_cosine_min >= 0.999" in caught.value.expected
    assert "--backend openvino" in caught.value.do


@pytest.mark.parametrize("name", PASSING)
def test_bf16_is_refused_where_a_figure_is_bad_or_missing(good: Bundle, name: str) -> None:
    bad = {**PASSING, name: 0.5}
    missing = {key: value for key, value in PASSING.items() if key != name}
    for figures in (bad, missing):
        with pytest.raises(DeviceError, match=f"found: .* {name} "):
            session_maker(with_figures(good, figures), backend="openvino-bf16", device="auto", threads=None)


def test_bf16_runs_where_it_was_measured_or_says_that_it_cannot(tmp_path: Path) -> None:
    bundle = with_figures(open_bundle(write_good(tmp_path / "good")), PASSING)
    make = session_maker(bundle, backend="openvino-bf16", device="auto", threads=None)
    if "BF16" in describe_openvino():
        assert make("prompt").provider == "OpenVINO CPU bf16"
    else:
        with pytest.raises(DeviceError, match="in f32"):
            make("prompt")
