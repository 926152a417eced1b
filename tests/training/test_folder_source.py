"""Class folders as people have them: read where they lie, and said clearly what is wrong with them."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.training.sources.folder import FolderSource, find_pictures


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.as_posix().encode()]).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("fox", "red 🦊", "_background"):
        for number in range(3):
            write(root / name / f"{number}.png")
    return root


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_every_picture_is_read_and_none_is_touched(folders: Path) -> None:
    before = contents(folders)
    steps: list[tuple[str, int, int]] = []
    report = FolderSource().collect((), folders, per_class=3, progress=lambda *step: steps.append(step))
    assert [(found.name, found.kept, found.made, found.missing) for found in report.classes] == [
        ("fox", 3, 0, 0),
        ("red 🦊", 3, 0, 0),
        ("_background", 3, 0, 0),
    ]
    assert steps[2] == ("fox", 3, 3) and len(steps) == 9
    assert contents(folders) == before


def test_bad_files_are_skipped_with_their_reason(folders: Path) -> None:
    fox = folders / "fox"
    (fox / "a broken.jpg").write_bytes(b"these bytes are no picture")
    (fox / "b half.png").write_bytes((fox / "0.png").read_bytes()[:900])
    (fox / "c empty.webp").write_bytes(b"")
    shutil.copy(fox / "0.png", fox / "d copy.png")
    (fox / "e folder.jpg").mkdir()
    (fox / "f link.jpg").symlink_to("nowhere")
    os.mkfifo(fox / "g pipe.png")
    (fox / "notes.txt").write_text("not a picture, and not meant as one")
    (fox / "._0.png").write_bytes(b"what another system keeps about 0.png")
    found = FolderSource().collect(["fox"], folders, per_class=40).classes[0]
    assert [(Path(path).name, reason) for path, reason in found.skipped] == [
        ("a broken.jpg", "format"),
        ("b half.png", "truncated"),
        ("c empty.webp", "empty"),
        ("d copy.png", f"the same picture as {fox / '0.png'}"),
        ("e folder.jpg", "not-a-file"),
        ("f link.jpg", "missing"),
        ("g pipe.png", "not-a-file"),
    ]
    assert (found.kept, found.missing) == (3, 37)


def test_one_picture_is_one_picture(folders: Path) -> None:
    write(folders / "owl" / "0.png")
    report = FolderSource().collect(["owl"], folders, per_class=40)
    assert report.lines() == ["owl: 1 of 40 pictures"]


def test_the_same_bytes_in_two_classes_name_both(folders: Path) -> None:
    shutil.copy(folders / "fox" / "1.png", folders / "red 🦊" / "again.png")
    with pytest.raises(InputError, match="same picture") as caught:
        FolderSource().collect((), folders, per_class=3)
    assert "fox/1.png" in str(caught.value) and "red 🦊/again.png" in str(caught.value)


def test_the_list_is_sorted_and_background_is_no_class(folders: Path) -> None:
    write(folders / "_later" / "0.png")
    write(folders / ".thumbnails" / "0.png")
    (folders / "readme.txt").write_text("no folder")
    classes, pictures = find_pictures(folders)
    assert classes == ("fox", "red 🦊")
    assert [(path.relative_to(folders).as_posix(), label) for path, label in pictures[:4]] == [
        ("fox/0.png", 0),
        ("fox/1.png", 0),
        ("fox/2.png", 0),
        ("red 🦊/0.png", 1),
    ]
    assert [label for _, label in pictures[6:]] == [-1, -1, -1]


def test_names_are_those_that_can_be_typed(folders: Path) -> None:
    write(folders / "Zoe\u0308" / "0.png")
    assert "Zo\u00eb" in find_pictures(folders)[0]
    for name in ("cats, dogs", "a=b", "two\nlines", "back\\slash", "\U0001f468\u200d\U0001f33e", "FOX", "Zo\u00eb"):
        write(folders / name / "0.png")
        with pytest.raises(InputError, match="typed after -c"):
            find_pictures(folders)
        shutil.rmtree(folders / name)


def test_a_class_is_found_however_it_is_typed(folders: Path) -> None:
    write(folders / "Zoe\u0308" / "0.png")
    for typed in ("Zoe\u0308", "Zo\u00eb"):
        (found,) = FolderSource().collect([typed], folders, per_class=1).classes
        assert (found.name, found.kept) == ("Zo\u00eb", 1)


def test_folders_that_cannot_be_used_say_why(folders: Path, tmp_path: Path) -> None:
    for nothing in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError, match="no class folders"):
            find_pictures(nothing)
        (tmp_path / "file").write_bytes(b"")
    (folders / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty\n.*example pictures"):
        find_pictures(folders)
    shutil.rmtree(folders / "empty")
    with pytest.raises(InputError, match="unheard of"):
        FolderSource().collect(["unheard of"], folders, per_class=3)
    shutil.rmtree(folders / "fox")
    assert find_pictures(folders)[0] == ("red 🦊",), "one class and background can be told apart"
    shutil.rmtree(folders / "_background")
    with pytest.raises(InputError, match="two classes"):
        find_pictures(folders)
