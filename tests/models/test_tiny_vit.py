"""TinyViT against its published keys, counts and operations, and against its arithmetic written out in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sam_random import NARROW_TINY, fill
from torch.utils.flop_counter import FlopCounterMode

from gransam_sdk.errors import InputError
from gransam_sdk.models.tiny_vit import CLASSIFIER, TinyViT, TinyVitShape, offset_index

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

SMALL = TinyVitShape(side=64, widths=(4, 8, 10, 12), depths=(1, 2, 1, 1), heads=(1, 2, 5, 3), windows=(1, 3, 3, 2))
"""Cells a side: 16, 8, 4, 4. Windows of 3 stick out of 8 and of 4, windows of 2 fit."""


def published_layout() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of mobile_sam.pt's image encoder, written down from the architecture's description."""
    layout: dict[str, tuple[int, ...]] = {}

    def conv_norm(name: str, c_in: int, c_out: int, kernel: int) -> None:
        layout[f"{name}.c.weight"] = (c_out, c_in, kernel, kernel)
        for key in ("weight", "bias", "running_mean", "running_var"):
            layout[f"{name}.bn.{key}"] = (c_out,)
        layout[f"{name}.bn.num_batches_tracked"] = ()

    def dense(name: str, c_in: int, c_out: int) -> None:
        layout[f"{name}.weight"], layout[f"{name}.bias"] = (c_out, c_in), (c_out,)

    def norm(name: str, width: int) -> None:
        layout[f"{name}.weight"], layout[f"{name}.bias"] = (width,), (width,)

    conv_norm("patch_embed.seq.0", 3, 32, 3)
    conv_norm("patch_embed.seq.2", 32, 64, 3)
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):
        conv_norm(f"{block}.conv1", 64, 256, 1)
        conv_norm(f"{block}.conv2", 1, 256, 3)
        conv_norm(f"{block}.conv3", 256, 64, 1)
    for stage, width, depth, heads, window in ((1, 128, 2, 4, 7), (2, 160, 6, 5, 14), (3, 320, 2, 10, 7)):
        for block in (f"layers.{stage}.blocks.{i}" for i in range(depth)):
            layout[f"{block}.attn.attention_biases"] = (heads, window * window)
            norm(f"{block}.attn.norm", width)
            dense(f"{block}.attn.qkv", width, 3 * width)
            dense(f"{block}.attn.proj", width, width)
            norm(f"{block}.mlp.norm", width)
            dense(f"{block}.mlp.fc1", width, 4 * width)
            dense(f"{block}.mlp.fc2", 4 * width, width)
            conv_norm(f"{block}.local_conv", 1, width, 3)
    for stage, c_in, c_out in ((0, 64, 128), (1, 128, 160), (2, 160, 320)):
        conv_norm(f"layers.{stage}.downsample.conv1", c_in, c_out, 1)
        conv_norm(f"layers.{stage}.downsample.conv2", 1, c_out, 3)
        conv_norm(f"layers.{stage}.downsample.conv3", c_out, c_out, 1)
    layout["neck.0.weight"] = (256, 320, 1, 1)
    norm("neck.1", 256)
    layout["neck.2.weight"] = (256, 256, 3, 3)
    norm("neck.3", 256)
    return layout


def on_meta(shape: TinyVitShape | None = None) -> TinyViT:
    with torch.device("meta"):
        return TinyViT(shape).eval()


def test_keys_and_shapes_are_the_official_checkpoints() -> None:
    found = {name: tuple(value.shape) for name, value in on_meta().state_dict().items()}
    assert found == published_layout()


def test_parameters_are_as_many_as_published() -> None:
    """6.07 M, of which the ImageNet classifier is 0.32 M."""
    encoder = sum(p.numel() for p in on_meta().parameters())
    assert encoder == 5_743_892
    assert encoder + sum(math.prod(shape) for shape in CLASSIFIER.values()) == 6_065_532


