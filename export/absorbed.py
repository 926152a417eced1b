"""The two-way decoder with everything that is the same for all prompts hoisted, and projections absorbed.

Equal to ``gransam_sdk.models.two_way.TwoWayTransformer`` up to rounding, and about four times cheaper per prompt at
SAM's size. Two identities do the work, with N = e·e image tokens, t = 7 tokens a prompt, heads h of width w:

* **Hoisting.** Before the first image update all prompts of a photo see the same image tokens X0, so the first
  block's K, V (token to image) and Q (image to token) are computed once a photo.
* **Absorption.** Afterwards image tokens differ by prompt, but the t·h = 56 query rows are fewer than the N image
  rows, so projections move to the small side: softmax((q Wq_h)(X Wk_h)ᵀ) = softmax((q Wq_h Wk_hᵀ) Xᵀ); the key bias
  adds the same number to a whole row of scores and drops out of the softmax; rows of attention sum to 1, so the value
  bias is added once after mixing: (A X) Wv_h + bv_h. Image-to-token attention is the mirror image; its query bias
  stays, as a per-column offset, and its output bias is shared out over the heads' values, whose weights sum to 1.
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from gransam_sdk.models.two_way import Attention, TwoWayBlock, TwoWayTransformer


def hoist(transformer: TwoWayTransformer, keys: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the first block needs of a photo, whatever the prompt.

    Args:
        transformer: The plain transformer.
        keys: (b,N,d) image embedding plus the no-mask embedding.
        key_pe: (1,N,d) positional encoding.

    Returns:
        K transposed (b,heads,w,N) and V (b,heads,N,w) for token-to-image attention, Q (b,heads,N,w) for image-to-token.
    """
    first = _blocks(transformer)[0]
    to_image, to_token = first.cross_attn_token_to_image, first.cross_attn_image_to_token
    keyed = keys + key_pe
    return (
        to_image.split(to_image.k_proj(keyed)).transpose(-1, -2),
        to_image.split(to_image.v_proj(keys)),
        to_token.split(to_token.q_proj(keyed)),
    )


