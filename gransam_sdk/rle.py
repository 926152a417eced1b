"""COCO run-length encoding in numpy, byte-equal to pycocotools.

A mask is read column by column; ``counts`` holds the lengths of its runs, background first. From the fourth run on, a
length is stored as its difference to the run two before it, and each number is written in 5-bit groups, lowest first:
bit 5 of a character says that another group follows, bit 4 of the last group is the sign, 48 is added to make it
printable (cocoapi ``maskApi.c``, ``rleToString``).

Everything is checked before memory is taken: what comes from another program's file gives the mask that the file
means, or an ``InputError``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import InputError
from .shapes import AnyArray, Bool, Int
from .types import Rle

MAX_PIXELS = 2**31 - 1
"""Largest h·w that is decoded; pycocotools' own counters are 32 bits wide."""
_MAX_GROUPS = 7
"""5-bit groups a number may take: a difference of two runs below 2³¹ needs at most seven."""


def rle_encode(mask: Bool) -> Rle:
    """Encode one mask.

    Args:
        mask: (h,w) bool.

    Raises:
        InputError: The mask is not a boolean array of shape (h,w) with at least one pixel.
    """
    _check_mask(mask)
    h, w = mask.shape
    return rle_encode_crop(mask, 0, 0, (h, w))


def rle_encode_crop(crop: Bool, x0: int, y0: int, size: tuple[int, int]) -> Rle:
    """Encode a mask that is False outside a crop; costs time and memory of the crop, not of the photo.

    Args:
        crop: (ch,cw) bool; may be empty.
        x0: Column of the crop's left edge, in pixels of the photo.
        y0: Row of the crop's top edge, in pixels of the photo.
        size: (h, w) of the photo in pixels.

    Raises:
        InputError: The crop is not a boolean matrix, or does not lie inside ``size``.
    """
    _check_mask(crop)
    h, w = _check_size(size)
    ch, cw = crop.shape
    if not (0 <= x0 <= w - cw and 0 <= y0 <= h - ch):
        raise InputError("crop", expected=f"inside {h} x {w}", found=f"{ch} x {cw} at row {y0}, column {x0}")
    # A pixel that differs from the one above it starts or ends a run, and so does the row below the crop.
    edges = np.zeros((ch + 1, cw), dtype=np.bool_)
    edges[:ch] = crop
    edges[1:] ^= crop
    rows, columns = np.divmod(np.flatnonzero(edges), max(cw, 1))
    starts = np.sort((columns + x0) * h + rows + y0)
    # A run that leaves a column at the bottom and goes on at the top of the next one ends and starts at one place.
    same = starts[1:] == starts[:-1]
    if same.any():
        starts = starts[~(np.append(same, False) | np.append(False, same))]
    runs = np.diff(starts, prepend=0, append=h * w)
    if len(runs) > 1 and runs[-1] == 0:
        runs = runs[:-1]
    return {"size": [h, w], "counts": _write_counts(runs)}


def rle_from_counts(runs: Sequence[int] | Int, size: Sequence[int]) -> Rle:
    """Compress a list of run lengths (COCO's uncompressed form).

    Args:
        runs: Lengths of the runs in column-major order, background first, each >= 0; they add up to h·w.
        size: (h, w) in pixels.

    Raises:
        InputError: The runs are not whole numbers from 0, or do not fill the mask.
    """
    h, w = _check_size(size)
    lengths = np.asarray(runs)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise InputError(
            "RLE runs", expected="a list of whole numbers", found=f"shape {lengths.shape}, dtype {lengths.dtype}"
        )
    _check_runs(lengths, h * w)
    return {"size": [h, w], "counts": _write_counts(lengths.astype(np.int64))}


def rle_counts(rle: Rle) -> Int:
    """(r,) int64 run lengths in column-major order, background first; they add up to h·w.

    Raises:
        InputError: ``rle`` is not a COCO run-length code, or its runs do not fill ``size``.
    """
    h, w, counts = _check_rle(rle)
    runs = _read_counts(counts)
    _check_runs(runs, h * w)
    return runs


def rle_decode(rle: Rle) -> Bool:
    """(h,w) bool mask, C-contiguous.

    Raises:
        InputError: See ``rle_counts``.
    """
    runs = rle_counts(rle)
    h, w = rle["size"]
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(w, h).T)


def rle_area(rle: Rle) -> int:
    """Number of pixels of the mask.

    Raises:
        InputError: See ``rle_counts``.
    """
    return int(rle_counts(rle)[1::2].sum())


