"""Rows I1-I46: every kind of bad photo ends in pixels or in the right reason, never in a crash, a hang or a warning."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import photo_bytes
import photos
import pytest

from gransam_sdk.annotate.walk import Item, Skip, find_photos, read_bytes, record_name
from gransam_sdk.errors import ImageError, InputError
from gransam_sdk.geometry import Frame
from gransam_sdk.runtime.decode import decode_photo

pytestmark = pytest.mark.timeout(60)  # a hang is a failure

BY_HAND = {"I21", "I23", "I43"}
"""Rows that need something to happen while the folder is read; the others are folders made by ``photos``."""


def outcomes(entries: Iterable[Item | Skip]) -> dict[str, str]:
    found = {}
    for entry in entries:
        if isinstance(entry, Skip):
            assert entry.message
            found[entry.key] = entry.reason
            continue
        try:
            photo = decode_photo(read_bytes(entry.path), name=entry.key)
        except ImageError as error:
            found[entry.key] = error.reason
            continue
        assert photo.pixels.dtype == np.uint8 and photo.pixels.ndim == 3 and photo.pixels.shape[2] == 3
        assert photo.pixels.flags.c_contiguous and photo.pixels.size
        assert min(Frame.fit(photo.pixels.shape[:2], 320, "letterbox").resized) >= 1
        found[entry.key] = "ok"
    return found


def rows() -> list[str]:
    return [f"I{n}" for n in range(1, 47) if f"I{n}" not in BY_HAND]


def test_every_row_is_here() -> None:
    assert set(photos.ROWS) == set(rows())


@pytest.mark.parametrize("row", rows())
def test_row(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = photos.ROWS[row](folder)

    def no_process(*args: object, **options: object) -> None:
        raise AssertionError(f"a process was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setattr(os, "posix_spawn", no_process)
    if not expected:
        with pytest.raises(InputError, match="no photos"):
            find_photos([folder])
        return
    assert outcomes(find_photos([folder])) == expected


@pytest.mark.parametrize(("row", "change"), [("I21", "grow"), ("I21", "shrink"), ("I21", "vanish"), ("I21", "rewrite")])
def test_row_changing(row: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(photo_bytes.encode(photo_bytes.cat()))
    os.utime(path, (1, 1))
    act: dict[str, Callable[[], object]] = {
        "grow": lambda: os.truncate(path, path.stat().st_size + 100),
        "shrink": lambda: os.truncate(path, 100),
        "vanish": path.unlink,
        "rewrite": lambda: path.write_bytes(bytes(path.stat().st_size)),
    }
    read = os.read

    def read_then_change(file: int, size: int) -> bytes:
        data = read(file, max(size // 2, 1))
        if path.exists() and path.stat().st_mtime == 1:
            act[change]()
        return data

    monkeypatch.setattr(os, "read", read_then_change)
    assert outcomes(find_photos([tmp_path])) == {"x.jpg": "changed"}


@pytest.mark.parametrize("row", ["I23"])
@pytest.mark.parametrize("form", ["folder", "glob", "list", "files"])
def test_row_output_inside(row: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(photo_bytes.encode(photo_bytes.cat(48)))
    out = tmp_path / "run"
    (out / "overlays").mkdir(parents=True)
    (out / "overlays" / "x.png").write_bytes(photo_bytes.encode(photo_bytes.cat(48), "PNG"))
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "photos.txt").write_text("x.jpg\nrun/overlays/x.png\nlink/overlays/x.png\n")
    inputs = {
        "folder": [tmp_path],
        "glob": [f"{tmp_path}/**/*.*"],
        "list": [tmp_path / "photos.txt"],
        "files": [tmp_path / "x.jpg", out / "overlays" / "x.png", out],
    }
    for follow in (False, True):
        assert outcomes(find_photos(inputs[form], exclude=out, follow=follow)) == {"x.jpg": "ok"}
    assert len(outcomes(find_photos([tmp_path]))) > 1  # without it, the output would be read


@pytest.mark.parametrize("row", ["I43"])
def test_row_permission(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is played, so that the test also holds where root may read everything."""
    (tmp_path / "x.jpg").write_bytes(photo_bytes.encode(photo_bytes.cat(48)))
    (tmp_path / "y.jpg").write_bytes(photo_bytes.encode(photo_bytes.cat(48)))
    (tmp_path / "closed").mkdir()
    opened, listed = os.open, os.scandir

    def refuse_file(path: object, *args: object, **options: object) -> int:
        if Path(os.fspath(path)).name == "x.jpg":
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *args, **options)

    def refuse_folder(path: object = ".") -> object:
        if Path(os.fspath(path)).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "open", refuse_file)
    monkeypatch.setattr(os, "scandir", refuse_folder)
    assert outcomes(find_photos([tmp_path])) == {"x.jpg": "permission", "y.jpg": "ok", "closed/": "permission"}
    with pytest.raises(InputError, match="readable folder"):
        find_photos([tmp_path / "closed"])


@pytest.mark.parametrize("row", ["I43"])
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_row_permission_for_real(row: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")
    (tmp_path / "x.jpg").chmod(0)
    assert outcomes(find_photos([tmp_path])) == {"x.jpg": "permission"}


def test_i22_outputs_do_not_collide(tmp_path: Path) -> None:
    photos.ROWS["I22"](tmp_path)
    names = [record_name(entry.key) for entry in find_photos([tmp_path])]
    assert names == ["A.jpg.json", "a.JPG.json", "a.jpg.json", "a.png.json"]


def test_i40_follow_reads_links_out(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos.ROWS["I40"](folder)
    found = outcomes(find_photos([folder], follow=True))
    assert found == {"near.jpg": "ok", "alias.jpg": "ok", "far.jpg": "ok", "gallery/far.jpg": "ok"}


def test_i44_names_fit_every_file_system(tmp_path: Path) -> None:
    photos.ROWS["I44"](tmp_path)
    for entry in find_photos([tmp_path]):
        assert isinstance(entry, Item) and entry.path.exists()
        assert entry.key.isprintable()
        assert max(map(len, os.fsencode(record_name(entry.key)).split(b"/"))) <= 255
        (tmp_path / record_name(entry.key)).touch()


@pytest.mark.parametrize("follow", [False, True])
def test_i45_links_in_circles_end(tmp_path: Path, follow: bool) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = photos.ROWS["I45"](folder)
    assert outcomes(find_photos([folder], follow=follow)) == expected


class Entry:
    """A made-up directory entry: a hundred thousand real files would take longer to make than to walk."""

    def __init__(self, name: str, folder: bool) -> None:
        self.name, self.folder = name, folder

    def is_symlink(self) -> bool:
        return False

    def is_dir(self) -> bool:
        return self.folder

    def is_file(self) -> bool:
        return not self.folder


def test_i45_memory_of_a_large_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 photos, 2,000 in each of 50 folders: the walk holds one folder at a time."""

    @contextlib.contextmanager
    def scandir(path: Path) -> Iterator[Iterator[Entry]]:
        names = (f"{n:02}" for n in range(50)) if path == tmp_path else (f"{n:06}.jpg" for n in range(2000))
        yield (Entry(name, folder=path == tmp_path) for name in names)

    monkeypatch.setattr(os, "scandir", scandir)
    tracemalloc.start()
    try:
        count = sum(1 for _ in find_photos([tmp_path]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 8 << 20  # about 32 MB if all were held; what else has run in this process adds up to 4 MB
