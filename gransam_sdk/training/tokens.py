"""Photos to bags of instances, through the same runtime that annotates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, InputError
from ..runtime.decode import as_pixels
from ..runtime.model import Model
from ..runtime.select import choose_masks
from ..shapes import Int
from ..types import PointGrid

BACKGROUND = "_background"
_PHOTOS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """Instances of labelled example pictures.

    Attributes:
        classes: Names of the k classes, in the order of their labels.
        instances: (m,g,4·d + f) float16: mask tokens, then pooled features of the best mask.
        labels: (m,) int64 class index; -1 for background pictures.
        token_width: 4·d, where the tokens end.
        skipped: (path, reason) of pictures that could not be read.
    """

    classes: tuple[str, ...]
    instances: NDArray[np.float16]
    labels: Int
    token_width: int
    skipped: tuple[tuple[str, str], ...] = ()


def find_pictures(root: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Lists example pictures in class folders.

    Args:
        root: One folder a class; ``_background`` holds pictures of none of them, other names with ``_`` are left out.

    Returns:
        Class names, and (path, class index or -1) of each picture, sorted.

    Raises:
        InputError: No classes, one class only, a class without pictures, or a name that no bundle can hold.
    """
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    classes = tuple(name for name in folders if not name.startswith("_"))
    if not classes:
        raise InputError(
            f"pictures {root}",
            expected="a folder with one sub-folder of example pictures a class",
            found="no class folders",
            do="make sub-folders named after your classes, with example pictures in each",
        )
    folded = [name.casefold() for name in classes]
    for name in classes:
        if "=" in name or "," in name or folded.count(name.casefold()) > 1:
            raise InputError(
                f"class folder {folders[name]}",
                expected="a name without '=' and ',', and no other that differs in case only",
                found=repr(name),
                do="rename the folder: this is what will be typed after -c",
            )
    pictures = []
    for name in [*classes, *([BACKGROUND] if BACKGROUND in folders else [])]:
        files = sorted(path for path in folders[name].iterdir() if path.suffix.lower() in _PHOTOS)
        if not files:
            raise InputError(f"class folder {folders[name]}", expected="example pictures", found="none")
        pictures += [(path, -1 if name == BACKGROUND else classes.index(name)) for path in files]
    if len(classes) == 1:
        raise InputError(
            f"pictures {root}",
            expected="two classes or more: a head can only tell classes apart",
            found=f"one class, {classes[0]}",
            do="add a folder with pictures of what it must not be taken for",
        )
    return classes, pictures


def extract_bags(model: Model, root: Path, *, progress: Callable[[int, int], None] | None = None) -> Bags:
    """Runs the image and prompt graphs over all example pictures.

    Args:
        model: A bundle's open sessions; it needs no head.
        root: See ``find_pictures``.
        progress: Called with (pictures done, pictures in all).

    Raises:
        InputError: See ``find_pictures``; or a class none of whose pictures can be read.
    """
    classes, pictures = find_pictures(root)
    bundle = model.bundle
    points = PointGrid(per_side=bundle.points_per_side).points()
    width = 4 * bundle.token_width + bundle.feature_width
    instances = np.empty((len(pictures), len(points), width), dtype=np.float16)
    labels: list[int] = []
    skipped: list[tuple[str, str]] = []
    for done, (path, label) in enumerate(pictures):
        if progress:
            progress(done, len(pictures))
        try:
            pixels = as_pixels(path)
        except ImageError as error:
            skipped.append((str(path), error.reason))
            continue
        frame = model.frame(pixels)
        hoisted = model.hoist(model.prepare(pixels, frame))
        start = 0
        for prompts in model.prompt(hoisted, frame, points, bundle.prompt_chunk):
            choice = choose_masks("best_iou", prompts.iou, prompts.lattice)[:, 0]
            rows = np.arange(len(choice))
            parts = [prompts.tokens.reshape(len(choice), -1), prompts.features[rows, choice]]
            instances[len(labels), start : start + len(choice)] = np.concatenate(parts, axis=1)
            start += len(choice)
        labels.append(label)
    if progress:
        progress(len(pictures), len(pictures))
    for index, name in enumerate(classes):
        if index not in labels:
            raise InputError(f"class folder {root / name}", expected="pictures", found="none that can be read")
    return Bags(
        classes=classes,
        instances=instances[: len(labels)],
        labels=np.array(labels, dtype=np.int64),
        token_width=4 * bundle.token_width,
        skipped=tuple(skipped),
    )
