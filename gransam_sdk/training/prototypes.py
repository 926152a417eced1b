"""A head without gradient training: each class is a few prototypes, background too, and the nearest one names it.

Source of the idea: OVDiff (Karazija et al., ECCV 2024). Which instances of a class's pictures show the class is found
as equation (2) pools them: the top k of a bag, here by a linear score, estimated anew from what it selects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.head import PrototypeHead
from .bags import Bags
from .calibrate import fit_temperature
from .config import HeadConfig
from .instances import select_instances, spread
from .losses import bag_size
from .trainer import bag_accuracy

PROTOTYPES = 8
"""Prototypes of each class, and of background."""
ROUNDS = 5
"""Of selecting instances and estimating the score from them."""
KMEANS_ROUNDS = 20
MOST_POINTS = 20_000
"""Instances of a class that are clustered; of more, so many are drawn."""
SCALES = (0.005, 5.0)
"""Bounds of the temperature over the width of an instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPrototypes:
    """A prototype head.

    Attributes:
        head: In evaluation mode; its last logit is background's.
        bag_accuracy: Share of training pictures whose bag's most probable class is their folder's.
    """

    head: PrototypeHead
    bag_accuracy: float


def fit_prototypes(bags: Bags, config: HeadConfig) -> FittedPrototypes:
    """Clusters the instances that carry each class, and those that carry none.

    Args:
        bags: Instances of the example pictures; ``_background`` pictures are background altogether, class pictures with
            their lower half: between the two, it is not known what an instance shows.
        config: Of it, ``inputs``, ``divisor`` and ``seed`` are read.

    Returns:
        The head; its scale is the one with the least negative log-likelihood of the clustered instances.
    """
    of_class, classes = bags.labels >= 0, len(bags.classes)
    instances = select_instances(bags, config.inputs, of_class)
    labels = torch.from_numpy(bags.labels[of_class].copy())
    mean, deviation = spread(instances)
    top, low = pooled_instances(instances, labels, mean, deviation, classes=classes, divisor=config.divisor)
    background = select_instances(bags, config.inputs, ~of_class).flatten(0, 1)
    groups = [instances[labels == index][top[labels == index]] for index in range(classes)]
    groups.append(torch.cat([instances[low], background]))
    random = np.random.default_rng(config.seed)
    points = [_draw(group, random).float() for group in groups]
    centres = [k_means((group - mean) / deviation, PROTOTYPES, random) for group in points]
    head = PrototypeHead(torch.stack(centres), mean, deviation).eval()
    head.scale.fill_(1.0 / len(mean))
    truth = torch.arange(classes + 1).repeat_interleave(torch.tensor([len(group) for group in points]))
    head.fold_temperature(fit_temperature(head(torch.cat(points)), truth, SCALES))
    return FittedPrototypes(head=head, bag_accuracy=bag_accuracy(head, instances, labels, classes, config.divisor))


def pooled_instances(
    instances: Tensor, labels: Tensor, mean: Tensor, deviation: Tensor, *, classes: int, divisor: int
) -> tuple[Tensor, Tensor]:
    """The top k of each bag for its class, and its lower half.

    The score is the projection on the line from the mean of all lower halves to that of the class's top k, in
    standardised coordinates; in the first round, from the mean of all instances to that of the class's pictures.

    Args:
        instances: (m,g,w).
        labels: (m,) int64, 0 to ``classes`` - 1.
        mean: (w,) of the instances.
        deviation: (w,).
        classes: k.
        divisor: a of equation (1).

    Returns:
        Two of (m,g) bool, disjoint.
    """
    size = bag_size(instances.shape[1], divisor)
    top = torch.ones(instances.shape[:2], dtype=torch.bool)
    low, below = ~top, torch.zeros_like(mean)
    for _ in range(ROUNDS):
        total = torch.zeros_like(mean)
        for index in range(classes):
            own = labels == index
            x = (instances[own].float() - mean) / deviation
            order = (x @ (x[top[own]].mean(dim=0) - below)).argsort(dim=1, descending=True, stable=True)
            nothing = torch.zeros(order.shape, dtype=torch.bool)
            top[own] = nothing.scatter(1, order[:, :size], True)
            low[own] = nothing.scatter(1, order[:, max(size, (order.shape[1] + 1) // 2) :], True)
            total += x[low[own]].sum(dim=0)
        below = total / low.sum().clamp(min=1)
    return top, low


def k_means(points: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Lloyd's algorithm from a k-means++ start; (n,w) points to (count,w) centres, some equal where n is small."""
    centres = points[[int(random.integers(len(points)))]]
    while len(centres) < count:
        nearest = torch.cdist(points, centres).square().amin(dim=1).double().numpy()
        total = nearest.sum()
        pick = int(random.choice(len(points), p=nearest / total if total > 0 else None))
        centres = torch.cat([centres, points[[pick]]])
    for _ in range(KMEANS_ROUNDS):
        owner = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add(0, owner, points)
        sizes = torch.bincount(owner, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def _draw(group: Tensor, random: np.random.Generator) -> Tensor:
    """At most ``MOST_POINTS`` of (n,w)."""
    if len(group) <= MOST_POINTS:
        return group
    return group[np.sort(random.choice(len(group), size=MOST_POINTS, replace=False))]
