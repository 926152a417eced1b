"""The four graphs of a bundle as torch modules: what is exported, and nothing that is not.

Axes and names are the contract of ``docs/bundle-format.md``.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gransam_sdk.models.nano import Nano

from . import absorbed

LATTICE_OFFSET = 1
"""The lattice is ``low_res[1::4, 1::4]``: with l = 4e, rows 1 and 2 of four lie nearest the cell's centre."""


class Hoisted(NamedTuple):
    """What the image graph computes once a photo; the prompt and mask graphs take one photo's slice of each."""

    h_keys: Tensor  # (b,N,256) embedding + no-mask embedding, N = e·e
    h_k1: Tensor  # (b,8,16,N) first block, token to image
    h_v1: Tensor  # (b,8,N,16)
    h_q1: Tensor  # (b,8,N,16) first block, image to token
    h_features: Tensor  # (b,N,416) dense features
    h_lattice8: Tensor  # (b,N,64) stride-8 skip on the lattice
    h_lattice4: Tensor  # (b,N,32) stride-4 skip on the lattice
    h_skip8: Tensor  # (b,64,2e,2e)
    h_skip4: Tensor  # (b,32,4e,4e)


PROMPT_INPUTS = Hoisted._fields[:7]
MASK_INPUTS = Hoisted._fields[7:]


class ImageGraph(nn.Module):
    """Photo to hoisted tensors."""

    key_pe: Tensor

    def __init__(self, nano: Nano, side: int) -> None:
        super().__init__()
        self.nano = nano
        self.register_buffer("key_pe", nano.grid_encoding(side // 16))

    def forward(self, image: Tensor) -> Hoisted:
        """(b,3,s,s) normalised photo to ``Hoisted``."""
        embedding, skip8, skip4, features = self.nano.image_encoder(image)
        no_mask = self.nano.prompt_encoder.no_mask.weight
        keys = embedding.flatten(2).transpose(1, 2) + no_mask
        transformer = self.nano.mask_decoder.transformer
        row = LATTICE_OFFSET // 2
        return Hoisted(
            keys,
            *absorbed.hoist(transformer, keys, self.key_pe),
            features.flatten(2).transpose(1, 2),
            skip8[:, :, row::2, row::2].flatten(2).transpose(1, 2),
            skip4[:, :, LATTICE_OFFSET::4, LATTICE_OFFSET::4].flatten(2).transpose(1, 2),
            skip8,
            skip4,
        )


class PromptGraph(nn.Module):
    """Points to tokens, predicted IoU, lattice, pooled features and the state the mask graph needs."""

    key_pe: Tensor

    def __init__(self, nano: Nano, side: int) -> None:
        super().__init__()
        self.nano = nano
        self.side = side // 16
        self.register_buffer("key_pe", nano.grid_encoding(self.side))

    def forward(
        self,
        h_keys: Tensor,
        h_k1: Tensor,
        h_v1: Tensor,
        h_q1: Tensor,
        h_features: Tensor,
        h_lattice8: Tensor,
        h_lattice4: Tensor,
        points: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One photo's hoisted tensors and points (g,2) to tokens, iou, lattice, features, m_keys, m_hyper."""
        decoder = self.nano.mask_decoder
        queries, keys = absorbed.decode(
            decoder.transformer, h_keys, self.key_pe, (h_k1, h_v1, h_q1), self.nano.prompt_tokens(points)
        )
        tokens = queries[:, 1:5]
        hyper = decoder.hyper(tokens)
        lattice = hyper @ self._lattice_pixels(keys, h_lattice8, h_lattice4).transpose(1, 2)  # (g,4,N)
        weight = lattice.sigmoid()
        features = weight @ h_features / (weight.sum(-1, keepdim=True) + 1e-4)
        iou = decoder.iou_head(queries[:, 0])
        return tokens, iou, lattice.unflatten(2, (self.side, self.side)), features, keys, hyper

    def _lattice_pixels(self, keys: Tensor, lattice8: Tensor, lattice4: Tensor) -> Tensor:
        """(g,N,32): exactly the upscaled pixels at rows and columns 1, 5, 9, ... of the low-res mask.

        A 2×2 transposed convolution with stride 2 has no overlap, so each sub-pixel is one matrix product.
        """
        decoder = self.nano.mask_decoder
        first, second = divmod(LATTICE_OFFSET, 2)
        bias1, bias2 = (cast("Tensor", layer.bias) for layer in (decoder.upscale1, decoder.upscale2))
        x = keys @ decoder.upscale1.weight[:, :, first, first] + bias1 + lattice8
        x = F.gelu(decoder.norm1(x)) @ decoder.upscale2.weight[:, :, second, second]
        return F.gelu(x + bias2 + lattice4)


class MaskGraph(nn.Module):
    """Low-res logits of chosen masks."""

    def __init__(self, nano: Nano) -> None:
        super().__init__()
        self.nano = nano

    def forward(self, h_skip8: Tensor, h_skip4: Tensor, m_keys: Tensor, m_hyper: Tensor, choice: Tensor) -> Tensor:
        """State of n prompts and which of its four masks each wants (n,) to logits (n,l,l)."""
        pixels = self.nano.mask_decoder.upscale(m_keys, h_skip8, h_skip4)  # (n,32,l,l)
        one_hot = (choice[:, None] == torch.arange(4)).to(m_hyper.dtype)[:, None]  # (n,1,4)
        logits = one_hot @ m_hyper @ pixels.flatten(2)  # (n,1,l·l)
        out: Tensor = logits.squeeze(1).unflatten(1, pixels.shape[-2:])
        return out


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
