"""What is held out of training."""

from __future__ import annotations

import numpy as np
from bags_by_hand import noisy_bags

from gransam_sdk.training.split import hold_out, split_bags


def test_a_share_of_every_class() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2] * 3 + [3] * 1 + [-1] * 20)
    held = hold_out(labels, 0.1, seed=0)
    assert {label: int(held[labels == label].sum()) for label in (0, 1, 2, 3, -1)} == {0: 5, 1: 1, 2: 1, 3: 0, -1: 2}
    assert held[:50].tolist() != [True] * 5 + [False] * 45, "drawn, not cut off"
    assert np.array_equal(held, hold_out(labels, 0.1, seed=0))
    assert not np.array_equal(held, hold_out(labels, 0.1, seed=1))
    assert not hold_out(labels, 0.0, seed=0).any()
    most = hold_out(labels, 0.99, seed=0)
    assert all((~most[labels == label]).any() for label in (0, 1, 2, 3, -1)), "something is left to train on"


def test_bags_are_parted_and_nothing_is_lost() -> None:
    bags = noisy_bags(count=50)
    rest, held = split_bags(bags, 0.2, seed=3)
    assert len(held.labels) == 10 and len(rest.labels) == 40
    assert sorted(held.labels.tolist()) == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3]
    parts = {picture.tobytes() for part in (rest, held) for picture in part.instances}
    assert parts == {picture.tobytes() for picture in bags.instances}
    for part in (rest, held):
        for picture, label in zip(part.instances, part.labels, strict=True):
            row = next(i for i, other in enumerate(bags.instances) if np.array_equal(other, picture))
            assert bags.labels[row] == label
