"""Temperature and thresholds on bags whose behaviour is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, WIDTH, noisy_bags, noisy_scenes, one_head
from torch import nn

from gransam_sdk.errors import InputError
from gransam_sdk.models.head import Head
from gransam_sdk.training.bags import Bags, SceneBags
from gransam_sdk.training.calibrate import (
    Calibration,
    answering_instances,
    calibrate,
    class_thresholds,
    fit_temperature,
    lowest_threshold,
)
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.split import split_bags
from gransam_sdk.types import Evidence


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
    tried = np.geomspace(0.5, 5, 4001)
    costs = [torch.nn.functional.cross_entropy(logits / t, labels).item() for t in tried]
    assert fit_temperature(logits, labels) == pytest.approx(tried[int(np.argmin(costs))], rel=2e-3)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.5, rel=1e-4), "never wrong"
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


def instances(
    confidence: list[float], winner: int, truth: int, count: int, columns: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` times instances that give a class these confidences, on pictures of class ``truth``."""
    p = np.array(confidence * count, dtype=np.float32)
    rows = np.repeat(((1 - p) / (columns - 1))[:, None], columns, axis=1)
    rows[:, winner] = p
    return rows.astype(np.float32), np.full(len(p), truth)


def joined(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts])


def thresholds(
    found: tuple[np.ndarray, np.ndarray], pictures: list[int], target: float = 0.8, default: float = 0.4
) -> list[tuple[float, Evidence]]:
    return class_thresholds(*found, np.array(pictures), target=target, default=default)


def test_smallest_threshold_that_reaches_the_target() -> None:
    found = joined(
        instances([0.9, 0.8, 0.6, 0.55], winner=0, truth=0, count=10),  # right
        instances([0.72, 0.51, 0.51, 0.51], winner=0, truth=1, count=8),  # another folder's
        instances([0.7, 0.51, 0.51, 0.51], winner=0, truth=-1, count=4),  # background's
    )
    # from 0.52 on, 40 of 52 are right; from 0.56 on, 30 of 42; from 0.61 on, 20 of 32; from 0.73 on, 20 of 20
    first = thresholds(found, [10, 8])[0]
    assert first == (0.73, Evidence(precision=1.0, kept=20, pictures=10, basis="target"))
    threshold, evidence = thresholds(found, [10, 8], target=0.75)[0]
    assert (threshold, evidence.precision, evidence.kept) == (0.52, pytest.approx(40 / 52), 52)


def test_a_class_less_likely_than_all_others_together_is_not_kept() -> None:
    """However right it is."""
    right = instances([0.9, 0.5, 0.49, 0.4], winner=0, truth=0, count=20)
    threshold, evidence = thresholds(right, [20, 0])[0]
    assert (threshold, evidence.precision, evidence.kept) == (0.5, 1.0, 40)
    assert thresholds(instances([0.49], winner=0, truth=0, count=40), [20, 0])[0][1].basis == "default"


@pytest.mark.parametrize(
    ("columns", "lowest"), [(2, 0.5), (4, 0.5), (5, 0.5), (6, 0.44), (8, 0.36), (10, 0.31), (11, 0.3), (20, 0.3)]
)
def test_the_lowest_threshold_is_well_above_chance(columns: int, lowest: float) -> None:
    """Four times as likely as the mean of the others, within 0.30 and 0.50."""
    assert lowest_threshold(columns) == lowest
    assert lowest * (columns - 1) / (1 - lowest) > (3.9 if columns > 4 else 1.0 - 1e-9)
    wins = instances([lowest], winner=0, truth=0, count=20, columns=columns)
    rest = instances([lowest - 0.005], winner=0, truth=0, count=7, columns=columns)
    found = thresholds(joined(wins, rest), [20] + [0] * (columns - 1))[0]
    assert found == (lowest, Evidence(precision=1.0, kept=20, pictures=20, basis="target"))


@pytest.mark.parametrize(
    ("columns", "default", "taken"), [(3, 0.4, 0.5), (3, 0.7, 0.7), (11, 0.4, 0.4), (11, 0.2, 0.3)]
)
def test_a_default_is_at_least_the_lowest(columns: int, default: float, taken: float) -> None:
    few = instances([0.9], winner=0, truth=0, count=3, columns=columns)
    assert [value for value, _ in thresholds(few, [3] * columns, default=default)] == [taken] * columns


