"""What does float32 cost in the low-rank form of the decoder, and what do channels of great size?

python benchmarks/rounding.py
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from result import write_result
from torch import Tensor

from gransam_sdk.export.low_rank import Hoisted, ImageTokens, LowRankTransformer
from gransam_sdk.models.two_way import TwoWayTransformer, grid_positions

PROMPTS = 2
CASES = (
    # MLP width, embedding side, size of the outlier channels
    (1024, 20, 1.0),
    (2048, 64, 1.0),
    (2048, 64, 100.0),
    (2048, 64, 1000.0),
)
EVERY = 41
"""Every 41st channel is an outlier: 7 of 256."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A transformer with random weights and a photo's tensors, in float64."""

    plain: TwoWayTransformer
    keys: Tensor
    position: Tensor
    tokens: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        return Case(
            plain=copy.deepcopy(self.plain).to(dtype),
            keys=self.keys.to(dtype),
            position=self.position.to(dtype),
            tokens=self.tokens.to(dtype),
        )


def main() -> None:
    write_result(
        "rounding",
        title="Rounding in the low-rank decoder",
        question="How far are the decoder's tokens, which are of order 1, from those of the plain form in float64?",
        columns=(
            "MLP",
            "N",
            "outlier channels",
            "low-rank, float64",
            "low-rank, float32",
            "plain, float32",
            "scale of image tokens, relative",
        ),
        rows=[[hidden, side * side, describe(size), *figures(hidden, side, size)] for hidden, side, size in CASES],
        notes=[
            "Largest absolute differences over all tokens of two prompts; random weights, norms and biases. The last "
            "column is the low-rank form's LayerNorm factor in float32 against float64: what its variance by quadratic "
            "form loses."
        ],
    )


def describe(size: float) -> str:
    return "none" if size == 1.0 else f"7 of 256, × {size:,.0f}"


@torch.no_grad()
def figures(hidden: int, side: int, size: float) -> list[str]:
    exact = random_case(hidden, side, size)
    single = exact.to(torch.float32)
    truth = run_plain(exact)
    double_tokens, double_image = run_low_rank(exact)
    tokens, image = run_low_rank(single)
    scale = (image.scale / double_image.scale - 1).abs().max()
    off = [(found - truth).abs().max() for found in (double_tokens, tokens, run_plain(single))]
    return [f"{float(value):.0e}" for value in (*off, scale)]


def random_case(hidden: int, side: int, size: float) -> Case:
    """Norms, biases and attention as wide as trained ones: no step is nearly the identity."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    plain = TwoWayTransformer(hidden=hidden).double().eval().requires_grad_(False)
    for name, value in plain.state_dict().items():
        noise = draw(*value.shape)
        if value.ndim == 2:
            value.copy_(1.5 * noise / value.shape[1] ** 0.5)
        else:
            value.copy_(1.0 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise)
    keys = draw(side * side, 256)
    keys[:, ::EVERY] *= size
    angle = grid_positions(side).double() @ draw(2, 128) * 6.0
    return Case(
        plain=plain, keys=keys, position=torch.cat([angle.sin(), angle.cos()], dim=1), tokens=draw(PROMPTS, 7, 256)
    )


def run_plain(case: Case) -> Tensor:
    tokens: Tensor = case.plain(case.keys.expand(PROMPTS, -1, -1), case.position[None], case.tokens)[0]
    return tokens


def run_low_rank(case: Case) -> tuple[Tensor, ImageTokens]:
    module = LowRankTransformer(case.plain, case.position)
    hoisted = Hoisted(*(part[0] for part in module.hoist(case.keys[None])[0]))
    return module.decode(hoisted, case.tokens)


if __name__ == "__main__":
    main()