def decode(
    transformer: TwoWayTransformer,
    keys: Tensor,
    key_pe: Tensor,
    hoisted: tuple[Tensor, Tensor, Tensor],
    tokens: Tensor,
    read: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Runs the transformer for g prompts of one photo.

    Args:
        transformer: The plain transformer (depth 2).
        keys: (N,d) image embedding plus the no-mask embedding.
        key_pe: (N,d) positional encoding.
        hoisted: ``hoist``'s tensors for this photo, without the batch axis.
        tokens: (g,t,d) prompt and output tokens.
        read: How many of them, the first ones, the last attention answers; None: all.

    Returns:
        Tokens (g,read,d) and image tokens (g,N,d) after attention.
    """
    first, second = _blocks(transformer)
    queries = first.attend_self(tokens, tokens)
    queries = first.norm2(queries + attend_shared(first.cross_attn_token_to_image, queries + tokens, *hoisted[:2]))
    queries = first.norm3(queries + first.mlp(queries))
    update = _to_token_hoisted(first.cross_attn_image_to_token, hoisted[2], queries + tokens, queries)
    image = first.norm4(keys + update)  # (g,N,d): from here on image tokens belong to a prompt

    keyed = image + key_pe
    queries = second.attend_self(queries, tokens)
    queries = second.norm2(queries + _to_image(second.cross_attn_token_to_image, queries + tokens, image, keyed))
    queries = second.norm3(queries + second.mlp(queries))
    update = _to_token(second.cross_attn_image_to_token, keyed, queries + tokens, queries)
    image = second.norm4(image + update)

    queries, tokens = queries[:, :read], tokens[:, :read]
    attended = _to_image(transformer.final_attn_token_to_image, queries + tokens, image, image + key_pe)
    return transformer.norm_final_attn(queries + attended), image


def _blocks(transformer: TwoWayTransformer) -> list[TwoWayBlock]:
    return [cast("TwoWayBlock", layer) for layer in transformer.layers]  # torch types them as any module


def _scaled(attention: Attention, projection: nn.Linear, x: Tensor) -> Tensor:
    """(g,t,d) to (g,heads,t,w), divided by √w here because t is small."""
    return attention.split(projection(x)) / math.sqrt(attention.head_width)


def _by_head(attention: Attention, weight: Tensor) -> Tensor:
    """A (heads·w,d) projection as (heads,w,d)."""
    out: Tensor = weight.unflatten(0, (attention.heads, attention.head_width))
    return out


def _merge(attention: Attention, mixed: Tensor) -> Tensor:
    """(g,heads,t,w) to (g,t,d) through the output projection."""
    out: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return out


def attend_shared(attention: Attention, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens (g,t,d) attend to image keys (heads,w,N) and values (heads,N,w) that all prompts share: (g,t,d)."""
    tokens = q.shape[1]
    # One matrix product a head for all prompts: (heads,g·t,w).
    queries = _scaled(attention, attention.q_proj, q).transpose(0, 1).flatten(1, 2)
    mixed = (queries @ keys).softmax(-1) @ values
    return _merge(attention, mixed.unflatten(1, (-1, tokens)).transpose(0, 1))


def _to_image(attention: Attention, q: Tensor, image: Tensor, keyed: Tensor) -> Tensor:
    """Tokens (g,t,d) attend to image tokens, plain and with positions (g,N,d), without ever projecting these."""
    heads, tokens = attention.heads, q.shape[1]
    queries = _scaled(attention, attention.q_proj, q) @ _by_head(attention, attention.k_proj.weight)
    rows = queries.flatten(1, 2)  # (g,heads·t,d)
    mixed = ((rows @ keyed.transpose(1, 2)).softmax(-1) @ image).unflatten(1, (heads, tokens))
    values = mixed @ _by_head(attention, attention.v_proj.weight).transpose(1, 2)
    return _merge(attention, values + attention.v_proj.bias.unflatten(0, (heads, 1, -1)))


def _weighted_values(attention: Attention, weights: Tensor, v: Tensor) -> Tensor:
    """Attention weights (g,N,heads·t) over tokens (g,t,d) to image updates (g,N,d), output projection absorbed."""
    values = attention.split(attention.v_proj(v))  # (g,heads,t,w)
    projection = _by_head(attention, attention.out_proj.weight.transpose(0, 1))
    return weights @ (values @ projection + attention.out_proj.bias / attention.heads).flatten(1, 2)


def _softmax_by_head(scores: Tensor, heads: int, tokens: int) -> Tensor:
    """(g,N,heads·t): a softmax over each head's t tokens."""
    out: Tensor = scores.unflatten(2, (heads, tokens)).softmax(-1).flatten(2)
    return out


def _to_token_hoisted(attention: Attention, queries: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Image queries (heads,N,w) shared by all prompts attend to tokens (g,t,d)."""
    keys = _scaled(attention, attention.k_proj, k)  # (g,heads,t,w)
    scores = queries @ keys.transpose(-1, -2)  # (g,heads,N,t)
    weights = scores.softmax(-1).transpose(1, 2).flatten(2)
    return _weighted_values(attention, weights, v)


def _to_token(attention: Attention, keyed: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Image tokens with positions (g,N,d) attend to tokens (g,t,d) without ever being projected."""
    heads, tokens = attention.heads, k.shape[1]
    keys = _scaled(attention, attention.k_proj, k)  # (g,heads,t,w)
    columns = (keys @ _by_head(attention, attention.q_proj.weight)).flatten(1, 2).transpose(1, 2)  # (g,d,heads·t)
    offset = (keys @ attention.q_proj.bias.unflatten(0, (heads, -1, 1))).flatten(1).unsqueeze(1)  # (g,1,heads·t)
    return _weighted_values(attention, _softmax_by_head(keyed @ columns + offset, heads, tokens), v)
