"""A head that learns another bundle's answers beside its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, INSTANCES, noisy_bags, noisy_scenes, one_head
from pictures import make_pictures

from gransam_sdk.bundle import HeadInfo
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.card import head_card
from gransam_sdk.training.checkpoint import training_identity
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.instances import training_set
from gransam_sdk.training.losses import tutor_loss
from gransam_sdk.training.rehearse import fit_calibrated
from gransam_sdk.training.split import split_bags
from gransam_sdk.training.tokens import cache_pictures, load_bags
from gransam_sdk.training.tutor import check_tutor, with_answers


def answered(bags: Bags, *, wrong: bool = False) -> Bags:
    """Bags with a tutor that knows which quarter of a picture carries its class, or says the next one."""
    answers = np.full((len(bags.labels), INSTANCES, CLASSES), 1 / CLASSES, dtype=np.float16)
    for row, label in zip(answers, bags.labels, strict=True):
        if label >= 0:
            row[: INSTANCES // 4] = 0.01
            row[: INSTANCES // 4, (label + wrong) % CLASSES] = 0.97
    of_scenes = np.full((len(bags.scenes.folds), INSTANCES, CLASSES), 1 / CLASSES, dtype=np.float16)
    return replace(bags, answers=answers, scenes=replace(bags.scenes, answers=of_scenes))


def test_the_loss_is_the_divergence() -> None:
    rng = np.random.default_rng(0)
    logits, answers = rng.normal(size=(3, 5, 4)) * 3, rng.dirichlet(np.ones(4), size=(3, 5))
    told = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    expected = (answers * np.log(answers / told)).sum(axis=2).mean()
    found = tutor_loss(torch.from_numpy(logits), torch.from_numpy(answers))
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert tutor_loss(torch.from_numpy(np.log(answers)), torch.from_numpy(answers)).item() == pytest.approx(0, abs=1e-9)
    sure = tutor_loss(torch.tensor([[[30.0, -30.0]]]), torch.tensor([[[1.0, 0.0]]]))
    assert sure.item() == pytest.approx(0, abs=1e-5), "0 times the logarithm of 0 is 0"


def test_what_the_tutor_knows_is_learned() -> None:
    bags, fresh = answered(noisy_bags(strength=1.2)), answered(noisy_bags(strength=1.2, count=240))
    config = one_head(epochs=60, tutor_weight=8.0)
    rows = fresh.labels >= 0
    x = torch.from_numpy(fresh.instances[rows][48:].astype(np.float32))
    assert fresh.answers is not None
    wanted = torch.from_numpy(fresh.answers[rows][48:].astype(np.float32))
    off: Mapping[bool, float] = {
        tutored: tutor_loss(fit_head(bags if tutored else replace(bags, answers=None), config).head(x), wanted).item()
        for tutored in (True, False)
    }
    assert off[True] < 0.7 * off[False], off


def test_there_is_no_teacher_and_the_answers_are_obeyed() -> None:
    lines: list[str] = []
    bags = answered(noisy_bags(), wrong=True)
    fitted = fit_head(bags, one_head(epochs=12, tutor_weight=50.0), log=lines.append)
    assert fitted.epochs == (12,) and fitted.bad_share is None
    assert all("student" in line and "nats from the tutor" in line and "unsure" not in line for line in lines)
    carriers = torch.from_numpy(bags.instances[bags.labels >= 0, : INSTANCES // 4].astype(np.float32))
    truth = torch.from_numpy((bags.labels[bags.labels >= 0, None] + 1) % CLASSES)
    assert (fitted.head(carriers).argmax(2) == truth).float().mean() > 0.9


def test_background_pictures_still_teach_doubt() -> None:
    lines: list[str] = []
    fit_head(answered(noisy_bags()), one_head(epochs=1), log=lines.append)
    assert "background: " in lines[0]


def test_answers_go_where_their_pictures_go() -> None:
    bags = answered(replace(noisy_bags(), scenes=noisy_scenes()))
    assert bags.answers is not None and bags.scenes.answers is not None
    bags.answers[:, :, 0] = np.arange(len(bags.labels), dtype=np.float16)[:, None] / 256
    held = split_bags(bags, 0.2, 0)[1]
    assert held.answers is not None and held.scenes.answers is not None
    rows = np.round(held.answers[:, 0, 0].astype(float) * 256).astype(int)
    np.testing.assert_array_equal(bags.instances[rows], held.instances)
    assert len(held.scenes.answers) == len(held.scenes.folds)
    examples = training_set(bags, one_head(inputs="per_token"))
    assert examples.answers is not None and examples.answers.shape == (*examples.instances.shape[:2], CLASSES)
    assert torch.equal(examples.answers[0, 0], examples.answers[0, 2])
    alone = training_set(bags, one_head(scenes=False)).answers
    assert alone is not None and len(alone) == (bags.labels >= 0).sum()


def test_another_tutor_is_another_training(tmp_path: Path) -> None:
    bags = noisy_bags(count=20)
    config = one_head(epochs=2)
    identities = {training_identity(one, config) for one in (bags, answered(bags), answered(bags, wrong=True))}
    assert len(identities) == 3
    kept = fit_head(answered(bags), config, checkpoint=tmp_path / "kept").head.state_dict()
    again = fit_head(answered(bags), config, checkpoint=tmp_path / "kept").head.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in kept.items())


def test_the_card_names_the_tutor() -> None:
    bags, config = answered(noisy_bags()), one_head(epochs=2)
    card = head_card(bags, config, fit_calibrated(bags, config), "large, sha256 0123...")
    assert "a tutor's answers 1.0 (large, sha256 0123...)" in card and "2 epochs" in card
    assert "unsure or wrong" not in card and "their folder's class.\n" in card


def test_answers_are_those_of_the_tutors_head(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", classes=("blue", "red"))
    with fake_model(fake_bundle(names=("red", "blue"))) as model:
        cached = cache_pictures(model, tmp_path / "pictures")
        bags = with_answers(load_bags(cached), cached, model, cached)
    assert bags.classes == ("blue", "red") and bags.answers is not None and bags.scenes.answers is not None
    assert bags.answers.shape == (6, 36, 2) and bags.scenes.answers.shape[0] == len(cached.scenes) > 0
    np.testing.assert_allclose(bags.answers.astype(float).sum(axis=2), 1, atol=2e-3)
    assert (bags.answers[:3, -1].argmax(axis=1) == 0).all(), "blue is the folders' first class, the tutor's second"
    assert (bags.answers[3:, -1].argmax(axis=1) == 1).all()


def test_a_picture_that_one_side_could_not_read(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures", classes=("blue", "red"))
    with fake_model(fake_bundle(names=("red", "blue"))) as model:
        cached = cache_pictures(model, root, scenes=False)
        (root / "red" / "0.png").unlink()
        fewer = cache_pictures(model, root, scenes=False)
        with pytest.raises(InputError, match="5 pictures and 0 scenes instead of 6 and 0"):
            with_answers(load_bags(cached), cached, model, fewer)


def test_tutors_that_are_refused() -> None:
    classes = ("red", "blue")
    base, fine = fake_bundle(), fake_bundle(names=classes)
    check_tutor(fine, base, ("blue", "red"), background=False)
    masks = HeadInfo(background=False, labels="mask", calibration=None)
    explicit = HeadInfo(background=True, labels="prompt", calibration=None)
    for tutor, says in (
        (replace(fine, head=None), "graphs without a head"),
        (fake_bundle(names=classes, head=masks), "one that labels masks"),
        (fake_bundle(names=classes, points_per_side=5), "6 a side, found 5|6 a side(.|\n)*5 a side"),
        (fake_bundle(names=("red", "green")), "only one side has blue, green"),
        (fake_bundle(names=classes, head=explicit), "no logit(.|\n)*a logit"),
    ):
        with pytest.raises(InputError, match=says):
            check_tutor(tutor, base, classes, background=False)
