"""Example pictures to bags of instances, through the same runtime that annotates and the token cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.model import Model
from ..runtime.select import STABLE_LEAST, choose_masks
from ..shapes import Float, Int
from ..types import MaskChoice
from .examples import Example, hash_pictures
from .sources.folder import BACKGROUND, find_pictures
from .token_cache import CachePlan, Place, Progress, TokenCache
from .token_shard import TokenShape, read_shard

__all__ = ["BACKGROUND", "Bags", "CachedPictures", "cache_pictures", "extract_bags", "find_pictures", "load_bags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """Instances of labelled example pictures.

    Attributes:
        classes: Names of the k classes, in the order of their labels.
        instances: (m,g,4·d + f) float16: mask tokens, then pooled features of the chosen mask.
        labels: (m,) int64 class index; -1 for background pictures.
        token_width: 4·d, where the tokens end.
        skipped: (path, reason) of pictures that were left out: unreadable ones, and copies.
    """

    classes: tuple[str, ...]
    instances: NDArray[np.float16]
    labels: Int
    token_width: int
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPictures:
    """Example pictures whose tokens are in the cache.

    Attributes:
        classes: Names of the k classes, in the order of their labels.
        examples: The pictures, class by class, background last.
        places: Where each one's tokens are, by its sha256.
        shape: Sizes of one picture's arrays.
        skipped: (path, reason) of pictures that were left out: unreadable ones, and copies.
    """

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    places: Mapping[str, Place]
    shape: TokenShape
    skipped: tuple[tuple[str, str], ...]


def cache_pictures(
    model: Model,
    root: Path,
    *,
    cache: Path | None = None,
    announce: Callable[[CachePlan], None] | None = None,
    progress: Progress | None = None,
) -> CachedPictures:
    """Runs the image and prompt graphs over the example pictures that the cache does not have.

    Args:
        model: A bundle's open sessions; it needs no head.
        root: See ``find_pictures``.
        cache: Folder that keeps the tokens of all segmenters; None takes ``default_cache``.
        announce: Told what will be written, before anything is.
        progress: Called with (pictures done, pictures in all).

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
    return CachedPictures(
        classes=classes, examples=kept, places=places, shape=store.shape, skipped=tuple(sorted([*skipped, *failed]))
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
    shape = cached.shape
    token_width = 4 * shape.token_width
    size = (len(cached.examples), shape.prompts, token_width + shape.feature_width)
    instances = np.empty(size, dtype=np.float16)
    rows: dict[Path, list[tuple[int, int]]] = {}
    for bag, example in enumerate(cached.examples):
        place = cached.places[example.sha256]
        rows.setdefault(place.shard, []).append((bag, place.row))
    for shard, pairs in rows.items():
        arrays = read_shard(shard, shape)
        for bag, row in pairs:
            chosen = _choose(choice, arrays["iou"][row], arrays["stability"][row])
            instances[bag, :, :token_width] = arrays["tokens"][row]
            instances[bag, :, token_width:] = arrays["features"][row][np.arange(shape.prompts), chosen]
    return Bags(
        classes=cached.classes,
        instances=instances,
        labels=np.array([example.label for example in cached.examples], dtype=np.int64),
        token_width=token_width,
        skipped=cached.skipped,
    )


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
    cache: Path | None = None,
    announce: Callable[[CachePlan], None] | None = None,
    progress: Progress | None = None,
) -> Bags:
    """``cache_pictures``, then ``load_bags`` with the mask that annotating chooses by default."""
    return load_bags(cache_pictures(model, root, cache=cache, announce=announce, progress=progress))
