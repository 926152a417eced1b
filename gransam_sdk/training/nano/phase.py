"""What the three phases of a training have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor, nn

from ...models.nano import Nano
from .batches import Batch
from .config import SegmenterConfig

Losses = Mapping[str, Tensor]
"""Scalars by name; ``total`` is minimised, the others are only told."""


class Phase(Protocol):
    """One way to look at batches.

    Attributes:
        name: Of the phase.
        stream: Number of the random numbers that its batches are drawn by.
        clicks: Whether its batches have clicks.
        clip: Largest norm of a step's gradients.
    """

    name: str
    stream: int
    clicks: bool
    clip: float

    def groups(self, nano: Nano, config: SegmenterConfig) -> list[dict[str, object]]:
        """What it trains, as AdamW's parameter groups with their largest learning rates under ``lr``."""
        ...

    def losses(self, nano: Nano, batch: Batch, config: SegmenterConfig) -> Losses:
        """Of one batch."""
        ...


def group(modules: Iterable[nn.Module], rate: float, decay: float) -> list[dict[str, object]]:
    """Parameter groups: matrices and kernels decay, biases, norms and single rows do not."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    heavy = [parameter for parameter in parameters if parameter.ndim > 1 and len(parameter) > 1]
    kept = set(map(id, heavy))
    light = [parameter for parameter in parameters if id(parameter) not in kept]
    return [
        {"params": heavy, "lr": rate, "weight_decay": decay},
        {"params": light, "lr": rate, "weight_decay": 0.0},
    ]
