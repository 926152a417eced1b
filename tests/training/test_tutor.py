"""A head that learns another bundle's answers beside its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, INSTANCES, noisy_bags, noisy_scenes, one_head
from bundles import write_good
from pictures import make_pictures

from gransam_sdk.bundle import HeadInfo, open_bundle
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.load import load_model
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.card import head_card
from gransam_sdk.training.checkpoint import training_identity
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.instances import training_set
from gransam_sdk.training.losses import tutor_loss
from gransam_sdk.training.rehearse import fit_calibrated
from gransam_sdk.training.split import split_bags
from gransam_sdk.training.tokens import cache_pictures, load_bags
from gransam_sdk.training.tutor import answers_of, check_tutor
from gransam_sdk.types import PointGrid


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
    bags = replace(noisy_bags(), scenes=noisy_scenes())
    marks = bags.instances[:, :, :CLASSES], bags.scenes.instances[:, :, :CLASSES]  # each its own
    bags = replace(bags, answers=marks[0], scenes=replace(bags.scenes, answers=marks[1]))
    for part in split_bags(bags, 0.2, 0):
        for held in (part, part.scenes):
            assert held.answers is not None and len(held.answers) == len(held.instances) > 0
            np.testing.assert_array_equal(held.answers, held.instances[:, :, :CLASSES])
    examples = training_set(bags, one_head())
    assert examples.answers is not None and torch.equal(examples.answers, examples.instances[:, :, :CLASSES])
    alone = training_set(bags, one_head(scenes=False))
    assert alone.answers is not None and torch.equal(alone.answers, alone.instances[:, :, :CLASSES])
    tokens = training_set(bags, one_head(inputs="per_token"))
    assert tokens.answers is not None and tokens.answers.shape == (*tokens.instances.shape[:2], CLASSES)
    assert all(torch.equal(tokens.answers[:, i::3], examples.answers) for i in range(3))


def test_another_tutor_is_another_training(tmp_path: Path) -> None:
    config = one_head(epochs=2)
    bags, lines = answered(noisy_bags(count=20)), []
    others = replace(bags, answers=None), answered(bags, wrong=True)
    assert len({training_identity(one, config) for one in (bags, *others)}) == 3
    kept = fit_head(bags, config, checkpoint=tmp_path / "kept").head.state_dict()
    again = fit_head(bags, config, checkpoint=tmp_path / "kept", log=lines.append).head.state_dict()
    assert lines == ["student goes on after epoch 2"]
    assert all(torch.equal(value, again[name]) for name, value in kept.items())


def test_the_card_names_the_tutor() -> None:
    bags, config = answered(noisy_bags()), one_head(epochs=2)
    card = head_card(bags, config, fit_calibrated(bags, config), "large, sha256 0123...")
    assert (
        "a tutor's answers 1.0 (large, sha256 0123...)" in card
        and "2 epochs" in card
        and "The tutor may have seen" in card
    )
    assert "unsure or wrong" not in card and "then a tutor's answers" in card and "their folder's class.\n" in card


def test_answers_are_those_of_the_tutors_head(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures", classes=("blue", "red"))
    base = open_bundle(write_good(tmp_path / "base", head=False))
    tutor = fake_bundle(names=("red", "blue"), points_per_side=base.points_per_side)
    assert (base.token_width, base.feature_width) != (tutor.token_width, tutor.feature_width)
    with load_model(base, device="cpu") as model, fake_model(tutor) as taught:
        cached = cache_pictures(model, root)
        answers = answers_of(taught, cache_pictures(taught, root), cached)
        pixels = as_pixels(root / "red" / "1.png")
        frame = taught.frame(pixels)
        points = PointGrid(per_side=base.points_per_side).points()
        (prompts,) = taught.prompt(taught.hoist(taught.prepare(pixels, frame)), frame, points, len(points))
        logits = taught.classify(prompts.tokens, prompts.features[:, 1]).astype(float)[:, ::-1]
    bags = answers.beside(load_bags(cached))
    assert bags.classes == ("blue", "red") and bags.answers is not None and bags.scenes.answers is not None
    assert len(bags.scenes.answers) == len(cached.scenes) > 0
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(bags.answers[4], expected, atol=0.02)  # what is cached has 16 bits
    assert (bags.answers[:3, -1].argmax(axis=1) == 0).all() and (bags.answers[3:, -1].argmax(axis=1) == 1).all()


def test_explicit_background_is_the_last_column(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures", classes=("red", "_background"))
    explicit = HeadInfo(background=True, labels="prompt", calibration=None)
    with fake_model(fake_bundle(names=("red",), head=explicit)) as model:
        cached = cache_pictures(model, root)
        bags = answers_of(model, cached, cached).beside(load_bags(cached))
    assert bags.answers is not None and bags.answers.shape == (6, 36, 2)
    assert (bags.answers[:3, -1].argmax(axis=1) == 0).all() and (bags.answers[3:, -1].argmax(axis=1) == 1).all()
    fitted = fit_head(bags, replace(one_head(epochs=1), background="explicit"))
    assert fitted.background and fitted.epochs == (1,)


def test_a_picture_that_one_side_could_not_read(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures", classes=("blue", "red"))
    with fake_model(fake_bundle(names=("red", "blue"))) as model:
        cached = cache_pictures(model, root)
        with pytest.raises(InputError, match="a scene"):
            answers_of(model, replace(cached, scenes=cached.scenes[1:]), cached)
        fewer = replace(cached, examples=cached.examples[1:])
        with pytest.raises(InputError, match=r"blue/0\.png"):
            answers_of(model, fewer, cached)


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
