"""Bags to what a training loop reads: instances of one kind, multi-hot labels, the hold-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..shapes import Bool
from .config import HeadConfig, Inputs
from .split import hold_out
from .tokens import BACKGROUND, Bags

MASK_TOKENS = 3
"""Tokens 1 to 3, whose masks compete for a prompt; token 0 is the single-mask mode's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """What a head is fitted on.

    Attributes:
        classes: k.
        instances: (m,g,w) float16 bags; 3·g for instances a token.
        labels: (m,c) float32 multi-hot; c is k, or k + 1 with explicit background.
        background: (n,g,w) float16, the ``_background`` pictures of implicit background.
        held: (h,g,w) float16, class pictures kept from training.
        held_labels: (h,) int64.
    """

    classes: int
    instances: Tensor
    labels: Tensor
    background: Tensor
    held: Tensor
    held_labels: Tensor


def select_instances(bags: Bags, inputs: Inputs, rows: Bool | None = None) -> Tensor:
    """Instances (m,g,w) float16 of the pictures in ``rows`` (m,) or of all; (m,3·g,d) for ``per_token``."""
    chosen = bags.instances if rows is None else bags.instances[rows]
    if inputs == "per_token":
        width = bags.token_width // 4
        tokens = chosen[:, :, width : bags.token_width]
        chosen = tokens.reshape(len(chosen), MASK_TOKENS * chosen.shape[1], width)
    elif inputs == "tokens":
        chosen = chosen[:, :, : bags.token_width]
    return torch.from_numpy(chosen.copy())


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
    held = hold_out(bags.labels, config.hold_out, config.seed) & of_class
    if config.hold_out and not held.any():
        raise InputError("hold_out", expected="a class with two pictures or more", found="one picture a class")
    rows = ~held if explicit else ~held & of_class
    index = torch.from_numpy(bags.labels[rows].copy())
    labels = F.one_hot(index.clamp(min=0), config.outputs(count)).float()
    if explicit:
        labels[index < 0] = 0.0
        labels[:, count] = 1.0
    return TrainingSet(
        classes=count,
        instances=select_instances(bags, config.inputs, rows),
        labels=labels,
        background=select_instances(bags, config.inputs, ~of_class & (not explicit)),
        held=select_instances(bags, config.inputs, held),
        held_labels=torch.from_numpy(bags.labels[held].copy()),
    )


def spread(instances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (w,) float32 that instances (m,g,w) are standardised by."""
    flat = instances.float().flatten(0, 1)
    return flat.mean(0), flat.std(0) + 1e-3


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


def class_rows(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Rows (r,) of multi-hot labels (m,c) that show a class, and that class (r,)."""
    of_class = labels[:, :classes]
    rows = of_class.sum(dim=1).nonzero().flatten()
    return rows, of_class[rows].argmax(dim=1)


def as_labels(bags: Bags) -> Tensor:
    """(m,) int64 labels of bags, -1 for background."""
    return torch.from_numpy(np.array(bags.labels, dtype=np.int64))
