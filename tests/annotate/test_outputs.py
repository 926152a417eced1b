"""The one writer: whole files or none, never outside the folder, one run at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gransam_sdk.annotate import disk, outputs
from gransam_sdk.annotate.outputs import OutputFolder, check_output
from gransam_sdk.errors import OutputError


@pytest.fixture
def out(tmp_path: Path) -> Iterator[OutputFolder]:
    with OutputFolder.open(tmp_path / "run") as folder:
        yield folder


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_put_makes_folders_and_replaces(out: OutputFolder) -> None:
    out.put("records/a/b.jpg.json", b"one")
    assert files(out.root) == {".lock": b"", "records/a/b.jpg.json": b"one"}
    out.put("records/a/b.jpg.json", b"two")
    assert out.read("records/a/b.jpg.json") == b"two"
    assert out.exists("records/a/b.jpg.json")
    assert not out.exists("records/a")
    assert out.read("records/none") is None


def test_remove_says_whether_there_was_one(out: OutputFolder) -> None:
    out.put("a", b"1")
    assert out.remove("a")
    assert not out.remove("a")
    assert not out.remove("no/such/folder")


def test_the_old_file_is_seen_until_the_new_one_is_whole(out: OutputFolder) -> None:
    out.put("a", b"old")
    inode = (out.root / "a").stat().st_ino
    with out.open_stream("a") as stream:
        assert stream.write(b"new " * 100_000) == 400_000
        assert out.read("a") == b"old"
    assert out.read("a") == b"new " * 100_000
    assert (out.root / "a").stat().st_ino != inode, "written in place"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(out: OutputFolder, error: type[BaseException]) -> None:
    out.put("a", b"old")
    before = files(out.root)
    with pytest.raises(error), out.open_stream("a") as stream:
        stream.write(b"x" * 1_000_000)
        raise error
    assert files(out.root) == before


def test_new_files_obey_the_umask_like_any_other(out: OutputFolder) -> None:
    old = os.umask(0o027)
    try:
        out.put("a", b"")
    finally:
        os.umask(old)
    assert (out.root / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "path", ["../a", "a/../../b", "/etc/x", "", ".", "a//b", "a/", "./a", "a/./b", "..", "a\0b", "records/../../a"]
)
def test_a_path_that_leaves_the_folder_is_refused(out: OutputFolder, path: str) -> None:
    before = sorted(out.root.parent.rglob("*"))
    for attempt in (lambda: out.put(path, b"x"), lambda: out.read(path), lambda: out.remove(path)):
        with pytest.raises(OutputError, match="inside the run folder"):
            attempt()
    assert sorted(out.root.parent.rglob("*")) == before


@pytest.mark.parametrize("path", ["records/a", "records/deep/er/a"])
def test_a_linked_folder_inside_the_output_is_refused(out: OutputFolder, tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"mine")
    (out.root / "records").symlink_to(outside)
    for attempt in (lambda: out.put(path, b"x"), lambda: out.remove(path), lambda: out.read(path)):
        with pytest.raises(OutputError, match="link"):
            attempt()
    assert files(outside) == {"a": b"mine"}


def test_a_linked_file_is_replaced_not_followed(out: OutputFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (out.root / "a").symlink_to(tmp_path / "precious")
    out.put("a", b"new")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert not (out.root / "a").is_symlink()


def test_a_file_where_a_folder_should_be_and_the_other_way_round(out: OutputFolder) -> None:
    out.put("a", b"")
    with pytest.raises(OutputError, match="a link or a file"):
        out.put("a/b", b"")
    out.put("c/d", b"")
    with pytest.raises(OutputError, match="EISDIR"):
        out.put("c", b"")
    assert set(files(out.root)) == {".lock", "a", "c/d"}


def test_the_run_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with OutputFolder.open(tmp_path / "link") as folder:
        folder.put("a", b"1")
    assert (tmp_path / "real/a").read_bytes() == b"1"


@pytest.mark.parametrize("dangling", [False, True])
def test_an_output_that_is_a_file_is_refused(tmp_path: Path, dangling: bool) -> None:
    path = tmp_path / "file"
    if dangling:
        path.symlink_to(tmp_path / "no" / "where" / "\U0001f600")
        with OutputFolder.open(path) as folder:  # a link to nothing yet: the folder is made where it points
            assert folder.root == tmp_path / "no" / "where" / "\U0001f600"
        return
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="a file") as caught:
        OutputFolder.open(path)
    assert caught.value.exit_code == 6
    assert path.read_bytes() == b"mine"


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_bytes(b"dear")
    with pytest.raises(OutputError, match=r"run\.json"):
        OutputFolder.open(tmp_path)
    assert files(tmp_path) == {"letter.txt": b"dear"}


def test_what_a_run_killed_at_its_start_left_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".gransam-0123456789abcdef.tmp").touch()
    assert check_output(tmp_path) == (tmp_path, True)
    with OutputFolder.open(tmp_path) as folder:
        assert set(files(folder.root)) == {".lock"}


def test_looking_at_an_output_touches_nothing(tmp_path: Path) -> None:
    assert check_output(tmp_path / "a/b") == (tmp_path / "a/b", True)
    assert not (tmp_path / "a").exists()


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_else() -> None:
    with pytest.raises(OutputError, match="output /proc/gransam") as caught:
        OutputFolder.open("/proc/gransam")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("locked_before", [False, True], ids=["new", "resumed"])
def test_a_read_only_folder_is_refused_before_anything_else(locked_before: bool) -> None:
    folder = Path(tempfile.mkdtemp())  # not pytest's, whose parents another user may not enter
    user = os.geteuid()
    try:
        folder.chmod(0o777)
        if locked_before:
            (folder / ".lock").touch()
            (folder / ".lock").chmod(0o666)
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(OutputError, match="EACCES, errno 13") as caught:
            OutputFolder.open(folder)
        assert "-o" in caught.value.do
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_second_run_is_told_at_once(tmp_path: Path) -> None:
    with OutputFolder.open(tmp_path / "run") as folder:
        folder.put("run.json", b"{}")
        begun = time.monotonic()
        with pytest.raises(OutputError, match="another process") as caught:
            OutputFolder.open(tmp_path / "run")
        assert time.monotonic() - begun < 1
        assert caught.value.exit_code == 6
        folder.put("a", b"still mine")
    OutputFolder.open(tmp_path / "run").close()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys; from gransam_sdk.annotate.outputs import OutputFolder;"
        "OutputFolder.open(sys.argv[1]).put('run.json', b'{}'); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parent.parent.parent
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], cwd=root, check=False)
    assert ended.returncode == -9
    assert (tmp_path / "run/.lock").exists()
    OutputFolder.open(tmp_path / "run").close()


def test_a_lock_whose_file_was_taken_away_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock_late(handle: int, operation: int) -> None:
        (tmp_path / "run/.lock").unlink()  # as a run does that gives up between our opening and our locking

    monkeypatch.setattr(outputs.fcntl, "flock", flock_late)
    with pytest.raises(OutputError, match="another process"):
        OutputFolder.open(tmp_path / "run")


def test_only_our_own_leftovers_are_swept(tmp_path: Path) -> None:
    root, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (root / "records/a", outside):
        folder.mkdir(parents=True)
    ours = ".gransam-0123456789abcdef.tmp"
    others = [".gransam-0123.tmp", "x.gransam-0123456789abcdef.tmp", ".gransam-0123456789ABCDEF.tmp", "a.tmp", "a.jpg"]
    for folder in (root, root / "records", root / "records/a"):
        for name in [ours, *others]:
            (folder / name).touch()
    (outside / ours).touch()
    (root / "linked").symlink_to(outside)
    (root / "run.json").touch()
    with OutputFolder.open(root):
        left = [path.name for path in root.rglob("*") if path.is_file() and path.name != "run.json"]
    assert sorted(left) == sorted([*others * 3, ".lock"])
    assert (outside / ours).exists()


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    OutputFolder.open(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    OutputFolder.open(tmp_path / "empty").close()
    assert list((tmp_path / "empty").iterdir()) == []
    with OutputFolder.open(tmp_path / "used") as folder:
        folder.put("run.json", b"{}")
    assert set(files(tmp_path / "used")) == {".lock", "run.json"}
    OutputFolder.open(tmp_path / "used").close()
    assert set(files(tmp_path / "used")) == {".lock", "run.json"}


def test_the_disk_is_asked_once_in_256_files(out: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "sync", lambda: synced.append(len(files(out.root)) - 1))
    for number in range(600):
        out.put(f"{number}", b"")
    assert synced == [256, 512]
    out.sync()
    assert synced == [256, 512, 600]


def test_a_write_that_takes_less_than_it_was_given_goes_on(out: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    out.put("a", bytes(range(256)) * 3)
    monkeypatch.undo()
    assert out.read("a") == bytes(range(256)) * 3


def test_a_descriptor_is_closed_once_even_if_closing_fails(out: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = os.close

    def failing(handle: int) -> None:
        closed.append(handle)
        close(handle)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk.os, "close", failing)
    with pytest.raises(OutputError, match="EIO, errno 5"):
        out.put("a", b"x")
    monkeypatch.undo()
    assert len(closed) == 1
    assert set(files(out.root)) == {".lock"}
