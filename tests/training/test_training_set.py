"""Pictures and scenes, sorted for training: shapes, labels of every part, and what is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, INSTANCES, PARTS, TOKENS, WIDTH, noisy_bags, noisy_scenes, one_head

from gransam_sdk.models.head import Head
from gransam_sdk.training.bags import Bags, SceneBags
from gransam_sdk.training.checkpoint import training_identity
from gransam_sdk.training.config import Inputs
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.folds import held_folds
from gransam_sdk.training.instances import part_labels, select_scene_instances, training_set
from gransam_sdk.training.scenes import NO_PART
from gransam_sdk.training.trainer import Trainer

QUARTER = TOKENS // 4


def with_scenes(count: int = 30) -> Bags:
    """60 pictures, 12 of them background, and scenes; the second scene has two parts only."""
    scenes = noisy_scenes(count=count)
    scenes.parts[1] = [-1, 2, NO_PART, NO_PART]
    scenes.part_of[1] = np.arange(INSTANCES) % 2
    return replace(noisy_bags(count=60), scenes=scenes)


def label_of(part: int, explicit: bool) -> list[float]:
    """A part's labels, written out."""
    label = [0.0] * (CLASSES + explicit)
    if part >= 0:
        label[part] = 1.0
    if explicit and part >= -1:
        label[-1] = 1.0
    return label


@pytest.mark.parametrize("background", ["implicit", "explicit"])
def test_every_part_has_its_label(background: str) -> None:
    explicit = background == "explicit"
    bags = with_scenes()
    examples = training_set(bags, one_head(background=background))  # type: ignore[arg-type]
    shown = bags.labels if explicit else bags.labels[bags.labels >= 0]
    assert examples.pictures == len(shown) and len(examples.instances) == len(shown) + 30
    assert examples.labels.shape == (len(shown) + 30, PARTS, CLASSES + explicit)
    assert examples.part_of.shape == (len(shown) + 30, INSTANCES)
    assert len(examples.background) == (0 if explicit else 12)
    assert np.array_equal(examples.instances[len(shown) :].numpy(), bags.scenes.instances)
    for row, label in enumerate(shown):
        alone = [int(label), NO_PART, NO_PART, NO_PART]
        assert examples.labels[row].tolist() == [label_of(part, explicit) for part in alone]
        assert not examples.part_of[row].any()
    for row, parts in enumerate(bags.scenes.parts, start=len(shown)):
        assert examples.labels[row].tolist() == [label_of(part, explicit) for part in parts]
    assert np.array_equal(examples.part_of[len(shown) :], bags.scenes.part_of)
    own = examples.instance_labels()
    assert own.shape == (len(shown) + 30, INSTANCES, CLASSES + explicit)
    for row in (0, len(shown), len(shown) + 1, len(shown) + 7):
        for instance in (0, 1, 13, 23):
            part = examples.part_of[row, instance]
            assert torch.equal(own[row, instance], examples.labels[row, part])


def test_labels_of_every_kind_of_part() -> None:
    parts = np.array([[0, 2], [-1, NO_PART]])
    implicit, explicit = (part_labels(parts, 3, explicit=kind) for kind in (False, True))
    assert implicit.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]]
    assert explicit.tolist() == [[[1, 0, 0, 1], [0, 0, 1, 1]], [[0, 0, 0, 1], [0, 0, 0, 0]]]


def test_each_token_lies_where_its_click_does() -> None:
    bags = with_scenes()
    examples = training_set(bags, one_head(inputs="per_token"))
    assert examples.instances.shape == (48 + 30, 3 * INSTANCES, QUARTER)
    assert examples.part_of.shape == (48 + 30, 3 * INSTANCES)
    scene, click = bags.scenes.instances[4], 13
    for token in (1, 2, 3):
        instance = 3 * click + token - 1
        assert examples.instances[48 + 4, instance].tolist() == scene[click, token * QUARTER :][:QUARTER].tolist()
        assert examples.part_of[48 + 4, instance] == bags.scenes.part_of[4, click]


def test_scenes_of_held_folds_are_not_trained_on() -> None:
    bags, config = with_scenes(), one_head(hold_out=0.3)
    examples = training_set(bags, config)
    held = held_folds(bags.folds[bags.labels >= 0], 0.3, 0)
    left = ~np.isin(bags.scenes.folds, held)
    assert len(held) == 3 and left.sum() == 21
    assert np.array_equal(examples.instances[examples.pictures :].numpy(), bags.scenes.instances[left])
    assert np.array_equal(examples.part_of[examples.pictures :].numpy(), bags.scenes.part_of[left])
    assert len(examples.held) == (np.isin(bags.folds, held) & (bags.labels >= 0)).sum()


