"""Fitting a head on bags whose instances are mostly noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, INSTANCES, TOKENS, WIDTH, noisy_bags, one_head

from gransam_sdk.errors import InputError
from gransam_sdk.models.head import Head
from gransam_sdk.training import trainer
from gransam_sdk.training.aliases import aliases_of
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.config import PAPER
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.folds import fold_numbers, held_folds
from gransam_sdk.training.instances import select_instances, training_set
from gransam_sdk.training.losses import background_loss, bad_instances, entropy_threshold, mil_loss, uncertainty_loss


def test_head_has_the_papers_size() -> None:
    assert sum(p.numel() for p in Head(1024, 20, 0.9).parameters()) == 691_604
    assert sum(p.numel() for p in Head(1024, 80, 0.9).parameters()) == 699_344


def test_dropout_works_in_training_only() -> None:
    torch.manual_seed(0)
    head, x = Head(8, 3, 0.9), torch.randn(2, 8)
    assert not torch.equal(head.train()(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


def test_student_learns_classes_and_doubts_background() -> None:
    bags = noisy_bags()
    config = one_head(epochs=12)
    student = fit_head(bags, config).head
    teacher = fit_head(bags, one_head(epochs=12, uncertainty_weight=0)).head
    held_out = noisy_bags(seed=0, count=240)  # the same centres; later bags were never seen
    x = torch.from_numpy(held_out.instances[120:].astype(np.float32))
    labels = held_out.labels[120:]
    carriers = x[labels >= 0, : INSTANCES // 4].flatten(0, 1)
    truth = torch.from_numpy(np.repeat(labels[labels >= 0], INSTANCES // 4))
    with torch.no_grad():
        assert (student(carriers).argmax(1) == truth).float().mean() > 0.9
        noise = x[:, INSTANCES // 4 :].flatten(0, 1)
        doubt = [head(noise).softmax(1).max(1).values.mean().item() for head in (student, teacher)]
    assert doubt[0] < doubt[1] - 0.1, "uncertainty distillation lowers the confidence on context"


def test_same_seed_same_head() -> None:
    config = one_head(epochs=2)
    first, second = (fit_head(noisy_bags(), config).head.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = torch.get_rng_state()
    other = fit_head(noisy_bags(), one_head(epochs=2, seed=1)).head.state_dict()
    assert torch.equal(torch.get_rng_state(), state), "the caller's own random numbers go on as if nothing was"
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def plain_loop(bags: Bags, teacher: Head | None = None) -> Head:
    """The shipped setting's training without any switch: what the embedded bundle was made with."""
    x = torch.from_numpy(bags.instances[bags.labels >= 0].astype(np.float32))
    background = torch.from_numpy(bags.instances[bags.labels < 0].astype(np.float32))
    y = torch.nn.functional.one_hot(torch.from_numpy(bags.labels[bags.labels >= 0]), CLASSES).float()
    torch.manual_seed(0 if teacher is None else 1)  # the student does not begin where the teacher did
    head = Head(WIDTH, CLASSES, 0.5)
    flat = x.flatten(0, 1).double()
    head.mean.copy_(flat.mean(0))
    head.deviation.copy_(flat.std(0).float() + 1e-3)
    adam = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(64):
            logits = head.train()(x[rows])
            loss = mil_loss(logits, y[rows], 8)
            if teacher:
                with torch.no_grad():
                    bad = bad_instances(
                        teacher(x[rows]), y[rows, None].expand(-1, INSTANCES, -1), entropy_threshold(CLASSES)
                    )
                loss = loss + 0.15 * uncertainty_loss(logits, bad)
                loss = loss + 0.15 * background_loss(head(background[torch.randint(len(background), (16,))]))
            adam.zero_grad()
            loss.backward()
            adam.step()
    return head.eval()


def test_shipped_setting_is_the_plain_loop_bit_by_bit() -> None:
    bags = noisy_bags()
    with torch.random.fork_rng(devices=[]):
        expected = plain_loop(bags, plain_loop(bags)).state_dict()
    fitted = fit_head(bags, one_head())
    assert all(torch.equal(value, expected[name]) for name, value in fitted.head.state_dict().items())
    assert fitted.epochs == (5, 5) and fitted.held_out_accuracy is None and not fitted.background


