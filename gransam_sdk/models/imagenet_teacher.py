"""The classifier whose dense features the nano encoder is taught: MobileNetV2 with BatchNorm folded into it.

Sandler et al. 2018, width 1.0, trained on ImageNet by its authors. Nothing of it ends up in a bundle: the encoder
starts at random numbers and is trained to give the same maps.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .nano import STAGES

BLOCKS = tuple(
    (expansion, channels, stride if i == 0 else 1)
    for expansion, channels, blocks, stride in STAGES
    for i in range(blocks)
)
"""(expansion, channels, stride) of each of the 17 inverted residuals, the nano encoder's own."""

LAST, CLASSES = 1280, 1001
"""Width of the last layer; ImageNet's classes with "background" before them."""


class _Convolution(nn.Conv2d):
    """With a bias; stride 2 pads one row at the bottom and one column at the right (TensorFlow's SAME, even sides)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, 0 if stride == 2 else kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(b,c_in,y,x) to (b,c_out,y/stride,x/stride)."""
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.stride == (2, 2) else x)


class _Block(nn.Module):
    """Expand, depthwise, project; ReLU6 after the first two, residual where shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand = _Convolution(c_in, hidden) if expansion > 1 else None
        self.depthwise = _Convolution(hidden, hidden, 3, stride, groups=hidden)
        self.project = _Convolution(hidden, c_out)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(b,c_in,y,x) to (b,c_out,y/stride,x/stride)."""
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + out if self.residual else out


class Teacher(nn.Module):
    """MobileNetV2 as it was published, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        widths = [32, *(channels for _, channels, _ in BLOCKS)]
        self.blocks = nn.ModuleList(
            _Block(width, channels, stride, expansion)
            for width, (expansion, channels, stride) in zip(widths, BLOCKS, strict=False)
        )
        self.last = _Convolution(widths[-1], LAST)
        self.classifier = _Convolution(LAST, CLASSES)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Every map that the encoder has too.

        Args:
            image: (b,3,s,s) float32, RGB, (pixel - 127.5) / 127.5, s a multiple of 32.

        Returns:
            18 maps: after the stem, and after each of the 17 blocks.
        """
        maps = [F.relu6(self.stem(image))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def judge(self, last: Tensor) -> Tensor:
        """What it takes each cell for: the last of its maps (b,320,y,x), or one like it, to logits (b,1001,y,x)."""
        logits: Tensor = self.classifier(F.relu6(self.last(last)))
        return logits

    def classify(self, image: Tensor) -> Tensor:
        """(b,3,s,s) to logits (b,1001): the mean over cells, because the last layer is linear."""
        return self.judge(self(image)[-1]).mean((2, 3))


def load_teacher(path: Path) -> Teacher:
    """Reads the teacher's weights.

    Args:
        path: A safetensors file: ``stem``, ``blocks.N.{expand,depthwise,project}``, ``last``, ``classifier``.

    Raises:
        InputError: The file is missing, not safetensors, or holds another model.
    """
    teacher = Teacher()
    try:
        teacher.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except Exception as error:  # safetensors and torch raise their own kinds for damaged files and wrong keys
        raise InputError(
            f"teacher {path}",
            expected="a safetensors file with MobileNetV2's folded convolutions",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            do="name the teacher's file",
        ) from error
    return teacher.eval().requires_grad_(False)


def explained(found: Tensor, wanted: Tensor) -> Tensor:
    """Share of the variance of ``wanted`` (b,c,y,x) that ``found`` explains, each channel counting the same; scalar."""
    error = (found - wanted).square().mean((0, 2, 3))
    return 1.0 - (error / (wanted.var((0, 2, 3), correction=0) + torch.finfo(torch.float32).eps)).mean()
