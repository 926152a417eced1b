"""Multiply-adds of the mask decoder in its three forms, counted from sizes; ``docs/decoder.md`` prints the tables.

Matrix products and convolutions are counted, nothing else: no softmax, no norm, no sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Form = Literal["plain", "absorbed", "low-rank"]
FORMS: tuple[Form, ...] = get_args(Form)
MASKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSizes:
    """Sizes of a decoder; the defaults are SAM's.

    Attributes:
        image: N, image tokens.
        tokens: t, tokens a prompt: predicted IoU, four masks, point, padding.
        read: Of these, those that the last attention answers; in the plain form all.
        width: d.
        inner: Width of attention between tokens and image, all heads together.
        heads: Attention heads.
        hidden: Width of the token MLPs.
        channels: After the first and the second step of upscaling.
    """

    image: int = 4096
    tokens: int = 7
    read: int = 5
    width: int = 256
    inner: int = 128
    heads: int = 8
    hidden: int = 2048
    channels: tuple[int, int] = (64, 32)


NANO = DecoderSizes(image=400, hidden=1024)
"""The embedded segmenter at side 320."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderCost:
    """Multiply-adds.

    Attributes:
        photo: Once a photo: what is hoisted.
        transformer: Once a prompt: two-way transformer.
        heads: Once a prompt: weights of masks and predicted IoU.
        lattice: Once a prompt: all four masks at one pixel of each token's 16.
        low_res: Once a chosen prompt: one mask at all pixels; in the plain form all four.
        state: Numbers a prompt hands to the mask graph.
    """

    photo: int
    transformer: int
    heads: int
    lattice: int
    low_res: int
    state: int

    def total(self, prompts: int, chosen: int) -> int:
        """A photo's multiply-adds with so many prompts, of which so many get low-res logits."""
        return self.photo + prompts * (self.transformer + self.heads + self.lattice) + chosen * self.low_res


def decoder_cost(form: Form, sizes: DecoderSizes) -> DecoderCost:
    """Counts one form.

    Args:
        form: ``plain``: as SAM's authors wrote it; ``absorbed``: ``export.absorbed``; or ``export.low_rank``.
        sizes: The decoder's.
    """
    n, d, (c1, c2) = sizes.image, sizes.width, sizes.channels
    heads = MASKS * (2 * d * d + d * c2) + 2 * d * d + MASKS * d
    second_step = 4 * n * c1 * 4 * c2
    transformer = token_cost(sizes) + _IMAGE_COSTS[form](sizes)
    if form == "low-rank":
        j = 2 * rank(sizes)
        return DecoderCost(
            photo=11 * n * d * sizes.inner + 3 * n * d + n * d * 4 * c1,
            transformer=transformer,
            heads=heads,
            lattice=j * d * c1 + n * (j * c1 + c1 * c2 + c2 * MASKS),
            low_res=j * d * 4 * c1 + n * j * 4 * c1 + second_step + 16 * n * c2,
            state=n * (j + 1) + j * d + MASKS * c2,
        )
    absorbed = form == "absorbed"
    return DecoderCost(
        photo=3 * n * d * sizes.inner if absorbed else 0,
        transformer=transformer,
        heads=heads,
        lattice=n * (d * c1 + c1 * c2 + c2 * MASKS) if absorbed else 0,
        low_res=n * d * 4 * c1 + second_step + 16 * n * c2 * (1 if absorbed else MASKS),
        state=n * d + MASKS * c2,
    )


def token_cost(sizes: DecoderSizes) -> int:
    """What no form saves: tokens' self-attention and MLPs in both blocks."""
    t, d = sizes.tokens, sizes.width
    return 2 * (4 * t * d * d + 2 * t * t * d + 2 * t * d * sizes.hidden)


def _plain(sizes: DecoderSizes) -> int:
    n, t, d, inner = sizes.image, sizes.tokens, sizes.width, sizes.inner
    to_image = 2 * t * d * inner + 2 * n * d * inner + 2 * t * n * inner
    to_token = 2 * n * d * inner + 2 * t * d * inner + 2 * t * n * inner
    return 3 * to_image + 2 * to_token


def _absorbed(sizes: DecoderSizes) -> int:
    n, t, d, inner = sizes.image, sizes.tokens, sizes.width, sizes.inner
    projection, scores, rows = t * d * inner, t * n * inner, sizes.heads * t

    def to_image(asking: int) -> int:
        return 4 * asking * d * inner + 2 * n * sizes.heads * asking * d

    first = 2 * projection + 2 * scores + 3 * projection + scores + n * rows * d
    to_token = 4 * projection + t * inner + 2 * n * rows * d
    return first + to_image(t) + to_token + to_image(sizes.read)


def _low_rank(sizes: DecoderSizes) -> int:
    n, t, d, inner = sizes.image, sizes.tokens, sizes.width, sizes.inner
    projection, scores, fewer = t * d * inner, t * n * inner, (t - 1) * n * inner
    rows = rank(sizes)
    differences = rows - 1

    def read(asking: int, j: int) -> int:
        """One projection of image tokens of rank j, on the way in or out of attention, without its share of F."""
        return j * d * inner + asking * inner * j + sizes.heads * asking * j * n

    def to_image(asking: int, j: int) -> int:
        return 2 * asking * d * inner + 3 * asking * n * inner + 2 * read(asking, j)

    first = 2 * projection + 2 * scores + 3 * projection + fewer
    norm1 = scores + differences * rows * (d + n)
    to_token = 3 * projection + 2 * fewer + read(t - 1, rows)
    norm2 = 2 * scores + (differences * 3 * rows + rows) * (d + n)
    return first + norm1 + to_image(t, rows) + to_token + norm2 + to_image(sizes.read, 2 * rows)


def rank(sizes: DecoderSizes) -> int:
    """Rows that one update of the image adds: all tokens but one in each head, and one of all heads together."""
    return sizes.heads * (sizes.tokens - 1) + 1


_IMAGE_COSTS = {"plain": _plain, "absorbed": _absorbed, "low-rank": _low_rank}
