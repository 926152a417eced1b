"""The mask loss against the formulas in float64, who learns from which click, and why nothing ends empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gransam_sdk.models.imagenet_teacher import Teacher
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.distill import meaning_error
from gransam_sdk.training.nano.mask_loss import feature_error, hard_iou, mask_loss, per_mask

CONFIG = SegmenterConfig()
Array = NDArray[np.float64]


def case(seed: int = 0, clicks: int = 5, side: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(clicks, 4, side, side, generator=generator)
    sixteenths = torch.randint(0, 17, (clicks, side, side), generator=generator)
    truth = sixteenths.float() / 16 * (torch.rand(clicks, side, side, generator=generator) < 0.3)
    whole = torch.tensor([True, False, True, False, False])[:clicks]
    return logits, torch.rand(clicks, 4, generator=generator), truth, whole


def by_hand(logits: Array, truth: Array) -> float:
    """Loss of one mask (l,l)."""
    p = 1 / (1 + np.exp(-logits))
    a = np.clip(truth.mean(), 1e-3, 1 - 1e-3)
    positive, negative = (0.5 / a) ** 0.6, (0.5 / (1 - a)) ** 0.6
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    balanced = (entropy * (positive * truth + negative * (1 - truth))).mean()
    dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    return float(balanced + 1.5 * dice)


def test_against_float64() -> None:
    logits, iou, truth, whole = case()
    found = mask_loss(logits, iou, truth, whole, CONFIG)
    losses, overlaps = np.zeros((5, 4)), np.zeros((5, 4))
    for i in range(5):
        for j in range(4):
            mask, wanted = logits[i, j].numpy().astype(np.float64), truth[i].numpy().astype(np.float64)
            losses[i, j] = by_hand(mask, wanted)
            inside, of_truth = mask > 0, wanted > 0.5
            overlaps[i, j] = (inside & of_truth).sum() / max(1, (inside | of_truth).sum())
    np.testing.assert_allclose(per_mask(logits, truth, CONFIG).numpy(), losses, rtol=1e-5)
    np.testing.assert_allclose(hard_iou(logits, truth).numpy(), overlaps, rtol=1e-6)
    best = losses[:, 1:].min(axis=1).mean()
    total = best + 0.05 * losses[:, 1:].mean() + 0.5 * losses[[0, 2], 0].mean()
    total += np.square(iou.numpy() - overlaps).mean()
    assert float(found.total) == pytest.approx(total, rel=1e-5)
    assert float(found.best) == pytest.approx(best, rel=1e-5)
    assert float(found.iou_single) == pytest.approx(overlaps[[0, 2], 0].mean(), rel=1e-5)
    assert float(found.iou_best) == pytest.approx(overlaps[:, 1:].max(axis=1).mean(), rel=1e-5)
    predicted = overlaps[np.arange(5), 1 + iou[:, 1:].numpy().argmax(axis=1)]
    assert float(found.iou_predicted) == pytest.approx(predicted.mean(), rel=1e-5)


def test_the_best_of_three_learns_and_token_0_on_whole_objects_only() -> None:
    logits, iou, truth, whole = case()
    logits.requires_grad_(True)
    config = SegmenterConfig(mean_of_three=0.0)
    mask_loss(logits, iou, truth, whole, config).total.backward()
    assert logits.grad is not None
    learns = logits.grad.abs().sum((2, 3)) > 0
    assert torch.equal(learns[:, 0], whole)
    assert (learns[:, 1:].sum(1) == 1).all()
    best = per_mask(logits.detach(), truth, config)[:, 1:].argmin(1)
    assert torch.equal(learns[:, 1:].int().argmax(1), best)
    relaxed = logits.detach().clone().requires_grad_(True)
    mask_loss(relaxed, iou, truth, whole, CONFIG).total.backward()
    assert relaxed.grad is not None and (relaxed.grad[:, 1:].abs().sum((2, 3)) > 0).all(), "no token starves"


def test_no_whole_object_is_no_nan() -> None:
    logits, iou, truth, _ = case()
    found = mask_loss(logits, iou, truth, torch.zeros(5, dtype=torch.bool), CONFIG)
    assert torch.isfinite(found.total) and torch.isnan(found.iou_single)


def test_predicted_iou_learns_the_real_one() -> None:
    logits, _, truth, whole = case()
    iou = torch.zeros(5, 4, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(mask_loss(logits, iou, truth, whole, CONFIG).total, iou)
        iou = (iou - 2.0 * gradient).detach().requires_grad_(True)
    torch.testing.assert_close(iou.detach(), hard_iou(logits, truth), atol=1e-3, rtol=0)


def sam_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """SAM's as published: focal (gamma 2, alpha 0.25, Lin et al. 2017) and dice, 20 to 1."""
    p = logits.sigmoid()
    right = p * truth + (1 - p) * (1 - truth)
    alpha = 0.25 * truth + 0.75 * (1 - truth)
    focal = (-alpha * (1 - right).square() * right.log()).mean()
    dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    return 20 * focal + dice