def test_papers_setting() -> None:
    fitted = fit_head(noisy_bags(), replace(PAPER, epochs=1))
    assert fitted.head.fc.in_features == TOKENS
    assert (PAPER.dropout, PAPER.background_weight, PAPER.threshold, PAPER.divisor) == (0.9, 0, 0.7, 8)
    assert (PAPER.epochs, PAPER.hold_out, PAPER.batch, PAPER.learning_rate) == (30, 0.1, 64, 1e-3)
    assert (PAPER.init, PAPER.class_reduction, PAPER.uncertainty_weight) == ("xavier", "sum", 0.15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": 1.0},
        {"epochs": 0},
        {"threshold": 0.0},
        {"inputs": "pixels"},
        {"background": "none"},
        {"class_reduction": "max"},
        {"entropy_rule": ""},
        {"init": "zeros"},
        {"hold_out": 1.0},
        {"patience": 0},
        {"weight_decay": -1e-4},
        {"seed": -1},
        {"seed": 2**61, "members": 4},
        {"members": 0},
    ],
)
def test_config_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        one_head(**wrong)  # type: ignore[arg-type]


def test_lambda_2_is_scaled_to_the_classes_when_asked() -> None:
    assert one_head().student_weight(80) == 0.15
    scaled = one_head(scale_uncertainty=True)
    assert scaled.student_weight(20) == 0.15
    assert scaled.student_weight(80) == pytest.approx(0.0375)


@pytest.mark.parametrize(
    "switch",
    [
        {"background": "explicit"},
        {"class_reduction": "mean"},
        {"entropy_rule": "normalised"},
        {"entropy_rule": "quantile"},
        {"init": "xavier"},
        {"scale_uncertainty": True},
        {"weight_decay": 0.1},
        {"divisor": 2},
        {"hold_out": 0.1},
        {"background_weight": 0.0},
    ],
)
def test_every_switch_changes_the_head(switch: dict[str, Any]) -> None:
    bags = noisy_bags(count=60)
    quick = one_head(epochs=2, learning_rate=0.01)  # so that the teacher is sure of something
    plain, other = (fit_head(bags, config).head.state_dict() for config in (quick, replace(quick, **switch)))
    assert not torch.equal(plain["fc.weight"], other["fc.weight"])


def test_xavier_starts_without_biases_and_within_its_bound() -> None:
    config = one_head(init="xavier", epochs=1, learning_rate=1e-9, uncertainty_weight=0.0)
    head = fit_head(noisy_bags(count=20), config).head
    assert head.fc.bias.abs().max() < 1e-6
    bound = (6 / (WIDTH + 512)) ** 0.5
    assert 0.99 * bound < head.fc.weight.abs().max() <= bound + 1e-6


