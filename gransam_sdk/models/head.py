"""GranSAM's head: which class a prompt's mask tokens belong to.

Source: arXiv 2312.02420, supplement: fc 1024→512, fc1 512→256, fc2 256→128, each with ReLU, dropout after the last of
them, fc3 128→k without activation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """Instances to class logits, inputs standardised by the training set's mean and deviation.

    Args:
        width: Width of an instance: 4·d for tokens alone (1024), 4·d + f with pooled features.
        classes: k.
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