def test_operations_are_as_many_as_published() -> None:
    """38.8 GMAC at 1024: wrong strides or windows show here, where no key or shape would."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        embedding = on_meta()(torch.empty(1, 3, 1024, 1024, device="meta"))
    assert embedding.shape == (1, 256, 64, 64)
    assert counter.get_total_flops() / 2e9 == pytest.approx(38.8, abs=0.05)


@pytest.mark.parametrize("window", [2, 7, 14])
def test_biases_are_numbered_in_the_order_in_which_offsets_are_met(window: int) -> None:
    """The published rule: pairs of cells row by row, a new number for every new (|rows|, |columns|)."""
    cells = [(row, column) for row in range(window) for column in range(window)]
    numbers: dict[tuple[int, int], int] = {}
    expected = [[numbers.setdefault((abs(a - c), abs(b - d)), len(numbers)) for c, d in cells] for a, b in cells]
    assert offset_index(window).tolist() == expected
    assert len(numbers) == window * window


def test_equals_its_arithmetic_in_float64() -> None:
    encoder = TinyViT(SMALL).eval().requires_grad_(False).double()
    fill(encoder, seed=3)
    weights = {name: value.numpy() for name, value in encoder.state_dict().items()}
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = encode(weights, image.numpy())
    assert 0.5 < expected.std() < 2
    np.testing.assert_allclose(encoder(image[None])[0].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_photos_of_a_batch_do_not_meet() -> None:
    encoder = TinyViT(NARROW_TINY).eval().requires_grad_(False)
    fill(encoder)
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    both = encoder(images)
    assert both.shape == (2, 256, 8, 8)
    for one, image in zip(both, images, strict=True):
        torch.testing.assert_close(encoder(image[None])[0], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"side": 1000},
        {"side": 0},
        {"widths": (64, 127, 160, 320)},
        {"widths": (63, 128, 160, 320), "heads": (1, 4, 5, 10)},
        {"depths": (2, 0, 6, 2)},
        {"windows": (7, 7, -14, 7)},
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="TinyVitShape"):
        replace(TinyVitShape(), **changes)  # type: ignore[arg-type]


def encode(weights: Weights, image: Array) -> Array:
    """The encoder of ``SMALL`` in loops and float64: (3,s,s) to (256,e,e)."""
    x = gelu(conv_norm(weights, "patch_embed.seq.0", image, stride=2))
    x = conv_norm(weights, "patch_embed.seq.2", x, stride=2)
    for stage, (depth, heads, window) in enumerate(zip(SMALL.depths, SMALL.heads, SMALL.windows, strict=True)):
        for block in (f"layers.{stage}.blocks.{i}" for i in range(depth)):
            x = mb_conv(weights, block, x) if stage == 0 else vit_block(weights, block, x, heads, window)
        if stage < 3:
            x = gelu(conv_norm(weights, f"layers.{stage}.downsample.conv1", x))
            x = gelu(conv_norm(weights, f"layers.{stage}.downsample.conv2", x, stride=1 if stage == 2 else 2))
            x = conv_norm(weights, f"layers.{stage}.downsample.conv3", x)
    x = channel_norm(weights, "neck.1", convolve(x, weights["neck.0.weight"]))
    return channel_norm(weights, "neck.3", convolve(x, weights["neck.2.weight"]))


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """(c,h,w) with zeros around; a kernel with one input channel goes channel by channel."""
    size = kernel.shape[-1]
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    height, width = (math.ceil(side / stride) for side in x.shape[1:])
    out = np.empty((len(kernel), height, width))
    for i in range(height):
        for j in range(width):
            patch = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
            depthwise = kernel.shape[1] == 1 and len(x) > 1
            out[:, i, j] = (kernel[:, 0] * patch).sum((1, 2)) if depthwise else np.tensordot(kernel, patch, 3)
    return out


def conv_norm(weights: Weights, name: str, x: Array, stride: int = 1) -> Array:
    x = convolve(x, weights[f"{name}.c.weight"], stride)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def norm(weights: Weights, name: str, x: Array, eps: float = 1e-5) -> Array:
    """Over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def channel_norm(weights: Weights, name: str, x: Array) -> Array:
    return norm(weights, name, x.transpose(1, 2, 0), eps=1e-6).transpose(2, 0, 1)


def dense(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def mb_conv(weights: Weights, name: str, x: Array) -> Array:
    inner = gelu(conv_norm(weights, f"{name}.conv1", x))
    inner = gelu(conv_norm(weights, f"{name}.conv2", inner))
    return gelu(x + conv_norm(weights, f"{name}.conv3", inner))


def vit_block(weights: Weights, name: str, x: Array, heads: int, window: int) -> Array:
    """(c,h,w); every window is cut out on its own, with zeros where it sticks out."""
    height, width = x.shape[1:]
    attended = np.zeros((len(x), height + window, width + window))
    padded = np.pad(x, ((0, 0), (0, window), (0, window)))
    for top in range(0, height, window):
        for left in range(0, width, window):
            here = np.s_[:, top : top + window, left : left + window]
            cells = [(i, j) for i in range(window) for j in range(window)]
            tokens = np.stack([padded[here][:, i, j] for i, j in cells])
            for (i, j), token in zip(cells, attend(weights, f"{name}.attn", tokens, heads, window), strict=True):
                attended[:, top + i, left + j] = token
    x = conv_norm(weights, f"{name}.local_conv", x + attended[:, :height, :width])
    tokens = x.transpose(1, 2, 0)
    hidden = gelu(dense(weights, f"{name}.mlp.fc1", norm(weights, f"{name}.mlp.norm", tokens)))
    return (tokens + dense(weights, f"{name}.mlp.fc2", hidden)).transpose(2, 0, 1)


def attend(weights: Weights, name: str, tokens: Array, heads: int, window: int) -> Array:
    """(t,c), one head and one query at a time; biases looked up by the offset itself."""
    qkv = dense(weights, f"{name}.qkv", norm(weights, f"{name}.norm", tokens))
    size = tokens.shape[1] // heads
    out = np.empty_like(tokens)
    for head in range(heads):
        q, k, v = (qkv[:, (3 * head + part) * size : (3 * head + part + 1) * size] for part in range(3))
        for a in range(len(tokens)):
            scores = np.array(
                [
                    q[a] @ k[b] / math.sqrt(size)
                    + weights[f"{name}.attention_biases"][
                        head, abs(a // window - b // window) * window + abs(a % window - b % window)
                    ]
                    for b in range(len(tokens))
                ]
            )
            shares = np.exp(scores - scores.max())
            out[a, head * size : (head + 1) * size] = shares @ v / shares.sum()
    return dense(weights, f"{name}.proj", out)
