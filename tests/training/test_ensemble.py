"""Several heads whose mean is shipped: each is a training of its own, and a killed one goes on to the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, TOKENS, WIDTH, noisy_bags, one_head

from gransam_sdk.errors import OutputError
from gransam_sdk.models.head import Head, HeadEnsemble
from gransam_sdk.training.checkpoint import training_identity
from gransam_sdk.training.config import PAPER, HeadConfig
from gransam_sdk.training.fit import Fitted, fit_head
from gransam_sdk.training.instances import training_set
from gransam_sdk.training.rehearse import fit_calibrated
from gransam_sdk.training.trainer import bag_accuracy

HERE = Path(__file__).parent
BAGS = noisy_bags(count=60)
PAIR = one_head(members=2, epochs=2, seed=3, learning_rate=0.01)  # so that teachers are sure of something
SINGLES = [replace(PAIR, members=1, seed=seed) for seed in (6, 7)]
"""What the two members of ``PAIR`` are alone: the seeds of all ensembles of two follow each other without a gap."""


def heads_of(fitted: Fitted) -> list[Head]:
    assert isinstance(fitted.head, HeadEnsemble)
    return [head for head in fitted.head.heads if isinstance(head, Head)]


def test_the_logits_are_the_members_mean() -> None:
    torch.manual_seed(0)
    heads = [Head(WIDTH, CLASSES, 0.5).eval().requires_grad_(False) for _ in range(3)]
    x = torch.randn(6, 5, WIDTH)
    ensemble = HeadEnsemble(heads)
    expected = np.mean([head(x).double().numpy() for head in heads], axis=0)
    np.testing.assert_allclose(ensemble(x).numpy(), expected, rtol=0, atol=1e-6)
    assert np.abs(expected - heads[0](x).numpy()).max() > 0.01
    ensemble.fold_temperature(2.5)
    np.testing.assert_allclose(ensemble(x).numpy(), expected / 2.5, rtol=0, atol=1e-6)
    torch.testing.assert_close(ensemble.get_buffer("mean"), heads[0].mean)


def test_members_are_trainings_with_seeds_of_their_own() -> None:
    together, alone = fit_head(BAGS, PAIR), [fit_head(BAGS, config) for config in SINGLES]
    for member, single in zip(heads_of(together), alone, strict=True):
        expected = single.head.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in member.state_dict().items())
    x = torch.from_numpy(BAGS.instances.astype(np.float32))
    torch.testing.assert_close(together.head(x), (alone[0].head(x) + alone[1].head(x)) / 2)
    assert alone[0].bad_share != alone[1].bad_share
    assert together.bad_share == pytest.approx((alone[0].bad_share + alone[1].bad_share) / 2)
    assert together.epochs == (2, 2) and not together.head.training
    right = bag_accuracy(together.head, *_shown(), CLASSES, PAIR.divisor)
    assert together.bag_accuracy == right


def _shown() -> tuple[torch.Tensor, torch.Tensor]:
    of_class = BAGS.labels >= 0
    return torch.from_numpy(BAGS.instances[of_class]), torch.from_numpy(BAGS.labels[of_class])


def test_all_members_keep_the_same_pictures_from_training() -> None:
    config = replace(PAIR, hold_out=0.2)
    fitted, examples = fit_head(BAGS, config), training_set(BAGS, config)
    scores = [bag_accuracy(head, examples.held, examples.held_labels, CLASSES, 8) for head in heads_of(fitted)]
    assert fitted.held_out_accuracy == pytest.approx(sum(scores) / 2)
    other = fit_head(BAGS, replace(config, members=1, seed=7)).head.state_dict()
    assert not torch.equal(heads_of(fitted)[1].mean, other["mean"]), "a seed of 7 would keep others"


def test_what_is_shipped_unless_told_otherwise() -> None:
    fitted = fit_head(BAGS, HeadConfig(epochs=1, least_steps=1))
    assert [head.fc.in_features for head in heads_of(fitted)] == [WIDTH - TOKENS] * 4
    one = fit_head(BAGS, replace(PAPER, epochs=1))
    assert isinstance(one.head, Head), "one member is a head as it was"


def test_the_largest_seed_has_random_numbers_for_every_member() -> None:
    config = one_head(members=4, seed=2**61 - 1, epochs=1)
    first, *_, last = heads_of(fit_head(noisy_bags(count=10), config))
    assert not torch.equal(first.fc.weight, last.fc.weight)


def test_the_temperature_is_in_every_member() -> None:
    bags, config = noisy_bags(), replace(PAIR, seed=0)
    rehearsed, plain = fit_calibrated(bags, config), fit_head(bags, config)
    assert rehearsed.calibration is not None
    temperature = rehearsed.calibration.facts.temperature
    assert abs(temperature - 1.0) > 0.01, "or nothing could be seen below"
    x = torch.from_numpy(bags.instances[:3].astype(np.float32))
    for member, before in zip(heads_of(rehearsed.fitted), heads_of(plain), strict=True):
        torch.testing.assert_close(member(x), before(x) / temperature)


def test_identity_covers_the_members() -> None:
    identities = {training_identity(BAGS, replace(PAIR, members=members)) for members in (1, 2, 3)}
    assert len(identities) == 3


class Interrupted(Exception):
    pass


def test_interrupted_after_every_epoch_of_every_member(tmp_path: Path) -> None:
    whole = fit_head(BAGS, PAIR)
    epochs: list[str] = []

    def stop_after_one(line: str) -> None:
        if "loss" in line:
            epochs.append(line.split("/")[0])
            raise Interrupted

    for _ in range(8):
        with pytest.raises(Interrupted):
            fit_head(BAGS, PAIR, checkpoint=tmp_path, log=stop_after_one)
    resumed = fit_head(BAGS, PAIR, checkpoint=tmp_path, log=stop_after_one)
    stages = ["teacher-1", "student-1", "teacher-2", "student-2"]
    assert epochs == [f"{stage} epoch {epoch}" for stage in stages for epoch in (1, 2)]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", *(f"{stage}.safetensors" for stage in stages)}
    expected = whole.head.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.head.state_dict().items())
    assert replace(resumed, head=whole.head) == whole
    with pytest.raises(OutputError, match="another training"):
        fit_head(BAGS, replace(PAIR, members=3), checkpoint=tmp_path)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "kill_fit.py", tmp_path, "4", "ensemble"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    assert found["partial"] >= 4, "a kill counts that came after an epoch was saved and before the end"
    assert found["moments"] > 2, "the moments were hardly random"
    assert found["same"] and all(found["same"])
    assert found["left"] == 0, "half-written files are swept"
