"""What lies along the rim of an example picture: which part it is on, and that a head does not learn it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, INSTANCES, PARTS, noisy_bags, noisy_scenes, one_head

from gransam_sdk.errors import InputError
from gransam_sdk.models.head import Head
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.checkpoint import training_identity
from gransam_sdk.training.config import PAPER, Background, HeadConfig, Inputs
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.instances import training_set
from gransam_sdk.training.trainer import Trainer

QUIET = one_head(epochs=2)


def random_rims(count: int, seed: int = 0) -> np.ndarray:
    """Shares in [0,1], among them the bound itself and the numbers beside it."""
    shares = np.random.default_rng(seed).uniform(size=(count, INSTANCES)).astype(np.float16)
    half = np.float16(0.5)
    shares[:, :3] = np.nextafter(half, np.float16(0)), half, np.nextafter(half, np.float16(1))
    return shares


def with_rims(pictures: int = 60, scenes: int = 30) -> Bags:
    """Pictures and scenes, about half of whose masks are surroundings."""
    found = noisy_scenes(count=scenes, rim=random_rims(scenes, 1))
    return replace(noisy_bags(count=pictures, rim=random_rims(pictures)), scenes=found)


@pytest.mark.parametrize("background", ["implicit", "explicit"])
@pytest.mark.parametrize("inputs", ["fused", "per_token"])
def test_surroundings_lie_on_a_part_of_background(background: Background, inputs: Inputs) -> None:
    bags = with_rims()
    explicit, times = background == "explicit", 3 if inputs == "per_token" else 1
    examples = training_set(bags, one_head(background=background, inputs=inputs))
    plain = training_set(bags, one_head(background=background, inputs=inputs, rim=2.0))
    rows = bags.labels >= (-1 if explicit else 0)
    rim = np.concatenate([bags.rim[rows], bags.scenes.rim])
    assert examples.part_of.shape == (len(rim), times * INSTANCES)
    for row, shares in enumerate(rim):
        for click, share in enumerate(shares):
            for instance in range(times * click, times * click + times):
                before = int(plain.part_of[row, instance])
                assert int(examples.part_of[row, instance]) == (PARTS if share >= 0.5 else before)
    assert examples.labels.shape == (len(rim), PARTS + 1, CLASSES + explicit)
    assert torch.equal(examples.labels[:, :PARTS], plain.labels)
    extra = [0.0] * CLASSES + [1.0] * explicit
    assert (examples.labels[:, PARTS] == torch.tensor(extra)).all()
    assert torch.equal(examples.instances, plain.instances), "none is thrown away"


def test_above_one_nothing_is_surroundings() -> None:
    """Rims of 1 included: the paper's setting knows no rim."""
    bags = with_rims()
    bags.rim[:, 5] = bags.scenes.rim[:, 5] = 1.0
    bare = replace(noisy_bags(count=60), scenes=noisy_scenes(count=30))
    for config in (one_head(rim=1.01), one_head(rim=PAPER.rim)):
        found, expected = training_set(bags, config), training_set(bare, one_head())
        assert found.labels.shape[1] == PARTS
        for name in ("instances", "labels", "part_of", "background", "held", "held_labels"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    heads = [fit_head(b, replace(QUIET, rim=2.0)).head.state_dict() for b in (bags, bare)]
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())
    assert not torch.equal(fit_head(bags, QUIET).head.fc.weight, heads[0]["fc.weight"])


def test_without_any_surroundings_no_part_is_added() -> None:
    assert training_set(noisy_bags(count=60, rim=0.49), one_head()).labels.shape[1] == 1
    some = noisy_bags(count=60, rim=np.linspace(0.0, 0.49, INSTANCES))
    assert training_set(some, one_head()).labels.shape[1] == 1
    assert training_set(some, one_head(rim=0.25)).labels.shape[1] == 2


@pytest.mark.parametrize("rim", [0.0, -0.5, float("nan")])
def test_a_share_that_cannot_be_is_refused(rim: float) -> None:
    with pytest.raises(InputError, match="rim"):
        one_head(rim=rim)


def test_surroundings_are_always_bad_for_the_student() -> None:
    """A teacher that is sure of class 2 everywhere is right on pictures of it, but for their surroundings."""
    bags = with_rims()
    trainer = Trainer(training_set(bags, one_head()), one_head(), lambda line: None, None)
    teacher = Head(bags.instances.shape[2], CLASSES, 0.5).eval()
    with torch.no_grad():
        teacher.fc3.weight.zero_()
        teacher.fc3.bias.copy_(torch.tensor([0.0, 0.0, 20.0, 0.0]))
    shown = bags.labels >= 0
    under = np.concatenate([np.repeat(bags.labels[shown, None], INSTANCES, axis=1), bags.scenes.under()])
    around = np.concatenate([bags.rim[shown], bags.scenes.rim]) >= 0.5
    assert np.array_equal(trainer.bad(teacher).numpy(), (under != 2) | around)
    assert (under[around] == 2).any()


def logged(bags: Bags, config: HeadConfig) -> tuple[Head, list[str]]:
    lines: list[str] = []
    return fit_head(bags, config, log=lines.append).head, lines


