"""Hoisting, prompt and mask graphs of the low-rank form.

Axes and names are the contract of ``docs/bundle-format.md``.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .decoder_parts import OUTPUT_TOKENS, DecoderParts
from .graphs import LATTICE_OFFSET
from .low_rank import Hoisted, ImageTokens, LowRankTransformer
from .upscale import Skips, Upscale, by_token, choose_weights, pool_features


class LowRankHoisted(NamedTuple):
    """What is computed once a photo: ``low_rank.Hoisted`` and what masks and features need."""

    h_k1: Tensor
    h_v1: Tensor
    h_q1: Tensor
    h_k2: Tensor
    h_v2: Tensor
    h_q2: Tensor
    h_k3: Tensor
    h_v3: Tensor
    h_cross1: Tensor
    h_cross21: Tensor
    h_cross22: Tensor
    h_norms: Tensor
    h_up: Tensor  # (b,N,4,c1) first step of upscaling, the photo's share
    h_features: Tensor  # (b,N,f) dense features


class LowRankDecoder(nn.Module):
    """A decoder's weights, and what this form makes of them and the positions."""

    offset: Tensor

    def __init__(self, parts: DecoderParts) -> None:
        super().__init__()
        self.parts = parts
        self.transformer = LowRankTransformer(parts.transformer, parts.key_pe)
        self.upscale = Upscale(parts.first, parts.norm, parts.second, LATTICE_OFFSET)
        # What the image tokens have besides ``ImageTokens`` and F is the same for all: it joins the first step's bias.
        beta = self.transformer.second.norm4.bias
        at_beta = (beta.double() @ self.upscale.kernel.double()).unflatten(0, (4, -1))
        self.register_buffer("offset", (at_beta + self.upscale.first_bias.double()).to(beta.dtype).detach())  # (4,c1)

    def hoist(self, embedding: Tensor) -> tuple[Hoisted, Tensor]:
        """(b,d,e,e) to what the transformer needs, and F's share of the first step of upscaling (b,N,4,c1)."""
        hoisted, shared = self.transformer.hoist(embedding.flatten(2).transpose(1, 2) + self.parts.no_mask)
        return hoisted, (shared @ self.upscale.kernel).unflatten(-1, (4, -1))

    def answer(
        self, hoisted: Hoisted, up: Tensor, features: Tensor, skips: Skips | None, points: Tensor
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to the prompt graph's outputs."""
        parts, upscale = self.parts, self.upscale
        queries, image = self.transformer.decode(hoisted, parts.prompt_tokens(points), OUTPUT_TOKENS)
        tokens = queries[:, 1:]
        hyper = parts.hyper(tokens)
        corner = upscale.corners[0]
        x = _spread(image, up[:, corner], upscale.lattice_kernel) + self.offset[corner]
        lattice = upscale.lattice(x, hyper, skips)
        iou = parts.iou_head(queries[:, 0])
        pooled = pool_features(lattice, features)
        return tokens, iou, lattice.unflatten(2, (parts.side, parts.side)), pooled, *image, hyper

    def low_res(self, up: Tensor, image: ImageTokens, hyper: Tensor, skips: Skips | None) -> Tensor:
        """F's share (N,4,c1), image tokens of n prompts and weights of the masks (n,c2) to logits (n,l,l)."""
        x = _spread(image, up.flatten(1), self.upscale.kernel).unflatten(2, up.shape[1:]) + self.offset
        return self.upscale.low_res(x, hyper, skips)


def _spread(image: ImageTokens, up: Tensor, kernel: Tensor) -> Tensor:
    """Image tokens, but for β, times a kernel (d,c), with F's share (N,c): (g,N,c)."""
    return image.scale[..., None] * (up + image.mix.transpose(1, 2) @ (image.rows @ kernel))


class LowRankHoist(nn.Module):
    """Image embedding to hoisted tensors; the embedding is the dense features as well."""

    outputs: tuple[str, ...] = LowRankHoisted._fields

    def __init__(self, decoder: LowRankDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """(b,d,e,e) to ``LowRankHoisted``."""
        hoisted, up = self.decoder.hoist(embedding)
        return LowRankHoisted(*hoisted, up, embedding.flatten(2).transpose(1, 2))


class LowRankPrompt(nn.Module):
    """Points to tokens, predicted IoU, lattice, pooled features and the state the mask graph needs."""

    outputs = ("tokens", "iou", "lattice", "features", "m_scale", "m_mix", "m_rows", "m_hyper")

    def __init__(self, decoder: LowRankDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        h_k1: Tensor,
        h_v1: Tensor,
        h_q1: Tensor,
        h_k2: Tensor,
        h_v2: Tensor,
        h_q2: Tensor,
        h_k3: Tensor,
        h_v3: Tensor,
        h_cross1: Tensor,
        h_cross21: Tensor,
        h_cross22: Tensor,
        h_norms: Tensor,
        h_up: Tensor,
        h_features: Tensor,
        points: Tensor,
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to ``outputs``."""
        hoisted = Hoisted(h_k1, h_v1, h_q1, h_k2, h_v2, h_q2, h_k3, h_v3, h_cross1, h_cross21, h_cross22, h_norms)
        return self.decoder.answer(hoisted, h_up, h_features, None, points)


class LowRankMask(nn.Module):
    """Low-res logits of chosen masks."""

    outputs = ("logits",)

    def __init__(self, decoder: LowRankDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, h_up: Tensor, m_scale: Tensor, m_mix: Tensor, m_rows: Tensor, m_hyper: Tensor, choice: Tensor
    ) -> Tensor:
        """State of n prompts and which of its four masks each wants (n,) to logits (n,l,l)."""
        return self.decoder.low_res(h_up, ImageTokens(m_scale, m_mix, m_rows), choose_weights(m_hyper, choice), None)


class LowRankSkipHoist(LowRankHoist):
    """Image embedding, skips and dense features to hoisted tensors."""

    outputs = (*LowRankHoisted._fields, "h_skip8", "h_skip4")

    def forward(  # type: ignore[override]  # another graph's inputs
        self, embedding: Tensor, skip8: Tensor, skip4: Tensor, features: Tensor
    ) -> tuple[Tensor, ...]:
        """(b,d,e,e), (b,c1,2e,2e), (b,c2,4e,4e) and (b,f,e,e) to ``outputs``, skips ``by_token``."""
        hoisted, up = self.decoder.hoist(embedding)
        side = self.decoder.parts.side
        skips = by_token(skip8, side), by_token(skip4, side)
        return *hoisted, up, features.flatten(2).transpose(1, 2), *skips


class LowRankSkipPrompt(LowRankPrompt):
    """``LowRankPrompt`` with skips."""

    def forward(  # type: ignore[override]  # another graph's inputs
        self,
        h_k1: Tensor,
        h_v1: Tensor,
        h_q1: Tensor,
        h_k2: Tensor,
        h_v2: Tensor,
        h_q2: Tensor,
        h_k3: Tensor,
        h_v3: Tensor,
        h_cross1: Tensor,
        h_cross21: Tensor,
        h_cross22: Tensor,
        h_norms: Tensor,
        h_up: Tensor,
        h_features: Tensor,
        h_skip8: Tensor,
        h_skip4: Tensor,
        points: Tensor,
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to ``outputs``."""
        hoisted = Hoisted(h_k1, h_v1, h_q1, h_k2, h_v2, h_q2, h_k3, h_v3, h_cross1, h_cross21, h_cross22, h_norms)
        return self.decoder.answer(hoisted, h_up, h_features, (h_skip8, h_skip4), points)


class LowRankSkipMask(LowRankMask):
    """``LowRankMask`` with skips."""

    def forward(  # type: ignore[override]  # another graph's inputs
        self,
        h_up: Tensor,
        h_skip8: Tensor,
        h_skip4: Tensor,
        m_scale: Tensor,
        m_mix: Tensor,
        m_rows: Tensor,
        m_hyper: Tensor,
        choice: Tensor,
    ) -> Tensor:
        """State of n prompts and which of its four masks each wants (n,) to logits (n,l,l)."""
        image, hyper = ImageTokens(m_scale, m_mix, m_rows), choose_weights(m_hyper, choice)
        return self.decoder.low_res(h_up, image, hyper, (h_skip8, h_skip4))
