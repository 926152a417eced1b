"""What a click's answer should be: three masks of which one must fit, one for whole objects, and honest IoUs.

SAM (Kirillov et al. 2023, appendix A) trains the least loss of three masks on focal and dice loss, 20 to 1, and the
predicted IoU on its squared error. From a random start on small data that ends in empty masks: most pixels of most
masks are background, and the focal loss lets them win. Here the focal loss is replaced by cross-entropy in which both
sides of a mask weigh nearly the same, whatever its area.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import SegmenterConfig

LEAST_SHARE = 1e-3
"""A mask below this share of the square is weighed as if it had it."""


class MaskLoss(NamedTuple):
    """Scalars.

    Attributes:
        total: What is minimised.
        best: Mean of each click's least loss of masks 1 to 3.
        iou_single: Mean IoU of mask 0 on whole objects; nan where the batch has none.
        iou_best: Mean of each click's largest IoU of masks 1 to 3.
        iou_predicted: Mean IoU of the mask of 1 to 3 whose predicted IoU is the largest.
    """

    total: Tensor
    best: Tensor
    iou_single: Tensor
    iou_best: Tensor
    iou_predicted: Tensor


def mask_loss(logits: Tensor, iou: Tensor, truth: Tensor, whole: Tensor, config: SegmenterConfig) -> MaskLoss:
    """The loss of n clicks.

    Args:
        logits: (n,4,l,l) float32.
        iou: (n,4) predicted.
        truth: (n,l,l) in [0,1], the share of each low-res pixel that is inside.
        whole: (n,) bool, whether the truth is one whole object.
        config: Weights.
    """
    losses = per_mask(logits, truth, config)  # (n,4)
    found = hard_iou(logits.detach(), truth)
    several = losses[:, 1:]
    best = several.min(dim=1).values.mean()
    total = best + config.mean_of_three * several.mean() + F.mse_loss(iou, found)
    if whole.any():
        total = total + config.whole * losses[whole, 0].mean()
    predicted = iou[:, 1:].argmax(dim=1, keepdim=True)
    return MaskLoss(
        total=total,
        best=best.detach(),
        iou_single=found[whole, 0].mean(),
        iou_best=found[:, 1:].max(dim=1).values.mean(),
        iou_predicted=found[:, 1:].gather(1, predicted).mean(),
    )


def per_mask(logits: Tensor, truth: Tensor, config: SegmenterConfig) -> Tensor:
    """(n,4) loss of each mask: balanced cross-entropy plus dice (Milletari et al. 2016, smoothed by 1)."""
    wanted = truth[:, None].expand_as(logits)
    share = truth.mean((1, 2)).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE)[:, None, None, None]
    inside, outside = (0.5 / share) ** config.balance, (0.5 / (1.0 - share)) ** config.balance
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    balanced = (entropy * (inside * wanted + outside * (1.0 - wanted))).mean((2, 3))
    p = logits.sigmoid()
    both, either = (p * wanted).sum((2, 3)), p.sum((2, 3)) + wanted.sum((2, 3))
    return balanced + config.dice * (1.0 - (2.0 * both + 1.0) / (either + 1.0))


def hard_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """(n,4) IoU of the masks (logits above 0) with the truth (above one half)."""
    found, wanted = logits > 0, (truth > 0.5)[:, None]
    both = (found & wanted).sum((2, 3)).float()
    return both / (found | wanted).sum((2, 3)).float().clamp(min=1.0)


def feature_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of maps (b,c,y,x) in units of each channel's variance in the batch; scalar."""
    variance = wanted.var((0, 2, 3), correction=0, keepdim=True) + 1e-4
    return torch.mean((found.float() - wanted).square() / variance)
