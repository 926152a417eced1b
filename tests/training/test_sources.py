"""What sources have in common: names, numbers, settings, and telling pictures apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openverse_server import OpenverseServer, only, picture, send
from PIL import Image

from gransam_sdk.errors import InputError, OutputError
from gransam_sdk.training.sources.download import Manners
from gransam_sdk.training.sources.openverse import Openverse
from gransam_sdk.training.sources.perceptual_hash import HashIndex, difference_hash
from gransam_sdk.training.sources.source import folder_name, folder_names, made_pictures, put_picture
from gransam_sdk.training.sources.web import WebConfig, WebSource


def test_duplicates_are_found_within_and_across_classes(
    server: OpenverseServer, source: WebSource, tmp_path: Path
) -> None:
    server.offer("fox", "1", send(picture(1)))
    server.offer("fox", "2", send(picture(1, 480, 360, quality=40)))  # larger, and compressed again
    server.offer("fox", "3", send(picture(3)))
    server.offer("badger", "4", send(picture(3, format="PNG"), "image/png"))
    server.offer("badger", "1", None)
    server.offer("badger", "5", send(picture(5)))
    report = source.collect(["fox", "badger"], tmp_path, per_class=2)
    assert [(found.made, found.reasons) for found in report.classes] == [(2, {"duplicate": 1}), (1, {"duplicate": 2})]
    assert server.times_asked()["1"] == 1, "the same id is not fetched for another class"
    server.offer("owl", "6", send(picture(5, 300, 225)))
    assert only(source.collect(["owl"], tmp_path, per_class=1)).reasons == {"duplicate": 1}, "known from an earlier run"


def test_difference_hash_by_hand() -> None:
    rising = np.repeat(np.arange(9, dtype=np.uint8)[None, :, None] * 20, 8, axis=0).repeat(3, axis=2)
    assert difference_hash(rising) == 0
    assert difference_hash(rising[:, ::-1].copy()) == 2**64 - 1
    one = rising.copy()
    one[0, 0] = 255  # brighter than its right neighbour: the first bit
    assert difference_hash(one) == 1 << 63


def test_difference_hashes_of_photos(sample_photos: dict[str, Path]) -> None:
    hashes = []
    for path in sample_photos.values():
        with Image.open(path) as image:
            whole = image.convert("RGB")
        small = whole.resize((whole.width // 3, whole.height // 3))
        first, second = (difference_hash(np.asarray(version)) for version in (whole, small))
        assert (first ^ second).bit_count() <= 6
        hashes.append(first)
    index = HashIndex()
    for number, value in enumerate(hashes):
        assert index.find(value) is None
        index.add(value, str(number))
    assert index.find(hashes[2] ^ 0b111111) == "2" and index.find(hashes[2] ^ 0b1111111) is None


@pytest.mark.parametrize("name", ["red fox", "日本犬", "🦊", "Zoë", "rock'n'roll (live)", "50 %"])
def test_names_that_can_be_folders(name: str) -> None:
    assert folder_name(name) == name


def test_names_are_composed() -> None:
    assert folder_name("Zoe\u0308") == "Zo\u00eb"


@pytest.mark.parametrize(
    "name",
    ["", " ", " fox", "cats/dogs", "a\\b", "..", ".git", "_background", "a=b", "a,b", "a\nb", "a\0b", "\u202eabc",
     "\U0001f468\u200d\U0001f33e", "\ud800", "x" * 201],
)  # fmt: skip
def test_names_that_cannot(name: str, source: WebSource, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class name"):
        folder_name(name)
    with pytest.raises(InputError):
        source.collect([name], tmp_path / "out", per_class=1)
    assert not (tmp_path / "out").exists()


def test_classes_are_told_apart() -> None:
    assert folder_names(["fox", "red fox"]) == {"fox": "fox", "red fox": "red fox"}
    for wrong in ([], "fox", ["fox", "Fox"], ["Zo\u00eb", "Zoe\u0308"]):
        with pytest.raises(InputError, match="classes"):
            folder_names(wrong)


def test_a_picture_comes_after_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: Path, data: bytes) -> None:
        if target.suffix == ".jpg":
            raise KeyboardInterrupt
        target.write_bytes(data)

    monkeypatch.setattr("gransam_sdk.training.sources.source.put_file", refuse)
    with pytest.raises(KeyboardInterrupt):
        put_picture(tmp_path, 0, b"x", ".jpg", {"source": "web"})
    assert [path.name for path in tmp_path.iterdir()] == ["0000.json"] and made_pictures(tmp_path) == {}


def test_a_picture_is_never_overwritten(tmp_path: Path, server: OpenverseServer, source: WebSource) -> None:
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "0003.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="number 3"):
        put_picture(tmp_path / "fox", 3, b"x", ".jpg", {})
    with pytest.raises(InputError, match="suffix"):
        put_picture(tmp_path / "fox", 4, b"x", ".exe", {})
    server.fill("fox", 2)
    found = only(source.collect(["fox"], tmp_path, per_class=1))
    assert (found.made, found.kept) == (1, 0)
    assert (tmp_path / "fox" / "0003.png").read_bytes() == b"mine"
    assert list(made_pictures(tmp_path / "fox")) == [4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": "ftp://x/"},
        {"base": "https://[broken/"},
        {"base": "api.openverse.org"},
        {"base": "http://x/?a=b"},
        {"licences": ()},
        {"licences": ("gpl",)},
        {"sizes": ("huge",)},
        {"page_size": 0},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Openverse(**wrong)


@pytest.mark.parametrize("count", [0, -1, True, 2.5])
def test_counts_are_checked(source: WebSource, tmp_path: Path, count: Any) -> None:
    with pytest.raises(InputError, match="per class"):
        source.collect(["fox"], tmp_path, per_class=count)
    with pytest.raises(InputError, match="attempts"):
        Manners(attempts=0)
    with pytest.raises(InputError, match="timeout"):
        Manners(timeout=0)
    with pytest.raises(InputError, match="min_side"):
        WebConfig(min_side=0)
