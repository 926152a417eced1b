"""SAM's mask decoder in plain numpy, float64, one prompt at a time, from its description: no torch, no algebra.

Kirillov et al. 2023, Segment Anything, fig. 14 and appendix A: twice (self-attention of tokens, tokens to image, MLP,
image to tokens), then tokens to image; every step adds to what it read and is normalised; image tokens have their
position added wherever they are queries or keys, and tokens the prompt's first tokens; the first self-attention
replaces the tokens and has no positions. Weights go by the keys of SAM's checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

HEADS = 8
_erf = np.vectorize(math.erf, otypes=[np.float64])


def two_way(weights: Weights, image: Array, position: Array, tokens: Array) -> tuple[Array, Array]:
    """Tokens (t,d) and image (N,d) after attention; image (N,d) and position (N,d) before."""
    x = tokens
    for i in range(2):
        block = f"layers.{i}."
        if i == 0:
            x = attend(weights, block + "self_attn", x, x, x)
        else:
            x = x + attend(weights, block + "self_attn", x + tokens, x + tokens, x)
        x = norm(weights, block + "norm1", x)
        step = attend(weights, block + "cross_attn_token_to_image", x + tokens, image + position, image)
        x = norm(weights, block + "norm2", x + step)
        hidden = np.maximum(linear(weights, block + "mlp.lin1", x), 0)
        x = norm(weights, block + "norm3", x + linear(weights, block + "mlp.lin2", hidden))
        step = attend(weights, block + "cross_attn_image_to_token", image + position, x + tokens, x)
        image = norm(weights, block + "norm4", image + step)
    step = attend(weights, "final_attn_token_to_image", x + tokens, image + position, image)
    return norm(weights, "norm_final_attn", x + step), image


def linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, x: Array, eps: float = 1e-5) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(weights: Weights, name: str, q: Array, k: Array, v: Array) -> Array:
    q, k, v = (linear(weights, f"{name}.{part}_proj", x) for part, x in (("q", q), ("k", k), ("v", v)))
    width = q.shape[1] // HEADS
    mixed = []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed.append(powers / powers.sum(axis=1, keepdims=True) @ v[:, part])
    return linear(weights, f"{name}.out_proj", np.concatenate(mixed, axis=1))


def gelu(x: Array) -> Array:
    return x * 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))


def transposed(kernel: Array, bias: Array, x: Array) -> Array:
    """(y,x,c) to (2y,2x,c'): every pixel becomes a square of four."""
    rows, columns, _ = x.shape
    out = np.empty((2 * rows, 2 * columns, kernel.shape[1]))
    for i in range(2):
        for j in range(2):
            out[i::2, j::2] = x @ kernel[:, :, i, j] + bias
    return out


def low_res(
    first: tuple[Array, Array],
    gain: Array,
    beta: Array,
    eps: float,
    second: tuple[Array, Array],
    image: Array,
    hyper: Array,
    skips: tuple[Array, Array] | None,
) -> Array:
    """Logits (m,l,l): image tokens (N,d), kernels and biases, weights of masks (m,c), skips (c,2e,2e) and (c,4e,4e)."""
    side = math.isqrt(len(image))
    x = transposed(*first, image.reshape(side, side, -1))
    if skips is not None:
        x = x + skips[0].transpose(1, 2, 0)
    x = transposed(*second, gelu(norm({"n.weight": gain, "n.bias": beta}, "n", x, eps)))
    if skips is not None:
        x = x + skips[1].transpose(1, 2, 0)
    return np.einsum("mc,yxc->myx", hyper, gelu(x))
