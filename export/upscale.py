"""Mask upscaling one image token at a time: a lattice for every prompt, all low-res logits for the chosen ones.

Two transposed convolutions, 2×2 with stride 2, turn an image token into 4 and then 16 pixels. They do not overlap, so
each is one matrix product, and the pixels of one token depend on no other. Pixels stay in the order of the tokens until
only one number a pixel is left to be put in its place. The forms of the decoder differ in the first product alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Skips = tuple[Tensor, Tensor]
"""A photo's skips by token: (N,4,c1) and (N,16,c2)."""


class Upscale(nn.Module):
    """Upscaling of one decoder; with N = e·e tokens, l = 4e.

    Args:
        first: Transposed convolution d to c1 channels.
        norm: LayerNorm over channels that follows; anything with ``weight``, ``bias`` and ``eps``.
        second: Transposed convolution c1 to c2 channels.
        lattice_offset: i of the lattice ``low_res[i::4, i::4]``, 0 to 3.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, first: nn.ConvTranspose2d, norm: Any, second: nn.ConvTranspose2d, lattice_offset: int) -> None:
        super().__init__()
        self.eps = float(norm.eps)
        row1, row2 = divmod(lattice_offset, 2)
        self.corners = (3 * row1, 3 * row2)  # of 4 sub-pixels, row by row, the one on the diagonal
        self.register_buffer("first", first.weight.detach().permute(0, 2, 3, 1).flatten(1, 2))  # (d,4,c1)
        self.register_buffer("second", second.weight.detach().permute(0, 2, 3, 1).flatten(1, 2))  # (c1,4,c2)
        self.register_buffer("first_bias", _bias(first).detach())
        self.register_buffer("second_bias", _bias(second).detach())
        self.register_buffer("gain", norm.weight.detach())
        self.register_buffer("bias", norm.bias.detach())

    @property
    def lattice_kernel(self) -> Tensor:
        """(d,c1): the first step's kernel of the sub-pixel that the lattice lies in."""
        return self.first[:, self.corners[0]]

    @property
    def kernel(self) -> Tensor:
        """(d,4·c1): the first step's kernel of all four sub-pixels."""
        return self.first.flatten(1)

    def lattice(self, x: Tensor, hyper: Tensor, skips: Skips | None) -> Tensor:
        """Logits of all four masks at one pixel of each token's 16.

        Args:
            x: (g,N,c1) image tokens times ``lattice_kernel``, with the first step's bias.
            hyper: (g,4,c2) weights of the masks.
            skips: Of this photo.

        Returns:
            (g,4,N) logits.
        """
        corner1, corner2 = self.corners
        if skips is not None:
            x = x + skips[0][:, corner1]
        x = self._activate(x) @ self.second[:, corner2] + self.second_bias
        if skips is not None:
            x = x + skips[1][:, 4 * corner1 + corner2]
        return hyper @ F.gelu(x).transpose(1, 2)

    def low_res(self, x: Tensor, hyper: Tensor, skips: Skips | None) -> Tensor:
        """Low-res logits of one mask a prompt.

        Args:
            x: (n,N,4,c1) image tokens times ``kernel``, with the first step's bias.
            hyper: (n,c2) weights of the chosen masks.
            skips: Of this photo.

        Returns:
            (n,l,l) logits.
        """
        side = round(x.shape[1] ** 0.5)
        x = self._activate(x if skips is None else x + skips[0]) @ self.second.flatten(1)
        x = x.unflatten(3, self.second.shape[1:]).flatten(2, 3) + self.second_bias  # (n,N,16,c2)
        x = F.gelu(x if skips is None else x + skips[1])
        logits = (x.flatten(1, 2) @ hyper[:, :, None]).squeeze(2)  # (n,N·16)
        pixels: Tensor = logits.unflatten(1, (side, side, 2, 2, 2, 2))  # y, x, then row and column of each sub-pixel
        return pixels.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 6).flatten(1, 3)

    def _activate(self, x: Tensor) -> Tensor:
        return F.gelu(F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps))


def choose_weights(hyper: Tensor, choice: Tensor) -> Tensor:
    """Weights of all four masks (n,4,c2) and which one each prompt wants (n,) to weights (n,c2)."""
    one_hot = (choice[:, None] == torch.arange(4, device=choice.device)).to(hyper.dtype)[:, None]  # (n,1,4)
    return (one_hot @ hyper).squeeze(1)


def pool_features(lattice: Tensor, features: Tensor) -> Tensor:
    """Mean of dense features (N,f) under each mask of the lattice (g,4,N), by its sigmoid: (g,4,f)."""
    weight = lattice.sigmoid()
    return weight @ features / (weight.sum(-1, keepdim=True) + 1e-4)


def by_token(skip: Tensor, side: int) -> Tensor:
    """A skip's (b,c,k·e,k·e), k = 2 or 4, to (b,N,k·k,c): pixels of a token together, in the order of ``low_res``."""
    pixels: Tensor
    if skip.shape[-1] == 2 * side:
        pixels = skip.unflatten(3, (side, 2)).unflatten(2, (side, 2))  # b, c, y, i, x, j
        return pixels.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
    pixels = skip.unflatten(3, (side, 2, 2)).unflatten(2, (side, 2, 2))  # b, c, y, i1, i2, x, j1, j2
    return pixels.permute(0, 2, 5, 3, 6, 4, 7, 1).flatten(3, 6).flatten(1, 2)


def _bias(layer: nn.ConvTranspose2d) -> Tensor:
    if layer.bias is None:
        return layer.weight.new_zeros(layer.out_channels)
    return layer.bias