def outvoted(loss: Tensor, logits: Tensor) -> float:
    """How many times stronger the background pulls all logits down than the mask pulls them up."""
    (gradient,) = torch.autograd.grad(loss, logits)
    return float(gradient.clamp(min=0).sum() / -gradient.clamp(max=0).sum())


@pytest.mark.parametrize("area", [4, 16, 64])
def test_background_does_not_outvote_a_small_mask(area: int) -> None:
    """At a random start all logits are near 0 and move together: what wins there decides whether masks end empty."""
    side = round(area**0.5)
    truth = torch.zeros(1, 56, 56)
    truth[0, 20 : 20 + side, 20 : 20 + side] = 1
    logits = torch.zeros(1, 4, 56, 56, requires_grad=True)
    ours = outvoted(per_mask(logits, truth, CONFIG)[0, 1], logits)
    sams = outvoted(sam_loss(logits[0, 1], truth[0]), logits)
    unbalanced = outvoted(per_mask(logits, truth, SegmenterConfig(balance=0.0))[0, 1], logits)
    assert ours < unbalanced / 3 < sams / 10


def test_an_empty_mask_is_left_again() -> None:
    """Where all is background already, the mask pulls harder than the rest pushes; without the balance it does not."""
    truth = torch.zeros(1, 56, 56)
    truth[0, 10:14, 10:14] = 1
    logits = torch.full((1, 4, 56, 56), -6.0, requires_grad=True)
    assert outvoted(per_mask(logits, truth, CONFIG)[0, 2], logits) < 1 / 3
    assert outvoted(per_mask(logits, truth, SegmenterConfig(balance=0.0))[0, 2], logits) > 1


def test_feature_error_against_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 10.0])[:, None, None]
    wanted = scale * torch.randn(4, 3, 5, 5, generator=generator)
    found = wanted + 0.5 * scale * torch.randn(4, 3, 5, 5, generator=generator)
    variance = wanted.double().numpy().var(axis=(0, 2, 3), keepdims=True) + 1e-4
    expected = (np.square(found.double().numpy() - wanted.double().numpy()) / variance).mean()
    assert float(feature_error(found, wanted)) == pytest.approx(expected, rel=1e-5)
    mean = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert float(feature_error(mean, wanted)) == pytest.approx(1.0, abs=0.01)


def test_meaning_error_against_float64() -> None:
    """The divergence of the softmax over the teacher's classes, from its weights by hand."""
    generator = torch.Generator().manual_seed(0)
    teacher = Teacher().requires_grad_(False)
    wanted = torch.randn(2, 320, 3, 2, generator=generator)
    found = (wanted + torch.randn(wanted.shape, generator=generator)).requires_grad_(True)

    def judged(maps: Tensor) -> Array:
        cells = maps.detach().double().permute(0, 2, 3, 1).reshape(-1, 320).numpy()
        for layer in (teacher.last, teacher.classifier):
            weight, bias = (value.double().numpy() for value in (layer.weight.flatten(1), layer.bias))
            cells = cells @ weight.T + bias
            cells = np.clip(cells, 0, 6) if layer is teacher.last else cells
        power = np.exp(cells - cells.max(axis=1, keepdims=True))
        return power / power.sum(axis=1, keepdims=True)

    p, q = judged(wanted), judged(found)
    error = meaning_error(teacher, found, wanted)
    assert float(error.detach()) == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-3)
    error.backward()
    assert found.grad is not None and found.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters()), "the teacher is not trained"
    assert float(meaning_error(teacher, wanted, wanted)) == pytest.approx(0.0, abs=1e-5)
