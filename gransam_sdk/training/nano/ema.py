"""A running mean of the weights: what is judged and shipped, because single steps are noisy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """Exponential mean of a module's state (Polyak and Juditsky 1992; the warm-up is TensorFlow's).

    Args:
        module: Whose state is taken as it is now.
        decay: Of the mean, reached after some steps: min(decay, (1 + n) / (10 + n)) at step n, so that where training
            began is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes another step's weights in; counters, which have no mean, are copied."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = module.state_dict()
        for name, mean in self.state.items():
            if mean.is_floating_point():
                mean.lerp_(current[name], 1.0 - decay)
            else:
                mean.copy_(current[name])

    def restore(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Goes on from a saved mean of so many steps."""
        self.steps = steps
        for name, mean in self.state.items():
            mean.copy_(state[name])
