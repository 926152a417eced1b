"""The two-way decoder in low-rank form: after the first block no image token of a prompt is ever multiplied out.

Equal to ``gransam_sdk.models.two_way.TwoWayTransformer`` of depth 2 up to rounding; ``docs/decoder.md`` derives it and
counts it. With N image tokens, t = 7 tokens a prompt, heads h of width w, and a centred row c(x) = x - mean(x):

* Attention of image to tokens adds A·M + m to the image: a head's t weights sum to 1, so A (N,h·(t-1)) holds all but
  one, M (h·(t-1),d) what tokens say beyond that one, and m (d,) what that one says: ``image_update``.
* LayerNorm then makes X = scale·(F + mixᵀ·rows) + β, with F (N,d) the same for all prompts: ``ImageTokens``.
* Its variance is a quadratic form in A: ‖c(x)‖² + 2·A·(M c(x)) + A(M Mᵀ)Aᵀ, and m's share. It may cancel, so it stays
  in 32 bits.
* A projection X·W is scale·(F·W + mixᵀ·(rows·W)) + β·W, with F·W computed once a photo.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gransam_sdk.errors import InputError
from gransam_sdk.models.two_way import Attention, TwoWayBlock, TwoWayTransformer

from .absorbed import attend_shared
from .image_update import (
    Update,
    by_prompt,
    centre,
    centred_rows,
    cross,
    cross_base,
    dot,
    shared_product,
    softmax_over_tokens,
    sum_of_squares,
    tell_apart,
)


class Hoisted(NamedTuple):
    """What decoding needs of a photo, whatever the prompt; ``hoist`` makes them with a first axis b."""

    k1: Tensor  # (h,w,N) first block, token to image
    v1: Tensor  # (h,N,w)
    q1: Tensor  # (h,w,N) first block, image to token
    k2: Tensor  # (h,w,N) second block, token to image, F's share
    v2: Tensor  # (h,N,w)
    q2: Tensor  # (h,w,N) second block, image to token, F's share
    k3: Tensor  # (h,w,N) final attention, F's share
    v3: Tensor  # (h,N,w)
    cross1: Tensor  # (h,w,N) first norm: photo times first update
    cross21: Tensor  # (h,w,N) second norm: photo times first update
    cross22: Tensor  # (h,w,N) second norm: photo times second update
    norms: Tensor  # (3,N) first norm: without weights; second norm: with the first update, with the second


class ImageTokens(NamedTuple):
    """Image tokens of g prompts after a norm, X = scale·(F + mixᵀ·rows) + β; j = h·(t-1) + 1, then twice as many."""

    scale: Tensor  # (g,N)
    mix: Tensor  # (g,j,N)
    rows: Tensor  # (g,j,d)


class LowRankTransformer(nn.Module):
    """The plain transformer's weights, and what follows from them and the positions alone.

    Args:
        plain: The plain transformer, of depth 2.
        key_pe: (N,d) positional encoding of the image tokens.

    Raises:
        InputError: Another depth.
    """

    key_pe: Tensor
    position_k2: Tensor
    position_q2: Tensor
    position_k3: Tensor
    offset_v2: Tensor
    offset_v3: Tensor

    def __init__(self, plain: TwoWayTransformer, key_pe: Tensor) -> None:
        super().__init__()
        if len(plain.layers) != 2:
            raise InputError("low-rank decoder", expected="two blocks", found=str(len(plain.layers)))
        self.plain = plain
        self.first, self.second = (cast("TwoWayBlock", layer) for layer in plain.layers)
        to_image, to_token = self.second.cross_attn_token_to_image, self.second.cross_attn_image_to_token
        final, beta1, beta2 = plain.final_attn_token_to_image, self.first.norm4.bias, self.second.norm4.bias
        self.register_buffer("key_pe", key_pe)
        # A softmax over image tokens does not see what is the same for all of them: keys need no bias and no β.
        self.register_buffer("position_k2", _project_positions(to_image, to_image.k_proj, key_pe))
        self.register_buffer("position_q2", _project_positions(to_token, to_token.q_proj, key_pe + beta1, bias=True))
        self.register_buffer("position_k3", _project_positions(final, final.k_proj, key_pe))
        self.register_buffer("offset_v2", to_image.v_proj(beta1).unflatten(0, (to_image.heads, 1, -1)).detach())
        self.register_buffer("offset_v3", final.v_proj(beta2).unflatten(0, (final.heads, 1, -1)).detach())

    def hoist(self, keys: Tensor) -> tuple[Hoisted, Tensor]:
        """What decoding needs of photos.

        Args:
            keys: (b,N,d) image embedding plus the no-mask embedding.

        Returns:
            ``Hoisted``, and F (b,N,d) of the image tokens that ``decode`` returns.
        """
        first, second = self.first, self.second
        update1, update2 = first.cross_attn_image_to_token, second.cross_attn_image_to_token
        to_image, final = second.cross_attn_token_to_image, self.plain.final_attn_token_to_image
        x, keyed, gain = centre(keys), keys + self.key_pe, first.norm4.weight
        scaled = x * gain  # F after the first norm
        u = centre(scaled)
        shared = u * second.norm4.weight  # F after the second norm
        back = centre(u * gain)
        out1, out2 = update1.out_proj, update2.out_proj
        norms = (
            x.square().sum(-1) + x @ (2.0 * out1.bias),  # a factor behind x @ bias is what OpenVINO cannot compile
            u.square().sum(-1) + back @ (2.0 * out1.bias),
            u @ (2.0 * (out2.bias + first.norm4.bias)),
        )
        hoisted = Hoisted(
            _columns(first.cross_attn_token_to_image, first.cross_attn_token_to_image.k_proj(keyed)),
            first.cross_attn_token_to_image.split(first.cross_attn_token_to_image.v_proj(keys)),
            _columns(update1, update1.q_proj(keyed)),
            _columns(to_image, scaled @ to_image.k_proj.weight.T),
            to_image.split(scaled @ to_image.v_proj.weight.T),
            _columns(update2, scaled @ update2.q_proj.weight.T),
            _columns(final, shared @ final.k_proj.weight.T),
            final.split(shared @ final.v_proj.weight.T),
            _columns(update1, x @ out1.weight),
            _columns(update1, back @ out1.weight),
            _columns(update2, u @ out2.weight),
            torch.stack(norms, dim=1),
        )
        return hoisted, shared

    def decode(self, hoisted: Hoisted, tokens: Tensor, read: int | None = None) -> tuple[Tensor, ImageTokens]:
        """Runs the transformer for g prompts of one photo.

        Args:
            hoisted: Of this photo, without the first axis.
            tokens: (g,t,d) prompt and output tokens.
            read: How many of them, the first ones, the last attention answers; None: all.

        Returns:
            Tokens (g,read,d) and image tokens after attention; their β is the second block's ``norm4.bias``.
        """
        first, second, final = self.first, self.second, self.plain.final_attn_token_to_image
        to_image, to_token = second.cross_attn_token_to_image, second.cross_attn_image_to_token
        queries = first.attend_self(tokens, tokens)
        attended = attend_shared(first.cross_attn_token_to_image, queries + tokens, hoisted.k1, hoisted.v1)
        queries = first.norm2(queries + attended)
        queries = first.norm3(queries + first.mlp(queries))
        update = first.cross_attn_image_to_token
        asked, values, base = tell_apart(update, queries, tokens)
        update1 = Update(by_prompt(softmax_over_tokens(shared_product(asked, hoisted.q1))), values, base)
        image = self._after_first(hoisted, update1)

        queries = second.attend_self(queries, tokens)
        asked = _scaled(to_image, to_image.q_proj, queries + tokens)
        weights = _scores(asked, to_image.k_proj, hoisted.k2, self.position_k2, image).softmax(-1)
        attended = _mix_values(to_image, weights, hoisted.v2, image) + self.offset_v2
        queries = second.norm2(queries + _merge(to_image, attended))
        queries = second.norm3(queries + second.mlp(queries))
        asked, values, base = tell_apart(to_token, queries, tokens)
        scores = _scores(asked, to_token.q_proj, hoisted.q2, self.position_q2, image)
        # The second norm scales old and new alike: to share one scale with the old, the new is divided by the first's.
        update2 = Update(by_prompt(softmax_over_tokens(scores, image.scale[:, None])), values, base)
        image = self._after_second(hoisted, image, update1, update2)

        queries = queries[:, :read]
        asked = _scaled(final, final.q_proj, queries + tokens[:, :read])
        weights = _scores(asked, final.k_proj, hoisted.k3, self.position_k3, image).softmax(-1)
        attended = _mix_values(final, weights, hoisted.v3, image) + self.offset_v3
        return self.plain.norm_final_attn(queries + _merge(final, attended)), image

    def _after_first(self, hoisted: Hoisted, update: Update) -> ImageTokens:
        """First norm."""
        norm = self.first.norm4
        rows = centred_rows(self.first.cross_attn_image_to_token, update)
        mix = F.pad(update.weights, (0, 0, 0, 1), value=1.0)  # the last row, a weight of 1
        scale = _scale(norm, hoisted.norms[0] + sum_of_squares(update, rows, mix, hoisted.cross1))
        return ImageTokens(scale, mix, rows * norm.weight)

    def _after_second(self, hoisted: Hoisted, image: ImageTokens, first: Update, second: Update) -> ImageTokens:
        """Second norm, from the image after the first, and both updates."""
        norm, before = self.second.norm4, image.scale
        old = centre(image.rows)
        # β of the first norm joins what all image tokens get.
        new = centred_rows(self.second.cross_attn_image_to_token, second, self.first.norm4.bias)
        more, base = new[:, :-1], new[:, -1:]
        inverse = before.reciprocal()
        mix = torch.cat([image.mix, second.weights, inverse[:, None]], dim=1)
        products = more @ torch.cat([2.0 * old, more, 2.0 * base], dim=1).transpose(1, 2)
        meeting = (base @ (2.0 * old).transpose(1, 2) @ image.mix).squeeze(1) + cross_base(second, hoisted.cross22)
        square = (
            hoisted.norms[1]
            + sum_of_squares(first, old, image.mix, hoisted.cross21)
            + dot(second.weights, products @ mix + cross(second, hoisted.cross22))
            + inverse * (meeting + hoisted.norms[2] + inverse * base.square().sum(-1))
        )
        scale = before * _scale(norm, before.square() * square)
        return ImageTokens(scale, mix, torch.cat([old, new], dim=1) * norm.weight)


def multiply_out(image: ImageTokens, shared: Tensor, bias: Tensor) -> Tensor:
    """Image tokens (g,N,d) from F (N,d) and β (d,): for checks, never in a graph."""
    return image.scale[..., None] * (shared + image.mix.transpose(1, 2) @ image.rows) + bias


def _columns(attention: Attention, x: Tensor) -> Tensor:
    """(b,N,h·w) to (b,h,w,N)."""
    return attention.split(x).transpose(-1, -2)


def _scaled(attention: Attention, projection: nn.Linear, x: Tensor) -> Tensor:
    """(g,t,d) to (g,h,t,w), divided by √w here because t is small."""
    return attention.split(projection(x)) / math.sqrt(attention.head_width)


def _merge(attention: Attention, mixed: Tensor) -> Tensor:
    """(g,h,t,w) to (g,t,d) through the output projection."""
    out: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return out


def _project_positions(attention: Attention, projection: nn.Linear, x: Tensor, bias: bool = False) -> Tensor:
    """(N,d) to (h,w,N), computed in 64 bits: done once."""
    projected = x.double() @ projection.weight.double().T
    if bias:
        projected = projected + projection.bias.double()
    return _columns(attention, projected[None])[0].to(x.dtype).contiguous().detach()


def _scale(norm: nn.LayerNorm, squares: Tensor) -> Tensor:
    """LayerNorm's factor from sums of squares (g,N); rounding may leave one of nearly 0 below it."""
    return (squares.clamp(min=0.0) / norm.weight.shape[0] + norm.eps).rsqrt()


