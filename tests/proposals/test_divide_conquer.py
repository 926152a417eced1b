"""Divide and conquer against its description step by step, and the promises that each region makes."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slow_merging import levels

from gransam_sdk.errors import InputError
from gransam_sdk.proposals.calibrate import COUNTS, thresholds
from gransam_sdk.proposals.divide_conquer import Proposal, enlarge, granularity, propose, tight_box
from gransam_sdk.proposals.picture_features import grid_shape, picture_features
from gransam_sdk.proposals.smoothing import smooth_within

THETAS = [0.9, 0.6, 0.3, 0.0, -0.5]
CELL = 10


def grid(seed: int, shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    """Blocks of two by two cells with noise, so that there are clusters at every level."""
    random = np.random.default_rng(seed)
    blocks = np.kron(random.standard_normal((shape[0] // 2, shape[1] // 2, 3)), np.ones((2, 2, 1)))
    return (blocks + 0.3 * random.standard_normal(blocks.shape)).astype(np.float32)


def photo_size(features: np.ndarray) -> tuple[int, int]:
    return features.shape[0] * CELL, features.shape[1] * CELL


def cells_of(proposal: Proposal) -> frozenset[int]:
    """The cells whose centre a mask covers, of masks that are CELL times their grid."""
    return frozenset(np.flatnonzero(proposal.mask[CELL // 2 :: CELL, CELL // 2 :: CELL]).tolist())


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("seed", range(6))
def test_regions_are_the_clusters_of_every_level_each_once(seed: int) -> None:
    features = grid(seed)
    found = propose(features, levels=THETAS, min_cells=2, nms=1.0, size=photo_size(features))
    born: dict[frozenset[int], int] = {}
    for level, clusters in enumerate(levels(features, THETAS)):
        for cells in clusters:
            if len(cells) >= 2:
                born.setdefault(cells, level)
    assert len(born) > 8
    assert {cells_of(proposal): proposal.level for proposal in found} == born
    assert len(found) == len(born)


@pytest.mark.parametrize("seed", range(6))
def test_a_parent_is_the_smallest_region_around_and_comes_later(seed: int) -> None:
    features = grid(seed)
    found = propose(features, levels=THETAS, size=photo_size(features))
    cells = [cells_of(proposal) for proposal in found]
    for place, proposal in enumerate(found):
        around = [i for i, other in enumerate(cells) if other > cells[place]]
        assert proposal.parent_id == (min(around, key=lambda i: len(cells[i])) if around else None)
        if proposal.parent_id is not None:
            assert found[proposal.parent_id].level > proposal.level


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [0.5, 0.8])
def test_suppression_leaves_no_pair_alike_and_drops_nothing_else(seed: int, most: float) -> None:
    features = grid(seed)
    every = propose(features, levels=THETAS, nms=1.0, size=photo_size(features))
    kept = propose(features, levels=THETAS, nms=most, size=photo_size(features))
    assert 0 < len(kept) < len(every)
    assert all(slow_iou(a.mask, b.mask) <= most for a, b in combinations(kept, 2))
    left = [proposal.mask for proposal in kept]
    for proposal in every:
        rivals = [mask for mask in left if mask.sum() >= proposal.mask.sum()]
        assert any(np.array_equal(mask, proposal.mask) or slow_iou(mask, proposal.mask) > most for mask in rivals)


def test_order_and_granularity_go_by_area() -> None:
    features = grid(1)
    found = propose(features, levels=THETAS, size=photo_size(features))
    areas = [int(proposal.mask.sum()) for proposal in found]
    assert areas == sorted(areas, reverse=True)
    sides = np.sqrt(areas)
    expected = 0.1 + 0.9 * (sides - sides[-1]) / (sides[0] - sides[-1])
    assert [proposal.granularity for proposal in found] == pytest.approx(expected.tolist(), abs=1e-6)


def test_granularity_by_hand() -> None:
    assert granularity(np.array([100, 400, 900])).tolist() == pytest.approx([0.1, 0.55, 1.0])
    assert granularity(np.array([7])).tolist() == [1.0]


def two_roots(seed: int) -> tuple[np.ndarray, list[np.ndarray], tuple[int, int]]:
    """A rectangle and an L in a photo, and a grid for each one's box."""
    size = (120, 160)
    roots = np.zeros((2, *size), dtype=bool)
    roots[0, 20:80, 10:90] = True
    roots[1, 60:120, 80:160] = True
    roots[1, 60:90, 80:120] = False
    return roots, [grid(seed), grid(seed + 50)], size


