"""The paper's equations: unit facts, and gradients against float64 finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gransam_sdk.training.losses import (
    background_loss,
    bad_instances,
    bag_logits,
    bag_size,
    entropy_threshold,
    mil_loss,
    uncertainty_loss,
)


def one_hot(index: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(index), classes).double()


@pytest.mark.parametrize(("instances", "size"), [(100, 13), (5, 1), (8, 1), (9, 2), (256, 32), (1, 1)])
def test_bag_size(instances: int, size: int) -> None:
    assert bag_size(instances, 8) == size


def test_bag_logit_is_the_mean_of_the_largest_and_softmax_comes_after() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 100, 4)))
    expected = np.sort(logits.numpy(), axis=1)[:, -13:].mean(axis=1)
    np.testing.assert_allclose(bag_logits(logits, 8).numpy(), expected)
    labels = one_hot([2, 0, 1], 4)
    shifted = expected - expected.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert mil_loss(logits, labels, 8).item() == pytest.approx(-(labels.numpy() * log_p).sum(axis=1).mean())
    pooled_late = logits.softmax(2).topk(13, 1).values.mean(1).log()
    assert mil_loss(logits, labels, 8).item() != pytest.approx(-(labels * pooled_late).sum(1).mean().item(), abs=1e-3)


def test_several_labels_are_normalised() -> None:
    logits = torch.randn(2, 10, 4, dtype=torch.float64)
    both = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.float64)
    halves = [mil_loss(logits, one_hot(index, 4), 8) for index in ([0, 2], [1, 3])]
    assert mil_loss(logits, both, 8).item() == pytest.approx((halves[0] + halves[1]).item() / 2)


@pytest.mark.parametrize(("classes", "nats"), [(20, 1.494), (80, 1.922), (5, 1.027)])
def test_entropy_threshold(classes: int, nats: float) -> None:
    assert entropy_threshold(classes) == pytest.approx(nats, abs=6e-4)


def test_bad_instances_are_unsure_or_sure_and_wrong() -> None:
    sure, unsure = 8.0, 0.1
    logits = torch.tensor([[[sure, 0.0, 0.0], [0.0, sure, 0.0], [unsure, 0.0, 0.0]]])
    assert bad_instances(logits, one_hot([0], 3), 0.5).tolist() == [[False, True, True]]
    assert bad_instances(logits, torch.tensor([[1.0, 1.0, 0.0]]), 0.5).tolist() == [[False, False, True]]
    equal = torch.zeros(1, 1, 3)
    assert bad_instances(equal, one_hot([0], 3), math.log(3) - 1e-6).item(), "equality with the threshold is unsure"


def test_uncertainty_loss_of_equal_logits_and_of_no_bad_instance() -> None:
    logits = torch.zeros(2, 7, 20)
    assert uncertainty_loss(logits, torch.ones(2, 7, dtype=torch.bool)).item() == pytest.approx(20 * math.log(20))
    assert uncertainty_loss(logits, torch.zeros(2, 7, dtype=torch.bool)).item() == 0.0
    one = torch.zeros(2, 7, dtype=torch.bool)
    one[0, 3] = True
    assert uncertainty_loss(logits, one).item() == pytest.approx(20 * math.log(20) / 2), "mean over images"
    assert background_loss(logits).item() == pytest.approx(20 * math.log(20))


@pytest.mark.parametrize("loss", ["mil", "uncertainty"])
def test_gradients_equal_finite_differences(loss: str) -> None:
    rng = np.random.default_rng(3)
    start = rng.normal(size=(2, 9, 4))
    labels = one_hot([1, 3], 4)
    bad = torch.from_numpy(rng.random((2, 9)) < 0.5)

    def value(logits: torch.Tensor) -> torch.Tensor:
        return mil_loss(logits, labels, 4) if loss == "mil" else uncertainty_loss(logits, bad)

    leaf = torch.from_numpy(start).requires_grad_()
    value(leaf).backward()
    assert leaf.grad is not None
    for index in [(0, 0, 0), (1, 4, 3), (0, 8, 1), (1, 2, 2)]:
        step = np.zeros_like(start)
        step[index] = 1e-6
        slope = (value(torch.from_numpy(start + step)) - value(torch.from_numpy(start - step))).item() / 2e-6
        assert leaf.grad[index].item() == pytest.approx(slope, abs=1e-7)
