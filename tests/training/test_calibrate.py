"""Temperature and thresholds on bags whose behaviour is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, WIDTH, noisy_bags

from gransam_sdk.errors import InputError
from gransam_sdk.models.head import Head
from gransam_sdk.training.calibrate import (
    answering_instances,
    calibrate,
    class_thresholds,
    fit_temperature,
)
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.split import split_bags


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_of_labels_drawn_from_the_logits(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(20_000, 5)) * 2)
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_temperature_is_where_the_likelihood_is_largest_and_stays_in_its_bounds() -> None:
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(300, 4)))
    labels = torch.from_numpy(rng.integers(0, 4, size=300))
    labels[:200] = logits[:200].argmax(1)
    tried = np.geomspace(0.2, 5, 4001)
    costs = [torch.nn.functional.cross_entropy(logits / t, labels).item() for t in tried]
    assert fit_temperature(logits, labels) == pytest.approx(tried[int(np.argmin(costs))], rel=2e-3)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.2, rel=1e-4), "never wrong"
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(5.0, rel=1e-4), "always wrong"


def test_instances_that_speak_for_the_answer() -> None:
    logits = torch.zeros(3, 16, 3)
    logits[0, 4, 1], logits[0, 9, 1], logits[0, 2, 0] = 5.0, 4.0, 3.0
    logits[1, 7, 0], logits[1, 8, 0], logits[1, :, 2] = 9.0, 8.0, 50.0  # the last column is explicit background
    logits[2, :, 0] = 7.0  # a _background picture
    found, labels = answering_instances(logits, torch.tensor([0, 0, -1]), classes=2, divisor=8)
    assert labels.tolist() == [0, 0, 0, 0]
    assert found[:2].tolist() == logits[0, [4, 9]].tolist(), "the answer is class 1, though the folder is class 0"
    assert found[2:].tolist() == logits[1, [7, 8]].tolist()


def pictures(confidence: list[float], winner: int, label: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bags whose instances give a class these confidences of three."""
    p = np.array(confidence, dtype=np.float32)
    row = np.repeat(((1 - p) / 2)[:, None], 3, axis=1)
    row[:, winner] = p
    return np.stack([row] * count).astype(np.float32), np.full(count, label)


def joined(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts])


def test_smallest_threshold_that_reaches_the_target() -> None:
    p, y = joined(
        pictures([0.9, 0.8, 0.5, 0.45], winner=0, label=0, count=10),  # right
        pictures([0.62, 0.41, 0.41, 0.41], winner=0, label=1, count=8),  # another folder's
        pictures([0.6, 0.41, 0.41, 0.41], winner=0, label=-1, count=4),  # background's
    )
    found = class_thresholds(p, y, 2, target=0.8, default=0.4)[0]
    # from 0.42 on, 40 of 52 are right; from 0.46 on, 30 of 42; from 0.51 on, 20 of 32; from 0.63 on, 20 of 20
    assert (found.threshold, found.basis) == (0.63, "target")
    assert (found.precision, found.kept, found.pictures) == (1.0, 20, 10)
    easier = class_thresholds(p, y, 2, target=0.75, default=0.4)[0]
    assert (easier.threshold, easier.precision, easier.kept) == (0.42, pytest.approx(40 / 52), 52)


def test_background_counts_as_wrong() -> None:
    right = pictures([0.9, 0.5], winner=0, label=0, count=20)
    clean = class_thresholds(*right, 2, target=0.8, default=0.4)[0]
    assert (clean.threshold, clean.precision) == (0.3, 1.0)
    p, y = joined(right, pictures([0.5, 0.5], winner=0, label=-1, count=20))
    found = class_thresholds(p, y, 2, target=0.8, default=0.4)[0]
    assert (found.threshold, found.precision, found.kept) == (0.51, 1.0, 20)


def test_unreachable_target_and_too_little_to_say() -> None:
    p, y = joined(pictures([0.97] * 5, winner=0, label=0, count=6), pictures([0.97] * 5, winner=0, label=1, count=6))
    first, second = class_thresholds(p, y, 2, target=0.8, default=0.4)
    assert (first.threshold, first.basis, first.precision, first.kept) == (0.95, "highest", 0.5, 60)
    assert (second.threshold, second.basis, second.precision, second.kept) == (0.4, "default", None, 0)
    few_pictures = class_thresholds(*pictures([0.9] * 30, winner=0, label=0, count=3), 2, target=0.8, default=0.4)[0]
    assert (few_pictures.basis, few_pictures.kept, few_pictures.pictures) == ("default", 90, 3)
    few_kept = class_thresholds(*pictures([0.9], winner=0, label=0, count=19), 2, target=0.8, default=0.4)[0]
    assert (few_kept.basis, few_kept.kept) == ("default", 19)


def test_explicit_background_drops_what_it_wins() -> None:
    right = pictures([0.9, 0.5], winner=0, label=0, count=20)
    p, y = joined(right, pictures([0.9, 0.5], winner=2, label=-1, count=20))
    assert class_thresholds(p, y, 2, target=1.0, default=0.4)[0].kept == 40


def test_temperature_is_folded_into_the_last_layer() -> None:
    torch.manual_seed(0)
    head, x = Head(WIDTH, CLASSES, 0.5).eval().requires_grad_(False), torch.randn(6, WIDTH)
    before = head(x)
    head.fold_temperature(2.5)
    torch.testing.assert_close(head(x), before / 2.5)


def test_an_overconfident_head_is_cooled_and_thresholds_rise_with_the_target() -> None:
    config = HeadConfig(epochs=6)
    rest, held = split_bags(noisy_bags(count=300, strength=0.5), 0.4, seed=0)
    head = fit_head(rest, config).head
    with torch.no_grad():
        head.fc3.weight.mul_(10)
        head.fc3.bias.mul_(10)
    weights = head.fc3.weight.clone()
    found = calibrate(head, held, config)
    assert found.temperature > 1.5
    torch.testing.assert_close(head.fc3.weight, weights / found.temperature)
    assert found.background_pictures == int((held.labels < 0).sum()) > 0
    assert len(found.thresholds) == CLASSES and all(0.3 <= value <= 0.95 for value in found.thresholds)
    again = calibrate(head, held, config)
    assert again.temperature == pytest.approx(1.0, abs=1e-3), "nothing is left to cool"
    strict = calibrate(head, held, config, target=0.95)
    assert all(a >= b for a, b in zip(strict.thresholds, again.thresholds, strict=True) if b != config.threshold)
    with torch.no_grad():
        p = head(torch.from_numpy(held.instances.astype(np.float32))).softmax(2).numpy()
    for index, row in enumerate(again.classes):  # counted again, by hand
        kept = (p.argmax(2) == index) & (p.max(2) >= np.float32(row.threshold))
        assert abs(int(kept.sum()) - row.kept) <= 1
        right = int((kept & (held.labels == index)[:, None]).sum())
        assert right == pytest.approx((row.precision or 0.0) * row.kept, abs=1.01)


def test_what_cannot_be_calibrated() -> None:
    bags = noisy_bags(count=10)
    head = Head(WIDTH, CLASSES, 0.5).eval()
    with pytest.raises(InputError, match="target"):
        calibrate(head, bags, HeadConfig(), target=1.2)
    rows = bags.labels < 0
    background = replace(bags, instances=bags.instances[rows], labels=bags.labels[rows])
    with pytest.raises(InputError, match="held-out"):
        calibrate(head, background, HeadConfig())
