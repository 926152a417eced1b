"""``gransam train`` from folders to a bundle that annotates, and what it says of folders that are not in order.

The base bundle is a tiny one, whose tokens depend on the mean colour of a picture: enough to tell red from blue. All
four cells of its lattice are rim; with this seed most masks cover one of them, and are no surroundings.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_good
from PIL import Image

from gransam_sdk.annotate import disk
from gransam_sdk.bundle import open_bundle

Gransam = Callable[..., Any]
COLORS = {"red": (215, 45, 45), "blue": (45, 45, 215), "_background": (128, 128, 128)}
FEW = 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_good(tmp_path_factory.mktemp("base") / "tiny", head=False, seed=5)


@pytest.fixture
def train(gransam: Gransam, base: Path, tmp_path: Path) -> Gransam:
    """Trains on the folders in ``pictures``, into ``mine``."""

    def call(*arguments: object) -> Any:
        paths = [tmp_path / "pictures", "-o", tmp_path / "mine", "--base", base, "--cache", tmp_path / "cache"]
        return gransam("train", *paths, *arguments, fake=False)

    return call


def fill(tmp_path: Path, counts: dict[str, int]) -> Path:
    """So many pictures in each folder, of the folder's colour and all different."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            color = COLORS[name] + rng.integers(-30, 31, size=(12, 16, 3))
            color[:, 10:] = 255 - color[:, 10:]  # an edge, for the tiny segmenter to cut at
            Image.fromarray(color.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def table_of(said: str) -> dict[str, list[str]]:
    """The report's rows by class."""
    lines = said.splitlines()
    (head,) = [index for index, line in enumerate(lines) if line.startswith("class  ")]
    rows = [re.split(r"\s{2,}", line) for line in lines[head + 1 :]]
    return {row[0]: row[1:] for row in rows if len(row) > 2}


def annotated(gransam: Gransam, tmp_path: Path, *arguments: object) -> dict[str, Counter[str]]:
    """Masks by class that the new bundle finds, however unsure, by the folder that the picture is in."""
    run = tmp_path / "run"
    done = gransam(
        "annotate", tmp_path / "pictures", "-o", run, "--bundle", tmp_path / "mine", "--conf", "0.01", *arguments,
        fake=False,
    )  # fmt: skip
    assert done.code == 0, done.err
    found: dict[str, Counter[str]] = {}
    for path in (run / "records").rglob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        found.setdefault(path.parent.name, Counter()).update(mask["class"] for mask in record["annotations"])
    return found


def test_from_folders_to_a_bundle_that_annotates(train: Gransam, gransam: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": 20, "blue": 20, "_background": 10})
    done = train("--precision", "0.7", "--seed", "3")
    assert (done.code, done.out) == (0, ""), done.err
    assert "10 of 50 pictures are held out" in done.err and "final training, on all 50 pictures" in done.err
    rows = table_of(done.err)
    assert set(rows) == {"blue", "red"}
    assert [rows[name][:2] for name in ("blue", "red")] == [["20", "4"]] * 2
    bundle = open_bundle(tmp_path / "mine")
    assert bundle.name == "mine" and [info.name for info in bundle.classes] == ["blue", "red"]
    assert bundle.head is not None and not bundle.head.background and bundle.head.labels == "prompt"
    assert bundle.head.calibration is not None
    facts = bundle.head.calibration
    assert (facts.target, facts.pictures, facts.background_pictures) == (0.7, 8, 2)
    for info in bundle.classes:
        assert info.evidence is not None and info.evidence.pictures == 4
        assert info.threshold is not None and f"{info.threshold:.2f}" in rows[info.name]
    assert "head: 50 example pictures in class folders" in bundle.provenance["training_data"][-1]
    card = bundle.file_bytes("model-card.md").decode()
    assert card.startswith("# Test bundle") and "| blue | 20 | 4 |" in card and "40 scenes" in card and "seed 3" in card
    assert not list((tmp_path / "cache" / "training").iterdir()), "nothing is unfinished"
    found = annotated(gransam, tmp_path)
    for name in ("red", "blue"):
        assert found[name].most_common(1)[0][0] == name, "what its own example pictures show"


def test_the_same_command_twice_writes_the_same_bundle(train: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": FEW, "blue": FEW})
    assert train().code == 0
    first = open_bundle(tmp_path / "mine").digest
    done = train("--overwrite")
    assert done.code == 0 and "tokens of all 4 pictures are in" in done.err and "scenes are in" in done.err
    assert open_bundle(tmp_path / "mine").digest == first
    assert train().code == 2, "and without --overwrite it stays"
    shutil.rmtree(tmp_path / "mine")
    assert train("--seed", "1").code == 0
    assert open_bundle(tmp_path / "mine").digest != first


def test_the_papers_setting_has_no_scenes(train: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": 4, "blue": 4, "_background": 12})
    done = train("--paper")
    assert done.code == 0, done.err
    assert "scenes" not in done.err and "hold-out" in done.err
    card = open_bundle(tmp_path / "mine").file_bytes("model-card.md").decode()
    assert "0 scenes" in " ".join(card.split()) and "dropout 0.9" in card


def test_one_class_and_background(train: Gransam, gransam: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": 20, "_background": 20})
    done = train()
    assert done.code == 0, done.err
    assert "one class: background gets a logit of its own" in done.err
    bundle = open_bundle(tmp_path / "mine")
    assert bundle.head is not None and bundle.head.background
    assert bundle.graphs["head"].outputs[0].axes == ("g", 2)
    assert bundle.head.calibration is not None and bundle.head.calibration.background_pictures == 4
    found = annotated(gransam, tmp_path)
    assert {*found["red"], *found["_background"]} <= {"red"}, "background is no label"
    shutil.rmtree(tmp_path / "pictures" / "_background")
    again = train("--overwrite")
    assert again.code == 2 and "one class, red" in again.err and "add _background" in again.err


def test_an_empty_class_folder(train: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": FEW, "blue": FEW})
    (tmp_path / "pictures" / "green").mkdir()
    done = train()
    assert done.code == 2 and f"class folder {tmp_path / 'pictures' / 'green'}" in done.err
    assert "put some into it, or delete the folder" in done.err
    assert not (tmp_path / "mine").exists() and not (tmp_path / "cache").exists()


def test_one_picture_in_a_class_is_too_few_to_judge(train: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": FEW, "blue": 1})
    done = train()
    assert done.code == 0, done.err
    assert "rehearsal" not in done.err
    assert [row[0] for row in table_of(done.err).values()] == ["1", str(FEW)]
    assert len(re.findall("too few pictures to judge", done.err)) == 2
    bundle = open_bundle(tmp_path / "mine")
    assert bundle.head is not None and bundle.head.calibration is None
    assert all(info.evidence is None and info.threshold == 0.5 for info in bundle.classes)


def test_a_picture_in_two_class_folders(train: Gransam, tmp_path: Path) -> None:
    pictures = fill(tmp_path, {"red": FEW, "blue": FEW})
    shutil.copy(pictures / "red" / "1.png", pictures / "blue" / "copy.png")
    done = train()
    assert done.code == 2 and "delete one of each pair" in done.err
    assert str(pictures / "red" / "1.png") in done.err and str(pictures / "blue" / "copy.png") in done.err
    assert not (tmp_path / "mine").exists()


def test_corrupt_files_and_copies_are_left_out_and_named(train: Gransam, tmp_path: Path) -> None:
    pictures = fill(tmp_path, {"red": 3, "blue": 3})
    whole = (pictures / "red" / "0.png").read_bytes()
    (pictures / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "red" / "none.jpg").write_bytes(b"these bytes are no picture")
    (pictures / "blue" / "again.png").write_bytes((pictures / "blue" / "0.png").read_bytes())
    done = train()
    assert done.code == 0, done.err
    left_out = sorted(line.split(": ", 1) for line in done.err.splitlines() if line.startswith("skipped "))
    names = [pictures / "blue" / "again.png", pictures / "red" / "cut.png", pictures / "red" / "none.jpg"]
    assert [name for name, _ in left_out] == [f"skipped {name}" for name in names]
    reasons = [reason for _, reason in left_out]
    assert reasons == [f"the same picture as {pictures / 'blue' / '0.png'}", "truncated", "format"]
    assert "head: 6 example pictures" in open_bundle(tmp_path / "mine").provenance["training_data"][-1]
    for name in ("0.png", "1.png", "2.png"):
        (pictures / "red" / name).unlink()
    again = train("--overwrite")
    assert again.code == 2 and "none that can be read" in again.err and str(pictures / "red") in again.err


def test_an_emoji_is_a_class_name(train: Gransam, gransam: Gransam, tmp_path: Path) -> None:
    pictures = fill(tmp_path, {"red": FEW, "blue": FEW})
    (pictures / "red").rename(pictures / "red 🦊")
    done = train()
    assert done.code == 0 and "red 🦊" in table_of(done.err), done.err
    assert [info.name for info in open_bundle(tmp_path / "mine").classes] == ["blue", "red 🦊"]
    found = annotated(gransam, tmp_path, "-c", "red 🦊")
    assert set(found["red 🦊"]) == {"red 🦊"} and found["blue"]["red 🦊"] < found["red 🦊"]["red 🦊"]


def test_a_full_disk_while_caching(train: Gransam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"red": FEW, "blue": FEW})

    def full(function: Any, *arguments: Any, **settings: Any) -> Any:
        if function is os.write and len(arguments[1]) > 2000:  # a shard, and no run.json
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_call", full)
        done = train()
    assert done.code == 6 and f"token cache {tmp_path / 'cache'}" in done.err and "ENOSPC" in done.err
    assert "free some space" in done.err and "the tokens that were written are kept" in done.err
    assert not (tmp_path / "mine").exists() and not list((tmp_path / "cache").rglob(".gransam-*"))
    assert train().code == 0, "with room it goes on"


def test_a_precision_that_cannot_be(train: Gransam, tmp_path: Path) -> None:
    fill(tmp_path, {"red": FEW, "blue": FEW})
    done = train("--precision", "80")
    assert done.code == 2 and "above 0, up to 1" in done.err
    assert not (tmp_path / "mine").exists()
