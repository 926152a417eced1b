"""Scenes: example pictures side by side, and small on background, so that a head meets a photo with several things.

Ours, not the paper's. A picture that a search returns shows one thing, large; a photo to label shows several, small. In
a scene it is known which picture lies under each click, so every picture in it is a bag of its own, and a click on a
background picture is known to show no class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..shapes import Float, Int, Pixels
from .examples import Example

SCENE_FORMAT = 1
"""To be raised when the same plan gives other pixels."""
SIDE = 448
"""Pixels of a scene's side."""
PARTS = 4
"""Most pictures in a scene."""
NO_PART = -2
"""Stands for the class of a part that a scene does not have."""
SPLIT = (0.35, 0.65)
"""Where a scene of four pictures is parted, as a share of its side."""
SCALE, ASPECT = (0.4, 0.75), (0.85, 1.15)
"""Size of a picture on a background, as a share of the scene's side; each side then varies by the second range."""
BACKGROUND_SHARE = 0.3
"""How often one of the three pictures beside another is background."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A picture's place in a scene: XYXY in pixels, and whether it is mirrored."""

    example: Example
    box: Box
    mirrored: bool


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Pictures of one fold in one square; later tiles lie on earlier ones.

    Attributes:
        tiles: At most ``PARTS``.
        fold: Of all of them.
    """

    tiles: tuple[Tile, ...]
    fold: int

    @cached_property
    def sha256(self) -> str:
        """Hex digest of all that its pixels come from."""
        plan = [(tile.example.sha256, tile.box, tile.mirrored) for tile in self.tiles]
        return hashlib.sha256(json.dumps([SCENE_FORMAT, SIDE, plan]).encode()).hexdigest()

    @property
    def name(self) -> str:
        """For messages."""
        return f"scene of {', '.join(str(tile.example.path) for tile in self.tiles)}"

    def pixels(self) -> Pixels:
        """(SIDE,SIDE,3) uint8 RGB.

        Raises:
            ImageError: A picture cannot be read any more.
        """
        from PIL import Image

        canvas = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        for tile in self.tiles:
            x0, y0, x1, y1 = tile.box
            picture = Image.fromarray(tile.example.pixels())
            if tile.mirrored:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            canvas[y0:y1, x0:x1] = np.asarray(picture.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR))
        return canvas

    def part_of(self, points: Float) -> Int:
        """(g,) which tile lies on top under each of points (g,2) in [0,1]; each point is on one."""
        x, y = (points * SIDE).T
        part = np.zeros(len(points), dtype=np.int64)
        for index, tile in enumerate(self.tiles):
            x0, y0, x1, y1 = tile.box
            part[(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)] = index
        return part

    def areas(self, points: Float) -> Float:
        """(g,4) XYXY in [0,1], the tile under each of points (g,2) in [0,1]."""
        boxes = np.array([tile.box for tile in self.tiles], dtype=np.float32) / np.float32(SIDE)
        return boxes[self.part_of(points)]


def plan_scenes(examples: Sequence[Example], folds: Int, seed: int = 0) -> list[Scene]:
    """One scene for each class picture: by turns among three others, and alone on a background picture.

    Args:
        examples: Pictures that can be decoded.
        folds: (m,) the fold of each; a scene stays within one.
        seed: Of pictures and places.

    Returns:
        Fold by fold. Without ``_background`` pictures in a fold, all of its scenes are of the first kind; a fold with a
        single picture has none.
    """
    random = np.random.default_rng(seed)
    scenes = []
    for fold in np.unique(folds):
        members = [example for example, own in zip(examples, folds, strict=True) if own == fold]
        shown = [example for example in members if example.label >= 0]
        empty = [example for example in members if example.label < 0]
        if len(members) < 2:
            continue
        for number, index in enumerate(random.permutation(len(shown))):
            alone = bool(empty) and number % 2 == 1
            tiles = _on_background(shown[index], empty, random) if alone else _side_by_side(shown, empty, index, random)
            scenes.append(Scene(tiles=tuple(tiles), fold=int(fold)))
    return scenes


def _side_by_side(
    shown: Sequence[Example], empty: Sequence[Example], first: int, random: np.random.Generator
) -> list[Tile]:
    """Four pictures around a point; the first is the given one, the others are drawn."""
    x, y = (int(SIDE * random.uniform(*SPLIT)) for _ in range(2))
    boxes = [(0, 0, x, y), (x, 0, SIDE, y), (0, y, x, SIDE), (x, y, SIDE, SIDE)]
    places = random.permutation(PARTS)
    pictures = [shown[first]]
    for _ in range(PARTS - 1):
        pool = empty if empty and random.random() < BACKGROUND_SHARE else shown
        pictures.append(pool[int(random.integers(len(pool)))])
    return [_tile(picture, boxes[place], random) for picture, place in zip(pictures, places, strict=True)]


def _on_background(picture: Example, empty: Sequence[Example], random: np.random.Generator) -> list[Tile]:
    """A background picture that fills the scene, and a smaller picture somewhere on it."""
    behind = empty[int(random.integers(len(empty)))]
    scale = random.uniform(*SCALE)
    width, height = (int(SIDE * scale * random.uniform(*ASPECT)) for _ in range(2))
    x, y = int(random.integers(SIDE - width + 1)), int(random.integers(SIDE - height + 1))
    return [_tile(behind, (0, 0, SIDE, SIDE), random), _tile(picture, (x, y, x + width, y + height), random)]


def _tile(example: Example, box: Box, random: np.random.Generator) -> Tile:
    return Tile(example=example, box=box, mirrored=bool(random.random() < 0.5))
