"""Hoisting, prompt and mask graphs of the absorbed form.

Axes and names are the contract of ``docs/bundle-format.md``.
"""

from __future__ import annotations

from torch import Tensor, nn

from . import absorbed
from .decoder_parts import OUTPUT_TOKENS, DecoderParts
from .graphs import LATTICE_OFFSET
from .upscale import Skips, Upscale, by_token, choose_weights, pool_features


class AbsorbedDecoder(nn.Module):
    """A decoder's weights; this form makes nothing of them beforehand."""

    def __init__(self, parts: DecoderParts) -> None:
        super().__init__()
        self.parts = parts
        self.upscale = Upscale(parts.first, parts.norm, parts.second, LATTICE_OFFSET)

    def hoist(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(b,d,e,e) to image tokens (b,N,d) and ``absorbed.hoist`` of them."""
        keys = embedding.flatten(2).transpose(1, 2) + self.parts.no_mask
        return keys, *absorbed.hoist(self.parts.transformer, keys, self.parts.key_pe)

    def answer(
        self,
        keys: Tensor,
        hoisted: tuple[Tensor, Tensor, Tensor],
        features: Tensor,
        skips: Skips | None,
        points: Tensor,
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to the prompt graph's outputs."""
        parts, upscale = self.parts, self.upscale
        prompt = parts.prompt_tokens(points)
        queries, image = absorbed.decode(parts.transformer, keys, parts.key_pe, hoisted, prompt, OUTPUT_TOKENS)
        tokens = queries[:, 1:]
        hyper = parts.hyper(tokens)
        lattice = upscale.lattice(image @ upscale.lattice_kernel + upscale.first_bias, hyper, skips)
        iou = parts.iou_head(queries[:, 0])
        pooled = pool_features(lattice, features)
        return tokens, iou, lattice.unflatten(2, (parts.side, parts.side)), pooled, image, hyper

    def low_res(self, keys: Tensor, hyper: Tensor, skips: Skips | None) -> Tensor:
        """Image tokens of n prompts (n,N,d) and weights of the masks (n,c2) to logits (n,l,l)."""
        x = (keys @ self.upscale.kernel).unflatten(2, (4, -1)) + self.upscale.first_bias
        return self.upscale.low_res(x, hyper, skips)


class AbsorbedHoist(nn.Module):
    """Image embedding to hoisted tensors; the embedding is the dense features as well."""

    outputs: tuple[str, ...] = ("h_keys", "h_k1", "h_v1", "h_q1", "h_features")

    def __init__(self, decoder: AbsorbedDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """(b,d,e,e) to ``outputs``."""
        return *self.decoder.hoist(embedding), embedding.flatten(2).transpose(1, 2)


class AbsorbedPrompt(nn.Module):
    """Points to tokens, predicted IoU, lattice, pooled features and the state the mask graph needs."""

    outputs = ("tokens", "iou", "lattice", "features", "m_keys", "m_hyper")

    def __init__(self, decoder: AbsorbedDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, h_keys: Tensor, h_k1: Tensor, h_v1: Tensor, h_q1: Tensor, h_features: Tensor, points: Tensor
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to ``outputs``."""
        return self.decoder.answer(h_keys, (h_k1, h_v1, h_q1), h_features, None, points)


class AbsorbedMask(nn.Module):
    """Low-res logits of chosen masks."""

    outputs = ("logits",)

    def __init__(self, decoder: AbsorbedDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, m_keys: Tensor, m_hyper: Tensor, choice: Tensor) -> Tensor:
        """State of n prompts and which of its four masks each wants (n,) to logits (n,l,l)."""
        return self.decoder.low_res(m_keys, choose_weights(m_hyper, choice), None)


class AbsorbedSkipHoist(AbsorbedHoist):
    """Image embedding, skips and dense features to hoisted tensors."""

    outputs = (*AbsorbedHoist.outputs, "h_skip8", "h_skip4")

    def forward(  # type: ignore[override]  # another graph's inputs
        self, embedding: Tensor, skip8: Tensor, skip4: Tensor, features: Tensor
    ) -> tuple[Tensor, ...]:
        """(b,d,e,e), (b,c1,2e,2e), (b,c2,4e,4e) and (b,f,e,e) to ``outputs``, skips ``by_token``."""
        side = self.decoder.parts.side
        skips = by_token(skip8, side), by_token(skip4, side)
        return *self.decoder.hoist(embedding), features.flatten(2).transpose(1, 2), *skips


class AbsorbedSkipPrompt(AbsorbedPrompt):
    """``AbsorbedPrompt`` with skips."""

    def forward(  # type: ignore[override]  # another graph's inputs
        self,
        h_keys: Tensor,
        h_k1: Tensor,
        h_v1: Tensor,
        h_q1: Tensor,
        h_features: Tensor,
        h_skip8: Tensor,
        h_skip4: Tensor,
        points: Tensor,
    ) -> tuple[Tensor, ...]:
        """One photo's hoisted tensors and points (g,2) to ``outputs``."""
        return self.decoder.answer(h_keys, (h_k1, h_v1, h_q1), h_features, (h_skip8, h_skip4), points)


class AbsorbedSkipMask(AbsorbedMask):
    """``AbsorbedMask`` with skips."""

    def forward(  # type: ignore[override]  # another graph's inputs
        self, h_skip8: Tensor, h_skip4: Tensor, m_keys: Tensor, m_hyper: Tensor, choice: Tensor
    ) -> Tensor:
        """State of n prompts and which of its four masks each wants (n,) to logits (n,l,l)."""
        return self.decoder.low_res(m_keys, choose_weights(m_hyper, choice), (h_skip8, h_skip4))
