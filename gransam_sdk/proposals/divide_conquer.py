"""Divide and conquer: the regions of a photo, or of given masks of it, at several granularities, without labels.

After UnSAM (methods 2.2): the cells of a root are merged by similarity, and at each threshold every cluster of enough
cells is a region. What is different: the clusters of all thresholds come from one tree, a cluster that several
thresholds share is one region, and duplicates are found by comparing all pairs whose areas allow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..errors import InputError
from ..geometry import Frame, full_size_mask
from ..nms import mask_nms
from ..shapes import Bool, Float, Int
from .merge_tree import MergeTree, merge_tree

ROOT = -1
"""Node of a given root; in a tree, what the last node was merged into."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """A region of a photo.

    Attributes:
        mask: (h,w) bool.
        root_id: Index of the root that it belongs to; 0 where the whole photo is the root.
        level: Index of the threshold at which it first is a region, 0 being the finest; a given root's is the number
            of thresholds.
        granularity: g in [0.1,1]: its side (root of its area) between those of the smallest and of the largest region
            of its root.
        parent_id: Index in the same list of the smallest region that it was merged into; None where there is none.
        similarity_at_birth: Cosine of the two means whose merge made it; 1 for a given root and for a single cell.
    """

    mask: Bool
    root_id: int
    level: int
    granularity: float
    parent_id: int | None
    similarity_at_birth: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """A region before it has an id: ``node`` is its place in the root's tree, or ``ROOT``."""

    mask: Bool
    node: int
    level: int
    similarity: float


def propose(
    features: Float | Sequence[Float],
    *,
    roots: Bool | None = None,
    levels: Sequence[float],
    min_cells: int = 4,
    keep: float = 0.9,
    nms: float = 0.9,
    size: tuple[int, int],
) -> list[Proposal]:
    """The regions of a photo.

    Args:
        features: (y,x,D) float32 over the whole photo; with ``roots``, one such grid a root, over its tight box
            (``tight_box``), of any number of cells each.
        roots: (r,h,w) bool masks to look into, none of them empty; they are regions, too, and are always kept. None
            looks into the whole photo, which is not a region by itself.
        levels: Thresholds of the cosine, descending (see ``calibrate.thresholds``).
        min_cells: Cells from which on a cluster is a region.
        keep: Share of a region that has to lie in its root.
        nms: IoU above which the smaller of two regions of one root goes; 1 keeps all.
        size: (h, w) of the photo in pixels; a few hundred regions of h·w bytes each are in memory twice, so that a
            large photo is better given with smaller sides.

    Returns:
        Root by root; in each the given root first, then by falling area.

    Raises:
        InputError: Arguments outside their range, or grids that do not fit the roots.
    """
    _check(levels, min_cells, keep, nms, size)
    h, w = size
    if roots is None:
        if not isinstance(features, np.ndarray):
            raise InputError("features", expected="one (y,x,D) array where no roots are given", found="several")
        tree = merge_tree(features)
        return _family(_conquer(tree, levels, min_cells, (0, h, 0, w), size), tree.parents(), 0, nms, 0)
    if roots.ndim != 3 or roots.dtype != np.bool_ or roots.shape[1:] != size or len(roots) != len(features):
        expected = f"one grid of features for each of (r,{h},{w}) bool"
        raise InputError("roots", expected=expected, found=f"{len(features)} for {roots.dtype} of {roots.shape}")
    found: list[Proposal] = []
    for number, (root, grid) in enumerate(zip(roots, features, strict=True)):
        tree = merge_tree(grid)
        parts = [_Part(mask=root, node=ROOT, level=len(levels), similarity=1.0)]
        for part in _conquer(tree, levels, min_cells, tight_box(root), size):
            if (part.mask & root).sum() > keep * part.mask.sum():
                parts.append(part)
        found += _family(parts, tree.parents(), number, nms, len(found))
    return found


