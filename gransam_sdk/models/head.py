"""Heads: which class a prompt's mask tokens belong to. GranSAM's, and one of nearest prototypes.

Source of GranSAM's: arXiv 2312.02420, supplement: fc 1024→512, fc1 512→256, fc2 256→128, each with ReLU, dropout after
the last of them, fc3 128→k without activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """Instances to class logits, inputs standardised by the training set's mean and deviation.

    Args:
        width: Width of an instance: 4·d for tokens alone (1024), 4·d + f with pooled features.
        classes: k; one more with explicit background.
        dropout: Probability of dropping a unit before the last layer (the paper: 0.9).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.fc = nn.Linear(width, 512)
        self.fc1 = nn.Linear(512, 256)
        self.fc2 = nn.Linear(256, 128)
        self.fc3 = nn.Linear(128, classes)
        self.dropout = dropout

    def forward(self, instances: Tensor) -> Tensor:
        """(...,width) to logits (...,k)."""
        x = (instances - self.mean) / self.deviation
        x = F.relu(self.fc(x))
        x = F.relu(self.fc1(x))
        x = F.dropout(F.relu(self.fc2(x)), self.dropout, self.training)
        out: Tensor = self.fc3(x)
        return out

    def fold_temperature(self, temperature: float) -> None:
        """Divides the logits by a temperature above 0, for good, in the last layer."""
        with torch.no_grad():
            self.fc3.weight.div_(temperature)
            self.fc3.bias.div_(temperature)


class HeadEnsemble(nn.Module):
    """The mean of the logits of several heads.

    Args:
        heads: At least one, of the same inputs.
    """

    mean: Tensor

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.register_buffer("mean", heads[0].mean.clone(), persistent=False)

    def forward(self, instances: Tensor) -> Tensor:
        """(...,width) to logits (...,k)."""
        return torch.stack([head(instances) for head in self.heads]).mean(dim=0)

    def fold_temperature(self, temperature: float) -> None:
        """Divides the logits by a temperature above 0, for good, in every head's last layer."""
        for head in self.heads:
            cast("Head", head).fold_temperature(temperature)


class PrototypeHead(nn.Module):
    """Instances to logits by the nearest of each class's prototypes.

    A logit is minus the squared distance of the standardised instance to the class's nearest prototype, times a scale.
    What the instance alone decides is left out: the same for all classes, softmax does not see it.

    Args:
        prototypes: (k,p,width) float32, in standardised coordinates; a class with fewer repeats one of its own.
        mean: (width,) float32 of the training set.
        deviation: (width,) float32, above 0.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor

    def __init__(self, prototypes: Tensor, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("deviation", deviation.clone())
        self.register_buffer("scale", torch.ones(()))
        self.prototypes = nn.Parameter(prototypes.clone(), requires_grad=False)

    def forward(self, instances: Tensor) -> Tensor:
        """(...,width) to logits (...,k)."""
        x = (instances - self.mean) / self.deviation
        classes, count, width = self.prototypes.shape
        flat = self.prototypes.reshape(classes * count, width)
        nearness = 2 * (x @ flat.T) - (flat * flat).sum(dim=1)  # |x|^2 minus the squared distance
        out: Tensor = self.scale * nearness.unflatten(-1, (classes, count)).amax(dim=-1)
        return out

    def fold_temperature(self, temperature: float) -> None:
        """Divides the logits by a temperature above 0, for good."""
        self.scale.div_(temperature)
