"""Example pictures to bags of instances, through the same runtime that annotates and the token cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.model import Model
from ..runtime.select import STABLE_LEAST, choose_masks
from ..shapes import Float, Int
from ..types import MaskChoice, PointGrid
from .bags import Bags, SceneBags
from .examples import Example, hash_pictures
from .folds import fold_numbers
from .scenes import NO_PART, PARTS, Scene, plan_scenes
from .sources.folder import BACKGROUND, find_pictures
from .token_cache import CachePlan, Place, Progress, TokenCache
from .token_shard import TokenShape, read_shard

__all__ = ["BACKGROUND", "Bags", "CachedPictures", "cache_pictures", "extract_bags", "find_pictures", "load_bags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPictures:
    """Example pictures whose tokens are in the cache.

    Attributes:
        classes: Names of the k classes, in the order of their labels.
        examples: The pictures, class by class, background last.
        scenes: Made of them; may be none.
        places: Where the tokens of each of both are, by its sha256.
        shape: Sizes of one picture's arrays.
        skipped: (path, reason) of pictures that were left out: unreadable ones, and copies.
    """

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    scenes: tuple[Scene, ...]
    places: Mapping[str, Place]
    shape: TokenShape
    skipped: tuple[tuple[str, str], ...]

    @property
    def labels(self) -> Int:
        """(m,) class index of each picture; -1 for background."""
        return np.array([example.label for example in self.examples], dtype=np.int64)


def cache_pictures(
    model: Model,
    root: Path,
    *,
    scenes: bool = True,
    cache: Path | None = None,
    announce: Callable[[CachePlan], None] | None = None,
    progress: Progress | None = None,
) -> CachedPictures:
    """Runs the image and prompt graphs over the example pictures that the cache does not have, then over their scenes.

    Args:
        model: A bundle's open sessions; it needs no head.
        root: See ``find_pictures``.
        scenes: Compose scenes of the pictures; see ``plan_scenes``.
        cache: Folder that keeps the tokens of all segmenters; None takes ``default_cache``.
        announce: Told what will be written before anything is, for the pictures and again for the scenes.
        progress: Called with (pictures done, pictures in all), and the same for scenes.

    Raises:
        InputError: See ``find_pictures``; a picture in two class folders; a class none of whose pictures can be read.
        OutputError: The cache cannot be used, or its disk is full.
    """
    classes, pictures = find_pictures(root)
    store = TokenCache(model, cache)
    examples, skipped = hash_pictures(pictures)
    places, failed = store.fill(examples, announce=announce, progress=progress)
    kept = tuple(example for example in examples if example.sha256 in places)
    found = {example.label for example in kept}
    for path, label in pictures:
        if label >= 0 and label not in found:
            raise InputError(f"class folder {path.parent}", expected="pictures", found="none that can be read")
    labels = np.array([example.label for example in kept], dtype=np.int64)
    planned = plan_scenes(kept, fold_numbers(labels)) if scenes else []
    if planned:
        there, torn = store.fill(planned, what="scenes", announce=announce, progress=progress)
        places, failed = places | there, failed + torn
    return CachedPictures(
        classes=classes,
        examples=kept,
        scenes=tuple(scene for scene in planned if scene.sha256 in places),
        places=places,
        shape=store.shape,
        skipped=tuple(sorted([*skipped, *failed])),
    )


def load_bags(cached: CachedPictures, choice: MaskChoice = "best_iou") -> Bags:
    """Reads the tokens, one shard after the other; no graph runs.

    Args:
        cached: Of ``cache_pictures``.
        choice: Which mask's features stand beside a prompt's tokens; of ``all3``, the best one's.

    Returns:
        The bags, in the order of the examples. They and one shard are all that is in memory.

    Raises:
        OutputError: A shard has gone meanwhile, or holds arrays of other sizes.
    """
    labels = cached.labels
    instances, rim = _read(cached, [example.sha256 for example in cached.examples], choice)
    return Bags(
        classes=cached.classes,
        instances=instances,
        labels=labels,
        rim=rim,
        folds=fold_numbers(labels),
        scenes=_load_scenes(cached, choice),
        token_width=4 * cached.shape.token_width,
        skipped=cached.skipped,
    )


def _load_scenes(cached: CachedPictures, choice: MaskChoice) -> SceneBags:
    points = PointGrid(per_side=math.isqrt(cached.shape.prompts)).points()
    parts = np.full((len(cached.scenes), PARTS), NO_PART, dtype=np.int64)
    for row, scene in zip(parts, cached.scenes, strict=True):
        row[: len(scene.tiles)] = [tile.example.label for tile in scene.tiles]
    part_of = [scene.part_of(points) for scene in cached.scenes]
    instances, rim = _read(cached, [scene.sha256 for scene in cached.scenes], choice)
    return SceneBags(
        instances=instances,
        parts=parts,
        part_of=np.array(part_of, dtype=np.int64).reshape(-1, len(points)),
        rim=rim,
        folds=np.array([scene.fold for scene in cached.scenes], dtype=np.int64),
    )


def _read(
    cached: CachedPictures, wanted: Sequence[str], choice: MaskChoice
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Instances (m,g,4·d + f) of pictures or scenes, by their sha256, and the rim share (m,g) of the chosen masks."""
    shape = cached.shape
    token_width = 4 * shape.token_width
    instances = np.empty((len(wanted), shape.prompts, token_width + shape.feature_width), dtype=np.float16)
    rim = np.empty((len(wanted), shape.prompts), dtype=np.float16)
    rows: dict[Path, list[tuple[int, int]]] = {}
    for bag, sha256 in enumerate(wanted):
        place = cached.places[sha256]
        rows.setdefault(place.shard, []).append((bag, place.row))
    for shard, pairs in rows.items():
        arrays = read_shard(shard, shape)
        for bag, row in pairs:
            chosen = _choose(choice, arrays["iou"][row], arrays["stability"][row])
            instances[bag, :, :token_width] = arrays["tokens"][row]
            instances[bag, :, token_width:] = arrays["features"][row][np.arange(shape.prompts), chosen]
            rim[bag] = arrays["rim"][row][np.arange(shape.prompts), chosen]
    return instances, rim


def _choose(choice: MaskChoice, iou: Float, stable: Float) -> Int:
    """(g,) the mask that ``choose_masks`` would put first, from what is kept of the lattice: token 0's stability."""
    no_lattice = np.empty((len(iou), 4, 0, 0), dtype=np.float32)
    if choice == "stable":
        return np.where(stable < STABLE_LEAST, choose_masks("best_iou", iou, no_lattice)[:, 0], 0)
    return choose_masks(choice, iou, no_lattice)[:, 0]


def extract_bags(
    model: Model,
    root: Path,
    *,
    scenes: bool = True,
    cache: Path | None = None,
    announce: Callable[[CachePlan], None] | None = None,
    progress: Progress | None = None,
) -> Bags:
    """``cache_pictures``, then ``load_bags`` with the mask that annotating chooses by default."""
    return load_bags(cache_pictures(model, root, scenes=scenes, cache=cache, announce=announce, progress=progress))
