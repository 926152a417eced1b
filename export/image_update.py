"""What a prompt's tokens say to the image, and the sum of squares that this makes: the low-rank form's LayerNorm.

A head's weights over t tokens sum to 1, so one token needs none: all image tokens get its value, and the weights of the
others go with what they say beyond it. ``docs/decoder.md`` derives the sums of squares. They may cancel, so they stay
in 32 bits.

What all prompts share is multiplied for all of them at once, one large product a head: hence tensors by head
(h,g,t,N), and by prompt (g,h·t,N) where a prompt's own rows are multiplied. Moving between them is cheap.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gransam_sdk.models.two_way import Attention


class Update(NamedTuple):
    """What the tokens of g prompts say to the image: in each head one, and the others beyond it."""

    weights: Tensor  # (g,h·(t-1),N) attention to the others
    differences: Tensor  # (g,h,t-1,w) their values less the one's
    base: Tensor  # (g,h·w) the one's values


def smallest(values: Tensor) -> Tensor:
    """(g,h,t,w) to (g,h,t,1), true for the token that the others of its head are told from.

    The one of the smallest values: less it, no other's are more than twice as large, so nothing large has to cancel.
    """
    index = (-values.square().sum(-1)).argmax(2)  # bundles have no ArgMin
    return index[:, :, None, None] == torch.arange(values.shape[2], device=index.device)[:, None]


def leave_out(x: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens of x (g,h,t,·) but one, the last one in its place, and that one: (g,h,t-1,·) and (g,h,1,·)."""
    others = torch.where(one, x[:, :, -1:], x)[:, :, :-1]
    return others, torch.where(one, x, 0.0).sum(2, keepdim=True)


def tell_apart(attention: Attention, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What an image token needs of tokens to attend to them.

    Args:
        attention: Image to token.
        queries: (g,t,d) tokens.
        tokens: (g,t,d) what they began as, added to them where they are keys.

    Returns:
        Keys divided by √w and values (g,h,t-1,w) of all tokens but one in each head, less its own; its values (g,h·w).
    """
    values = attention.split(attention.v_proj(queries))
    keys = attention.split(attention.k_proj(queries + tokens)) / math.sqrt(attention.head_width)
    one = smallest(values)
    (keys, key), (values, value) = leave_out(keys, one), leave_out(values, one)
    return keys - key, values - value, value.flatten(1)


def softmax_over_tokens(scores: Tensor, divisor: Tensor | None = None) -> Tensor:
    """Weights of t tokens but one, whose score is 0; written out, because engines are slow at a softmax six wide.

    Args:
        scores: (h,g,t-1,N) of the others.
        divisor: (g,1,N) of all weights.
    """
    top = scores.amax(2, keepdim=True).clamp(min=0.0)
    powers = (scores - top).exp()
    total = powers.sum(2, keepdim=True) + (-top).exp()
    return powers / (total if divisor is None else total * divisor)


def centred_rows(attention: Attention, update: Update, extra: Tensor | None = None) -> Tensor:
    """M and below it m, centred: (g,h·(t-1)+1,d).

    Args:
        attention: Image to token.
        update: Token values.
        extra: (d,) a vector that every image token gets besides.
    """
    projection: Tensor = attention.out_proj.weight.T.unflatten(0, (attention.heads, attention.head_width))
    more, base = (update.differences @ projection).flatten(1, 2), attention.out_proj(update.base)
    return centre(torch.cat([more, (base if extra is None else base + extra)[:, None]], dim=1))


def sum_of_squares(update: Update, rows: Tensor, mix: Tensor, hoisted: Tensor) -> Tensor:
    """What an update adds to the sum of squares of a photo's image tokens: (g,N).

    Args:
        update: Weights and token values.
        rows: (g,h·(t-1)+1,d) ``centred_rows``.
        mix: (g,h·(t-1)+1,N) the weights, and 1 for the last row.
        hoisted: (h,w,N) the photo's image tokens times the output projection.
    """
    more, base = rows[:, :-1], rows[:, -1:]
    products = more @ torch.cat([more, 2.0 * base], dim=1).transpose(1, 2)
    square = dot(update.weights, products @ mix + cross(update, hoisted))
    return square + cross_base(update, hoisted) + base.square().sum(-1)


def cross(update: Update, hoisted: Tensor) -> Tensor:
    """Rows of M times a photo's image tokens, twice as a square has it: (g,h·(t-1),N)."""
    return by_prompt(shared_product(2.0 * update.differences, hoisted))


def cross_base(update: Update, hoisted: Tensor) -> Tensor:
    """m, but for biases, times a photo's image tokens, twice: (g,N)."""
    return (2.0 * update.base) @ hoisted.flatten(0, 1)


def shared_product(asked: Tensor, hoisted: Tensor) -> Tensor:
    """Tokens (g,h,t,w) times what all prompts share (h,w,N): (h,g,t,N)."""
    out: Tensor = (asked.transpose(0, 1).flatten(1, 2) @ hoisted).unflatten(1, (-1, asked.shape[2]))
    return out


def by_prompt(x: Tensor) -> Tensor:
    """(h,g,t,N) to (g,h·t,N)."""
    return x.transpose(0, 1).flatten(1, 2)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(g,j,N) twice to (g,N), for each image token."""
    return (a * b).sum(1)


def centre(x: Tensor) -> Tensor:
    """Rows without their mean."""
    return x - x.mean(-1, keepdim=True)
