"""``gransam synth`` as a user meets it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_pipeline import FakePipeline, load_instead, provenance_of
from typer.testing import CliRunner, Result

from gransam_sdk.cli import app
from gransam_sdk.errors import InputError
from gransam_sdk.training.sources.diffusion import DiffusionConfig, DiffusionSource

LIKE_THE_FAKE = ("--model", "a/model", "--steps", 7, "--guidance", 5)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    return load_instead(monkeypatch)


def gransam(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["synth", *map(str, arguments)])


def test_pictures_and_a_report(fake: FakePipeline, tmp_path: Path) -> None:
    command = ("-c", "red fox", "-c", "badger", "-o", tmp_path, "--per-class", 2, "--batch", 2, *LIKE_THE_FAKE)
    done = gransam(*command)
    assert done.exit_code == 0, done.output
    assert "red fox: 2 of 2 pictures, 2 of them new\nbadger: 2 of 2 pictures, 2 of them new\n" in done.output
    assert fake.seeds == [[0, 1], [1000, 1001]]
    assert sorted(provenance_of(tmp_path / "badger")) == [0, 1]
    again = gransam(*command)
    assert "red fox: 2 of 2 pictures\nbadger: 2 of 2 pictures\n" in again.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DiffusionConfig, int]]:
    """What the command asks of the source, which does nothing."""
    asked: list[tuple[DiffusionConfig, int]] = []

    def collect(self: DiffusionSource, *arguments: object, per_class: int, **more: object) -> SimpleNamespace:
        asked.append((self.config, per_class))
        return SimpleNamespace(lines=list, missing=0)

    monkeypatch.setattr(DiffusionSource, "collect", collect)
    return asked


def test_the_defaults_are_the_paper_s(asked: list[tuple[DiffusionConfig, int]]) -> None:
    assert gransam("-c", "fox", "-o", "unused").exit_code == 0
    assert asked == [(DiffusionConfig(), 200)]
    assert DiffusionConfig() == DiffusionConfig(
        model="CompVis/stable-diffusion-v1-4", template="a photo of a {c}", steps=50, guidance=7.5, seed=0
    )


def test_every_option_arrives(asked: list[tuple[DiffusionConfig, int]]) -> None:
    done = gransam(
        "-c", "fox", "-o", "unused", "--per-class", 9, "--model", "a/b", "--revision", "v2", "--steps", 3,
        "--guidance", 1.5, "--template", "one {c}", "--seed", 4, "--batch", 6, "--device", "cuda:1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    config = DiffusionConfig(
        model="a/b", revision="v2", template="one {c}", steps=3, guidance=1.5, seed=4, batch=6, device="cuda:1"
    )
    assert asked == [(config, 9)]


def test_a_class_that_got_too_few_ends_with_3(fake: FakePipeline, tmp_path: Path) -> None:
    fake.flagged = set(range(1000))
    done = gransam("-c", "fox", "-o", tmp_path, "--per-class", 1, *LIKE_THE_FAKE)
    assert done.exit_code == 3
    assert "fox: 0 of 1 pictures; skipped 9 blanked" in done.output


def test_one_picture_too_few_is_too_few(fake: FakePipeline, tmp_path: Path) -> None:
    fake.flagged = set(range(3, 1000))
    done = gransam("-c", "fox", "-o", tmp_path, "--per-class", 4, *LIKE_THE_FAKE)
    assert done.exit_code == 3 and "fox: 3 of 4 pictures" in done.output
    assert sorted(provenance_of(tmp_path / "fox")) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a/b", "../up", "a\\b", "", "_later", "\U0001f468\u200d\U0001f33e"])
def test_a_name_that_no_folder_can_have(fake: FakePipeline, tmp_path: Path, name: str) -> None:
    done = gransam("-c", "fox", "-c", name, "-o", tmp_path / "out")
    assert isinstance(done.exception, InputError) and done.exception.exit_code == 2
    assert "cats and dogs" in done.exception.do
    assert not (tmp_path / "out").exists() and not fake.seeds, "said before anything is done"


def test_an_emoji_is_a_name(fake: FakePipeline, tmp_path: Path) -> None:
    assert gransam("-c", "red 🦊", "-o", tmp_path, "--per-class", 1, *LIKE_THE_FAKE).exit_code == 0
    assert provenance_of(tmp_path / "red 🦊")[0]["prompt"] == "a photo of a red 🦊"


@pytest.mark.parametrize("batch", ["0", "many", "-1", "²"])
def test_a_batch_that_is_none(tmp_path: Path, batch: str) -> None:
    done = gransam("-c", "fox", "-o", tmp_path, f"--batch={batch}")
    assert isinstance(done.exception, InputError) and "--batch" in str(done.exception)


def test_a_stopped_run_says_that_it_goes_on(fake: FakePipeline, tmp_path: Path) -> None:
    fake.stop_after = 1
    done = gransam("-c", "fox", "-o", tmp_path, "--per-class", 3, "--batch", 2, *LIKE_THE_FAKE)
    assert done.exit_code == 130
    assert "what was made is saved" in done.output
    assert sorted(provenance_of(tmp_path / "fox")) == [0, 1]
