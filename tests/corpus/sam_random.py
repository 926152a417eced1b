"""Narrow SAMs with random weights, small enough for tests."""

from __future__ import annotations

from gransam_sdk.models.segment_anything import VitShape
from gransam_sdk.models.stand_in import fill, random_checkpoint, random_sam
from gransam_sdk.models.tiny_vit import TinyVitShape

__all__ = ["NARROW_TINY", "NARROW_VIT", "fill", "random_checkpoint", "random_sam"]

NARROW_VIT = VitShape(side=256, width=64, depth=2, heads=2, global_blocks=(1,))
"""16 cells a side: the windowed block has windows of 14 that stick out."""

NARROW_TINY = TinyVitShape(
    side=128, widths=(8, 16, 20, 40), depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), windows=(7, 7, 14, 7)
)