def tight_box(mask: Bool) -> tuple[int, int, int, int]:
    """(y0, y1, x0, x1) in pixels of the smallest box that holds a mask (h,w), ends exclusive.

    Raises:
        InputError: The mask has no pixel.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise InputError("root", expected="a mask with a pixel", found="none")
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def granularity(areas: Int) -> Float:
    """g of each region of one root: 0.1 for the smallest, 1 for the largest, by the root of the area (methods 2.6).

    Args:
        areas: (n,) pixels.

    Returns:
        (n,) float32 in [0.1,1]; 1 where all are of one size.
    """
    sides = np.sqrt(areas.astype(np.float64))
    span = sides.max() - sides.min()
    if span == 0:
        return np.ones(len(areas), dtype=np.float32)
    return np.asarray(0.1 + 0.9 * (sides - sides.min()) / span, dtype=np.float32)


def _conquer(
    tree: MergeTree, levels: Sequence[float], min_cells: int, box: tuple[int, int, int, int], size: tuple[int, int]
) -> list[_Part]:
    """Every cluster of enough cells at any of the thresholds, once, as a mask of the photo (h,w)."""
    y0, y1, x0, x1 = box
    counts, seen, parts = tree.sizes(), set[int](), []
    for level, theta in enumerate(levels):
        merges = tree.merges_at(theta)
        labels = tree.labels(merges)
        for node in tree.alive(merges).tolist():
            if node in seen or counts[node] < min_cells:
                continue
            seen.add(node)
            mask = np.zeros(size, dtype=np.bool_)
            mask[y0:y1, x0:x1] = enlarge(labels == node, (y1 - y0, x1 - x0))
            if mask.any():
                similarity = 1.0 if node < tree.cells else float(tree.similarity[node - tree.cells])
                parts.append(_Part(mask=mask, node=node, level=level, similarity=similarity))
    return parts


def enlarge(cells: Bool, size: tuple[int, int]) -> Bool:
    """A mask of cells (y,x) as one of pixels (h,w): bilinear (corners not aligned), True above one half."""
    y, x = cells.shape
    side = max(y, x)
    square = np.full((side, side), -0.5, dtype=np.float32)
    square[:y, :x] += cells
    crop, left, top = full_size_mask(square, Frame(size=size, side=side, resized=(y, x)))
    mask = np.zeros(size, dtype=np.bool_)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def _family(parts: list[_Part], parents: Int, root_id: int, nms: float, first_id: int) -> list[Proposal]:
    """The regions of one root without duplicates, ids counted from ``first_id``."""
    if not parts:
        return []
    masks = np.stack([part.mask for part in parts])
    areas = np.count_nonzero(masks, axis=(1, 2)).astype(np.int64)
    given_first = np.array([0 if part.node == ROOT else 1 for part in parts])
    # Largest first: of two nearly equal regions the larger one stays, and the given root before all.
    kept = mask_nms(masks, areas.astype(np.float32), nms, tiers=given_first)
    ids = {parts[place].node: first_id + i for i, place in enumerate(kept.tolist())}
    found = []
    for place, g in zip(kept.tolist(), granularity(areas[kept]).tolist(), strict=True):
        part = parts[place]
        found.append(
            Proposal(
                mask=part.mask,
                root_id=root_id,
                level=part.level,
                granularity=g,
                parent_id=_parent(part.node, parents, ids),
                similarity_at_birth=part.similarity,
            )
        )
    return found


def _parent(node: int, parents: Int, ids: dict[int, int]) -> int | None:
    """Id of the nearest region above a node; the given root, if there is one, is above all."""
    if node == ROOT:
        return None
    while (node := int(parents[node])) != ROOT:
        if node in ids:
            return ids[node]
    return ids.get(ROOT)


def _check(levels: Sequence[float], min_cells: int, keep: float, nms: float, size: tuple[int, int]) -> None:
    if not levels or any(not a > b for a, b in pairwise(levels)):
        raise InputError("levels", expected="thresholds, descending", found=str(list(levels)))
    if min_cells < 1 or min(size) < 1:
        raise InputError("min_cells and size", expected="from 1", found=f"{min_cells}, {size}")
    if not (0.0 <= keep <= 1.0 and 0.0 <= nms <= 1.0):
        raise InputError("keep and nms", expected="in [0,1]", found=f"{keep}, {nms}")
