"""RLE: byte-equal to pycocotools, and nothing but an InputError or the right mask from any foreign code."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from gransam_sdk.errors import InputError
from gransam_sdk.rle import (
    MAX_PIXELS,
    rle_area,
    rle_box,
    rle_counts,
    rle_decode,
    rle_encode,
    rle_encode_crop,
    rle_from_counts,
)

SHAPES = [(1, 1), (1, 37), (37, 1), (2, 2), (7, 5), (40, 60), (33, 1000)]
masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def reference(mask: np.ndarray) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}


def runs_of(mask: np.ndarray) -> list[int]:
    """COCO's definition, pixel by pixel."""
    runs, value = [0], False
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def read_as_coco_does(counts: str) -> list[int]:
    """The loop of cocoapi's rleFrString, in Python's endless integers."""
    runs: list[int] = []
    position = 0
    while position < len(counts):
        number, place, more = 0, 0, True
        while more:
            bits = ord(counts[position]) - 48
            number |= (bits & 31) << (5 * place)
            more = bool(bits & 32)
            position += 1
            place += 1
            if not more and bits & 16:
                number -= 1 << (5 * place)
        if len(runs) > 2:
            number += runs[-2]
        runs.append(number)
    return runs


def check_all(mask: np.ndarray) -> None:
    expected = reference(mask)
    code = rle_encode(mask)
    assert code == expected
    assert isinstance(code["counts"], str)
    assert rle_counts(code).tolist() == runs_of(mask)
    decoded = rle_decode(code)
    assert decoded.dtype == np.bool_ and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)
    np.testing.assert_array_equal(coco.decode(code), mask)
    assert rle_area(code) == int(mask.sum())
    x, y, w, h = coco.toBbox(coco.encode(np.asfortranarray(mask.astype(np.uint8))))
    assert rle_box(code) == (x, y, x + w, y + h)
    assert rle_from_counts(runs_of(mask), mask.shape) == expected


@given(mask=masks)
@settings(max_examples=150, deadline=None)
def test_random_masks_equal_pycocotools(mask: np.ndarray) -> None:
    check_all(mask)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_shapes_and_densities_equal_pycocotools(shape: tuple[int, int], density: float) -> None:
    check_all(np.random.default_rng(7).random(shape) < density)


def test_photo_sized_masks_equal_pycocotools() -> None:
    y, x = np.mgrid[:1080, :1920]
    disc = np.hypot(y - 500, x - 900) < 400
    ring = disc & (np.hypot(y - 500, x - 900) > 380)
    for mask in (disc, ring, ~disc, np.random.default_rng(1).random((1080, 1920)) < 0.5):
        code = rle_encode(mask)
        assert code == reference(mask)
        np.testing.assert_array_equal(rle_decode(code), mask)


def test_long_runs_take_many_characters() -> None:
    """Differences beyond 2^30 need seven characters; pycocotools agrees on what they say."""
    size = (40_000, 53_000)
    runs = [0, 1, 2_000_000_000, 1, 1, 2_000_000, 40_000 * 53_000 - 2_002_000_003]
    code = rle_from_counts(runs, size)
    assert code["counts"] == coco.frPyObjects({"size": list(size), "counts": runs}, *size)["counts"].decode()
    assert rle_counts(code).tolist() == runs
    assert rle_area(code) == coco.area({"size": list(size), "counts": code["counts"].encode()}) == 2_000_002


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_crop_is_the_mask_that_is_false_around_it(data: st.DataObject) -> None:
    crop = data.draw(masks)
    sides = st.integers(0, 3)
    above, below, left, right = (data.draw(sides) for _ in range(4))
    mask = np.pad(crop, ((above, below), (left, right)))
    assert rle_encode_crop(crop, left, above, mask.shape) == reference(mask)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize(
    ("x0", "y0", "cw", "ch"),
    [(0, 0, 4, 3), (6, 0, 4, 3), (0, 5, 4, 3), (6, 5, 4, 3), (0, 0, 10, 3), (0, 5, 10, 3), (3, 0, 1, 8), (0, 0, 10, 8)],
)
def test_crops_at_every_border(value: bool, x0: int, y0: int, cw: int, ch: int) -> None:
    mask = np.zeros((8, 10), dtype=np.bool_)
    mask[y0 : y0 + ch, x0 : x0 + cw] = value
    crop = np.full((ch, cw), value)
    crop.setflags(write=False)
    assert rle_encode_crop(crop, x0, y0, (8, 10)) == reference(mask)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_an_empty_crop_is_an_empty_mask(shape: tuple[int, int]) -> None:
    assert rle_encode_crop(np.zeros(shape, dtype=np.bool_), 0, 0, (8, 10)) == reference(np.zeros((8, 10)))


def test_cost_of_a_crop_is_not_the_photos() -> None:
    """A 20 x 20 crop of a photo of two thousand million pixels: the whole mask would take gigabytes and seconds."""
    crop = np.ones((20, 20), dtype=np.bool_)
    started = time.perf_counter()
    code = rle_encode_crop(crop, 30_000, 40_000, (46_340, 46_340))
    assert time.perf_counter() - started < 1.0
    assert rle_box(code) == (30_000, 40_000, 30_020, 40_020)
    assert rle_area(code) == 400


@pytest.mark.parametrize("layout", ["strided", "fortran", "read-only"])
def test_any_memory_layout_is_read(layout: str) -> None:
    mask = np.random.default_rng(3).random((30, 40)) < 0.3
    given_mask = {"strided": np.repeat(mask, 2, axis=1)[:, ::2], "fortran": np.asfortranarray(mask)}.get(layout, mask)
    given_mask.setflags(write=False)
    assert rle_encode(given_mask) == reference(mask)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4), dtype=np.float32),
        np.zeros((1, 4, 4), dtype=np.bool_),
        np.zeros(4, dtype=np.bool_),
        np.zeros((0, 4), dtype=np.bool_),
        [[True]],
        None,
    ],
)
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    with pytest.raises(InputError):
        rle_encode(mask)


