"""Many clicks on many photos at once say what the module says of one photo, gradients included."""

from __future__ import annotations

import torch
from nano_random import random_nano
from sample_photos import CHECKPOINT
from torch import Tensor

from gransam_sdk.models.nano import Nano
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.training.nano.forward import normalised, precision_of, segment


def photos_and_points(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    photos = torch.randint(0, 256, (3, 3, 96, 96), generator=generator).to(torch.uint8)
    return normalised(photos), torch.rand(3, 4, 2, generator=generator)


def one_by_one(nano: Nano, photos: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    answers = [nano(photo[None], clicks) for photo, clicks in zip(photos, points, strict=True)]
    return torch.stack([logits for _, _, logits in answers]), torch.stack([iou for _, iou, _ in answers])


def test_the_same_answers() -> None:
    nano, (photos, points) = random_nano(), photos_and_points()
    logits, iou = one_by_one(nano, photos, points)
    said = segment(nano, photos, points)
    assert said.logits.shape == (3, 4, 4, 24, 24) and said.iou.shape == (3, 4, 4) and len(said.maps) == 7
    torch.testing.assert_close(said.logits, logits, atol=2e-4 * float(logits.abs().max()), rtol=0)
    torch.testing.assert_close(said.iou, iou, atol=2e-4 * float(iou.abs().max()), rtol=0)
    assert (logits[0] - logits[1]).abs().max() > 100 * (said.logits - logits).abs().max(), "photos differ"


def test_the_same_gradients() -> None:
    photos, points = photos_and_points()
    found: list[dict[str, Tensor]] = []
    for together in (False, True):
        nano = random_nano().requires_grad_(True)  # evaluation mode: BatchNorm's statistics are the same for both
        if together:
            said = segment(nano, photos, points)
            logits, iou = said.logits, said.iou
        else:
            logits, iou = one_by_one(nano, photos, points)
        (logits.square().mean() + iou.square().mean()).backward()
        found.append({name: p.grad for name, p in nano.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1]) == {name for name, _ in random_nano().named_parameters()}
    largest = max(float(gradient.norm()) for gradient in found[0].values())
    for name, gradient in found[0].items():  # a key's bias has none: it moves all scores of a softmax alike
        error = float((found[1][name] - gradient).norm())
        assert error < 0.05 * float(gradient.norm()) + 1e-6 * largest, name


def test_normalised_as_the_manifest_says() -> None:
    photos = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    expected = (torch.arange(256, dtype=torch.float64) - 127.5) / 127.5
    torch.testing.assert_close(normalised(photos)[0, 1].flatten().double(), expected, atol=1e-7, rtol=0)


def test_16_bits_are_near() -> None:
    nano = read_checkpoint(CHECKPOINT)
    photos, points = photos_and_points()
    exact = segment(nano, photos, points)
    with precision_of(torch.device("cpu"), "bf16"):
        near = segment(nano, photos, points)
    assert near.logits.dtype == torch.float32
    error = (near.logits - exact.logits).abs().mean() / exact.logits.abs().mean()
    assert 0 < error < 0.1
    with precision_of(torch.device("cpu"), "fp32"):
        assert torch.equal(segment(nano, photos, points).logits, exact.logits)