def rle_box(rle: Rle) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) in pixels of the smallest box that holds the mask, x1 and y1 exclusive; zeros if it is empty.

    Raises:
        InputError: See ``rle_counts``.
    """
    runs = rle_counts(rle)
    h = rle["size"][0]
    ends = np.cumsum(runs)[1::2]
    lengths = runs[1::2]
    ends, lengths = ends[lengths > 0], lengths[lengths > 0]
    if not len(ends):
        return 0, 0, 0, 0
    first_column, top = np.divmod(ends - lengths, h)
    last_column, bottom = np.divmod(ends - 1, h)
    if (first_column != last_column).any():  # such a run holds a bottom pixel and a top pixel
        return int(first_column[0]), 0, int(last_column[-1]) + 1, h
    return int(first_column[0]), int(top.min()), int(last_column[-1]) + 1, int(bottom.max()) + 1


def _write_counts(runs: Int) -> str:
    """Runs to COCO's 5-bit string."""
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    magnitudes = np.where(numbers < 0, ~numbers, numbers)
    # m groups hold 5m bits, one of them the sign.
    limits = np.int64(1) << (5 * np.arange(1, _MAX_GROUPS) - 1)
    groups = 1 + np.searchsorted(limits, magnitudes, side="right")
    place = np.arange(groups.max())
    bits = (numbers[:, None] >> (5 * place)) & 31  # (r, groups)
    bits += 48 + 32 * (place < groups[:, None] - 1)
    return str(bits[place < groups[:, None]].astype(np.uint8).tobytes(), "ascii")


def _read_counts(counts: bytes) -> Int:
    """COCO's 5-bit string to runs, which may still be negative or too long."""
    bits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if bits.min() < 0 or bits.max() > 63:
        raise InputError("RLE counts", expected="characters from '0' to 'o'", found="others")
    more = bits >= 32
    if more[-1]:
        raise InputError("RLE counts", expected="a whole number at the end", found="a number that breaks off")
    ends = np.flatnonzero(~more)
    starts = np.append(0, ends[:-1] + 1)
    groups = ends - starts + 1
    if groups.max() > _MAX_GROUPS:
        raise InputError("RLE counts", expected=f"numbers of up to {_MAX_GROUPS} characters", found=str(groups.max()))
    place = np.arange(len(bits)) - np.repeat(starts, groups)
    numbers = np.add.reduceat((bits & 31) << (5 * place), starts)
    numbers -= ((bits[ends] & 16) > 0) * (np.int64(1) << (5 * groups))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _check_mask(mask: AnyArray) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2:
        found = f"shape {mask.shape}, dtype {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError("mask", expected="a (h,w) boolean array", found=found)


def _check_size(size: object) -> tuple[int, int]:
    sides = list(size) if isinstance(size, list | tuple) else []
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise InputError("RLE size", expected="[height, width] in whole pixels", found=_short(size))
    h, w = sides
    if h < 1 or w < 1 or h * w > MAX_PIXELS:
        raise InputError("RLE size", expected=f"sides from 1 and at most {MAX_PIXELS} pixels", found=_short(size))
    return h, w


def _check_rle(rle: object) -> tuple[int, int, bytes]:
    """(h, w, counts) of a well-formed dictionary; the runs are not read yet."""
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise InputError("RLE", expected='{"size": [h, w], "counts": "..."}', found=_short(rle))
    h, w = _check_size(rle["size"])
    counts = rle["counts"]
    if not isinstance(counts, str):
        raise InputError(
            "RLE counts",
            expected="a compressed string",
            found=type(counts).__name__,
            do='decode bytes with counts.decode("ascii"); compress a list with rle_from_counts(counts, size)',
        )
    if not counts or not counts.isascii():
        raise InputError("RLE counts", expected="ASCII characters", found=_short(counts))
    if len(counts) > _MAX_GROUPS * (h * w + 1):
        raise InputError("RLE counts", expected=f"runs of {h} x {w} pixels", found=f"{len(counts)} characters")
    return h, w, counts.encode("ascii")


def _check_runs(runs: AnyArray, pixels: int) -> None:
    """Each run in 0..pixels and all together exactly ``pixels``; bounded runs make the int64 sum safe."""
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        raise InputError("RLE runs", expected=f"0 to {pixels}", found=f"{runs.min()} to {runs.max()}")
    total = int(runs.sum(dtype=np.int64))
    if total != pixels:
        raise InputError("RLE runs", expected=f"{pixels} pixels in all", found=str(total))


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of more than 4,300 digits
        text = f"an endless {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
