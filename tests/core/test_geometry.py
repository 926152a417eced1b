"""Frames against SAM's own arithmetic, full-size masks against torch and against the written definition in float64."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gransam_sdk.errors import InputError
from gransam_sdk.geometry import Frame, full_size_mask

ROUNDING = 3e-3
"""A float32 place among 256 cells is off by up to 3e-5 of a cell, and noise steps by up to 80 from cell to cell."""
SIZES = [(375, 500), (500, 333), (1080, 1920), (40, 60), (80, 80), (320, 320), (1, 300), (300, 1), (1, 1), (7, 3)]


def sam_preprocess_shape(h: int, w: int, long_side: int) -> tuple[int, int]:
    """Arithmetic of segment_anything's ResizeLongestSide.get_preprocess_shape (segment_anything 1.0, transforms.py)."""
    scale = long_side * 1.0 / max(h, w)
    new_h, new_w = h * scale, w * scale
    return int(new_h + 0.5), int(new_w + 0.5)


def smooth(seed: int, low: int, offset: float = 0.0) -> np.ndarray:
    """Logits as a decoder makes them: a few blobs, flat inside, about -15 to 15."""
    coarse = torch.tensor(np.random.default_rng(seed).normal(size=(1, 1, 6, 6)), dtype=torch.float32)
    fine = torch.nn.functional.interpolate(coarse, size=(low, low), mode="bicubic", align_corners=False)
    return np.ascontiguousarray((torch.tanh(fine[0, 0] + offset) * 15).numpy())


def noise(seed: int, low: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(low, low)) * 10).astype(np.float32)


def blob(low: int, row: int, column: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:low, :low]
    return (radius - np.hypot(y - row, x - column)).astype(np.float32)


