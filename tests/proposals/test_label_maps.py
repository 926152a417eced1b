"""Label maps: at every level each pixel has one region, and it is the one that the level's clusters say."""

from __future__ import annotations

import numpy as np
import pytest
from slow_merging import levels

from gransam_sdk.proposals.divide_conquer import Proposal, propose
from gransam_sdk.proposals.label_maps import label_maps

THETAS = [0.9, 0.6, 0.3, 0.0, -0.5]
CELL = 10


@pytest.mark.parametrize("seed", range(5))
def test_a_level_shows_its_clusters(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = np.kron(random.standard_normal((3, 4, 3)), np.ones((2, 2, 1))) + 0.3 * random.standard_normal((6, 8, 3))
    features = features.astype(np.float32)
    found = propose(features, levels=THETAS, min_cells=2, nms=1.0, size=(6 * CELL, 8 * CELL))
    maps = label_maps(found)
    clusters = []
    for level in levels(features, THETAS):
        shown = {cells for cells in level if len(cells) >= 2}
        if not clusters or clusters[-1] != shown:
            clusters.append(shown)
    assert len(maps) == len(clusters) > 2
    for drawn, shown in zip(maps, clusters, strict=True):
        assert drawn.dtype == np.uint16 and drawn.shape == (60, 80)
        centres = drawn[CELL // 2 :: CELL, CELL // 2 :: CELL].ravel()
        assert {frozenset(np.flatnonzero(centres == value).tolist()) for value in set(centres.tolist()) - {0}} == shown
        areas = np.bincount(drawn.ravel())[1:]
        assert (areas > 0).all() and drawn.max() == len(shown)


def proposal(mask: np.ndarray, level: int, parent: int | None = None, root: int = 0) -> Proposal:
    return Proposal(mask=mask, root_id=root, level=level, granularity=1.0, parent_id=parent, similarity_at_birth=1.0)


def test_what_is_swallowed_gives_way_and_what_is_not_stays() -> None:
    whole, part, apart = (np.zeros((2, 6), dtype=np.bool_) for _ in range(3))
    whole[:, :4], part[:, :2], apart[:, 5:] = True, True, True
    fine, coarse = label_maps([proposal(whole, 2), proposal(part, 0, parent=0), proposal(apart, 0)])
    assert fine.tolist() == [[1, 1, 0, 0, 0, 2]] * 2
    assert coarse.tolist() == [[1, 1, 1, 1, 0, 2]] * 2


def test_of_roots_that_overlap_the_smaller_is_on_top() -> None:
    large, small = np.ones((3, 3), dtype=np.bool_), np.eye(3, dtype=np.bool_)
    for order in ((small, large), (large, small)):
        (drawn,) = label_maps([proposal(mask, 0, root=i) for i, mask in enumerate(order)])
        assert drawn.tolist() == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]


def test_no_proposals_make_no_maps() -> None:
    assert label_maps([]) == []
