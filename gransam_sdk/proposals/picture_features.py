"""Features of a photo's cells without any network: colour and texture; and how to join a network's map to them.

Colour is CIELAB, in which equal distances look about equally different. Texture is how strongly brightness changes in
each of four directions, at the pixels of a small picture and at twice their size.

Merging compares by cosine, which for a few plain numbers says little: all greys lie near the centre of colours, and
point anywhere from there. Colour and texture are therefore given as random Fourier features (Rahimi and Recht 2007),
whose cosine is about exp(-|a-b|²/2σ²) of two cells' values a and b. A cluster's mean then stands for what occurs in it
and how often, not for a colour between two that do.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import InputError
from ..shapes import AnyArray, Float, Pixels

PIXELS = 6
"""Pixels a cell's side has in the small picture that features are read from."""
DIRECTIONS = 4
COLOURS = 3
"""Of a cell's measures the first so many are colour, the others texture."""
FREQUENCIES = 64
COLOUR_SPREAD, TEXTURE_SPREAD = 15.0, 3.0
"""σ of the two kinds: of CIELAB's units, and of standard deviations over the photo (all channels together)."""
TEXTURE_SHARE = 0.3
"""Weight of texture, the rest being colour's."""
_FROM_SRGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
"""Linear sRGB to XYZ (IEC 61966-2-1)."""
_WHITE = _FROM_SRGB.sum(axis=1)
_NOISE = 1.0  # of CIELAB's L: differences below are noise rather than texture
_LEAST = 0.05  # spread of log energies: below, a photo has one texture
_TINY = 1e-5  # of the largest value: rounding