def paste(logits: np.ndarray, frame: Frame) -> np.ndarray:
    crop, x0, y0 = full_size_mask(logits, frame)
    assert crop.dtype == np.bool_ and type(x0) is int and type(y0) is int
    mask = np.zeros(frame.size, dtype=np.bool_)
    mask[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    assert mask.sum() == crop.sum(), "the crop lies inside the photo"
    return mask


def torch_resize(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(logits))[None, None]
    return torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


def by_definition(logits: np.ndarray, frame: Frame) -> np.ndarray:
    """The module's definition, in float64 and without any shortcut."""
    low = logits.shape[0]

    def matrix(length: int, resized: int) -> np.ndarray:
        readable = math.ceil(resized * low / frame.side)
        weights = np.zeros((length, low))
        for y in range(length):
            place = min(max((y + 0.5) * (resized / length) * (low / frame.side) - 0.5, 0.0), readable - 1.0)
            first = math.floor(place)
            weights[y, first] += 1 - (place - first)
            weights[y, min(first + 1, readable - 1)] += place - first
        return weights

    (h, w), (rh, rw) = frame.size, frame.resized
    return matrix(h, rh) @ logits.astype(np.float64) @ matrix(w, rw).T


def assert_same_but_at_zero(mask: np.ndarray, values: np.ndarray, near: float = 1e-4) -> None:
    differing = mask != (values > 0)
    assert np.abs(values[differing]).max(initial=0.0) < near
    assert differing.mean() < 1e-3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("low", [16, 80, 256])
def test_stretched_masks_equal_torch(size: tuple[int, int], low: int) -> None:
    frame = Frame.fit(size=size, side=320, resize="stretch")
    cases = [smooth(1, low), smooth(2, low, -1.0), smooth(3, low, 2.0), noise(4, low), blob(low, 5, low - 3, 4.0)]
    for logits in cases:
        assert_same_but_at_zero(paste(logits, frame), torch_resize(logits, size))


@given(h=st.integers(1, 130), w=st.integers(1, 130), low=st.sampled_from([4, 16, 80]), seed=st.integers(0, 999))
@settings(max_examples=150, deadline=None)
def test_random_sizes_equal_torch(h: int, w: int, low: int, seed: int) -> None:
    logits = noise(seed, low) - 12  # few positive cells
    frame = Frame.fit(size=(h, w), side=320, resize="stretch")
    assert_same_but_at_zero(paste(logits, frame), torch_resize(logits, (h, w)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "low"), [(1024, 256), (320, 80), (100, 16)])
def test_letterboxed_masks_follow_the_definition(size: tuple[int, int], side: int, low: int) -> None:
    frame = Frame.fit(size=size, side=side, resize="letterbox")
    for logits in (smooth(1, low), noise(2, low), blob(low, 0, 0, low / 3), blob(low, low - 1, low - 1, low / 2)):
        assert_same_but_at_zero(paste(logits, frame), by_definition(logits, frame), near=ROUNDING)


@given(
    h=st.integers(1, 120),
    w=st.integers(1, 120),
    low=st.sampled_from([4, 16, 64]),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=120, deadline=None)
def test_random_letterboxes_follow_the_definition(h: int, w: int, low: int, seed: int, data: st.DataObject) -> None:
    side = data.draw(st.sampled_from([low, 2 * low, 100, 321]))
    logits = noise(seed, low) - data.draw(st.sampled_from([0.0, 12.0]))
    frame = Frame.fit(size=(h, w), side=side, resize="letterbox")
    assert_same_but_at_zero(paste(logits, frame), by_definition(logits, frame), near=ROUNDING)


def test_whole_cells_of_a_letterbox_equal_torch_on_the_cut_logits() -> None:
    """2:1 photo, long side a multiple of the short one: 128 of 256 rows show the photo, to the pixel."""
    frame = Frame.fit(size=(400, 800), side=1024, resize="letterbox")
    assert frame.resized == (512, 1024) and frame.valid(256) == (128, 256)
    for logits in (smooth(5, 256), noise(6, 256)):
        assert_same_but_at_zero(paste(logits, frame), torch_resize(logits[:128], (400, 800)))


def test_padding_never_shows() -> None:
    logits = np.full((64, 64), -5.0, dtype=np.float32)
    logits[32:] = 50.0
    crop, x0, y0 = full_size_mask(logits, Frame.fit(size=(300, 600), side=256, resize="letterbox"))
    assert crop.shape == (0, 0) and (x0, y0) == (0, 0)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_nothing_positive_is_an_empty_crop(resize: Any) -> None:
    frame = Frame.fit(size=(300, 600), side=256, resize=resize)
    for value in (-3.0, 0.0, float("nan"), float("-inf")):
        crop, x0, y0 = full_size_mask(np.full((64, 64), value, dtype=np.float32), frame)
        assert crop.shape == (0, 0) and crop.dtype == np.bool_ and (x0, y0) == (0, 0)


@pytest.mark.parametrize(("cell", "value"), [(30, 50.0), (15, 0.1)])
def test_a_cell_too_small_for_the_photo_is_an_empty_crop(cell: int, value: float) -> None:
    """A 2 x 2 photo reads the means of cells 15, 16 and of 47, 48 of 64: cell 30 is not read, cell 15 outweighed."""
    logits = np.full((64, 64), -5.0, dtype=np.float32)
    logits[cell, cell] = value
    crop, x0, y0 = full_size_mask(logits, Frame.fit(size=(2, 2), side=256, resize="stretch"))
    assert crop.shape == (0, 0) and (x0, y0) == (0, 0)


def test_the_crop_is_the_box_of_what_can_be_positive() -> None:
    """One positive cell of 80, photo of 800 x 1600: at most two cells wide."""
    logits = np.full((80, 80), -1.0, dtype=np.float32)
    logits[20, 70] = 1.0
    crop, x0, y0 = full_size_mask(logits, Frame.fit(size=(800, 1600), side=320, resize="stretch"))
    assert crop.shape == (20, 40)
    assert (y0, x0) == (195, 1390)
    assert_same_but_at_zero(
        paste(logits, Frame.fit(size=(800, 1600), side=320, resize="stretch")), torch_resize(logits, (800, 1600))
    )


def test_no_float_array_of_the_photos_size() -> None:
    """A whole-photo mask of 24 megapixels takes its own 24 MB, not 96 MB more in float32."""
    frame = Frame.fit(size=(4000, 6000), side=320, resize="stretch")
    logits = smooth(1, 80, 3.0)
    tracemalloc.start()
    try:
        full_size_mask(logits, frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 36e6


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((4, 5), np.float32),
        np.zeros((4, 4), np.float64),
        np.zeros((1, 4, 4), np.float32),
        np.zeros(4, np.float32),
    ],
)
def test_what_are_no_logits_is_refused(logits: Any) -> None:
    with pytest.raises(InputError, match="low-res logits"):
        full_size_mask(logits, Frame.fit(size=(9, 9), side=8, resize="stretch"))