def test_background_counts_as_wrong() -> None:
    right = instances([0.9, 0.5], winner=0, truth=0, count=20)
    both = joined(right, instances([0.5, 0.5], winner=0, truth=-1, count=20))
    threshold, evidence = thresholds(both, [20, 0])[0]
    assert (threshold, evidence.precision, evidence.kept) == (0.51, 1.0, 20)


def test_unreachable_target_and_too_little_to_say() -> None:
    both = joined(instances([0.97] * 5, winner=0, truth=0, count=6), instances([0.97] * 5, winner=0, truth=1, count=6))
    first, second = thresholds(both, [6, 6])
    assert first == (0.95, Evidence(precision=0.5, kept=60, pictures=6, basis="highest"))
    assert second == (0.5, Evidence(precision=None, kept=0, pictures=6, basis="default"))
    threshold, few_pictures = thresholds(instances([0.9] * 30, winner=0, truth=0, count=3), [3])[0]
    assert (threshold, few_pictures.basis, few_pictures.kept) == (0.5, "default", 90)
    few_kept = thresholds(instances([0.9], winner=0, truth=0, count=19), [19])[0][1]
    assert (few_kept.basis, few_kept.kept) == ("default", 19)
    assert thresholds(instances([0.9], winner=0, truth=0, count=20), [4])[0][1].basis == "target", "just enough"


def test_explicit_background_drops_what_it_wins() -> None:
    right = instances([0.9, 0.5], winner=0, truth=0, count=20)
    both = joined(right, instances([0.9, 0.5], winner=2, truth=-1, count=20))
    assert thresholds(both, [20, 0], target=1.0)[0][1].kept == 40


def test_temperature_is_folded_into_the_last_layer() -> None:
    torch.manual_seed(0)
    head, x = Head(WIDTH, CLASSES, 0.5).eval().requires_grad_(False), torch.randn(6, WIDTH)
    before = head(x)
    head.fold_temperature(2.5)
    torch.testing.assert_close(head(x), before / 2.5)


def by_hand(head: nn.Module, held: Bags, found: Calibration, column: int) -> tuple[int, int]:
    """Instances kept at a class's threshold, and those of them on pictures of the class; alone and in scenes."""
    kept = right = 0
    with torch.no_grad():
        for group, truth in (
            (held.instances, np.repeat(held.labels[:, None], held.instances.shape[1], axis=1)),
            (held.scenes.instances, held.scenes.under()),
        ):
            logits = head(torch.from_numpy(group.astype(np.float32))).double() / found.facts.temperature
            p = logits.softmax(2).numpy()
            here = (p.argmax(2) == column) & (p.max(2) >= found.thresholds[column])
            kept += int(here.sum())
            right += int((here & (truth == column)).sum())
    return kept, right


@pytest.mark.parametrize("scenes", [False, True])
def test_an_overconfident_head_is_cooled_and_left_as_it_is(scenes: bool) -> None:
    config = one_head(epochs=6)
    bags = noisy_bags(count=300, strength=0.5)
    if scenes:
        bags = replace(bags, scenes=noisy_scenes(strength=0.5))
    rest, held = split_bags(bags, 0.4, seed=0)
    head = fit_head(rest, config).head
    with torch.no_grad():
        head.fc3.weight.mul_(4)
        head.fc3.bias.mul_(4)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    found = calibrate(head, held, config)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert 1.5 < found.facts.temperature < 5.0 and found.facts.target == 0.8
    assert found.facts.pictures == int((held.labels >= 0).sum()) > 0
    assert found.facts.background_pictures == int((held.labels < 0).sum()) > 0
    bases = [evidence.basis for evidence in found.evidence]
    assert len(found.thresholds) == len(bases) == CLASSES
    for value, basis in zip(found.thresholds, bases, strict=True):
        assert value == config.threshold if basis == "default" else 0.5 <= value <= 0.95
    for index, evidence in enumerate(found.evidence):
        kept, right = by_hand(head, held, found, index)
        assert abs(kept - evidence.kept) <= 1
        assert right == pytest.approx((evidence.precision or 0.0) * evidence.kept, abs=1.01)
    head.fold_temperature(found.facts.temperature)
    again = calibrate(head, held, config)
    assert again.facts.temperature == pytest.approx(1.0, abs=1e-3), "nothing is left to cool"
    strict = calibrate(head, held, config, target=0.95)
    pairs = zip(strict.thresholds, again.thresholds, strict=True)
    assert all(a >= b for a, b in pairs if b != config.threshold)