@pytest.mark.parametrize("background", ["implicit", "explicit"])
@pytest.mark.parametrize("inputs", ["fused", "per_token"])
def test_a_picture_of_surroundings_alone_keeps_them(background: Background, inputs: Inputs) -> None:
    """Something fills it to its edges. One mask that does not, and the others are surroundings; so in scenes."""
    config = one_head(background=background, inputs=inputs)
    rim, of_scenes = np.zeros((20, INSTANCES)), np.zeros((8, INSTANCES))
    rim[6], rim[8, 1:], of_scenes[3] = 1.0, 1.0, 1.0
    labels = noisy_bags(count=20).labels
    examples = training_set(replace(noisy_bags(count=20, rim=rim), scenes=noisy_scenes(count=8, rim=of_scenes)), config)
    rows = np.flatnonzero(labels >= (-1 if background == "explicit" else 0)).tolist()
    where = {picture: examples.part_of[rows.index(picture)] for picture in (6, 8)}
    times = 3 if inputs == "per_token" else 1
    assert where[6].tolist() == [0] * times * INSTANCES
    assert where[8].tolist() == [0] * times + [PARTS] * times * (INSTANCES - 1)
    assert (examples.part_of[len(rows) + 3] == PARTS).all()
    assert int((examples.part_of == PARTS).sum()) == times * (2 * INSTANCES - 1)


def test_a_picture_of_surroundings_alone_is_learned() -> None:
    """The head is the one that it would be if nothing on these pictures lay along the rim; not if all but one did."""
    partly, filled = np.zeros((120, INSTANCES)), np.flatnonzero(noisy_bags().labels >= 0)[5::9]
    partly[::2, INSTANCES // 2 :] = 1.0
    rims = [partly.copy() for _ in range(3)]
    for rim, shares in zip(rims, (1.0, 0.0, np.arange(INSTANCES) > 0), strict=True):
        rim[filled] = shares
    heads = [fit_head(noisy_bags(rim=rim), QUIET).head.state_dict() for rim in rims]
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())
    assert not torch.equal(heads[0]["fc.weight"], heads[2]["fc.weight"])


@pytest.mark.parametrize("background", ["implicit", "explicit"])
@pytest.mark.parametrize("batch", [1, 64])
def test_a_batch_without_a_bag_does_no_harm(batch: int, background: Background) -> None:
    """One scene a batch: where all of it lies along rims, that is a batch without a bag. Then no scene has any."""
    rim = np.zeros((10, INSTANCES))
    rim[3] = rim[7] = 1.0
    config = replace(QUIET, batch=batch, background=background)
    for of_scenes in (rim, 1.0):
        bags = replace(noisy_bags(count=20, rim=1.0), scenes=noisy_scenes(count=10, rim=of_scenes))
        head, lines = logged(bags, config)
        assert all(bool(value.isfinite().all()) for value in head.state_dict().values())
        assert len(lines) == 4 and not any("nan" in line or "inf" in line for line in lines)


def test_identity_covers_the_rims() -> None:
    bags, config = with_rims(), one_head()
    rim, of_scenes = bags.rim.copy(), bags.scenes.rim.copy()
    rim[3, 2], of_scenes[4, 1] = 0.125, 0.125
    others = [
        training_identity(replace(bags, rim=rim), config),
        training_identity(replace(bags, scenes=replace(bags.scenes, rim=of_scenes)), config),
        training_identity(bags, replace(config, rim=0.6)),
        training_identity(bags, config),
    ]
    assert len(set(others)) == 4 and training_identity(with_rims(), config) == others[-1]


def test_taking_pictures_and_scenes_takes_their_rims() -> None:
    bags = with_rims()
    pictures, scenes = np.arange(60) % 7 == 3, np.arange(30) % 4 == 1
    some = bags.take(pictures, scenes)
    assert np.array_equal(some.rim, bags.rim[3::7]) and np.array_equal(some.scenes.rim, bags.scenes.rim[1::4])


OBJECT, CONTEXT = slice(0, INSTANCES // 4), slice(INSTANCES // 2, 3 * INSTANCES // 4)


def in_context(count: int, seed: int = 5) -> Bags:
    """Every class has surroundings of its own that say more of it than the object does, and lie along the rim."""
    bags = noisy_bags(count=count, strength=1.0, rim=np.isin(np.arange(INSTANCES), np.r_[CONTEXT]))
    around = np.random.default_rng(seed).normal(size=(CLASSES, bags.instances.shape[2])) * 2.0
    for picture, label in zip(bags.instances, bags.labels, strict=True):
        if label >= 0:
            picture[CONTEXT] += around[label].astype(np.float16)
    return bags


def sure_of_class(head: Head, bags: Bags) -> Callable[[slice], float]:
    """How probable the picture's class is on some instances of pictures that were never seen; the mean."""
    unseen = np.arange(len(bags.labels)) >= 120
    unseen &= bags.labels >= 0
    with torch.no_grad():
        p = head(torch.from_numpy(bags.instances[unseen].astype(np.float32))).softmax(2).numpy()
    own = np.take_along_axis(p, bags.labels[unseen, None, None], axis=2)[:, :, 0]
    return lambda where: float(own[:, where].mean())


def test_the_object_is_learned_and_not_what_surrounds_it() -> None:
    whole = in_context(240)
    seen = whole.take(np.arange(240) < 120, np.zeros(0, dtype=bool))
    config = one_head(epochs=12)
    ruled, free = (sure_of_class(fit_head(seen, replace(config, rim=rim)).head, whole) for rim in (0.5, 2.0))
    assert ruled(OBJECT) > 0.7 and ruled(CONTEXT) < 0.5
    assert free(CONTEXT) > 0.8 and free(OBJECT) < 0.5