@given(h=st.integers(1, 5000), w=st.integers(1, 5000), side=st.sampled_from([64, 320, 1024]))
@settings(max_examples=500, deadline=None)
def test_letterbox_sides_are_sams(h: int, w: int, side: int) -> None:
    rh, rw = Frame.fit(size=(h, w), side=side, resize="letterbox").resized
    sam_h, sam_w = sam_preprocess_shape(h, w, side)
    assert (rh, rw) == (max(sam_h, 1), max(sam_w, 1))
    assert max(rh, rw) == side


@pytest.mark.parametrize(
    ("size", "resized"),
    [((65535, 1), (1024, 1)), ((1, 3000), (1, 1024)), ((480, 640), (768, 1024)), ((333, 500), (682, 1024))],
)
def test_no_side_is_ever_zero(size: tuple[int, int], resized: tuple[int, int]) -> None:
    frame = Frame.fit(size=size, side=1024, resize="letterbox")
    assert frame.resized == resized
    assert min(frame.valid(256)) >= 1
    assert paste(np.ones((256, 256), dtype=np.float32), frame).all()


@given(
    h=st.integers(1, 3000), w=st.integers(1, 3000), side=st.integers(1, 1100), low=st.integers(1, 300),
    resize=st.sampled_from(["stretch", "letterbox"]),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_valid_cells_have_their_centre_in_the_photo(h: int, w: int, side: int, low: int, resize: Any) -> None:
    frame = Frame.fit(size=(h, w), side=side, resize=resize)
    for count, resized in zip(frame.valid(low), frame.resized, strict=True):
        inside = sum((2 * cell + 1) * side < 2 * resized * low for cell in range(low))  # (cell + 1/2)·s/l < side
        assert count == max(inside, 1)


def test_stretch_fills_the_square() -> None:
    frame = Frame.fit(size=(123, 456), side=320, resize="stretch")
    assert frame.resized == (320, 320) and frame.valid(80) == (80, 80)
    points = np.array([[0.0, 0.0], [0.25, 0.75], [1.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(frame.to_model(points), points)


def test_letterboxed_points_lie_where_sam_puts_them() -> None:
    """SAM scales pixels by new / old side (apply_coords), then divides by the model's side."""
    h, w, side = 333, 500, 1024
    points = np.random.default_rng(0).random((100, 2)).astype(np.float32)
    new_h, new_w = sam_preprocess_shape(h, w, side)
    pixels = points.astype(np.float64) * [w, h]
    expected = pixels * [new_w / w, new_h / h] / side
    moved = Frame.fit(size=(h, w), side=side, resize="letterbox").to_model(points)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("size", "side", "resize"),
    [
        ((0, 5), 64, "stretch"),
        ((5, 0), 64, "letterbox"),
        ((5, 5), 0, "stretch"),
        ((5, 5), 64, "crop"),
        ((-1, 5), 64, "letterbox"),
    ],
)
def test_frames_that_cannot_be_are_refused(size: tuple[int, int], side: int, resize: Any) -> None:
    with pytest.raises(InputError):
        Frame.fit(size=size, side=side, resize=resize)


def test_a_frame_by_hand_is_checked() -> None:
    for resized in ((0, 64), (65, 64), (64, 65)):
        with pytest.raises(InputError, match="frame"):
            Frame(size=(5, 5), side=64, resized=resized)
