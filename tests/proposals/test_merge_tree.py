"""The merge tree against merging in plain loops, merge by merge, on grids with ties and without."""

from __future__ import annotations

import numpy as np
import pytest
from slow_merging import Cluster, levels, merges

from gransam_sdk.errors import InputError
from gransam_sdk.proposals.merge_tree import MergeTree, merge_tree

GRIDS = {
    "noise": lambda random: random.standard_normal((6, 7, 5)),
    "few values, many ties": lambda random: random.integers(0, 3, (6, 6, 2)),
    "flat": lambda _: np.ones((5, 5, 3)),
    "zero vectors among others": lambda random: random.integers(-1, 2, (5, 6, 2)),
    "centred": lambda random: (f := random.standard_normal((5, 7, 3))) - f.mean((0, 1)),
    "blocks": lambda random: np.kron(random.standard_normal((2, 3, 4)), np.ones((3, 3, 1))),
    "one row": lambda random: random.standard_normal((1, 20, 4)),
    "one column": lambda random: random.standard_normal((20, 1, 4)),
    "one channel": lambda random: random.standard_normal((5, 5, 1)),
}


def clusters_of(tree: MergeTree) -> list[Cluster]:
    """The cells of every node."""
    nodes = [frozenset({cell}) for cell in range(tree.cells)]
    for left, right in zip(tree.left.tolist(), tree.right.tolist(), strict=True):
        nodes.append(nodes[left] | nodes[right])
    return nodes


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_merge_is_that_of_plain_loops(name: str, seed: int) -> None:
    features = np.asarray(GRIDS[name](np.random.default_rng(seed)), dtype=np.float32)
    tree = merge_tree(features)
    nodes = clusters_of(tree)
    assert len(tree.left) == features.shape[0] * features.shape[1] - 1
    for k, (value, first, second) in enumerate(merges(features)):
        assert (nodes[tree.left[k]], nodes[tree.right[k]]) == (first, second), f"merge {k}"
        assert tree.similarity[k] == pytest.approx(value, abs=1e-6)
        assert tree.count[k] == len(first) + len(second)


def test_ties_are_broken_by_the_first_cells() -> None:
    tree = merge_tree(np.ones((2, 2, 1), dtype=np.float32))
    # cells 0 1 / 2 3; node 4 = {0,1}, node 5 = {0,1,2}
    assert tree.left.tolist() == [0, 4, 5]
    assert tree.right.tolist() == [1, 2, 3]


@pytest.mark.parametrize("seed", range(6))
def test_a_threshold_cuts_where_merging_level_by_level_stops(seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((5, 6, 3)).astype(np.float32)
    thetas = [0.95, 0.7, 0.3, 0.0, -0.4]
    tree = merge_tree(features)
    nodes = clusters_of(tree)
    for theta, expected in zip(thetas, levels(features, thetas), strict=True):
        cut = tree.merges_at(theta)
        assert {nodes[node] for node in tree.alive(cut)} == expected
        labels = tree.labels(cut).ravel()
        assert {frozenset(np.flatnonzero(labels == node).tolist()) for node in np.unique(labels)} == expected


def test_similarities_may_rise_and_a_threshold_still_cuts_at_the_first_fall() -> None:
    features = (np.eye(3) + 1 / 3)[None].astype(np.float32)  # cosines of 1/2; a pair's mean has 1/√3 with the third
    tree = merge_tree(features)
    assert tree.similarity.tolist() == pytest.approx([0.5, 1 / 3**0.5], abs=1e-6)
    assert [tree.merges_at(theta) for theta in (0.99, float(tree.similarity[1]), float(tree.similarity[0]))] == [
        0,
        0,
        2,
    ]
    for seed in range(9):
        each = merge_tree(np.random.default_rng(seed).standard_normal((4, 4, 3)).astype(np.float32))
        for theta in np.unique(each.similarity):
            merged = each.merges_at(float(theta))
            assert (each.similarity[:merged] >= theta).all()
            assert merged == each.cells - 1 or each.similarity[merged] < theta


def test_the_threshold_of_a_number_of_clusters_gives_at_most_as_many_and_the_next_more() -> None:
    tree = merge_tree(np.random.default_rng(3).standard_normal((9, 9, 4)).astype(np.float32))
    for clusters in range(1, tree.cells):
        theta = tree.theta_of(clusters)
        assert len(tree.alive(tree.merges_at(theta))) <= clusters
        above = float(np.nextafter(np.float32(theta), np.float32(2)))
        assert len(tree.alive(tree.merges_at(above))) > clusters


def test_parents_and_sizes_describe_the_same_tree() -> None:
    tree = merge_tree(np.random.default_rng(4).standard_normal((4, 5, 3)).astype(np.float32))
    nodes, parents = clusters_of(tree), tree.parents()
    assert tree.sizes().tolist() == [len(cells) for cells in nodes]
    assert parents[-1] == -1
    assert all(nodes[child] < nodes[parent] for child, parent in enumerate(parents[:-1].tolist()))


def test_one_cell_is_a_tree_without_merges() -> None:
    tree = merge_tree(np.ones((1, 1, 2), dtype=np.float32))
    assert (tree.cells, tree.merges_at(0.5), tree.alive(0).tolist()) == (1, 0, [0])


@pytest.mark.parametrize(
    "features", [np.ones((3, 3)), np.ones((0, 3, 2)), np.ones((3, 3, 0)), np.full((2, 2, 1), np.nan)]
)
def test_other_arrays_are_refused(features: np.ndarray) -> None:
    with pytest.raises(InputError, match="features"):
        merge_tree(features.astype(np.float32))


@pytest.mark.parametrize("clusters", [0, 9])
def test_a_number_of_clusters_that_no_merge_leads_to_is_refused(clusters: int) -> None:
    with pytest.raises(InputError, match="clusters"):
        merge_tree(np.ones((3, 3, 1), dtype=np.float32)).theta_of(clusters)
