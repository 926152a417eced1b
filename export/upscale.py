"""Mask upscaling from low-rank image tokens: a lattice for every prompt, all low-res logits for the chosen ones.

Two transposed convolutions, 2×2 with stride 2, turn an image token into 4 and then 16 pixels. They do not overlap, so
each is one matrix product, and the pixels of one token depend on no other. Pixels stay in the order of the tokens until
only one number a pixel is left to be put in its place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .low_rank import ImageTokens


class Upscale(nn.Module):
    """Upscaling of one decoder; with N = e·e tokens, l = 4e.

    Args:
        first: Transposed convolution d to c1 channels.
        gain: (c1,) of the LayerNorm over channels that follows.
        bias: (c1,).
        eps: Of that norm.
        second: Transposed convolution c1 to c2 channels.
        beta: (d,) what the image tokens have besides ``ImageTokens`` and F.
        lattice_offset: i of the lattice ``low_res[i::4, i::4]``, 0 to 3.
    """

    first: Tensor
    offset: Tensor
    second: Tensor
    second_bias: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(
        self,
        first: nn.ConvTranspose2d,
        gain: Tensor,
        bias: Tensor,
        eps: float,
        second: nn.ConvTranspose2d,
        beta: Tensor,
        lattice_offset: int,
    ) -> None:
        super().__init__()
        self.eps = eps
        row1, row2 = divmod(lattice_offset, 2)
        self.corners = (3 * row1, 3 * row2)  # of 4 sub-pixels, row by row, the one on the diagonal
        self.register_buffer("first", first.weight.detach().permute(0, 2, 3, 1).flatten(1, 2))  # (d,4,c1)
        self.register_buffer("second", second.weight.detach().permute(0, 2, 3, 1).flatten(1, 2))  # (c1,4,c2)
        at_beta = torch.einsum("d,dpc->pc", beta.double(), self.first.double())
        self.register_buffer("offset", (at_beta + _bias(first).double()).to(beta.dtype).detach())  # (4,c1)
        self.register_buffer("second_bias", _bias(second).detach())
        self.register_buffer("gain", gain.detach())
        self.register_buffer("bias", bias.detach())

    def hoist(self, shared: Tensor) -> Tensor:
        """F (b,N,d) to its share of the first convolution's output (b,N,4,c1)."""
        out: Tensor = (shared @ self.first.flatten(1)).unflatten(-1, self.first.shape[1:])
        return out

    def lattice(self, up: Tensor, image: ImageTokens, hyper: Tensor, skips: tuple[Tensor, Tensor] | None) -> Tensor:
        """Logits of all four masks at one pixel of each token's 16.

        Args:
            up: (N,4,c1) ``hoist`` of this photo.
            image: Image tokens of g prompts.
            hyper: (g,4,c2) weights of the masks.
            skips: The photo's skips at those pixels, (N,c1) and (N,c2).

        Returns:
            (g,4,N) logits.
        """
        corner1, corner2 = self.corners
        x = _spread(image, up[:, corner1], image.rows @ self.first[:, corner1]) + self.offset[corner1]
        x = self._activate(x if skips is None else x + skips[0]) @ self.second[:, corner2] + self.second_bias
        return hyper @ F.gelu(x if skips is None else x + skips[1]).transpose(1, 2)

    def low_res(self, up: Tensor, image: ImageTokens, hyper: Tensor, skips: tuple[Tensor, Tensor] | None) -> Tensor:
        """Low-res logits of one mask a prompt.

        Args:
            up: (N,4,c1) ``hoist`` of this photo.
            image: Image tokens of n prompts.
            hyper: (n,c2) weights of the chosen masks.
            skips: ``by_token`` of the photo's skips, (N,4,c1) and (N,16,c2).

        Returns:
            (n,l,l) logits.
        """
        x = _spread(image, up.flatten(1), image.rows @ self.first.flatten(1)).unflatten(2, up.shape[1:]) + self.offset
        x = self._activate(x if skips is None else x + skips[0]) @ self.second.flatten(1)
        x = x.unflatten(3, self.second.shape[1:]).flatten(2, 3) + self.second_bias  # (n,N,16,c2)
        x = F.gelu(x if skips is None else x + skips[1])
        logits = (x.flatten(1, 2) @ hyper[:, :, None]).squeeze(2)  # (n,N·16)
        side = round(up.shape[0] ** 0.5)
        pixels: Tensor = logits.unflatten(1, (side, side, 2, 2, 2, 2))  # y, x, then row and column of each sub-pixel
        return pixels.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 6).flatten(1, 3)

    def _activate(self, x: Tensor) -> Tensor:
        return F.gelu(F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps))


def by_token(skip: Tensor, side: int) -> Tensor:
    """A skip's (b,c,k·e,k·e), k = 2 or 4, to (b,N,k·k,c): pixels of a token together, in the order of ``low_res``."""
    pixels: Tensor
    if skip.shape[-1] == 2 * side:
        pixels = skip.unflatten(3, (side, 2)).unflatten(2, (side, 2))  # b, c, y, i, x, j
        return pixels.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
    pixels = skip.unflatten(3, (side, 2, 2)).unflatten(2, (side, 2, 2))  # b, c, y, i1, i2, x, j1, j2
    return pixels.permute(0, 2, 5, 3, 6, 4, 7, 1).flatten(3, 6).flatten(1, 2)


def _spread(image: ImageTokens, up: Tensor, rows: Tensor) -> Tensor:
    """scale·up + mixᵀ·rows: (N,c) and (g,j,c) to (g,N,c)."""
    return image.scale[..., None] * up + image.mix.transpose(1, 2) @ rows


def _bias(layer: nn.ConvTranspose2d) -> Tensor:
    if layer.bias is None:
        return layer.weight.new_zeros(layer.out_channels)
    return layer.bias
