"""The nano module: contract, checkpoint keys, and what its parts promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nano_random import random_nano
from sample_photos import SHARED

from gransam_sdk.models.nano import ConvNorm, Nano
from gransam_sdk.models.nano_checkpoint import load_nano, rename_seed_key

SEED = SHARED / "models" / "nano-seed.safetensors"
LATER = tuple(f"image_encoder.{name}." for name in ("context", "narrow", "detail8", "detail4"))


def test_shapes_and_size() -> None:
    nano = random_nano()
    with torch.no_grad():
        tokens, iou, logits = nano(torch.rand(1, 3, 96, 96), torch.rand(5, 2))
        embedding, skip8, skip4, features = nano.image_encoder(torch.rand(2, 3, 96, 96))
    assert tokens.shape == (5, 4, 256) and iou.shape == (5, 4) and logits.shape == (5, 4, 24, 24)
    assert embedding.shape == (2, 256, 6, 6) and features.shape == (2, 416, 6, 6)
    assert skip8.shape == (2, 64, 12, 12) and skip4.shape == (2, 32, 24, 24)
    assert 5.3e6 < sum(p.numel() for p in nano.parameters()) < 5.6e6


def test_stride_two_pads_bottom_and_right_only() -> None:
    layer = ConvNorm(1, 1, 3, 2).eval()
    torch.nn.init.ones_(layer.conv.weight)
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1.0
    out = layer(image)[0, 0]
    assert out[0, 0] > 0 and out[0, 1] == 0  # a top or left pad would shift the first pixel away from the corner
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 3, 3] = 1.0
    assert layer(image)[0, 0, 1, 1] > 0


def test_token_order_and_padding() -> None:
    """Seven tokens: IoU, four masks, the point, the padding token that SAM adds beside a point."""
    nano = random_nano()
    tokens = nano.prompt_tokens(torch.tensor([[0.2, 0.7], [0.9, 0.1]]))
    assert tokens.shape == (2, 7, 256)
    assert torch.equal(tokens[0, :5], nano.mask_decoder.output_tokens())
    assert torch.equal(tokens[1, 6], nano.prompt_encoder.not_a_point.weight[0])
    angle = 2 * np.pi * (2 * torch.tensor([0.9, 0.1]).double() - 1) @ nano.prompt_encoder.gaussian.double()
    expected = torch.cat([angle.sin(), angle.cos()]) + nano.prompt_encoder.point.weight[0].double()
    torch.testing.assert_close(tokens[1, 5].double(), expected, atol=1e-4, rtol=0)


def test_no_two_seed_keys_become_one() -> None:
    names = Nano().state_dict().keys()
    assert {rename_seed_key(name) for name in names} == set(names), "this module's own keys stay as they are"


@pytest.mark.shared
@pytest.mark.skipif(not SEED.exists(), reason="needs ../shared/models")
def test_seed_checkpoint_fills_every_parameter() -> None:
    from safetensors.torch import load_file

    tensors = load_file(SEED)
    nano = load_nano(tensors)  # strict: a missing or unknown key raises
    assert len(tensors) == 446
    assert torch.equal(nano.mask_decoder.iou_token.weight, tensors["dec.iou_token.weight"].float())


def without_later(nano: Nano) -> dict[str, torch.Tensor]:
    """What a checkpoint from before ``Context`` and ``Detail`` holds."""
    return {key: value for key, value in nano.state_dict().items() if not key.startswith(LATER)}


def test_a_checkpoint_from_before_says_what_it_said() -> None:
    """The blocks that it lacks add nothing, and begin the same in every process."""
    whole = random_nano()
    old, again = load_nano(without_later(whole)), load_nano(without_later(whole))
    for (name, value), other in zip(old.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    encoder, image = old.image_encoder, torch.rand(1, 3, 64, 64)
    maps = encoder.stage_maps(image)
    embedding, skip8, skip4 = encoder.merge(maps)
    coarse = torch.nn.functional.interpolate(encoder.lateral32(maps[6]), scale_factor=2.0, mode="bilinear")
    plain = encoder.lateral16(maps[4]) + coarse
    assert torch.equal(embedding, plain + encoder.smooth(plain))
    assert torch.equal(skip8, encoder.skip8(maps[2])) and torch.equal(skip4, encoder.skip4(maps[1]))
    assert not torch.equal(whole.image_encoder(image)[1], skip8), "in the random one they add something"


def test_a_checkpoint_with_some_of_the_later_blocks_is_refused() -> None:
    state = random_nano().state_dict()
    del state["image_encoder.context.1.project.bias"]
    with pytest.raises(RuntimeError, match=r"context\.1\.project\.bias"):
        load_nano(state)


def test_wrong_checkpoint_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        load_nano({"enc.stem.0.1.weight": torch.zeros(32, 3, 3, 3)})
