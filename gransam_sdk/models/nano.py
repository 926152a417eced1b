"""Nano: the embedded SAM-style segmenter, about 5.5 M parameters.

A MobileNetV2-shaped encoder (Sandler et al. 2018), SAM's point-prompt encoder and SAM's mask decoder with
prompt-independent skips from strides 4 and 8. The photo is stretched to an (s,s) square, s a multiple of 32; the
embedding has e = s/16, low-res masks l = s/4, d = 256.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .two_way import TwoWayTransformer, grid_positions

WIDTH = 256
FEATURES = 96 + 320
CONTEXT = 384
"""Hidden channels of each block that looks around in the embedding."""
DETAIL = 64, 48
"""Hidden channels of the skips' blocks at strides 8 and 4."""
# (expansion, channels, blocks, stride of the first block)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and, if asked, ReLU6; stride 2 pads bottom and right only (TensorFlow's SAME)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True):
        super().__init__()
        self.pad = stride == 2
        padding = 0 if self.pad else kernel // 2
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(b,c_in,y,x) to (b,c_out,y/stride,x/stride)."""
        if self.pad:
            x = F.pad(x, (0, 1, 0, 1))
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.act else x


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project; residual where shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        expand = [] if expansion == 1 else [ConvNorm(c_in, hidden)]
        self.layers = nn.Sequential(
            *expand, ConvNorm(hidden, hidden, 3, stride, groups=hidden), ConvNorm(hidden, c_out, act=False)
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(b,c_in,y,x) to (b,c_out,y/stride,x/stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Context(nn.Module):
    """A cell of the embedding looks around itself: 5x5 depthwise, then two pointwise layers; adds nothing at first."""

    def __init__(self) -> None:
        super().__init__()
        self.around = ConvNorm(WIDTH, WIDTH, 5, groups=WIDTH, act=False)
        self.expand = ConvNorm(WIDTH, CONTEXT)
        self.project = _silent(nn.Conv2d(CONTEXT, WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(b,256,e,e) to the same shape."""
        out: Tensor = x + self.project(self.expand(self.around(x)))
        return out


