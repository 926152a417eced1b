"""The paper's equations: unit facts, and gradients against float64 finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gransam_sdk.training.losses import (
    background_loss,
    bad_instances,
    bag_logits,
    bag_size,
    entropy,
    entropy_threshold,
    least_uncertainty,
    mil_loss,
    uncertainty_loss,
    unsure_from,
)


def one_hot(index: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(index), classes).double()


@pytest.mark.parametrize(("instances", "size"), [(100, 13), (5, 1), (8, 1), (9, 2), (256, 32), (1, 1), (300, 38)])
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
    one = one_hot([0, 0, 0], 3)[None]
    assert bad_instances(logits, one, 0.5).tolist() == [[False, True, True]]
    two = torch.tensor([1.0, 1.0, 0.0]).expand(1, 3, 3)
    assert bad_instances(logits, two, 0.5).tolist() == [[False, False, True]]
    assert bad_instances(logits, one_hot([1, 1, 0], 3)[None], 0.5).tolist() == [[True, False, True]], "each its own"
    assert bad_instances(logits, torch.zeros(1, 3, 3), 0.5).all(), "on background nothing is right"
    equal = torch.zeros(1, 1, 3)
    assert bad_instances(equal, one_hot([0], 3)[None], math.log(3) - 1e-6).item(), (
        "equality with the threshold is unsure"
    )


def test_uncertainty_loss_of_equal_logits_and_of_no_bad_instance() -> None:
    logits = torch.zeros(2, 7, 20)
    assert uncertainty_loss(logits, torch.ones(2, 7, dtype=torch.bool)).item() == pytest.approx(20 * math.log(20))
    assert uncertainty_loss(logits, torch.zeros(2, 7, dtype=torch.bool)).item() == 0.0
    one = torch.zeros(2, 7, dtype=torch.bool)
    one[0, 3] = True
    assert uncertainty_loss(logits, one).item() == pytest.approx(20 * math.log(20) / 2), "mean over images"
    assert background_loss(logits).item() == pytest.approx(20 * math.log(20))


def test_mean_over_classes_is_the_sum_over_their_number() -> None:
    logits = torch.zeros(2, 7, 20)
    assert uncertainty_loss(logits, torch.ones(2, 7, dtype=torch.bool), "mean").item() == pytest.approx(math.log(20))
    assert background_loss(logits, "mean").item() == pytest.approx(math.log(20))
    logits, bad = torch.randn(2, 7, 20, dtype=torch.float64), torch.rand(2, 7) < 0.5
    summed, mean = (uncertainty_loss(logits, bad, reduction).item() for reduction in ("sum", "mean"))
    assert summed == pytest.approx(20 * mean)


def test_class_and_explicit_background_weigh_half_each() -> None:
    logits = torch.randn(1, 10, 4, dtype=torch.float64)
    log_p = bag_logits(logits, 8).log_softmax(1)[0]
    label = torch.tensor([[0.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    assert mil_loss(logits, label, 8).item() == pytest.approx(-(log_p[1] + log_p[3]).item() / 2)


def test_entropy_of_known_distributions() -> None:
    top = torch.tensor([0.7] + [0.3 / 19] * 19, dtype=torch.float64)
    assert entropy(top.log()).item() == pytest.approx(entropy_threshold(20))
    assert entropy(torch.zeros(3, 5)).tolist() == pytest.approx([math.log(5)] * 3)


def test_entropy_rules() -> None:
    logits = torch.zeros(1, 5, 20)
    logits[0, :, 0] = torch.tensor([9.0, 8.0, 5.0, 2.0, 0.0])  # surest first
    assert unsure_from("top_probability", logits) == pytest.approx(1.494, abs=6e-4)
    assert unsure_from("normalised", logits) == pytest.approx(math.log(20) / 2)
    median = unsure_from("quantile", logits)
    assert median == pytest.approx(entropy(logits)[0, 2].item())
    assert bad_instances(logits, one_hot([0] * 5, 20)[None], median).tolist() == [[False, False, True, True, True]]


RNG = np.random.default_rng(3)
START = RNG.normal(size=(2, 9, 4))
BAD = torch.from_numpy(RNG.random((2, 9)) < 0.5)
EXPLICIT = torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 1]], dtype=torch.float64)
INSIDE = torch.from_numpy(np.arange(18).reshape(2, 9) % 9 < np.array([[9], [4]]))  # k of 3 and 1
LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mil": lambda logits: mil_loss(logits, one_hot([1, 3], 4), 4),
    "mil, explicit background": lambda logits: mil_loss(logits, EXPLICIT, 4),
    "mil, in scenes": lambda logits: mil_loss(logits, one_hot([1, 3], 4), 4, INSIDE),
    "uncertainty, sum": lambda logits: uncertainty_loss(logits, BAD, "sum"),
    "uncertainty, mean": lambda logits: uncertainty_loss(logits, BAD, "mean"),
    "background, sum": lambda logits: background_loss(logits, "sum"),
    "background, mean": lambda logits: background_loss(logits, "mean"),
}


def bags_in_scenes(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (b,g,k), labels (b,k) and the instances inside (b,g) of bags of every size from 1 to g."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((20, 20), dtype=bool)
    for size, row in enumerate(inside, start=1):
        row[rng.permutation(20)[:size]] = True
    return rng.normal(size=(20, 20, 4)) * 3, np.eye(4)[rng.integers(0, 4, 20)], inside


@pytest.mark.parametrize("divisor", [1, 3, 8, 50])
def test_a_bag_in_a_scene_is_its_cut_out(divisor: int) -> None:
    logits, labels, inside = (torch.from_numpy(array) for array in bags_in_scenes(divisor))
    found = bag_logits(logits, divisor, inside)
    alone = []
    for size in range(1, 21):
        cut = logits[size - 1][inside[size - 1]].numpy()
        top = np.sort(cut, axis=0)[-max(1, math.ceil(size / divisor)) :]
        np.testing.assert_allclose(found[size - 1].numpy(), top.mean(axis=0), rtol=1e-12)
        alone.append(mil_loss(torch.from_numpy(cut)[None], labels[size - 1 : size], divisor).item())
    assert mil_loss(logits, labels, divisor, inside).item() == pytest.approx(np.mean(alone), rel=1e-12)
    everything = torch.ones_like(inside)
    torch.testing.assert_close(bag_logits(logits, divisor, everything), bag_logits(logits, divisor))


def test_nothing_flows_from_a_bag_in_a_scene_to_the_rest_of_it() -> None:
    logits, labels, inside = (torch.from_numpy(array) for array in bags_in_scenes(0))
    logits.requires_grad_()
    mil_loss(logits, labels, 8, inside).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert logits.grad[~inside].abs().max() == 0
    reached = (logits.grad != 0).any(dim=2).sum(dim=1)
    assert (reached >= 1).all(), "every bag, the one of a single instance included"


def test_least_uncertainty_is_the_least() -> None:
    torch.manual_seed(0)
    bad = torch.ones(3, 5, dtype=torch.bool)
    for reduction in ("sum", "mean"):
        least = least_uncertainty(7, reduction)
        assert uncertainty_loss(torch.zeros(3, 5, 7), bad, reduction).item() == pytest.approx(least)
        assert uncertainty_loss(torch.randn(3, 5, 7), bad, reduction).item() > least


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    value = LOSSES[name]
    leaf = torch.from_numpy(START).clone().requires_grad_()
    value(leaf).backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0.01
    for index in np.ndindex(*START.shape):
        step = np.zeros_like(START)
        step[index] = 1e-6
        slope = (value(torch.from_numpy(START + step)) - value(torch.from_numpy(START - step))).item() / 2e-6
        assert leaf.grad[index].item() == pytest.approx(slope, abs=1e-7)
