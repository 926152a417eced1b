"""The model's input against SAM's own definition, worked out in float64 from PIL's resize."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import photo_bytes
import pytest
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.geometry import Frame
from gransam_sdk.runtime.preprocess import preprocess


@dataclass(frozen=True)
class Spec:
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


SAM = Spec("letterbox", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
NANO = Spec("stretch", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def sam_input(pixels: np.ndarray, side: int) -> np.ndarray:
    """segment_anything: ``ResizeLongestSide.apply_image``, then ``Sam.preprocess``; shape rule in exact arithmetic."""
    h, w = pixels.shape[:2]
    scale = side * 1.0 / max(h, w)
    newh, neww = int(h * scale + 0.5), int(w * scale + 0.5)
    small = np.asarray(Image.fromarray(pixels).resize((neww, newh), Image.Resampling.BILINEAR), dtype=np.float64)
    normal = (small - np.array(SAM.mean)) / np.array(SAM.std)
    return np.pad(normal.transpose(2, 0, 1), ((0, 0), (0, side - newh), (0, side - neww)))[None]


@pytest.mark.parametrize("name", ["chelsea.png", "rocket.jpg", "astronaut.png"])
@pytest.mark.parametrize("upright", [False, True])
def test_letterbox_is_sams(name: str, upright: bool) -> None:
    with Image.open(photo_bytes.sample(name)) as image:
        pixels = np.asarray(image.convert("RGB"))
    pixels = np.ascontiguousarray(pixels.transpose(1, 0, 2)) if upright else pixels
    for side in (256, 1024):
        found = preprocess(pixels, SAM, Frame.fit(pixels.shape[:2], side, "letterbox"))
        assert found.shape == (1, 3, side, side) and found.dtype == np.float32 and found.flags.c_contiguous
        assert np.abs(found - sam_input(pixels, side)).max() < 1e-6


def test_padding_is_zero_after_normalisation() -> None:
    black = np.zeros((30, 60, 3), dtype=np.uint8)
    found = preprocess(black, SAM, Frame.fit((30, 60), 64, "letterbox"))
    assert np.all(found[0, :, 32:] == 0)
    assert np.allclose(found[0, :, :32, :][:, 0, 0], -np.array(SAM.mean) / np.array(SAM.std))


def test_stretch_fills_the_square() -> None:
    pixels = np.asarray(photo_bytes.cat())
    found = preprocess(pixels, NANO, Frame.fit(pixels.shape[:2], 96, "stretch"))
    square = np.asarray(photo_bytes.cat().resize((96, 96), Image.Resampling.BILINEAR), dtype=np.float64)
    assert np.abs(found[0] - (square / 127.5 - 1).transpose(2, 0, 1)).max() < 1e-6


def test_shrinking_averages() -> None:
    """Point sampling would show only one of the two colours of a fine checkerboard."""
    board = (np.indices((640, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = preprocess(np.repeat(board[..., None], 3, axis=2), NANO, Frame.fit((640, 640), 64, "stretch"))
    assert np.abs(found).max() < 0.02


@pytest.mark.parametrize("size", [(1, 65535), (3000, 1), (1, 1), (2, 3000)])
@pytest.mark.parametrize("spec", [SAM, NANO], ids=["letterbox", "stretch"])
def test_extreme_photos_keep_a_side_of_one(size: tuple[int, int], spec: Spec) -> None:
    pixels = np.full((*size, 3), 200, dtype=np.uint8)
    frame = Frame.fit(size, 128, spec.resize)
    found = preprocess(pixels, spec, frame)
    rh, rw = frame.resized
    assert min(rh, rw) >= 1
    expected = (200 - np.array(spec.mean)) / np.array(spec.std)
    assert np.allclose(found[0, :, :rh, :rw], expected[:, None, None], atol=1e-6)
    assert np.count_nonzero(found) == 3 * rh * rw


def test_the_photo_stays_as_it_was() -> None:
    pixels = np.asarray(photo_bytes.cat()).copy()
    before = pixels.copy()
    pixels.setflags(write=False)
    preprocess(pixels, NANO, Frame.fit(pixels.shape[:2], 64, "stretch"))
    assert np.array_equal(pixels, before)


def test_a_frame_of_another_photo() -> None:
    with pytest.raises(InputError, match=r"\(10, 20, 3\)"):
        preprocess(np.zeros((20, 10, 3), dtype=np.uint8), NANO, Frame.fit((10, 20), 64, "stretch"))
