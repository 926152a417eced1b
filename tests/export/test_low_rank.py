"""The low-rank transformer against SAM's description in numpy float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import decoder_oracle as oracle
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gransam_sdk.errors import InputError
from gransam_sdk.export.image_update import Update, leave_out, smallest
from gransam_sdk.export.low_rank import Hoisted, ImageTokens, LowRankTransformer, multiply_out
from gransam_sdk.models.two_way import TwoWayTransformer, grid_positions


@dataclass(frozen=True, kw_only=True)
class Case:
    """One photo's tensors in float64: image tokens (N,256), positions (N,256), prompt tokens (g,7,256)."""

    plain: TwoWayTransformer
    keys: Tensor
    key_pe: Tensor
    tokens: Tensor


def random_case(hidden: int, side: int, prompts: int = 2, seed: int = 0) -> Case:
    """Norms, biases and attention as wide as trained ones: no step is nearly the identity."""
    generator = torch.Generator().manual_seed(seed)
    plain = TwoWayTransformer(hidden=hidden).double().eval().requires_grad_(False)
    for name, value in plain.state_dict().items():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if value.ndim == 2:
            value.copy_(1.5 * noise / value.shape[1] ** 0.5)
        else:
            value.copy_(1.0 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise)
    keys = torch.randn(side * side, 256, generator=generator, dtype=torch.float64)
    angle = grid_positions(side).double() @ torch.randn(2, 128, generator=generator, dtype=torch.float64) * 6.0
    tokens = torch.randn(prompts, 7, 256, generator=generator, dtype=torch.float64)
    return Case(plain=plain, keys=keys, key_pe=torch.cat([angle.sin(), angle.cos()], dim=1), tokens=tokens)


def run(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, ImageTokens]:
    """Tokens, image tokens multiplied out, and their factors."""
    plain = TwoWayTransformer(hidden=case.plain.layers[0].mlp.lin1.out_features)  # type: ignore[union-attr, arg-type]
    plain.to(dtype).load_state_dict(case.plain.state_dict())
    with torch.no_grad():
        module = LowRankTransformer(plain.eval(), case.key_pe.to(dtype))
        hoisted, shared = module.hoist(case.keys[None].to(dtype))
        tokens, image = module.decode(Hoisted(*(part[0] for part in hoisted)), case.tokens.to(dtype))
        return tokens, multiply_out(image, shared[0], module.second.norm4.bias), image


def run_plain(case: Case, dtype: torch.dtype) -> Tensor:
    plain = TwoWayTransformer(hidden=case.plain.layers[0].mlp.lin1.out_features)  # type: ignore[union-attr, arg-type]
    plain.to(dtype).load_state_dict(case.plain.state_dict())
    with torch.no_grad():
        tokens: Tensor = plain(
            case.keys.to(dtype).expand(len(case.tokens), -1, -1), case.key_pe.to(dtype)[None], case.tokens.to(dtype)
        )[0]
    return tokens


def run_oracle(case: Case) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and image tokens of each prompt."""
    weights = {name: value.numpy() for name, value in case.plain.state_dict().items()}
    for tokens in case.tokens.numpy():
        yield oracle.two_way(weights, case.keys.numpy(), case.key_pe.numpy(), tokens)


def stacked(case: Case) -> tuple[Tensor, Tensor]:
    tokens, images = zip(*run_oracle(case), strict=True)
    return torch.from_numpy(np.stack(tokens)), torch.from_numpy(np.stack(images))


@pytest.mark.parametrize("hidden", [1024, 2048])
def test_equals_the_description_in_float64(hidden: int) -> None:
    """An identity, not an approximation: rounding alone is left of 1e-9."""
    case = random_case(hidden, side=7)
    tokens, image, factors = run(case, torch.float64)
    expected_tokens, expected_image = stacked(case)
    torch.testing.assert_close(tokens, expected_tokens, rtol=0, atol=1e-9)
    torch.testing.assert_close(image, expected_image, rtol=0, atol=1e-9)
    assert factors.mix.shape == (2, 98, 49) and factors.scale.shape == (2, 49)
    module = LowRankTransformer(case.plain, case.key_pe)
    hoisted = Hoisted(*(part[0] for part in module.hoist(case.keys[None])[0]))
    five = module.decode(hoisted, case.tokens, 5)[0]
    torch.testing.assert_close(five, expected_tokens[:, :5], rtol=0, atol=1e-9)
    assert (expected_tokens[0] - expected_tokens[1]).abs().max() > 0.1, "the prompt matters"
    assert expected_image.std(dim=0).mean() > 0.01, "to the image as well"


@pytest.mark.parametrize(("hidden", "side", "prompts"), [(1024, 20, 2), (2048, 64, 1)])
def test_float32_is_as_close_as_the_plain_form(hidden: int, side: int, prompts: int) -> None:
    """N = 400 and N = 4096."""
    case = random_case(hidden, side, prompts)
    tokens, image, _ = run(case, torch.float32)
    expected_tokens, expected_image = stacked(case)
    torch.testing.assert_close(tokens.double(), expected_tokens, rtol=0, atol=1e-4)
    torch.testing.assert_close(image.double(), expected_image, rtol=0, atol=1e-4)
    theirs = (run_plain(case, torch.float32) - expected_tokens).abs().max()
    assert (tokens - expected_tokens).abs().max() < 5 * theirs


@pytest.mark.parametrize("side", [20, 64])
def test_outlier_channels_cost_the_variance_no_digits(side: int) -> None:
    """Some encoders give a few channels a hundred times the others' size: their squares leave 16 bits, not 32."""
    case = random_case(2048, side, prompts=1, seed=3)
    case.keys[:, ::41] *= 100.0
    tokens, image, factors = run(case, torch.float32)
    _, _, exact = run(case, torch.float64)
    error = (factors.scale / exact.scale - 1).abs().max()
    assert error < 3e-6, error
    expected_tokens, expected_image = stacked(case)
    torch.testing.assert_close(tokens.double(), expected_tokens, rtol=0, atol=5e-4)
    torch.testing.assert_close(image.double(), expected_image, rtol=0, atol=5e-4)
    hoisted, _ = LowRankTransformer(case.plain, case.key_pe).hoist(case.keys[None])
    assert hoisted.norms.half().isinf().any()


