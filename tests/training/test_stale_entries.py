"""What the token cache throws away: old entries when it is too large, and nothing else, whatever lies there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pictures import make_pictures, write_picture

from gransam_sdk.annotate import disk
from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.bundle import Bundle
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.training import stale_entries
from gransam_sdk.training.examples import hash_pictures
from gransam_sdk.training.sources.folder import find_pictures
from gransam_sdk.training.stale_entries import free_stale
from gransam_sdk.training.token_cache import CachePlan, TokenCache

DAY = 86_400.0


def segmenter(number: int) -> Bundle:
    """Bundles whose tokens have nothing to do with each other."""
    plain = fake_bundle()
    graphs = {**plain.graphs, "image": replace(plain.graphs["image"], sha256=f"{number:064x}")}
    return replace(plain, graphs=graphs)


@dataclass
class Shelf:
    """A cache with entries of several segmenters, all of one size."""

    pictures: Path
    cache: Path

    def fill(self, number: int, **settings: Any) -> tuple[Path, CachePlan]:
        """A pass of one segmenter; its entry and its plan."""
        store = TokenCache(fake_model(segmenter(number)), self.cache, **settings)
        plans: list[CachePlan] = []
        store.fill(hash_pictures(find_pictures(self.pictures)[1])[0], announce=plans.append)
        return store.folder, plans[0]

    def age(self, entry: Path, days: float) -> None:
        then = time.time() - days * DAY
        os.utime(entry / "run.json", (then, then))

    @property
    def entries(self) -> set[Path]:
        return set((self.cache / "tokens").iterdir())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(make_pictures(tmp_path / "pictures"), tmp_path / "cache")


def size(entry: Path) -> int:
    return sum(path.stat().st_size for path in (entry / "shards").iterdir())


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_the_least_recently_used_go_until_the_rest_fits(shelf: Shelf) -> None:
    entries = [shelf.fill(number)[0] for number in range(4)]
    one = size(entries[0])
    for entry, days in zip(entries, (31, 90, 60, 29), strict=True):
        shelf.age(entry, days)
    new, plan = shelf.fill(9, cap=3 * one)
    assert shelf.entries == {entries[0], entries[3], new}, "90 and 60 days go, and with them it fits"
    assert plan.freed == 2 * one and plan.cached == 0
    new, plan = shelf.fill(10, cap=0)
    assert shelf.entries == {entries[3], new} | {shelf.fill(9)[0]}, "below 30 days nothing goes, whatever the cap"
    assert plan.freed == one


def test_below_the_cap_nothing_goes(shelf: Shelf) -> None:
    entry, _ = shelf.fill(0)
    shelf.age(entry, 400)
    one = size(entry)
    assert shelf.fill(1, cap=2 * one)[1].freed == 0
    shelf.age(entry, 400)
    assert shelf.fill(2)[1].freed == 0, "10 GiB"
    assert len(shelf.entries) == 3
    assert shelf.fill(3, cap=4 * one - 1000)[1].freed == one, "what is coming counts"


def test_the_entry_in_use_and_a_pass_with_nothing_to_do_delete_nothing(shelf: Shelf) -> None:
    entries = [shelf.fill(number)[0] for number in range(2)]
    for entry in entries:
        shelf.age(entry, 400)
    assert shelf.fill(0, cap=0)[1].freed == 0
    write_picture(shelf.pictures / "red" / "new.png", (9, 9, 9))
    before = set(entries[0].rglob("*.safetensors"))
    shelf.age(entries[0], 400)
    assert shelf.fill(0, cap=0)[1].freed > 0, "the other one"
    assert shelf.entries == {entries[0]} and before < set(entries[0].rglob("*.safetensors"))


def test_an_entry_that_is_written_to_stays(shelf: Shelf) -> None:
    entry, _ = shelf.fill(0)
    shelf.age(entry, 400)
    before = contents(entry)
    with OutputFolder.open(entry):
        assert shelf.fill(1, cap=0)[1].freed == 0
    assert contents(entry) == before
    assert shelf.fill(2, cap=0)[1].freed > 0 and not entry.exists()


def test_an_entry_that_is_used_before_its_lock_is_taken_stays(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = shelf.fill(0)
    shelf.age(entry, 400)
    before = contents(entry)
    real = OutputFolder.open

    def open_late(path: Path) -> OutputFolder:
        os.utime(path / "run.json")
        return real(path)

    assert free_stale(entry.parent, entry, cap=0, coming=0) == 0, "it is the entry in use"
    with monkeypatch.context() as patch:
        patch.setattr(stale_entries.OutputFolder, "open", open_late)
        assert free_stale(entry.parent, entry.with_name("0" * 32), cap=0, coming=0) == 0
    assert contents(entry) == before


def test_what_a_kill_left_goes_with_its_entry(shelf: Shelf) -> None:
    entry, _ = shelf.fill(0)
    for folder in (entry, entry / "shards"):
        (folder / ".gransam-0123456789abcdef.tmp").write_bytes(b"half")
    shelf.age(entry, 400)
    shelf.fill(1, cap=0)
    assert not entry.exists()


@pytest.mark.parametrize(
    "strange",
    ["a file", "a file among the shards", "a folder among the shards", "another name", "no tokens", "not its hash",
     "no JSON", "no shards", "linked shards", "a linked shard", "a linked entry", "a linked run.json"],
)  # fmt: skip
def test_what_is_not_exactly_an_entry_stays(shelf: Shelf, tmp_path: Path, strange: str) -> None:
    entry, _ = shelf.fill(0)
    elsewhere = tmp_path / "elsewhere"
    shard = next((entry / "shards").iterdir())
    if strange == "a file":
        (entry / "notes.txt").write_text("mine")
    elif strange == "a file among the shards":
        (entry / "shards" / "notes.safetensors").write_text("mine")
    elif strange == "a folder among the shards":
        (entry / "shards" / "mine").mkdir()
    elif strange == "another name":
        entry = entry.rename(entry.with_name("kept-by-hand"))
    elif strange in ("no tokens", "not its hash"):
        about = json.loads((entry / "run.json").read_bytes())
        about |= {"what": "photos"} if strange == "no tokens" else {"format": 99}
        (entry / "run.json").write_text(json.dumps(about))
    elif strange == "no JSON":
        (entry / "run.json").write_bytes(b"\xff")
    elif strange == "no shards":
        (entry / "shards").rename(entry / "Shards")
    else:
        linked = {"linked shards": entry / "shards", "a linked shard": shard, "a linked entry": entry}
        path = linked.get(strange, entry / "run.json")
        shutil.move(path, elsewhere)
        path.symlink_to(elsewhere)
    then = time.time() - 400 * DAY
    os.utime(entry / "run.json", (then, then))
    before = contents(entry) | contents(tmp_path / "elsewhere")
    assert shelf.fill(1, cap=0)[1].freed == 0
    assert contents(entry) | contents(tmp_path / "elsewhere") == before and entry.exists()


def test_files_beside_the_entries_are_nobody_s_business(shelf: Shelf) -> None:
    shelf.fill(0)
    (shelf.cache / "tokens" / ("a" * 32)).write_text("mine")
    (shelf.cache / "tokens" / ("b" * 32)).mkdir()
    shelf.fill(1, cap=0)
    assert len(shelf.entries) == 4


@pytest.mark.parametrize("operation", [os.unlink, Path.rmdir])
def test_a_deletion_that_is_cut_leaves_a_smaller_entry(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, operation: Any
) -> None:
    monkeypatch.setattr("gransam_sdk.training.token_cache.SHARD_PICTURES", 2)
    entry, _ = shelf.fill(0)
    shelf.age(entry, 400)
    shards = sorted((entry / "shards").iterdir())
    left = [2]

    def call(function: Any, *arguments: Any, **settings: Any) -> Any:
        doomed = operation is os.unlink and function is os.unlink and "shards" in str(arguments[0])
        if doomed or (operation is Path.rmdir and getattr(function, "__name__", "") == "rmdir"):
            left[0] -= 1
            if operation is Path.rmdir or left[0] == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return function(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_call", call)
        _, plan = shelf.fill(1, cap=0)
    assert plan.freed > 0, "and the pass itself goes on"
    there = sorted((entry / "shards").iterdir())
    assert (there == []) if operation is Path.rmdir else (len(there) == 2 and set(there) < set(shards))
    again, plan = shelf.fill(0)
    assert again == entry and plan.cached == 2 * len(there), "what is left is good"
    assert sorted((entry / "shards").iterdir()) == shards
