"""The rules by which found masks join given ones: their properties, and IoU counted in sets of pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gransam_sdk.errors import InputError
from gransam_sdk.proposals.unsam_plus import MergeMode, merge_unsam_plus

MODES: tuple[MergeMode, ...] = ("iou", "dedup", "uncovered")
seeds = st.integers(0, 10_000)


def stacks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, some of them alike, some small within large ones; up to 6 given and up to 10 found."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        masks = np.zeros((count, 20, 24), dtype=np.bool_)
        for mask in masks:
            y, x = random.integers(0, (16, 20))
            h, w = random.integers(1, 12, 2)
            mask[y : y + h, x : x + w] = True
        return masks

    base, extra = boxes(int(random.integers(0, 7))), boxes(int(random.integers(0, 11)))
    if len(base) and len(extra) > 2:
        extra[0], extra[-1] = base[0], extra[1]
    return base, extra


def pixels(mask: np.ndarray) -> set[int]:
    return set(np.flatnonzero(mask).tolist())


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = pixels(a) | pixels(b)
    return len(pixels(a) & pixels(b)) / len(union) if union else 0.0


@given(seed=seeds, tau=st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 1.0]))
@settings(deadline=None)
def test_each_rule_is_what_it_says(seed: int, tau: float) -> None:
    base, extra = stacks(seed)
    by_iou = [i for i, mask in enumerate(extra) if all(slow_iou(mask, other) <= tau for other in base)]
    assert merge_unsam_plus(base, extra, tau).tolist() == by_iou
    apart: list[int] = []
    for i in by_iou:
        if all(slow_iou(extra[i], extra[j]) <= tau for j in apart):
            apart.append(i)
    assert merge_unsam_plus(base, extra, tau, "dedup").tolist() == apart
    covered = set().union(*map(pixels, base)) if len(base) else set()
    outside = [i for i, mask in enumerate(extra) if 2 * len(pixels(mask) - covered) > len(pixels(mask))]
    assert merge_unsam_plus(base, extra, mode="uncovered").tolist() == outside


@given(seed=seeds, mode=st.sampled_from(MODES))
@settings(deadline=None)
def test_the_base_is_left_as_it_is_and_its_order_is_nobodys_business(seed: int, mode: MergeMode) -> None:
    base, extra = stacks(seed)
    before = base.copy(), extra.copy()
    kept = merge_unsam_plus(base, extra, mode=mode).tolist()
    assert np.array_equal(base, before[0]) and np.array_equal(extra, before[1])
    shuffled = base[np.random.default_rng(seed).permutation(len(base))]
    assert merge_unsam_plus(shuffled, extra, mode=mode).tolist() == kept
    joined = np.concatenate([base, extra[kept]])
    assert np.array_equal(joined[: len(base)], before[0])


@given(seed=seeds)
@settings(deadline=None)
def test_the_ends_of_tau(seed: int) -> None:
    base, extra = stacks(seed)
    assert merge_unsam_plus(base, extra, 1.0).tolist() == list(range(len(extra)))
    assert merge_unsam_plus(base, extra, 1.0, "dedup").tolist() == list(range(len(extra)))
    disjoint = [i for i, mask in enumerate(extra) if not (mask & base).any()]
    assert merge_unsam_plus(base, extra, 0.0).tolist() == disjoint


@given(seed=seeds, mode=st.sampled_from(("iou", "dedup")))
@settings(deadline=None)
def test_each_mode_has_its_own_tau(seed: int, mode: MergeMode) -> None:
    base, extra = stacks(seed)
    own = {"iou": 0.02, "dedup": 0.7}[mode]
    assert merge_unsam_plus(base, extra, mode=mode).tolist() == merge_unsam_plus(base, extra, own, mode).tolist()


def test_tau_includes_its_bound_in_any_precision() -> None:
    row = np.arange(100) < np.arange(101)[:, None]  # row n has n pixels
    for n in range(1, 100):
        kept = merge_unsam_plus(row[[100]][:, None], row[[n]][:, None], n / 100)
        assert kept.tolist() == [0], f"IoU {n}/100 is not above {n / 100}"


def masks() -> np.ndarray:
    return np.ones((1, 4, 4), dtype=np.bool_)


@pytest.mark.parametrize(
    "call",
    [
        lambda: merge_unsam_plus(masks(), masks(), mode="all"),  # type: ignore[arg-type]
        lambda: merge_unsam_plus(masks(), masks(), 1.1),
        lambda: merge_unsam_plus(masks(), masks(), 0.5, "uncovered"),
        lambda: merge_unsam_plus(masks(), masks()[:, 1:]),
        lambda: merge_unsam_plus(masks(), masks().astype(np.uint8), mode="uncovered"),
        lambda: merge_unsam_plus(masks()[0], masks()[0]),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
