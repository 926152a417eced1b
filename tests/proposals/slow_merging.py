"""Divide and conquer's merging in plain loops and float64: every pair of neighbours is compared before every merge."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

Cluster = frozenset[int]


def touching(a: Cluster, b: Cluster, columns: int) -> bool:
    """Whether two sets of cells, counted row by row, have neighbours among the four."""
    for cell in a:
        row, column = divmod(cell, columns)
        for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= x < columns and y * columns + x in b:
                return True
    return False


def cosine(a: Cluster, b: Cluster, cells: np.ndarray) -> float:
    """Of two clusters' mean features, rounded to multiples of 2⁻²³; 0 where a mean is zero."""
    first, second = (cells[sorted(part)].sum(axis=0) for part in (a, b))
    length = math.sqrt(first @ first) * math.sqrt(second @ second)
    return round(float(first @ second) / length * 2**23) / 2**23 if length else 0.0


def best_pair(clusters: list[Cluster], cells: np.ndarray, columns: int) -> tuple[float, Cluster, Cluster] | None:
    """The pair of the largest cosine; of equal ones the one whose first cells come first. Clusters by first cell."""
    best = None
    for i, a in enumerate(clusters):
        for b in clusters[i + 1 :]:
            if touching(a, b, columns):
                value = cosine(a, b, cells)
                if best is None or value > best[0]:
                    best = (value, a, b)
    return best


def merges(features: np.ndarray) -> Iterator[tuple[float, Cluster, Cluster]]:
    """Every merge: cosine, the part with the first cell, the other."""
    y, x, channels = features.shape
    cells = features.reshape(y * x, channels).astype(np.float64)
    clusters = [frozenset({cell}) for cell in range(y * x)]
    while (best := best_pair(clusters, cells, x)) is not None:
        value, a, b = best
        clusters = sorted([c for c in clusters if c not in (a, b)] + [a | b], key=min)
        yield value, a, b


def levels(features: np.ndarray, thetas: list[float]) -> list[set[Cluster]]:
    """The clusters at each threshold, each level going on from the one before: methods 2.2, step 3, word by word."""
    y, x, channels = features.shape
    cells = features.reshape(y * x, channels).astype(np.float64)
    clusters = [frozenset({cell}) for cell in range(y * x)]
    found = []
    for theta in thetas:
        while (best := best_pair(clusters, cells, x)) is not None and best[0] >= theta:
            clusters = sorted([c for c in clusters if c not in best[1:]] + [best[1] | best[2]], key=min)
        found.append(set(clusters))
    return found
