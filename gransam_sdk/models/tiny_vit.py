"""TinyViT-5M as MobileSAM's image encoder, with the keys of the official checkpoint (``mobile_sam.pt``).

Source: Wu et al. 2022, TinyViT; Zhang et al. 2023, Faster Segment Anything. Convolutions at stride 4, then
attention in windows with a learned bias for each offset. MobileSAM's last stage stays at stride 16: e = s/16 as in SAM.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError

OUT = 256
EXPANSION = 4
STRIDES = (2, 2, 1)
"""Of the steps between the four stages; TinyViT for classification has 2 in the last place."""

CLASSIFIER = {"norm_head.weight": (320,), "norm_head.bias": (320,), "head.weight": (1000, 320), "head.bias": (1000,)}
"""Shapes of what the official checkpoint still holds of TinyViT's ImageNet classifier; the encoder does not use it."""


@dataclass(frozen=True, kw_only=True)
class TinyVitShape:
    """Sizes of the encoder, one entry a stage; the defaults are MobileSAM's.

    Args:
        side: s, a multiple of 16.
        widths: Channels.
        depths: Blocks.
        heads: Attention heads; the first stage has no attention, its entry is not used.
        windows: Window sides in cells; the first is not used either.

    Raises:
        InputError: Sizes do not fit together.
    """

    side: int = 1024
    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)

    def __post_init__(self) -> None:
        """Checks the sizes."""
        sizes = (self.side, *self.widths, *self.depths, *self.heads, *self.windows)
        divides = all(width % heads == 0 for width, heads in zip(self.widths, self.heads, strict=True))
        if min(sizes) < 1 or self.side % 16 or self.widths[0] % 2 or not divides:
            raise InputError(
                "TinyVitShape",
                expected="sizes above 0, a side that 16 divides, widths that their heads (the first: 2) divide",
                found=repr(self),
            )


class ConvNorm(nn.Sequential):
    """Convolution ``c`` without bias, padded to keep the size, and BatchNorm ``bn``."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(c=conv, bn=nn.BatchNorm2d(c_out)))


class PatchEmbed(nn.Module):
    """Photo to cells of stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, width // 2, 3, 2), nn.GELU(), ConvNorm(width // 2, width, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(b,3,s,s) to (b,width,s/4,s/4)."""
        out: Tensor = self.seq(x)
        return out


class MBConv(nn.Module):
    """Expand, depthwise, project; GELU after the residual as well."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * EXPANSION
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(b,width,y,x) to the same shape."""
        inner = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(inner))


class PatchMerging(nn.Module):
    """The step to the next stage: widen, then a depthwise convolution with the stride, then mix."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(c_in, c_out)
        self.conv2 = ConvNorm(c_out, c_out, 3, stride, groups=c_out)
        self.conv3 = ConvNorm(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(b,c_in,y,x) to (b,c_out,y/stride,x/stride)."""
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class WindowAttention(nn.Module):
    """Self-attention of a window's cells, with a bias for each head and absolute offset (rows, columns).

    Args:
        width: Channels.
        heads: Attention heads; each one's query, key and value lie side by side in ``qkv``.
        window: Window side in cells.
    """

    attention_bias_idxs: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        # Follows from the window alone, and the official checkpoint has no such key.
        self.register_buffer("attention_bias_idxs", offset_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, t, width) to the same shape, t = window squared."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (windows,heads,t,3·head width)
        q, k, v = qkv.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.attention_bias_idxs]  # (heads,t,t)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
        mixed = scores.softmax(-1) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(-2))
        return out


def offset_index(window: int) -> Tensor:
    """(t,t) int64, t = window squared: |rows apart|·window + |columns apart| of two cells, row by row."""
    cell = torch.arange(window * window)
    row, column = cell // window, cell % window
    return (row[:, None] - row).abs() * window + (column[:, None] - column).abs()


class Mlp(nn.Module):
    """LayerNorm and two linear layers with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(...,width) to (...,width)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyVitBlock(nn.Module):
    """Window attention, a depthwise convolution, MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.mlp = Mlp(width)
        self.local_conv = ConvNorm(width, width, 3, groups=width)

    def attend(self, x: Tensor) -> Tensor:
        """(b,y,x,width) to the same shape, window by window.

        Windows start at the top left. What fills up the last ones is zero *before* the attention's norm, hence the
        norm's bias after it, and takes part in the softmax: MobileSAM's weights were trained so.
        """
        side, (height, width) = self.window, x.shape[1:3]
        rows, columns = -(-height // side), -(-width // side)
        x = F.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
        x = (
            x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
        )  # (b,rows,columns,side,side,width)
        x = self.attn(x.flatten(0, 2).flatten(1, 2))
        x = x.unflatten(1, (side, side)).unflatten(0, (-1, rows, columns)).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """(b,width,y,x) to the same shape."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.mlp(x)
        return x.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width and, but for the last stage, the step to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(b,width,y,x) to (b,next width,y/stride,x/stride)."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (b,c,y,x), SAM's LayerNorm2d."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(b,c,y,x) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """Photo to SAM's image embedding.

    Args:
        shape: Sizes; weights do not depend on its side.
    """

    def __init__(self, shape: TinyVitShape | None = None) -> None:
        super().__init__()
        shape = shape or TinyVitShape()
        widths = shape.widths
        self.img_size = shape.side  # the name under which segment-anything's Sam looks for s
        self.patch_embed = PatchEmbed(widths[0])
        self.layers = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, shape.depths, strict=True)):
            blocks: list[nn.Module] = [
                MBConv(width) if i == 0 else TinyVitBlock(width, shape.heads[i], shape.windows[i]) for _ in range(depth)
            ]
            step = PatchMerging(width, widths[i + 1], STRIDES[i]) if i < len(STRIDES) else None
            self.layers.append(Stage(blocks, step))
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], OUT, 1, bias=False),
            ChannelNorm(OUT),
            nn.Conv2d(OUT, OUT, 3, padding=1, bias=False),
            ChannelNorm(OUT),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Encodes photos.

        Args:
            image: (b,3,s,s) float32, SAM's normalised and padded RGB.

        Returns:
            (b,256,e,e) image embedding, e = s/16.
        """
        x = self.patch_embed(image)
        for stage in self.layers:
            x = stage(x)
        out: Tensor = self.neck(x)
        return out