def grid_shape(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(y, x) nearly square cells for a photo of (h, w) pixels, ``longest`` of them along its longer side.

    Raises:
        InputError: A side below 1, or fewer than one cell.
    """
    if min(size) < 1 or longest < 1:
        raise InputError("photo and cells", expected="sides and cells from 1", found=f"{size}, {longest}")
    y, x = (max(round(side * longest / max(size)), 1) for side in size)
    return y, x


def picture_features(pixels: Pixels, shape: tuple[int, int]) -> Float:
    """Colour and texture of each cell, made to be compared by cosine.

    Args:
        pixels: (h,w,3) uint8, upright RGB.
        shape: (y, x) cells.

    Returns:
        (y,x,256) float32, centred over the photo, of mean square length 1; zeros where the photo is all alike.

    Raises:
        InputError: Not (h,w,3) uint8, or no cell.
    """
    measures = cell_measures(pixels, shape)
    colour, texture = measures[..., :COLOURS], measures[..., COLOURS:]
    spread = np.maximum(texture.std(axis=(0, 1)), _LEAST)
    parts = fourier_features(colour, COLOUR_SPREAD), fourier_features(texture / spread, TEXTURE_SPREAD)
    return join(standardise(parts[0]), standardise(parts[1]), TEXTURE_SHARE)


def combine(colour: Float, teacher_map: Float, weight: float) -> Float:
    """One grid of two kinds of features, whose cosines are about the weighted mean of the two kinds' own.

    Args:
        colour: (y,x,C) features of the cells, of any kind.
        teacher_map: (D,y',x') a network's map over the same photo; brought to (y,x) bilinearly.
        weight: The map's share in [0,1].

    Returns:
        (y,x,C+D) float32; each kind centred over the photo, and its cells of mean square length by its weight.

    Raises:
        InputError: Other shapes, or a weight outside its range.
    """
    if colour.ndim != 3 or teacher_map.ndim != 3 or not 0.0 <= weight <= 1.0:
        found = f"{colour.shape}, {teacher_map.shape}, weight {weight}"
        raise InputError("features", expected="(y,x,C), (D,y,x) and a weight in [0,1]", found=found)
    y, x = colour.shape[:2]
    return join(standardise(colour), standardise(resample(teacher_map.transpose(1, 2, 0), (y, x))), weight)


def join(first: Float, second: Float, share: float) -> Float:
    """(y,x,C) and (y,x,D) to (y,x,C+D); scalar products are the weighted mean, ``share`` being the second's."""
    return np.concatenate([math.sqrt(1 - share) * first, math.sqrt(share) * second], axis=-1).astype(np.float32)


def standardise(features: AnyArray) -> Float:
    """(y,x,C) centred over the photo and scaled to cells of mean square length 1; zeros where all cells are alike.

    Channels keep their sizes to one another: a network's small channels are not made as loud as its large ones.
    """
    exact = np.asarray(features, dtype=np.float64)
    centred = exact - exact.mean(axis=(0, 1))
    length = math.sqrt(float((centred**2).sum(axis=-1).mean()))
    if length <= _TINY * float(np.abs(features).max(initial=0.0)):
        return np.zeros(centred.shape, dtype=np.float32)
    return np.asarray(centred / length, dtype=np.float32)


def fourier_features(values: Float, spread: float) -> Float:
    """(y,x,C) to (y,x,128) float32, whose cosine is about exp(-|a-b|²/2σ²), σ being ``spread``; always the same."""
    random = np.random.RandomState(0)  # its stream stays the same in every version of numpy
    frequencies = random.standard_normal((values.shape[-1], FREQUENCIES)) / spread
    phases = np.asarray(values @ frequencies.astype(np.float32), dtype=np.float32)
    return np.concatenate([np.cos(phases), np.sin(phases)], axis=-1)


def cell_measures(pixels: Pixels, shape: tuple[int, int]) -> Float:
    """What is measured of each cell, in plain numbers.

    Args:
        pixels: (h,w,3) uint8, upright RGB.
        shape: (y, x) cells.

    Returns:
        (y,x,13) float32: L, a, b; then log energies, fine and coarse: along each direction, and of the gradient.

    Raises:
        InputError: Not (h,w,3) uint8, or no cell.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or min(*pixels.shape, *shape) < 1:
        found = f"{pixels.dtype} of {pixels.shape}, {shape} cells"
        raise InputError("photo", expected="(h,w,3) uint8, and cells from 1", found=found)
    y, x = shape
    lab = smooth(to_lab(average(pixels, (y * PIXELS, x * PIXELS))))
    fine = lab[..., 0]
    coarse = average(smooth(smooth(fine)), (y * PIXELS // 2, x * PIXELS // 2))
    parts = [average(lab, shape)]
    for lightness in (fine, coarse):
        energies = average(_directions(lightness), shape)  # (y,x,5)
        parts.append(np.log(smooth(energies) + _NOISE))
    return np.concatenate(parts, axis=-1).astype(np.float32)


def to_lab(pixels: AnyArray) -> Float:
    """sRGB (...,3) in 0-255 to CIELAB: L 0-100, a and b about -100 to 100; float32."""
    srgb = np.asarray(pixels, dtype=np.float32) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    relative = linear @ (_FROM_SRGB / _WHITE[:, None]).T.astype(np.float32)
    cubed = relative > (6 / 29) ** 3
    f = np.where(cubed, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    lightness = 116 * f[..., 1] - 16
    return np.stack([lightness, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def average(values: AnyArray, shape: tuple[int, int]) -> Float:
    """Means of (h,w,...) over (y,x) blocks of nearly equal whole pixels; a block without a pixel takes its nearest."""
    mean = np.asarray(values, dtype=np.float32)
    for axis, count in enumerate(shape):
        edges = np.arange(count + 1) * mean.shape[axis] // count
        lengths = np.maximum(np.diff(edges), 1).astype(np.float32)  # of an empty block reduceat gives the pixel there
        mean = np.add.reduceat(mean, edges[:-1], axis=axis)
        mean /= lengths.reshape([-1 if i == axis else 1 for i in range(mean.ndim)])
    return mean


def smooth(values: Float) -> Float:
    """(h,w,...) weighted 1-2-1 along both sides; the rim is repeated outwards."""
    for ahead, behind in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        before, after = values.copy(), values.copy()
        before[behind] = values[ahead]
        after[ahead] = values[behind]
        values = np.asarray((before + after) / 4 + values / 2, dtype=np.float32)
    return values


def resample(values: AnyArray, shape: tuple[int, int]) -> Float:
    """(h,w,C) to (y,x,C), bilinear, corners not aligned; for maps that are coarser than the grid, or not much finer."""
    for axis, count in enumerate(shape):
        length = values.shape[axis]
        places = np.clip((np.arange(count) + 0.5) * length / count - 0.5, 0, length - 1)
        first = np.minimum(places.astype(np.int64), max(length - 2, 0))
        second = np.minimum(first + 1, length - 1)
        share = (places - first).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        values = values.take(first, axis) * (1 - share) + values.take(second, axis) * share
    return np.asarray(values, dtype=np.float32)


def _directions(lightness: Float) -> Float:
    """(h,w) to (h,w,5): absolute differences along 0, 45, 90 and 135 degrees, and the gradient's length."""
    padded = np.pad(lightness, 1, mode="edge")
    down = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    across = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    angles = np.arange(DIRECTIONS) * math.pi / DIRECTIONS
    along = [np.abs(math.cos(angle) * across + math.sin(angle) * down) for angle in angles]
    return np.stack([*along, np.hypot(across, down)], axis=-1)