class Detail(nn.Module):
    """A skip hears of the coarser map, which knows what a thing is where the skip knows where it ends.

    Args:
        c_in: Channels of the encoder's map.
        c_coarse: Of the map at half the side.
        hidden: Between both; the next finer skip hears of these.
        c_out: Of the skip.
    """

    def __init__(self, c_in: int, c_coarse: int, hidden: int, c_out: int) -> None:
        super().__init__()
        self.join = ConvNorm(c_in + c_coarse, hidden)
        self.around = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.project = _silent(nn.Conv2d(hidden, c_out, 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """(b,c_in,y,x) and (b,c_coarse,y/2,x/2) to what the skip gets besides, 0 at first, and (b,hidden,y,x)."""
        heard = self.around(self.join(torch.cat([fine, _double(coarse)], dim=1)))
        return self.project(heard), heard


def _silent(conv: nn.Conv2d) -> nn.Conv2d:
    """The layer with its weights and bias at 0."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class ImageEncoder(nn.Module):
    """Photo to embedding, skips and dense features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, 2)
        width, stages = 32, []
        for expansion, channels, blocks, stride in STAGES:
            stage = []
            for i in range(blocks):
                stage.append(InvertedResidual(width, channels, stride if i == 0 else 1, expansion))
                width = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.lateral16 = nn.Conv2d(96, WIDTH, 1)
        self.lateral32 = nn.Conv2d(320, WIDTH, 1)
        self.smooth = nn.Sequential(ConvNorm(WIDTH, WIDTH, 3, groups=WIDTH), nn.Conv2d(WIDTH, WIDTH, 1))
        self.context = nn.Sequential(Context(), Context())
        self.skip4 = nn.Conv2d(24, 32, 1)
        self.skip8 = nn.Conv2d(32, 64, 1)
        self.narrow = nn.Conv2d(WIDTH, DETAIL[0], 1)
        self.detail8 = Detail(32, DETAIL[0], DETAIL[0], 64)
        self.detail4 = Detail(24, DETAIL[0], DETAIL[1], 32)

    def stage_maps(self, image: Tensor) -> list[Tensor]:
        """(b,3,s,s) to the map after each of the seven stages; 1, 2, 4 and 6 are the last of strides 4 to 32."""
        maps, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def merge(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """``stage_maps`` to embedding (b,256,e,e) and skips (b,64,2e,2e) and (b,32,4e,4e)."""
        embedding = self.lateral16(maps[4]) + _double(self.lateral32(maps[6]))
        embedding = self.context(embedding + self.smooth(embedding))
        detail8, heard = self.detail8(maps[2], self.narrow(embedding))
        detail4, _ = self.detail4(maps[1], heard)
        return embedding, self.skip8(maps[2]) + detail8, self.skip4(maps[1]) + detail4

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encodes photos.

        Args:
            image: (b,3,s,s) float32, RGB, (pixel - 127.5) / 127.5.

        Returns:
            Embedding (b,256,e,e), skips (b,64,2e,2e) and (b,32,4e,4e), dense features (b,416,e,e).
        """
        maps = self.stage_maps(image)
        return *self.merge(maps), torch.cat([maps[4], _double(maps[6])], dim=1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class PromptEncoder(nn.Module):
    """SAM's point prompts: random Fourier features plus a learned embedding, and the padding token beside each."""

    gaussian: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gaussian", torch.randn(2, WIDTH // 2))
        self.point = nn.Embedding(1, WIDTH)
        self.not_a_point = nn.Embedding(1, WIDTH)
        self.no_mask = nn.Embedding(1, WIDTH)

    def encode_position(self, xy: Tensor) -> Tensor:
        """(...,2) XY in [0,1] to (...,256)."""
        angle = (2.0 * xy - 1.0) @ self.gaussian * (2.0 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, c_in: int, hidden: int, c_out: int, depth: int) -> None:
        super().__init__()
        widths = [c_in, *[hidden] * (depth - 1), c_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(...,c_in) to (...,c_out)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class MaskDecoder(nn.Module):
    """SAM's mask decoder with skips: mask tokens, predicted IoU and four low-res masks a prompt.

    Token 0 is trained on whole objects, tokens 1-3 by the smallest loss of the three.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth=2, width=WIDTH, heads=8, hidden=1024)
        self.iou_token = nn.Embedding(1, WIDTH)
        self.mask_tokens = nn.Embedding(4, WIDTH)
        self.upscale1 = nn.ConvTranspose2d(WIDTH, 64, 2, 2)
        self.norm1 = nn.LayerNorm(64, eps=1e-5)
        self.upscale2 = nn.ConvTranspose2d(64, 32, 2, 2)
        self.hypernetworks = nn.ModuleList(MLP(WIDTH, WIDTH, 32, 3) for _ in range(4))
        self.iou_head = MLP(WIDTH, WIDTH, 4, 3)

    def output_tokens(self) -> Tensor:
        """(5,256): the IoU token and the four mask tokens before attention."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def hyper(self, tokens: Tensor) -> Tensor:
        """Mask tokens (g,4,256) to per-mask weights (g,4,32)."""
        return torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(self.hypernetworks)], dim=1)

    def upscale(self, keys: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Image tokens (g,e·e,256) and skips (64,2e,2e), (32,4e,4e) to per-pixel channels (g,32,l,l)."""
        side = skip8.shape[-1] // 2
        x = self.upscale1(keys.transpose(1, 2).unflatten(2, (side, side))) + skip8
        x = self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.gelu(self.upscale2(F.gelu(x)) + skip4)


class Nano(nn.Module):
    """The whole segmenter in its plain form (nothing hoisted)."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()

    def grid_encoding(self, side: int) -> Tensor:
        """(side·side,256) positional encoding of the embedding's cells."""
        return self.prompt_encoder.encode_position(grid_positions(side).to(self.prompt_encoder.gaussian.device))

    def prompt_tokens(self, points: Tensor) -> Tensor:
        """(g,2) XY in [0,1] to the decoder's seven tokens (g,7,256): IoU, four masks, point, padding."""
        prompt = self.prompt_encoder
        fixed = torch.cat([self.mask_decoder.output_tokens(), prompt.point.weight, prompt.not_a_point.weight])
        # Only the point's own row depends on the point; adding it where it belongs needs no copies of the others.
        at_point = torch.tensor([0.0, 0, 0, 0, 0, 1, 0], device=points.device)[:, None]
        return fixed + at_point * prompt.encode_position(points)[:, None]

    def forward(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Segments one photo at point prompts.

        Args:
            image: (1,3,s,s) float32, (pixel - 127.5) / 127.5.
            points: (g,2) float32 XY in [0,1] of the photo.

        Returns:
            Mask tokens (g,4,256), predicted IoU (g,4), low-res logits (g,4,l,l).
        """
        decoder = self.mask_decoder
        embedding, skip8, skip4, _ = self.image_encoder(image)
        keys = (embedding + self.prompt_encoder.no_mask.weight[:, :, None, None]).flatten(2).transpose(1, 2)
        keys = keys.expand(len(points), -1, -1)
        pe = self.grid_encoding(embedding.shape[-1])[None]
        queries, keys = decoder.transformer(keys, pe, self.prompt_tokens(points))
        tokens = queries[:, 1:5]
        pixels = decoder.upscale(keys, skip8[0], skip4[0])
        logits = (decoder.hyper(tokens) @ pixels.flatten(2)).unflatten(2, pixels.shape[-2:])
        return tokens, decoder.iou_head(queries[:, 0]), logits