class Copy(nn.Module):
    """A head whose logits are the instance."""

    def forward(self, instances: torch.Tensor) -> torch.Tensor:
        return instances


def test_in_scenes_the_picture_under_the_click_counts() -> None:
    """Sure of class 0 everywhere: right on its own pictures, and in scenes where its picture is under the click.

    That all masks cover the rim changes nothing: on a photo to label they are labelled as well.
    """
    sure = np.tile(np.array([9.0, 0.0], dtype=np.float16), (6, 10, 1))
    labels = np.array([0, 0, 0, 0, 1, 1])
    scenes = SceneBags(
        instances=np.tile(sure[0], (3, 1, 1)),
        parts=np.array([[1, 0, -2], [-1, 0, -2], [1, 0, 1]]),
        part_of=np.array([[0] * 5 + [1] * 5, [0] * 3 + [1] * 7, [0] * 2 + [1] * 6 + [2] * 2]),
        rim=np.ones((3, 10), dtype=np.float16),
        folds=np.zeros(3, dtype=np.int64),
    )
    bags = Bags(
        classes=("a", "b"), instances=sure, labels=labels, rim=np.ones((6, 10), dtype=np.float16),
        folds=np.zeros(6, dtype=np.int64), scenes=scenes, token_width=2,
    )  # fmt: skip
    found = calibrate(Copy(), bags, one_head(), target=0.1)  # type: ignore[arg-type]
    kept, right = 6 * 10 + 3 * 10, 4 * 10 + (5 + 7 + 6)
    assert found.evidence[0] == Evidence(precision=right / kept, kept=kept, pictures=4, basis="target")
    plain = calibrate(Copy(), replace(bags, scenes=SceneBags.none(10, 2)), one_head(), target=0.1)  # type: ignore[arg-type]
    assert plain.evidence[0].kept == 60 and plain.facts.temperature == found.facts.temperature, "scenes do not cool"


def test_each_token_on_its_own_is_counted_where_its_click_is() -> None:
    """Of a prompt's tokens 1 to 3, the first says class 0 and the others class 1; token 0 has no say."""
    tokens = np.array([[-9, 9], [9, 0], [0, 9], [0, 9]], dtype=np.float16).reshape(-1)
    under = np.array([[0] * 11 + [1] * 10])
    scenes = SceneBags(
        instances=np.tile(tokens, (1, 21, 1)),
        parts=np.array([[0, 1]]),
        part_of=under,
        rim=np.zeros((1, 21), dtype=np.float16),
        folds=np.zeros(1, dtype=np.int64),
    )
    labels = np.array([0] * 4 + [1] * 4)
    bags = Bags(
        classes=("a", "b"), instances=np.tile(tokens, (8, 21, 1)), labels=labels,
        rim=np.zeros((8, 21), dtype=np.float16), folds=labels, scenes=scenes, token_width=8,
    )  # fmt: skip
    found = calibrate(Copy(), bags, one_head(inputs="per_token"), target=0.1)  # type: ignore[arg-type]
    first, second = found.evidence
    assert (first.kept, first.precision) == (9 * 21, pytest.approx((4 * 21 + 11) / 189))
    assert (second.kept, second.precision) == (2 * 189, pytest.approx((4 * 21 + 10) / 189))


def test_what_cannot_be_calibrated() -> None:
    bags = noisy_bags(count=10)
    head = Head(WIDTH, CLASSES, 0.5).eval()
    with pytest.raises(InputError, match="target"):
        calibrate(head, bags, one_head(), target=1.2)
    background = bags.take(bags.labels < 0, np.zeros(0, dtype=bool))
    with pytest.raises(InputError, match="held-out"):
        calibrate(head, background, one_head())