def _scores(queries: Tensor, projection: nn.Linear, hoisted: Tensor, position: Tensor, image: ImageTokens) -> Tensor:
    """Tokens (g,h,t,w) times projected image tokens: (h,g,t,N).

    Args:
        queries: Already divided by √w.
        projection: Of the image tokens.
        hoisted: (h,w,N) F's share.
        position: (h,w,N) the positions' share and what follows from weights alone.
        image: The prompts' image tokens.
    """
    heads, tokens, width = queries.shape[1:]
    rows = (image.rows @ projection.weight.T).unflatten(2, (heads, width))  # (g,j,h,w)
    small = (queries @ rows.permute(0, 2, 3, 1)).flatten(1, 2)  # (g,h·t,j)
    low = (small @ image.mix).unflatten(1, (heads, tokens)).transpose(0, 1)
    out: Tensor = image.scale[:, None] * (shared_product(queries, hoisted) + low) + shared_product(queries, position)
    return out


def _mix_values(attention: Attention, weights: Tensor, hoisted: Tensor, image: ImageTokens) -> Tensor:
    """Attention weights (h,g,t,N) times projected image tokens, but for β and bias: (g,h,t,w)."""
    heads, _, tokens, _ = weights.shape
    weights = weights * image.scale[:, None]
    small = (by_prompt(weights) @ image.mix.transpose(1, 2)).unflatten(1, (heads, tokens))  # (g,h,t,j)
    rows = attention.split(image.rows @ attention.v_proj.weight.T)  # (g,h,j,w)
    shared = (weights.flatten(1, 2) @ hoisted).unflatten(1, (-1, tokens)).transpose(0, 1)
    out: Tensor = shared + small @ rows
    return out
