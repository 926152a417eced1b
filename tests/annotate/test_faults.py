"""Disks that fail, records that tear, folders that two runs want: nothing half done is ever taken for done."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_server import RunServer
from stand_in import annotate, make_photos, record_names, tree

from gransam_sdk.annotate import disk
from gransam_sdk.annotate.publish import Products
from gransam_sdk.annotate.record import parse_record
from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.errors import OutputError

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS, errno.EINTR, errno.EFBIG)


@pytest.fixture(scope="module")
def server() -> Iterator[RunServer]:
    with RunServer() as server:
        yield server


def failing_at(k: int, number: int, *, after: bool) -> Callable[..., Any]:
    """A file layer whose k-th operation fails, before it has its effect or after; the disk is never really asked."""
    numbers = itertools.count()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        doomed = next(numbers) == k
        # A descriptor is released even when closing it reports an error (close(2)).
        if not doomed or after or function is os.close:
            result = None if function is os.sync else function(*args, **kwargs)
        if doomed:
            raise OSError(number, os.strerror(number))
        return result

    return call


@pytest.mark.parametrize("after", [False, True], ids=["undone", "done"])
def test_every_single_file_operation_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    photos = make_photos(tmp_path / "photos", 2, bad={"a/cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"})
    annotate(photos, tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    failed = set()
    for k in range(1000):
        out = tmp_path / f"run-{k}"
        number = ERRORS[k % len(ERRORS)]
        monkeypatch.setattr(disk, "_call", failing_at(k, number, after=after))
        try:
            annotate(photos, out)
            break
        except OutputError as error:
            assert error.exit_code == 6
            assert f"{errno.errorcode[number]}, errno {number}" in str(error)
            assert str(out) in str(error)
            failed.add(k)
        finally:
            monkeypatch.undo()
        for name in record_names(out):
            parse_record((out / "records" / name).read_bytes())
        shown = {name: digest for name, digest in tree(out).items() if re.match(r"exports/(.*/)?[^./][^/]*$", name)}
        assert shown.items() <= expected.items()
        if (out / "run.json").exists():
            assert json.loads((out / "run.json").read_text())["status"] in ("running", "stopped")
        annotate(photos, out)
        assert tree(out) == expected, f"after a fault at operation {k}"
        assert not list(out.rglob(".gransam-*"))
    assert failed == set(range(k))
    assert k > 60


def test_a_fault_of_the_disk_is_told_and_not_one_of_the_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, out = make_photos(tmp_path / "photos", 6), tmp_path / "run"
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if "a/deep" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"a/deep/002\.png\.json") as caught:
        annotate(photos, out)
    monkeypatch.undo()
    assert "free some space" in caught.value.do
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert len(record_names(out)) == 4
    assert len((out / "failures.jsonl").read_text().splitlines()) == 2


def test_the_unusable_is_said_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_photos(tmp_path / "photos", 1, bad={})
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_bytes(b"dear")
    monkeypatch.setattr("gransam_sdk.annotate.run.load", lambda *_, **__: pytest.fail("the model was loaded"))
    for out in ("file", "taken", "file/below", "/proc/gransam"):
        with pytest.raises(OutputError):
            annotate_folder(photos, tmp_path / out)


def test_a_real_limit_of_the_system_on_file_size(server: RunServer, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 12)
    annotate(photos, tmp_path / "whole")
    said = tmp_path / "said"
    assert server.wait(server.start(photos, tmp_path / "run", file_size=2600, said=str(said))) == 6
    assert "EFBIG" in json.loads(said.read_text())["error"]
    assert record_names(tmp_path / "run") == record_names(tmp_path / "whole")  # the COCO file was too large
    assert not (tmp_path / "run/exports/coco.json").exists()
    annotate(photos, tmp_path / "run")
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_a_run_needs_few_open_files(server: RunServer, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 40)
    assert server.wait(server.start(photos, tmp_path / "run", open_files=64)) == 3
    assert len(record_names(tmp_path / "run")) == 40


def test_500_torn_records_are_found_and_redone(tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos", 36, bad={}), tmp_path / "run"
    annotate(photos, out)
    expected = tree(out)
    names = record_names(out)
    rng = random.Random(1)
    torn = 0
    while torn < 500:
        chosen = rng.sample(names, rng.randint(1, len(names)))
        for name in chosen:
            path = out / "records" / name
            data = path.read_bytes()
            length = rng.choice([0, len(data) - 1, rng.randrange(len(data))])
            # what a power cut leaves: a shorter file, or one whose end was never written
            path.write_bytes(data[:length] + rng.choice([b"", bytes(len(data) - length)]))
        report = annotate(photos, out, products=Products(formats=(), report=False))
        assert (report.redone, report.done) == (len(chosen), len(names) - len(chosen))
        assert tree(out) == expected
        torn += len(chosen)


def test_a_whole_record_of_another_photo_is_redone(tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos", 8, bad={}), tmp_path / "run"
    annotate(photos, out)
    expected = tree(out)
    names = record_names(out)
    (out / "records" / names[0]).write_bytes((out / "records" / names[1]).read_bytes())
    assert annotate(photos, out).redone == 1
    assert tree(out) == expected


def test_a_failure_list_that_was_torn_is_written_again(tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos", 2), tmp_path / "run"
    annotate(photos, out)
    expected = tree(out)
    (out / "failures.jsonl").write_bytes(b'{"key": "a/b')
    (out / "exports/coco.json").write_bytes(b"")
    annotate(photos, out)
    assert tree(out) == expected


@pytest.mark.parametrize("starters", [2, 4, 8])
def test_of_several_runs_on_one_folder_one_wins(server: RunServer, tmp_path: Path, starters: int) -> None:
    photos = make_photos(tmp_path / "photos", 12)
    annotate(photos, tmp_path / "whole")
    for attempt in range(3):
        out = tmp_path / f"run-{attempt}"
        said = [tmp_path / f"said-{attempt}-{i}" for i in range(starters)]
        started = [server.start(photos, out, seconds=0.04, said=str(path)) for path in said]
        codes = [server.wait(pid) for pid in started]
        assert sorted(codes) == [3] + [6] * (starters - 1)
        for code, path in zip(codes, said, strict=True):
            outcome = json.loads(path.read_text())
            if code == 6:
                assert "another process" in outcome["error"]
                assert outcome["seconds"] < 1
        assert tree(out) == tree(tmp_path / "whole")


def test_memory_does_not_grow_with_failures_or_photos(tmp_path: Path) -> None:
    """The stand-in sees each photo once, and what the run remembers of it is bounded: no list of photos is kept."""

    def peak(name: str, limit: int | None) -> int:
        tracemalloc.start()
        annotate(photos, tmp_path / name, limit=limit)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    photos = make_photos(tmp_path / "photos", 100, bad={f"bad/{n}.jpg": b"no photo at all" for n in range(100)})
    annotate(photos, tmp_path / "warm", limit=20)
    short = peak("short", 30)
    # Twice, because a table of the interpreter (its interned strings) may double meanwhile; it does so once.
    long = min(peak("long", None), peak("longer", None))
    assert long - short < 200 * 400, "over 400 bytes a photo stay"
