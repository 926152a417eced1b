"""Bottom-up merging of a feature grid: always the two neighbouring clusters of the largest cosine, down to one cluster.

The order of merges depends on no threshold, so one run holds the clusters of every threshold: those after the merges
done while the best pair was at least that similar. A mean may be more similar to a neighbour than its parts were, so
similarities do not only fall; a threshold therefore cuts where they first fall below it.

A cosine is computed in float64 and rounded to multiples of 2⁻²³: equal cells, of which a flat sky has many, are then
equally similar to the last bit, and the rule for ties (the pair whose first cells come first) decides, not rounding.

Each cluster keeps its neighbours sorted by similarity as they were when it arose; the heap holds only the best that is
left of each. A pair is thus kept by the younger of its two, and is out of date once either has been merged.
"""

from __future__ import annotations

import heapq
import sys
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..shapes import AnyArray, Float, Int

_Float64: TypeAlias = NDArray[np.float64]
_GONE = sys.maxsize
_STEP = 2.0**-23  # float32 holds every multiple up to 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MergeTree:
    """All merges of a (y,x) grid. Node i < y·x is cell i, row by row; node y·x + k is what merge k made.

    Attributes:
        shape: (y, x) cells.
        left: (y·x - 1,) int64 node of each merge whose first cell comes first.
        right: (y·x - 1,) int64 the other one.
        similarity: (y·x - 1,) float32 cosine of the two means when they were merged.
        count: (y·x - 1,) int64 cells of what each merge made.
    """

    shape: tuple[int, int]
    left: Int
    right: Int
    similarity: Float
    count: Int

    @property
    def cells(self) -> int:
        """y·x, the leaves."""
        return len(self.left) + 1

    def merges_at(self, theta: float) -> int:
        """Merges done while the best pair's cosine is at least ``theta``."""
        return int(np.count_nonzero(np.minimum.accumulate(self.similarity) >= theta))

    def theta_of(self, clusters: int) -> float:
        """The largest threshold at which at most so many clusters are left.

        Args:
            clusters: 1 to y·x - 1.

        Raises:
            InputError: The grid never has so many after a merge.
        """
        if not 1 <= clusters < self.cells:
            raise InputError("clusters", expected=f"1 to {self.cells - 1} of {self.cells} cells", found=str(clusters))
        return float(self.similarity[: self.cells - clusters].min())

    def parents(self) -> Int:
        """(2·y·x - 1,) int64 node that each node was merged into; the last node, the whole grid, has -1."""
        parent = np.full(self.cells + len(self.left), -1, dtype=np.int64)
        made = np.arange(self.cells, len(parent))
        parent[self.left] = made
        parent[self.right] = made
        return parent

    def sizes(self) -> Int:
        """(2·y·x - 1,) int64 cells of each node."""
        return np.concatenate([np.ones(self.cells, dtype=np.int64), self.count])

    def alive(self, merges: int) -> Int:
        """Ascending int64 nodes that are clusters after so many merges."""
        there = np.ones(self.cells + merges, dtype=np.bool_)
        there[self.left[:merges]] = False
        there[self.right[:merges]] = False
        return np.flatnonzero(there)

    def labels(self, merges: int) -> Int:
        """(y,x) int64: the node of each cell's cluster after so many merges."""
        label = np.arange(self.cells + merges)
        for k in range(merges - 1, -1, -1):  # a merge's own cluster is known before its parts'
            label[self.left[k]] = label[self.right[k]] = label[self.cells + k]
        return label[: self.cells].reshape(self.shape)


def merge_tree(features: Float) -> MergeTree:
    """Merges a grid's cells, each pair of clusters by the cosine of their mean features, until one is left.

    Args:
        features: (y,x,D) float, at least one cell and one channel; a zero vector has cosine 0 with everything.

    Raises:
        InputError: Another shape, or values that are not finite.
    """
    if features.ndim != 3 or 0 in features.shape or not np.isfinite(features).all():
        found = f"shape {features.shape}" + ("" if features.size == 0 else ", or values that are not finite")
        raise InputError("features", expected="(y,x,D) finite numbers", found=found)
    y, x, channels = features.shape
    return _Merging(features.reshape(y * x, channels), (y, x)).run()


