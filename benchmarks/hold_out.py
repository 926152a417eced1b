"""What a head makes of held-out pictures and scenes, as counts a unit; scores and a paired bootstrap from them.

A unit is a picture or a scene. Its counts are kept for every threshold, so that any score, and any draw of units, needs
no head.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gransam_sdk.shapes import Bool, Int
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.calibrate import instance_logits
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.instances import MASK_TOKENS, select_instances, select_scene_instances
from gransam_sdk.training.losses import bag_logits

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 20))
"""Confidences from which an instance may be kept: 0.10 to 0.95."""
DRAWS = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles that bound 95 % of the draws."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """Counts of u units, of one head; t thresholds.

    Attributes:
        in_scene: (u,) bool, whether the unit is a scene.
        shown: (u,) class pictures in it with a click on them: 0 or 1 of a picture.
        named: (u,) of them, those whose bag answer is their class.
        kept: (u,t) instances kept: the largest probability is a class's and reaches the threshold.
        right: (u,t) of them, those that carry the class of the picture under the click.
        found: (u,t) of the class pictures, those with such an instance on them.
        epochs: (n,) trained by teacher and student; none of prototypes.
    """

    in_scene: Bool
    shown: Int
    named: Int
    kept: Int
    right: Int
    found: Int
    epochs: Int

    def to_bytes(self) -> bytes:
        """An npz file."""
        file = io.BytesIO()
        np.savez_compressed(file, **asdict(self))
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Counts:
        """Of ``to_bytes``."""
        with np.load(io.BytesIO(data)) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})


def count_units(head: nn.Module, held: Bags, config: HeadConfig, epochs: Sequence[int] = ()) -> Counts:
    """Counts of held-out pictures, and of scenes of them.

    Args:
        head: In evaluation mode.
        held: Bags that it was not fitted on.
        config: The head's own: what an instance is, and how many speak for a bag.
        epochs: Trained.
    """
    classes, scenes = len(held.classes), held.scenes
    alone = instance_logits(head, select_instances(held, config.inputs))
    together = instance_logits(head, select_scene_instances(held, config.inputs))
    part_of = np.repeat(scenes.part_of, MASK_TOKENS if config.inputs == "per_token" else 1, axis=1)
    nowhere_else = np.zeros(alone.shape[:2], dtype=np.int64)
    sides = [
        count_parts(alone, held.labels[:, None], nowhere_else, classes=classes, divisor=config.divisor),
        count_parts(together, scenes.parts, part_of, classes=classes, divisor=config.divisor),
    ]
    joined = {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}
    in_scene = np.arange(len(alone) + len(together)) >= len(alone)
    return Counts(in_scene=in_scene, epochs=np.array(epochs, dtype=np.int64), **joined)


def count_parts(logits: Tensor, parts: Int, part_of: Int, *, classes: int, divisor: int) -> dict[str, Int]:
    """Counts by name, see ``Counts``, of units that consist of pictures.

    Args:
        logits: (u,g,c) of instances; columns from ``classes`` on are background's.
        parts: (u,p) class index of each picture; below 0 it has none.
        part_of: (u,g) the picture that each instance lies on.
        classes: k.
        divisor: a of equation (1).
    """
    inside = part_of[:, None, :] == np.arange(parts.shape[1])[None, :, None]  # (u,p,g)
    shown = (parts >= 0) & inside.any(axis=2)
    named = np.zeros(parts.shape, dtype=bool)
    unit, part = shown.nonzero()
    if len(unit):  # equation (2) over the instances on each picture
        bags = bag_logits(logits[torch.from_numpy(unit)], divisor, torch.from_numpy(inside[unit, part]))
        named[unit, part] = bags[:, :classes].argmax(dim=1).numpy() == parts[unit, part]
    probabilities = logits.softmax(dim=2).numpy()
    winner, confidence = probabilities.argmax(axis=2), probabilities.max(axis=2)
    confidence = np.where(winner < classes, confidence, -1.0)  # what background wins is never kept
    right = winner == np.take_along_axis(parts, part_of, axis=1)
    surest = np.where(inside & right[:, None], confidence[:, None], -1.0).max(axis=2)  # (u,p)
    return {
        "shown": shown.sum(axis=1),
        "named": named.sum(axis=1),
        "kept": _reached(confidence),
        "right": _reached(np.where(right, confidence, -1.0)),
        "found": _reached(np.where(shown, surest, -1.0)),
    }


def named_share(counts: Counts, *, in_scene: bool) -> float:
    """Share of the class pictures, alone or in scenes, whose bag answer is theirs; NaN where there are none."""
    rows = counts.in_scene == in_scene
    shown = int(counts.shown[rows].sum())
    return int(counts.named[rows].sum()) / shown if shown else float("nan")


def f1_scores(counts: Counts, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Harmonic mean of source precision and of the share of class pictures that are found.

    Args:
        counts: Of one head.
        weights: (n,u) how often each unit is drawn in each of n draws; None takes every unit once.

    Returns:
        (n,t), or (t,) without weights; 0 where nothing right is kept.
    """
    once = np.ones(len(counts.shown)) if weights is None else weights
    kept, right, found = (once @ values for values in (counts.kept, counts.right, counts.found))
    shown = (once @ counts.shown)[..., None]
    precision, share = right / np.maximum(kept, 1), found / np.maximum(shown, 1)
    scores: NDArray[np.float64] = 2 * precision * share / np.maximum(precision + share, 1e-12)
    return scores


def best_threshold(seeds: Sequence[Counts]) -> int:
    """Index of the threshold whose F1 is the best in the mean of the seeds; of equally good ones the lowest."""
    return int(np.mean([f1_scores(counts) for counts in seeds], axis=0).argmax())


def f1_difference(row: Sequence[Counts], reference: Sequence[Counts]) -> tuple[float, float, float]:
    """How much better a row's F1 is than the reference's, in the mean of the seeds, each at its own best threshold.

    Args:
        row: Counts of one head a seed.
        reference: The same of the other row, on the same units.

    Returns:
        The difference, and the bounds of its 95 % interval: ``DRAWS`` draws of units within each seed, the same ones
        for both. What another seed of the training would change is not in it.

    Raises:
        ValueError: The units are not the same.
    """
    at, base_at = best_threshold(row), best_threshold(reference)
    random = np.random.default_rng(0)
    exact, drawn = 0.0, np.zeros(DRAWS)
    for own, other in zip(row, reference, strict=True):
        if not (np.array_equal(own.shown, other.shown) and np.array_equal(own.in_scene, other.in_scene)):
            raise ValueError("the two rows were measured on different units")
        units = len(own.shown)
        weights = random.multinomial(units, np.full(units, 1 / units), size=DRAWS).astype(np.float64)
        exact += float(f1_scores(own)[at] - f1_scores(other)[base_at])
        drawn += f1_scores(own, weights)[:, at] - f1_scores(other, weights)[:, base_at]
    low, high = np.percentile(drawn / len(row), INTERVAL)
    return exact / len(row), float(low), float(high)


def _reached(confidence: NDArray[np.floating]) -> Int:
    """(u,t) how many of (u,...) confidences reach each threshold."""
    thresholds = np.array(THRESHOLDS, dtype=np.float32)
    reached: Int = (confidence[..., None] >= thresholds).sum(axis=1)
    return reached