def test_without_scenes_a_picture_is_one_part() -> None:
    bags = with_scenes()
    for examples in (
        training_set(bags, one_head(scenes=False)),
        training_set(replace(bags, scenes=SceneBags.none(INSTANCES, WIDTH)), one_head()),
    ):
        assert examples.labels.shape == (48, 1, CLASSES) and len(examples.instances) == 48


@pytest.mark.parametrize(("inputs", "shape"), [("tokens", (30, 24, 16)), ("per_token", (30, 72, 4))])
def test_scenes_have_instances_of_every_kind(inputs: Inputs, shape: tuple[int, ...]) -> None:
    bags = with_scenes()
    assert select_scene_instances(bags, inputs).shape == shape
    none = replace(bags, scenes=SceneBags.none(INSTANCES, WIDTH))
    assert select_scene_instances(none, inputs).shape == (0, *shape[1:])


def test_what_lies_under_a_click() -> None:
    scenes = with_scenes().scenes
    under = scenes.under()
    assert under.shape == (30, INSTANCES)
    assert under[1].tolist() == [-1, 2] * (INSTANCES // 2)
    assert under[0, 7] == scenes.parts[0, 1] and under[0, 23] == scenes.parts[0, 3]


def test_identity_covers_the_scenes() -> None:
    bags, config = with_scenes(), one_head()
    scenes = bags.scenes
    instances, parts, part_of, folds = (
        array.copy() for array in (scenes.instances, scenes.parts, scenes.part_of, scenes.folds)
    )
    instances[3, 2, 1] += 1
    parts[5, 1] = (parts[5, 1] + 1) % CLASSES
    part_of[6, 0] += 1
    folds[7] += 1
    changes = ({"instances": instances}, {"parts": parts}, {"part_of": part_of}, {"folds": folds})
    others = [training_identity(replace(bags, scenes=replace(scenes, **change)), config) for change in changes]
    others.append(training_identity(replace(bags, folds=bags.folds[::-1].copy()), config))
    others.append(training_identity(bags, replace(config, scenes=False)))
    assert len({training_identity(bags, config), *others}) == 7


def test_what_is_bad_depends_on_the_picture_under_the_click() -> None:
    """A teacher that is sure of class 2 everywhere is right where a picture of class 2 lies."""
    bags, config = with_scenes(), one_head()
    trainer = Trainer(training_set(bags, config), config, lambda line: None, None)
    teacher = Head(WIDTH, CLASSES, 0.5).eval()
    with torch.no_grad():
        teacher.fc3.weight.zero_()
        teacher.fc3.bias.copy_(torch.tensor([0.0, 0.0, 20.0, 0.0]))
    bad = trainer.bad(teacher).numpy()
    assert np.array_equal(bad[:48], np.repeat((bags.labels[bags.labels >= 0] != 2)[:, None], INSTANCES, axis=1))
    assert np.array_equal(bad[48:], bags.scenes.under() != 2)


def test_what_only_scenes_show_is_learned_from_them() -> None:
    """Small on background, the classes look other than alone and large: their centres are drawn anew."""
    strange = 7
    bags = replace(noisy_bags(), scenes=noisy_scenes(seed=strange, count=120))
    config = one_head(epochs=12)
    unseen = noisy_scenes(seed=strange, count=60, noise=2)
    x, truth = torch.from_numpy(unseen.instances.astype(np.float32)), unseen.under()
    own = INSTANCES // PARTS
    carriers = (np.arange(INSTANCES) % own < own // 2) & (truth >= 0)
    right, sure = [], []
    for scenes in (True, False):
        head = fit_head(bags, replace(config, scenes=scenes)).head
        with torch.no_grad():
            p = head(x).softmax(2).numpy()
        right.append((p.argmax(2) == truth)[carriers].mean())
        sure.append(p.max(2)[truth < 0].mean())
        alone = fit_accuracy(head, noisy_bags(count=240))
        assert alone > 0.85, "and what pictures show is not forgotten"
    assert right[0] > 0.85 and right[1] < 0.6
    assert sure[0] < sure[1], "a click on background is to be doubted"


def fit_accuracy(head: torch.nn.Module, bags: Bags) -> float:
    """Share of the carrying instances of pictures after the 120th that get their class."""
    x, labels = bags.instances[120:].astype(np.float32), bags.labels[120:]
    with torch.no_grad():
        answer = head(torch.from_numpy(x[labels >= 0, : INSTANCES // 4])).argmax(2).numpy()
    return float((answer == labels[labels >= 0][:, None]).mean())
