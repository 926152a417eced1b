"""GranSAM's losses: multiple-instance learning over a photo's prompts, and uncertainty distillation.

Source: arXiv 2312.02420, equations (1)-(4). A photo is a bag of g instances, one a prompt; its label is known, its
instances' labels are not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .config import ClassReduction, EntropyRule

NORMALISED_ENTROPY = 0.5
"""Share of ln C from which the rule ``normalised`` calls an instance unsure."""
ENTROPY_QUANTILE = 0.5
"""Share of the training instances that the rule ``quantile`` calls sure."""


def bag_size(instances: int, divisor: int) -> int:
    """Equation (1): k = max(1, ceil(g / a)), how many instances speak for a class. g = 100, a = 8 gives 13."""
    return max(1, math.ceil(instances / divisor))


def bag_logits(logits: Tensor, divisor: int, inside: Tensor | None = None) -> Tensor:
    """Equation (2): instance logits (b,g,k) to bag logits (b,k), the mean of each class's largest.

    Args:
        logits: (b,g,k).
        divisor: a.
        inside: (b,g) bool, the instances of each bag, at least one; None for all.
    """
    if inside is None:
        return logits.topk(bag_size(logits.shape[1], divisor), dim=1).values.mean(dim=1)
    sizes = (inside.sum(dim=1) + divisor - 1) // divisor  # equation (1), bag by bag
    top = logits.masked_fill(~inside[..., None], -math.inf).topk(int(sizes.max()), dim=1).values
    counted = torch.arange(top.shape[1]) < sizes[:, None]
    return top.masked_fill(~counted[..., None], 0.0).sum(dim=1) / sizes[:, None]


def mil_loss(logits: Tensor, labels: Tensor, divisor: int, inside: Tensor | None = None) -> Tensor:
    """Equation (3): cross-entropy of the bags.

    Args:
        logits: (b,g,k) instance logits.
        labels: (b,k) multi-hot; normalised to sum to 1 here, so class and explicit background weigh half each.
        divisor: a.
        inside: See ``bag_logits``.

    Returns:
        Scalar, mean over bags. The softmax comes after pooling.
    """
    target = labels / labels.sum(dim=1, keepdim=True)
    return -(target * bag_logits(logits, divisor, inside).log_softmax(dim=1)).sum(dim=1).mean()


def entropy_threshold(classes: int, top: float = 0.7) -> float:
    """Entropy in nats of a distribution with one probability of ``top`` and the rest uniform: 1.494 for 20 classes.

    The paper states no threshold; this one agrees with its confidence threshold of 0.7.
    """
    if classes < 2:
        return 0.0
    rest = 1.0 - top
    return -(top * math.log(top) + rest * math.log(rest / (classes - 1)))


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the softmax over the last axis: (...,k) to (...)."""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def unsure_from(rule: EntropyRule, teacher_logits: Tensor) -> float:
    """The entropy in nats from which the teacher counts as unsure.

    Args:
        rule: See ``HeadConfig.entropy_rule``.
        teacher_logits: (m,g,k) of all training instances: ``quantile`` is one number for all pictures, and not one a
            batch, so that what is bad does not change with the order of the pictures.
    """
    classes = teacher_logits.shape[-1]
    if rule == "normalised":
        return NORMALISED_ENTROPY * math.log(classes)
    if rule == "quantile":
        return float(np.quantile(entropy(teacher_logits).numpy(), ENTROPY_QUANTILE))
    return entropy_threshold(classes)


def bad_instances(teacher_logits: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """B of equation (4): instances that the teacher is unsure of, or sure and wrong.

    Args:
        teacher_logits: (b,g,k), from the teacher in evaluation mode.
        labels: (b,g,k) multi-hot of the bag that each instance is in; wrong means a most probable class outside them.
        threshold: Entropy in nats from which an instance counts as unsure.

    Returns:
        (b,g) bool.
    """
    right = labels.gather(2, teacher_logits.argmax(dim=2, keepdim=True)).squeeze(2) > 0
    return (entropy(teacher_logits) >= threshold) | ~right


def uncertainty_loss(logits: Tensor, bad: Tensor, reduction: ClassReduction = "sum") -> Tensor:
    """Equation (4): the student's cross-entropy with the uniform distribution on bad instances.

    Args:
        logits: (b,g,k) student logits.
        bad: (b,g) bool.
        reduction: Over classes: ``sum`` as printed, or ``mean``.

    Returns:
        Scalar: mean over a picture's bad instances (0 where there are none), mean over pictures. Its least value per
        picture with bad instances is ``least_uncertainty``.
    """
    log_p = logits.log_softmax(dim=2)
    to_uniform = -(log_p.sum(dim=2) if reduction == "sum" else log_p.mean(dim=2)) * bad
    return (to_uniform.sum(dim=1) / bad.sum(dim=1).clamp(min=1)).mean()


def least_uncertainty(classes: int, reduction: ClassReduction = "sum") -> float:
    """What the uncertainty loss of a bad instance cannot fall below: k·ln k for ``sum``, ln k for ``mean``."""
    return (classes if reduction == "sum" else 1) * math.log(classes)


def background_loss(logits: Tensor, reduction: ClassReduction = "sum") -> Tensor:
    """The same cross-entropy for instances (m,g,k) of photos that show none of the classes; scalar."""
    everything = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    return uncertainty_loss(logits, everything, reduction)
