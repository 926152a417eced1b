"""Fitting a head on bags whose instances are mostly noise."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.models.head import Head
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.training.aliases import aliases_of
from gransam_sdk.training.fit import PAPER, HeadConfig, fit_head
from gransam_sdk.training.tokens import Bags, extract_bags

CLASSES, INSTANCES, WIDTH = 4, 24, 20


def noisy_bags(seed: int = 0, count: int = 120) -> Bags:
    """A quarter of a bag's instances carry the class, the rest come from a background shared by all."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, WIDTH)) * 2
    labels = np.arange(count) % (CLASSES + 1) - 1  # -1 is background
    instances = rng.normal(size=(count, INSTANCES, WIDTH))
    for bag, label in zip(instances, labels, strict=True):
        if label >= 0:
            bag[: INSTANCES // 4] += centres[label]
    names = tuple(f"class{i}" for i in range(CLASSES))
    return Bags(classes=names, instances=instances.astype(np.float16), labels=labels, token_width=16)


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
    config = HeadConfig(epochs=12)
    student = fit_head(bags, config).head
    teacher = fit_head(bags, HeadConfig(epochs=12, uncertainty_weight=0)).head
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
    config = HeadConfig(epochs=2)
    first, second = (fit_head(noisy_bags(), config).head.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = torch.get_rng_state()
    other = fit_head(noisy_bags(), HeadConfig(epochs=2, seed=1)).head.state_dict()
    assert torch.equal(torch.get_rng_state(), state), "the caller's own random numbers go on as if nothing was"
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_papers_setting_reads_tokens_alone() -> None:
    fitted = fit_head(noisy_bags(), HeadConfig(inputs="tokens", epochs=1))
    assert fitted.head.fc.in_features == 16
    assert PAPER.dropout == 0.9 and PAPER.background_weight == 0 and PAPER.threshold == 0.7


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"epochs": 0}, {"threshold": 0.0}, {"inputs": "pixels"}])
def test_config_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        HeadConfig(**wrong)  # type: ignore[arg-type]


def write_picture(path: Path, color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), color).save(path)


def test_bags_from_class_folders(tmp_path: Path) -> None:
    for i in range(3):
        write_picture(tmp_path / "red" / f"{i}.png", (220, 40, 40))
        write_picture(tmp_path / "blue" / f"{i}.png", (40, 40, 220))
    write_picture(tmp_path / "_background" / "0.png", (128, 128, 128))
    write_picture(tmp_path / "_later" / "0.png", (1, 2, 3))
    (tmp_path / "red" / "broken.jpg").write_bytes(b"these bytes are no picture")
    model = fake_model(fake_bundle())
    bags = extract_bags(model, tmp_path)
    assert bags.classes == ("blue", "red")
    assert bags.labels.tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert bags.instances.shape == (7, 36, 4 * 8 + 6) and bags.token_width == 32
    assert [(Path(path).name, reason) for path, reason in bags.skipped] == [("broken.jpg", "format")]
    is_red = bags.instances[:, 0, 0] > bags.instances[:, 0, 2]  # the fake's tokens begin with the clicked colour
    assert is_red.tolist() == [False] * 3 + [True] * 3 + [False]


def test_unusable_folders_say_what_to_do(tmp_path: Path) -> None:
    model = fake_model(fake_bundle())
    with pytest.raises(InputError, match="no class folders"):
        extract_bags(model, tmp_path)
    write_picture(tmp_path / "red" / "0.png", (220, 40, 40))
    with pytest.raises(InputError, match="two classes"):
        extract_bags(model, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        extract_bags(model, tmp_path)
    (tmp_path / "empty" / "0.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="none that can be read"):
        extract_bags(model, tmp_path)
    for name in ("a=b", "cats, dogs", "RED"):
        write_picture(tmp_path / name / "0.png", (1, 2, 3))
        with pytest.raises(InputError, match="typed after -c"):
            extract_bags(model, tmp_path)
        shutil.rmtree(tmp_path / name)


def test_aliases_leave_the_names_of_classes_alone() -> None:
    assert aliases_of("tvmonitor", ("tvmonitor", "cat")) == ("tv", "monitor", "television")
    assert aliases_of("tvmonitor", ("tvmonitor", "TV")) == ("monitor", "television")
    assert aliases_of("cat", ("cat",)) == ()