@pytest.mark.parametrize(("x0", "y0"), [(-1, 0), (0, -1), (7, 0), (0, 6)])
def test_a_crop_outside_the_photo_is_refused(x0: int, y0: int) -> None:
    with pytest.raises(InputError, match="crop"):
        rle_encode_crop(np.ones((3, 4), dtype=np.bool_), x0, y0, (8, 10))


GOOD = rle_encode(np.arange(400 * 400).reshape(400, 400) % 7 < 3)
COUNTS = GOOD["counts"]


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"size": [400, 400], "counts": COUNTS[:-3]}, "160000 pixels in all"),
        ({"size": [400, 401], "counts": COUNTS}, "160400 pixels in all"),
        ({"size": [400, 400], "counts": COUNTS + "1"}, "RLE runs"),
        ({"size": [400, 400], "counts": ""}, "ASCII"),
        ({"size": [400, 400], "counts": "4é"}, "ASCII"),
        ({"size": [400, 400], "counts": "4\ud800"}, "ASCII"),
        ({"size": [400, 400], "counts": "4 4"}, "'0' to 'o'"),
        ({"size": [400, 400], "counts": "4\x00"}, "'0' to 'o'"),
        ({"size": [400, 400], "counts": "4\x7f"}, "'0' to 'o'"),
        ({"size": [400, 400], "counts": COUNTS + "o"}, "breaks off"),
        ({"size": [400, 400], "counts": "o" * 12 + "0"}, "up to 7 characters"),
        ({"size": [2, 2], "counts": "O5"}, "0 to 4"),
        ({"size": [1, 2], "counts": "0" * 1000}, "1000 characters"),
        ({"size": [400, 400], "counts": COUNTS.encode()}, "decode"),
        ({"size": [400, 400], "counts": [160000]}, "rle_from_counts"),
        ({"size": [400, 400], "counts": None}, "compressed string"),
        ({"size": [2**31 - 1, 2**31 - 1], "counts": COUNTS}, str(MAX_PIXELS)),
        ({"size": [2**31, 1], "counts": COUNTS}, str(MAX_PIXELS)),
        ({"size": [10**5000, 1], "counts": COUNTS}, str(MAX_PIXELS)),
        ({"size": [0, 400], "counts": "0"}, "sides from 1"),
        ({"size": [-1, -160000], "counts": COUNTS}, "sides from 1"),
        ({"size": [400.0, 400], "counts": COUNTS}, "whole pixels"),
        ({"size": [True, 1], "counts": "1"}, "whole pixels"),
        ({"size": ["400", "400"], "counts": COUNTS}, "whole pixels"),
        ({"size": [400], "counts": COUNTS}, "whole pixels"),
        ({"size": None, "counts": COUNTS}, "whole pixels"),
        ({"size": [400, 400]}, '"counts"'),
        ({"counts": COUNTS}, '"size"'),
        ([400, 400, COUNTS], '"size"'),
        ("PPYo0", '"size"'),
        (None, '"size"'),
    ],
)
@pytest.mark.parametrize("reader", [rle_decode, rle_counts, rle_area, rle_box])
def test_foreign_codes_are_refused_by_name(reader: Any, rle: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        reader(rle)
    assert words in str(caught.value)


def test_runs_of_zero_pixels_are_legal() -> None:
    """COCO's own polygon code writes them."""
    code = rle_from_counts([1, 0, 2, 3, 0, 0, 3], (3, 3))
    expected = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0], dtype=bool).reshape(3, 3, order="F")
    np.testing.assert_array_equal(rle_decode(code), expected)
    np.testing.assert_array_equal(coco.decode(code), expected)
    assert rle_area(code) == 3
    assert rle_box(code) == (1, 0, 2, 3)


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [3],
        [5],
        [2, -1, 3],
        [2.0, 2.0],
        [[4]],
        ["4"],
        [2**70],
        [True, 3.0],
        np.array([2**63, 2**63], dtype=np.uint64),
        np.full(5, 2**62),
    ],
)
def test_runs_that_do_not_fill_the_mask_are_refused(runs: Any) -> None:
    with pytest.raises(InputError, match="RLE runs"):
        rle_from_counts(runs, (2, 2))


printable = st.text(alphabet=[chr(code) for code in range(48, 112)], max_size=30)


@given(
    counts=st.one_of(printable, st.text(max_size=12)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(max_examples=800, deadline=None)
def test_fuzzed_counts_give_the_right_mask_or_an_input_error(counts: str, size: tuple[int, int]) -> None:
    check_foreign(counts, size)


@given(data=st.data(), mask=masks)
@settings(max_examples=300, deadline=None)
def test_mutated_counts_give_the_right_mask_or_an_input_error(data: st.DataObject, mask: np.ndarray) -> None:
    counts = list(rle_encode(mask)["counts"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(counts)))
        counts[place : place + data.draw(st.integers(0, 1))] = data.draw(printable)[:2]
    check_foreign("".join(counts), mask.shape)


def check_foreign(counts: str, size: tuple[int, int]) -> None:
    try:
        mask = rle_decode({"size": list(size), "counts": counts})
    except InputError:
        return
    runs = read_as_coco_does(counts)
    assert min(runs) >= 0 and sum(runs) == size[0] * size[1]
    pixels = [index % 2 == 1 for index, run in enumerate(runs) for _ in range(run)]
    np.testing.assert_array_equal(mask, np.array(pixels).reshape(size, order="F"))
