"""The head graphs of a bundle as torch modules, and what the other graphs have in common.

Axes and names are the contract of ``docs/bundle-format.md``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LATTICE_OFFSET = 1
"""The lattice is ``low_res[1::4, 1::4]``: with l = 4e, rows 1 and 2 of four lie nearest the cell's centre."""


class HeadGraph(nn.Module):
    """Class logits of prompts, from tokens and pooled features."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Mask tokens (g,4,d) and the chosen masks' pooled features (g,f) to logits (g,c)."""
        out: Tensor = self.head(torch.cat([tokens.flatten(1), features], dim=1))
        return out


class TokenHeadGraph(nn.Module):
    """Class logits of prompts, from tokens alone (the paper's head)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        """Mask tokens (g,4,d) to logits (g,c)."""
        out: Tensor = self.head(tokens.flatten(1))
        return out


class FeatureHeadGraph(nn.Module):
    """Class logits of prompts, from pooled features alone."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """The chosen masks' pooled features (g,f) to logits (g,c)."""
        out: Tensor = self.head(features)
        return out


class MaskHeadGraph(nn.Module):
    """Class logits of masks 1 to 3, each from its own token."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        """Mask tokens (g,4,d) to logits (g,3,c)."""
        out: Tensor = self.head(tokens[:, 1:])
        return out