class _Merging:
    """The clusters while they are merged; a cluster is known by its first cell, and its mean by its sum."""

    def __init__(self, cells: AnyArray, shape: tuple[int, int]) -> None:
        n = len(cells)
        self.shape = shape
        self.sums: _Float64 = cells.astype(np.float64)
        norms = np.linalg.norm(self.sums, axis=1, keepdims=True)
        self.units: _Float64 = np.divide(self.sums, norms, out=np.zeros_like(self.sums), where=norms > 0)
        self.owner = np.arange(n)  # the cluster that a cell has become part of, or a step on the way to it
        self.changed = [0] * n  # merges done when the cluster arose; _GONE once it is part of another
        self.neighbours = _grid_neighbours(shape)
        self.ranked: list[tuple[Int, Float]] = []  # pairs of a cluster with older ones, best first
        self.heap: list[tuple[float, int, int, int, int, int]] = []

    def run(self) -> MergeTree:
        """Every merge, in order."""
        n = len(self.owner)
        left, right, count = np.zeros((3, n - 1), dtype=np.int64)
        similarity = np.zeros(n - 1, dtype=np.float32)
        node, sizes = list(range(n)), [1] * n
        for cluster, around in enumerate(self.neighbours):
            self.ranked.append(self._rank(cluster, around[around < cluster]))
            self._push(cluster, 0)
        for k in range(n - 1):
            value, first, second = self._pop()
            self._join(first, second, k + 1)
            sizes[first] += sizes[second]
            left[k], right[k], similarity[k], count[k] = node[first], node[second], value, sizes[first]
            node[first] = n + k
        return MergeTree(shape=self.shape, left=left, right=right, similarity=similarity, count=count)

    def _join(self, first: int, second: int, merges: int) -> None:
        """``second`` becomes part of ``first``, whose similarities are computed anew."""
        self.owner[second] = first
        self.changed[first], self.changed[second] = merges, _GONE
        total = self.sums[first]
        total += self.sums[second]
        norm = float(np.sqrt(total @ total))
        self.units[first] = total / norm if norm > 0 else 0.0
        around = np.unique(self._owners(np.concatenate([self.neighbours[first], self.neighbours[second]])))
        around = around[around != first]
        self.neighbours[first], self.neighbours[second] = around, around[:0]
        self.ranked[first] = self._rank(first, around)
        self._push(first, 0)

    def _owners(self, clusters: Int) -> Int:
        """The living clusters that these have become part of; shortens the ways to them."""
        owners = self.owner[clusters]
        while not np.array_equal(further := self.owner[owners], owners):
            self.owner[clusters] = owners = further
        return owners

    def _rank(self, cluster: int, around: Int) -> tuple[Int, Float]:
        """Pairs of a cluster with others (m,) ascending: the others and the cosines, best first."""
        values = np.rint(self.units[around] @ self.units[cluster] / _STEP).astype(np.float32) * np.float32(_STEP)
        order = np.argsort(-values, kind="stable")  # of equal ones the lower neighbour, which makes the lower pair
        return around[order], values[order]

    def _push(self, cluster: int, place: int) -> None:
        """Puts a cluster's first pair from ``place`` on whose other side has not changed since on the heap."""
        others, values = self.ranked[cluster]
        since = self.changed[cluster]
        for i in range(place, len(others)):
            other = int(others[i])
            if self.changed[other] <= since:
                low, high = min(cluster, other), max(cluster, other)
                heapq.heappush(self.heap, (-float(values[i]), low, high, cluster, since, i))
                return

    def _pop(self) -> tuple[float, int, int]:
        """The best pair of which neither side has changed since it was compared: cosine, lower, higher cluster."""
        while True:
            value, low, high, cluster, since, place = heapq.heappop(self.heap)
            if self.changed[cluster] != since:
                continue
            if self.changed[high if cluster == low else low] <= since:
                return -value, low, high
            self._push(cluster, place + 1)


def _grid_neighbours(shape: tuple[int, int]) -> list[Int]:
    """Of each cell, row by row, its two to four neighbours, ascending."""
    y, x = shape
    number = np.pad(np.arange(y * x).reshape(y, x), 1, constant_values=-1)
    around = np.stack([number[:-2, 1:-1], number[1:-1, :-2], number[1:-1, 2:], number[2:, 1:-1]], axis=-1)
    return [cells[cells >= 0] for cells in around.reshape(y * x, 4)]