def said(weights: Tensor, values: Tensor) -> Update:
    """Weights (g,h,t,N) and values (g,h,t,w) of all tokens to what the module makes of them."""
    one = smallest(values)
    (others, base), (weights, _) = leave_out(values, one), leave_out(weights, one)
    return Update(weights.flatten(1, 2), others - base, base.flatten(1))


@pytest.mark.parametrize("left", [1.0, 1e-2, 1e-4])
def test_variance_that_cancels_loses_what_rounding_must(left: float) -> None:
    """An update that takes back the image: the error stays a few last digits of what cancelled, and never below 0."""
    case = random_case(1024, side=8, seed=5)
    generator = torch.Generator().manual_seed(6)
    weights = torch.randn(1, 8, 7, 64, generator=generator, dtype=torch.float64).softmax(2)
    values = torch.randn(1, 8, 7, 16, generator=generator, dtype=torch.float64)
    attention = case.plain.layers[0].cross_attn_image_to_token
    assert isinstance(attention, nn.Module)
    with torch.no_grad():
        mixed = torch.einsum("ghtn,ghtw->gnhw", weights, values).flatten(2)
        update = attention.out_proj(mixed)  # type: ignore[operator]
        keys = (left * torch.randn(update.shape, generator=generator, dtype=torch.float64) - update).float()
        variance = (keys.double() + update).var(-1, correction=0)  # what LayerNorm sees
        module = LowRankTransformer(case.plain.float(), case.key_pe.float())
        hoisted = Hoisted(*(part[0] for part in module.hoist(keys)[0]))
        found = module._after_first(hoisted, said(weights.float(), values.float()))
    scale = found.scale.double()
    assert scale.isfinite().all()
    eps = 1e-5
    cancelled = keys.double().var(-1, correction=0) + update.var(-1, correction=0)
    error = (scale**-2 - (variance + eps)).abs()
    assert (error < 16 * 2.0**-24 * cancelled + 1e-6 * (variance + eps)).all(), (error / cancelled).max() * 2**24
    if left == 1.0:
        assert ((scale**2 * (variance + eps) - 1).abs() < 1e-5).all()


@pytest.mark.parametrize("loud", range(7))
def test_a_loud_token_that_no_image_token_heeds_costs_no_digits(loud: int) -> None:
    """Were the others told from it, values a thousand times theirs would have to cancel."""
    case = random_case(1024, side=8, seed=7)
    generator = torch.Generator().manual_seed(8)
    scores = torch.randn(1, 8, 7, 64, generator=generator, dtype=torch.float64)
    values = torch.randn(1, 8, 7, 16, generator=generator, dtype=torch.float64)
    keys = torch.randn(1, 64, 256, generator=generator, dtype=torch.float64)
    scores[:, :, loud] -= 30.0
    values[:, :, loud] *= 1000.0
    weights, attention = scores.softmax(2), case.plain.layers[0].cross_attn_image_to_token
    with torch.no_grad():
        update = attention.out_proj(torch.einsum("ghtn,ghtw->gnhw", weights, values).flatten(2))  # type: ignore[operator, union-attr]
        module = LowRankTransformer(case.plain.float(), case.key_pe.float())
        hoisted = Hoisted(*(part[0] for part in module.hoist(keys.float())[0]))
        scale = module._after_first(hoisted, said(weights.float(), values.float())).scale.double()
    exact = ((keys + update).var(-1, correction=0) + 1e-5).rsqrt()
    assert (scale / exact - 1).abs().max() < 1e-6


def test_another_depth_is_refused() -> None:
    with pytest.raises(InputError, match="two blocks"):
        LowRankTransformer(TwoWayTransformer(depth=1), torch.zeros(4, 256))
