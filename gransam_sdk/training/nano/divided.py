"""Regions that nobody drew: divide and conquer over colour, texture and the teacher's features of each photo."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...models.imagenet_teacher import Teacher
from ...proposals.calibrate import thresholds
from ...proposals.divide_conquer import propose
from ...proposals.label_maps import LabelMap, label_maps
from ...proposals.picture_features import combine, grid_shape, picture_features
from ...proposals.smoothing import smooth_within
from ...shapes import Float, Pixels
from .data import TrainingPhoto
from .regions import RegionSource

FINE, DEEP = 13, 17
"""The teacher's maps after block 12 (stride 16, 96 channels) and after block 16 (stride 32, 320 channels)."""
TEACHER_SIDE, STRIDE = 640, 32
"""Longer side in pixels that the teacher is shown, and what both are multiples of."""
CELLS = 56
"""Along a photo's longer side."""
COUNTS = (64, 16, 6)
"""Regions that the median photo is divided into, a label map each."""
CALIBRATED_ON = 50
FINE_SHARE, DEEP_SHARE = 0.5, 0.15
"""Weights of the teacher's maps (docs/benchmarks.md, *Regions found without labels*)."""


def divided(teacher: Teacher, photos: Sequence[TrainingPhoto], folder: Path) -> RegionSource:
    """A source of label maps, its thresholds measured on some of the photos without their labels.

    Args:
        teacher: On the CPU.
        photos: To train on; evenly spaced ones are measured.
        folder: Keeps the maps.

    Raises:
        InputError: A photo cannot be decoded.
    """
    measured = photos[:: max(len(photos) // CALIBRATED_ON, 1)][:CALIBRATED_ON]
    levels = thresholds((grid_of(teacher, photo.pixels()) for photo in measured), COUNTS)
    recipe = repr((levels, CELLS, TEACHER_SIDE, FINE_SHARE, DEEP_SHARE, _digest(teacher)))

    def maps(pixels: Pixels) -> list[LabelMap]:
        return label_maps(propose(grid_of(teacher, pixels), levels=levels, size=pixels.shape[:2]))

    return RegionSource(maps=maps, recipe=recipe, folder=folder)


def grid_of(teacher: Teacher, pixels: Pixels) -> Float:
    """(y,x,D) features of a photo (h,w,3) that are merged by cosine."""
    seen = teacher_maps(teacher, pixels)
    colour = picture_features(pixels, grid_shape(pixels.shape[:2], CELLS))
    return smooth_within(combine(combine(colour, seen[FINE], FINE_SHARE), seen[DEEP], DEEP_SHARE))


@torch.no_grad()
def teacher_maps(teacher: Teacher, pixels: Pixels) -> Mapping[int, Float]:
    """The teacher's maps (D,y,x) float32 of a photo (h,w,3), its longer side brought to ``TEACHER_SIDE``."""
    scale = TEACHER_SIDE / max(pixels.shape[:2])
    h, w = (max(round(side * scale / STRIDE), 1) * STRIDE for side in pixels.shape[:2])
    resized = Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR)
    shown = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float()
    maps = teacher((shown - 127.5) / 127.5)
    return {index: maps[index][0].numpy() for index in (FINE, DEEP)}


def _digest(teacher: Teacher) -> str:
    """Of the first block; enough to tell one teacher from another."""
    return hashlib.sha256(teacher.stem.weight.detach().numpy().tobytes()).hexdigest()