def test_explicit_background_is_a_class_of_its_own() -> None:
    bags = noisy_bags()
    examples = training_set(bags, one_head(background="explicit"))
    assert len(examples.instances) == len(bags.labels) and len(examples.background) == 0
    assert examples.labels[:2, 0].tolist() == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 1]]
    fitted = fit_head(bags, one_head(background="explicit", epochs=12))
    assert fitted.background and fitted.head.fc3.out_features == CLASSES + 1
    assert fitted.bag_accuracy > 0.95
    x = torch.from_numpy(noisy_bags(count=240).instances[120:].astype(np.float32))
    labels = torch.from_numpy(noisy_bags(count=240).labels[120:])
    with torch.no_grad():
        answer = fitted.head(x).argmax(2)
    carriers = labels >= 0
    found = (answer[carriers, : INSTANCES // 4] == labels[carriers, None]).float().mean()
    assert found > 0.6, "half of a bag is labelled background: fewer than the quarter that carries the class"
    assert (answer[~carriers] == CLASSES).float().mean() > 0.8


def test_one_class_needs_something_to_be_told_from() -> None:
    bags = noisy_bags()
    none = np.zeros(0, dtype=bool)
    one = replace(bags.take(bags.labels <= 0, none), classes=("class0",))
    fitted = fit_head(one, one_head(background="explicit", epochs=1))
    assert fitted.head.fc3.out_features == 2
    with pytest.raises(InputError, match="implicit background"):
        fit_head(one, one_head())
    with pytest.raises(InputError, match="hold_out"):
        fit_head(one, one_head(background="explicit", hold_out=0.1))
    alone = one.take(one.labels == 0, none)
    with pytest.raises(InputError, match="no _background"):
        fit_head(alone, one_head(background="explicit"))


def test_instances_by_kind() -> None:
    bags = noisy_bags(count=3)
    assert torch.equal(select_instances(bags, "fused"), torch.from_numpy(bags.instances))
    assert torch.equal(select_instances(bags, "tokens"), torch.from_numpy(bags.instances[:, :, :TOKENS]))
    single = select_instances(bags, "per_token")
    assert single.shape == (3, 3 * INSTANCES, TOKENS // 4)
    quarter = TOKENS // 4
    assert single[1, 3 * 5 + 1].tolist() == bags.instances[1, 5, 2 * quarter : 3 * quarter].tolist(), "token 2 of 5"
    fitted = fit_head(bags, one_head(inputs="per_token", epochs=1))
    assert fitted.head.fc.in_features == quarter


def test_training_stops_when_the_hold_out_gets_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.8, 0.7, 0.8, 0.6, 1.0])
    weights: list[torch.Tensor] = []

    def judge(head: Head, *_: object) -> float:
        weights.append(head.fc.weight.detach().clone())
        return next(scores)

    monkeypatch.setattr(trainer, "bag_accuracy", judge)
    config = one_head(epochs=60, hold_out=0.2, patience=3)
    bags = noisy_bags(count=20)
    stage = trainer.Trainer(training_set(bags, config), config, lambda line: None, None).run("teacher", None)
    assert stage.epochs == 5, "three epochs after the second, none was better"
    assert stage.held_out_accuracy == 0.8
    assert torch.equal(stage.head.fc.weight, weights[3]), "of two equally good epochs, the later"
    assert not torch.equal(weights[3], weights[4])


def test_hold_out_is_not_trained_on_and_is_what_is_measured() -> None:
    bags, config = noisy_bags(), one_head(epochs=4, hold_out=0.2)
    examples = training_set(bags, config)
    folds = held_folds(bags.folds, 0.2, 0)
    held = np.isin(bags.folds, folds) & (bags.labels >= 0)
    assert len(folds) == 2 and len(examples.held) == held.sum() >= 4 * 4
    assert np.array_equal(examples.held.numpy(), bags.instances[held])
    assert np.array_equal(examples.instances.numpy(), bags.instances[~held & (bags.labels >= 0)])
    assert len(examples.background) == 24 - np.isin(bags.folds[bags.labels < 0], folds).sum()
    fitted = fit_head(bags, config)
    expected = trainer.bag_accuracy(fitted.head, examples.held, examples.held_labels, CLASSES, 8)
    assert fitted.held_out_accuracy == expected


def test_a_hold_out_needs_pictures() -> None:
    bags = noisy_bags(count=5)
    with pytest.raises(InputError, match="two pictures"):
        fit_head(bags, one_head(hold_out=0.1))


@pytest.mark.parametrize("seed", range(4))
def test_a_hold_out_is_of_folds_that_classes_have(seed: int) -> None:
    """Ten folds of background pictures, but three of each class's."""
    labels = np.array([0, 0, 0, 1, 1, 1] + [-1] * 20)
    plain = noisy_bags(count=26)
    bags = replace(plain, classes=("a", "b"), labels=labels, folds=fold_numbers(labels))
    examples = training_set(bags, one_head(hold_out=0.1, seed=seed))
    assert sorted(examples.held_labels.tolist()) == [0, 1]
    assert len(examples.background) == 18


def test_aliases_leave_the_names_of_classes_alone() -> None:
    assert aliases_of("tvmonitor", ("tvmonitor", "cat")) == ("tv", "monitor", "television")
    assert aliases_of("tvmonitor", ("tvmonitor", "TV")) == ("monitor", "television")
    assert aliases_of("cat", ("cat",)) == ()


def test_few_pictures_get_a_least_number_of_steps() -> None:
    bags = noisy_bags(count=40)  # 32 pictures of classes, so two batches of 16 an epoch
    config = one_head(epochs=2, batch=16, least_steps=9, uncertainty_weight=0.0)
    assert fit_head(bags, config).epochs == (5,)
    assert fit_head(bags, replace(config, least_steps=4)).epochs == (2,)


def test_losses_towards_uniform_are_told_by_how_far_off_they_are() -> None:
    """The least loss of an unsure click over 4 classes is 4 ln 4; pictures without one have none."""
    config = one_head()
    told = trainer.Trainer(training_set(noisy_bags(count=20), config), config, lambda line: None, None)
    bad = torch.zeros(16, INSTANCES, dtype=torch.bool)
    bad[:12, : INSTANCES // 2] = True
    least = 4 * np.log(4)
    said = told._in_words({"bags": 1.25, "bad": 0.75 * least + 0.5, "background": least + 0.25}, bad)
    assert said == "loss 1.250; to be unsure of 38% of clicks: 0.500 off; background: 0.250 off"
    assert told._in_words({"bags": 1.25, "bad": 0.75 * least}, bad).endswith("of clicks: 0.000 off")
    assert told._in_words({"bags": 1.25}, None) == "loss 1.250"


def test_a_line_an_epoch_that_fits_a_terminal() -> None:
    lines: list[str] = []
    fit_head(noisy_bags(), one_head(epochs=12, least_steps=1), log=lines.append)
    assert [line.split(" loss ")[0] for line in lines] == [
        f"{stage} epoch {epoch}/12" for stage in ("teacher", "student") for epoch in range(1, 13)
    ]
    assert all("unsure" not in line for line in lines[:12])
    assert all("unsure" in line and "background" in line and len(f"  {line}") < 100 for line in lines[12:])
