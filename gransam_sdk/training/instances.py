"""Bags to what a training loop reads: instances of one kind, multi-hot labels of every part, the hold-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..shapes import Bool, Int
from .bags import Bags
from .config import HeadConfig, Inputs
from .folds import held_folds
from .scenes import NO_PART
from .sources.folder import BACKGROUND

MASK_TOKENS = 3
"""Tokens 1 to 3, whose masks compete for a prompt; token 0 is the single-mask mode's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """What a head is fitted on. A picture is one part, a scene several; every part with a label is a bag.

    Attributes:
        classes: k.
        pictures: How many of the m are pictures.
        instances: (m,g,w) float16, pictures and then scenes; 3·g for instances a token.
        labels: (m,p,c) float32 multi-hot of each part, all 0 where it shows no class or is not there; c is k, or k + 1
            with explicit background.
        part_of: (m,g) int64, the part that each instance lies on; what surrounds an object lies on one of background.
        background: (n,g,w) float16, the ``_background`` pictures of implicit background.
        held: (h,g,w) float16, class pictures kept from training.
        held_labels: (h,) int64.
    """

    classes: int
    pictures: int
    instances: Tensor
    labels: Tensor
    part_of: Tensor
    background: Tensor
    held: Tensor
    held_labels: Tensor

    def instance_labels(self) -> Tensor:
        """(m,g,c) labels of the part that each instance lies on."""
        index = self.part_of[:, :, None].expand(-1, -1, self.labels.shape[2])
        return self.labels.gather(1, index)


def select_instances(bags: Bags, inputs: Inputs, rows: Bool | None = None) -> Tensor:
    """Instances (m,g,w) float16 of the pictures in ``rows`` (m,) or of all; (m,3·g,d) for ``per_token``."""
    return _instances(bags.instances if rows is None else bags.instances[rows], bags, inputs)


def select_scene_instances(bags: Bags, inputs: Inputs) -> Tensor:
    """The same of all scenes."""
    return _instances(bags.scenes.instances, bags, inputs)


def training_set(bags: Bags, config: HeadConfig) -> TrainingSet:
    """Sorts pictures by what they are for.

    Raises:
        InputError: One class without explicit background or without background pictures; or a hold-out that cannot be:
            of one class, whose bags are always right, or of classes with one picture each.
    """
    explicit = config.background == "explicit"
    of_class = bags.labels >= 0
    count = len(bags.classes)
    _check(count, config, background=bool((~of_class).any()))
    folds = held_folds(bags.folds[of_class], config.hold_out, config.seed)
    held = np.isin(bags.folds, folds)
    if config.hold_out and not (held & of_class).any():
        raise InputError("hold_out", expected="a class with two pictures or more", found="one picture a class")
    rows = ~held if explicit else ~held & of_class
    scenes = bags.scenes.take(~np.isin(bags.scenes.folds, folds) & config.scenes)
    instances = [select_instances(bags, config.inputs, rows), _instances(scenes.instances, bags, config.inputs)]
    parts = _stack([bags.labels[rows, None], scenes.parts])
    alone = np.zeros(bags.rim[rows].shape, dtype=np.int64)
    around = np.concatenate([bags.rim[rows], scenes.rim]) >= config.rim
    around[: len(alone)] &= ~around[: len(alone)].all(axis=1, keepdims=True)  # an object that fills the picture
    # What surrounds an object lies on a part of its own, which is background.
    part_of = np.where(around, parts.shape[1], np.concatenate([alone, scenes.part_of]))
    if around.any():
        parts = np.pad(parts, ((0, 0), (0, 1)), constant_values=-1)
    return TrainingSet(
        classes=count,
        pictures=int(rows.sum()),
        instances=torch.cat(instances),
        labels=part_labels(parts, count, explicit=explicit),
        part_of=torch.from_numpy(np.repeat(part_of, instances[0].shape[1] // part_of.shape[1], axis=1)),
        background=select_instances(bags, config.inputs, ~held & ~of_class & (not explicit)),
        held=select_instances(bags, config.inputs, held & of_class),
        held_labels=torch.from_numpy(bags.labels[held & of_class].copy()),
    )


def part_labels(parts: Int, classes: int, *, explicit: bool) -> Tensor:
    """Multi-hot labels of parts.

    Args:
        parts: (m,p) class index; -1 background, less for no part.
        classes: k.
        explicit: Background has the last column: alone for background, beside the class for a class picture.

    Returns:
        (m,p,k) or (m,p,k+1) float32; all 0 for no part, and for background that is not explicit.
    """
    index = torch.from_numpy(np.ascontiguousarray(parts))
    labels = F.one_hot(index.clamp(min=0), classes).float() * (index >= 0)[..., None]
    if explicit:
        labels = torch.cat([labels, (index >= -1).float()[..., None]], dim=2)
    return labels


def spread(instances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (w,) float32 that instances (m,g,w) are standardised by."""
    total, squares = (torch.zeros(instances.shape[2], dtype=torch.float64) for _ in range(2))
    for part in instances.split(64):
        flat = part.flatten(0, 1).double()
        total += flat.sum(0)
        squares += (flat * flat).sum(0)
    count = instances.shape[0] * instances.shape[1]
    mean = total / count
    variance = (squares - count * mean * mean).clamp(min=0) / max(count - 1, 1)
    return mean.float(), variance.sqrt().float() + 1e-3


def as_labels(bags: Bags) -> Tensor:
    """(m,) int64 labels of bags, -1 for background."""
    return torch.from_numpy(np.array(bags.labels, dtype=np.int64))


def _instances(chosen: NDArray[np.float16], bags: Bags, inputs: Inputs) -> Tensor:
    if inputs == "per_token":
        width = bags.token_width // 4
        tokens = chosen[:, :, width : bags.token_width]
        chosen = tokens.reshape(len(chosen), MASK_TOKENS * chosen.shape[1], width)
    elif inputs == "tokens":
        chosen = chosen[:, :, : bags.token_width]
    elif inputs == "features":
        chosen = chosen[:, :, bags.token_width :]
    return torch.from_numpy(chosen.copy())


def _stack(parts: list[Int]) -> Int:
    """(m,p) of arrays (m,p) whose p may differ; what is missing is no part."""
    parts = [part for part in parts if len(part)]
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=NO_PART) for part in parts]
    )


def _check(classes: int, config: HeadConfig, *, background: bool) -> None:
    if classes > 1:
        return
    if config.background == "implicit" or not background:
        raise InputError(
            "one class",
            expected=f"explicit background and a folder {BACKGROUND}: a head can only tell things apart",
            found=f"{config.background} background, {'with' if background else 'no'} {BACKGROUND} pictures",
            do=f"add {BACKGROUND} with pictures of what the class must not be taken for, or a second class",
        )
    if config.hold_out:
        raise InputError("hold_out", expected="0 with one class, whose bags are always right", found="a hold-out")