@pytest.mark.parametrize("seed", range(4))
def test_every_region_lies_in_its_root_which_comes_first(seed: int) -> None:
    roots, grids, size = two_roots(seed)
    found = propose(grids, roots=roots, levels=THETAS, size=size)
    for number, root in enumerate(roots):
        own = [i for i, proposal in enumerate(found) if proposal.root_id == number]
        assert own == list(range(own[0], own[-1] + 1)) and len(own) > 2
        first = found[own[0]]
        assert np.array_equal(first.mask, root)
        assert (first.parent_id, first.level, first.granularity) == (None, len(THETAS), 1.0)
        for i in own[1:]:
            mask, parent = found[i].mask, found[i].parent_id
            assert (mask & root).sum() > 0.9 * mask.sum()
            assert slow_iou(mask, root) <= 0.9
            assert parent is not None and found[parent].root_id == number
            assert found[parent].mask.sum() > mask.sum()
    whole = propose(grids, roots=roots, levels=THETAS, keep=0.0, size=size)
    assert len(whole) > len(found), "nothing lay outside: the test proves nothing"


def test_a_root_is_looked_into_by_itself() -> None:
    roots, grids, size = two_roots(3)
    both = propose(grids, roots=roots, levels=THETAS, size=size)
    second = propose(grids[1:], roots=roots[1:], levels=THETAS, size=size)
    own = [proposal for proposal in both if proposal.root_id == 1]
    assert [proposal.mask.tobytes() for proposal in own] == [proposal.mask.tobytes() for proposal in second]


def test_a_photo_of_one_colour_is_one_region() -> None:
    (only,) = propose(np.ones((5, 7, 3), dtype=np.float32), levels=[0.9, 0.5], size=(50, 70))
    assert only.mask.all()
    assert (only.level, only.granularity, only.parent_id) == (0, 1.0, None)
    assert only.similarity_at_birth == 1.0


def test_small_clusters_are_no_regions() -> None:
    features = np.zeros((4, 4, 2), dtype=np.float32)
    features[..., 0] = 1
    features[:1, :3] = (0, 1)  # three cells
    size = (40, 40)
    assert len(propose(features, levels=[0.9], min_cells=4, size=size)) == 1
    assert len(propose(features, levels=[0.9], min_cells=3, size=size)) == 2


@pytest.mark.parametrize(("cells", "size"), [((5, 8), (37, 90)), ((6, 6), (6, 6)), ((7, 4), (3, 50))])
def test_enlarging_is_bilinear_and_cut_at_half(cells: tuple[int, int], size: tuple[int, int]) -> None:
    import torch

    mask = np.random.default_rng(0).random(cells) < 0.5
    values = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None].double(), size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    clear = np.abs(values - 0.5) > 1e-5  # at exactly one half rounding decides
    assert clear.mean() > 0.8
    assert np.array_equal(enlarge(mask, size)[clear], (values > 0.5)[clear])


def test_a_real_photo_has_regions_of_every_size_that_lie_in_each_other(sample_photos: dict[str, Path]) -> None:
    pixels = np.asarray(Image.open(sample_photos["chelsea.png"]).convert("RGB"))
    features = smooth_within(picture_features(pixels, grid_shape(pixels.shape[:2], 32)))
    found = propose(features, levels=thresholds([features]), size=pixels.shape[:2])
    there = {proposal.level for proposal in found}
    assert len(there) >= len(COUNTS) - 1
    for level in there:
        born = [proposal.mask for proposal in found if proposal.level == level]
        assert len(born) <= COUNTS[level]
        assert np.sum(born, axis=0).max() == 1, "regions of one level do not overlap"
    for proposal in found:
        if proposal.parent_id is not None:
            around = found[proposal.parent_id]
            assert (proposal.mask & ~around.mask).sum() < 0.01 * proposal.mask.sum()
            assert around.granularity >= proposal.granularity


def test_tight_box_holds_the_mask() -> None:
    mask = np.zeros((9, 12), dtype=bool)
    mask[2, 5] = mask[6, 3] = True
    assert tight_box(mask) == (2, 7, 3, 6)
    with pytest.raises(InputError, match="root"):
        tight_box(np.zeros((9, 12), dtype=bool))


def test_wrong_arguments_are_refused() -> None:
    roots, grids, size = two_roots(0)
    whole = grid(0)
    with pytest.raises(InputError, match="levels"):
        propose(whole, levels=[0.3, 0.6], size=size)
    with pytest.raises(InputError, match="levels"):
        propose(whole, levels=[], size=size)
    with pytest.raises(InputError, match="min_cells"):
        propose(whole, levels=[0.5], min_cells=0, size=size)
    with pytest.raises(InputError, match="keep and nms"):
        propose(whole, levels=[0.5], nms=1.5, size=size)
    with pytest.raises(InputError, match="keep and nms"):
        propose(whole, levels=[0.5], keep=-0.1, size=size)
    with pytest.raises(InputError, match="features"):
        propose(grids, levels=[0.5], size=size)
    with pytest.raises(InputError, match="roots"):
        propose(grids[:1], roots=roots, levels=[0.5], size=size)
    with pytest.raises(InputError, match="roots"):
        propose(grids, roots=roots, levels=[0.5], size=(120, 161))
