"""What inputs mean, in which order, under which keys; and the names of the files written for them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import photos
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gransam_sdk.annotate.keys import key_part, output_name, path_key, record_name
from gransam_sdk.annotate.walk import Item, Skip, find_photos, read_bytes
from gransam_sdk.errors import ImageError, InputError

pytestmark = pytest.mark.timeout(60)  # a hang is a failure

TREE = ("b.jpg", "a/z.png", "a/y.JPEG", "a.jpg", "a-b/c.webp", "a/deep/er/x.bmp", "notes.txt", "a/labels.xml", "é.jpg")
KEYS = ["a-b/c.webp", "a.jpg", "a/deep/er/x.bmp", "a/y.JPEG", "a/z.png", "b.jpg", "é.jpg"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"photo")
    return root


def keys(*inputs: str | Path, **options: object) -> list[str]:
    return [entry.key for entry in find_photos(inputs, **options)]


def test_a_folder_is_walked_in_the_order_of_its_keys(tree: Path) -> None:
    found = list(find_photos([tree]))
    assert [entry.key for entry in found] == KEYS == sorted(KEYS, key=str.encode)
    assert all(isinstance(entry, Item) and entry.path == tree / entry.key for entry in found)


def test_the_order_is_that_of_keys_not_of_names_on_disk(tmp_path: Path) -> None:
    for name in (b"\xff.jpg", b"a.jpg", b"\x01.jpg", "é.jpg".encode()):
        Path(tmp_path, os.fsdecode(name)).write_bytes(b"photo")
    found = keys(tmp_path)
    assert found == sorted(found, key=str.encode) == ["%01.jpg", "%FF.jpg", "a.jpg", "é.jpg"]


def test_a_folder_behind_a_link_or_relative_is_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree.parent / "link").symlink_to(tree)
    monkeypatch.chdir(tree)
    assert keys(tree.parent / "link") == keys(".") == keys(tree / "a" / "..") == KEYS


def test_hidden_names_and_other_extensions_are_passed_over(tmp_path: Path) -> None:
    for name in ("._x.jpg", ".git/x.jpg", "x.jpg.xml", "x", "jpg", "x.mp4", "x.cr2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "x.HeIc").touch()
    assert keys(tmp_path) == ["x.HeIc"]


def test_a_named_photo_needs_no_extension(tmp_path: Path) -> None:
    (tmp_path / "photo").touch()
    (tmp_path / ".x.jpg").touch()
    assert keys(tmp_path / "photo", tmp_path / ".x.jpg") == ["photo", ".x.jpg"]


def test_a_single_name_may_stand_alone(tree: Path) -> None:
    assert [entry.key for entry in find_photos(tree)] == [entry.key for entry in find_photos(str(tree))] == KEYS


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg", "é.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "é.jpg"]),
        ("**/*.[jJ]*", ["a.jpg", "a/y.JPEG", "b.jpg", "é.jpg"]),
        ("a*", ["a-b/c.webp", "a.jpg", "a/deep/er/x.bmp", "a/y.JPEG", "a/z.png"]),
        ("a*/?.*", ["a-b/c.webp", "a/y.JPEG", "a/z.png"]),
        ("a/**", ["deep/er/x.bmp", "y.JPEG", "z.png"]),
        ("**/er", ["a/deep/er/x.bmp"]),
        ("*", KEYS),
        ("**", KEYS),
    ],
)
def test_globs(tree: Path, pattern: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys(f"{tree}/{pattern}") == expected
    monkeypatch.chdir(tree)
    assert keys(pattern) == keys(f"./{pattern}") == expected


def test_a_glob_does_not_go_round_in_circles(tree: Path) -> None:
    for name in ("one", "two"):
        (tree / "a" / name).symlink_to("..")
    assert keys(f"{tree}/**/*.jpg") == ["a.jpg", "b.jpg", "é.jpg"]


def test_a_name_with_wildcards_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x[1].jpg").touch()
    (tmp_path / "x1.jpg").touch()
    assert keys(tmp_path / "x[1].jpg") == ["x[1].jpg"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\0"])
def test_a_list(tree: Path, ending: bytes) -> None:
    far = tree.parent / "far" / "f.jpg"
    far.parent.mkdir()
    far.touch()
    lines = [b"b.jpg", b"", b"./a/../a/z.png", b"gone.jpg", os.fsencode(far), b"../far/f.jpg", b"b.jpg"]
    path = tree / "list.TXT"
    path.write_bytes(b"\xef\xbb\xbf" * (ending != b"\0") + ending.join(lines))
    found = {entry.key: entry for entry in find_photos([path])}
    assert list(found) == sorted(["a/z.png", "b.jpg", "gone.jpg", str(far)[1:]], key=str.encode)
    assert isinstance(found["gone.jpg"], Skip) and found["gone.jpg"].reason == "missing"
    assert found["a/z.png"].path.samefile(tree / "a" / "z.png")


def test_standard_input_is_a_list_in_the_current_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    name = b"new\nline\xff.jpg"
    Path(os.fsdecode(name)).touch()
    assert keys("-", stdin=io.BytesIO(name + b"\0a.jpg\0")) == ["a.jpg", "new%0Aline%FF.jpg"]


def test_every_input_form_gives_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    names = "\n".join(KEYS[::-1])
    Path("list.txt").write_text(names, encoding="utf-8")
    assert keys(".") == keys("**/*") == keys("list.txt") == keys("-", stdin=io.BytesIO(names.encode())) == KEYS


def test_two_photos_of_one_key_are_an_error_before_the_first(tree: Path) -> None:
    (tree / "a" / "b.jpg").touch()
    with pytest.raises(InputError, match=r"both be called b\.jpg") as caught:
        find_photos([tree / "a.jpg", tree, tree / "a"])
    assert caught.value.found == f"{tree}/b.jpg and {tree}/a/b.jpg"
    assert caught.value.exit_code == 2


def test_the_same_photo_twice_is_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert keys("b.jpg", "./a/../b.jpg", tree / "b.jpg") == ["b.jpg"]
    assert keys(".", "b.jpg") == KEYS


def test_links_that_are_named_are_followed(tree: Path) -> None:
    (tree / "to").symlink_to("b.jpg")
    (tree / "nowhere").symlink_to("nothing")
    (tree / "self").symlink_to("self")
    found = {
        entry.key: getattr(entry, "reason", "ok")
        for entry in find_photos([tree / n for n in ("to", "nowhere", "self")])
    }
    assert found == {"to": "ok", "nowhere": "missing", "self": "loop"}


def test_a_folder_behind_two_links_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.jpg").touch()
    (tmp_path / "out" / "back").symlink_to(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "out")
    assert keys(tmp_path / "in", follow=True) == ["one/x.jpg"]
    assert [(entry.key, entry.reason) for entry in find_photos([tmp_path / "in"])] == [
        ("one/", "outside"),
        ("two/", "outside"),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "''"), ("nowhere", "nowhere"), ("*.nothing", "at least one match"), ("a\0b", "a photo, a folder")],
)
def test_an_input_that_is_not_there(tree: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(InputError, match=message):
        find_photos(["b.jpg", name])


def test_no_input_and_no_photos(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    for inputs in ([], [tmp_path], [empty], [tmp_path, empty]):
        with pytest.raises(InputError, match=r"no photos in[\s\S]*\.jpg, \.jpeg"):
            find_photos(inputs)


def test_the_output_folder_itself_is_no_input(tree: Path) -> None:
    with pytest.raises(InputError, match="output folder"):
        find_photos([tree / "a"], exclude=tree)
    assert keys(tree, exclude=tree / "a") == [key for key in KEYS if not key.startswith("a/")]
    assert keys(tree, exclude=tree / "not yet there") == KEYS


def test_a_tree_deeper_than_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    depth = 1050  # Python's stack is 1000 calls
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("x.jpg").touch()
    os.chdir(tmp_path)
    try:
        assert keys(".") == ["d/" * depth + "x.jpg"]
    finally:  # shutil.rmtree does not reach down there
        Path("d/" * depth, "x.jpg").unlink()
        for level in range(depth, 0, -1):
            Path("d/" * level).rmdir()


def test_reading_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000  # more than one piece
    (tmp_path / "x").write_bytes(data)
    assert read_bytes(tmp_path / "x") == data


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / "x")
    assert caught.value.reason == "unreadable"


def test_a_pipe_that_takes_the_photos_place_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(b"photo")
    opened = os.open

    def swap(path: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / "x.jpg")
    assert caught.value.reason == "not-a-file"


def test_a_file_system_that_gives_less_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(b"photo")
    monkeypatch.setattr(os, "read", lambda *_: b"")
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / "x.jpg")
    assert caught.value.reason == "changed"


def test_other_faults_of_the_system_are_io(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(b"photo")

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(ImageError) as caught:
        read_bytes(tmp_path / "x.jpg")
    assert caught.value.reason == "io" and caught.value.found == "Input/output error"


@pytest.mark.parametrize(("name", "key"), photos.ODD_NAMES.items())
def test_keys_of_odd_names(name: bytes, key: str) -> None:
    assert key_part(os.fsdecode(name)) == key


NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"/" not in name and b"\0" not in name)


@settings(deadline=None)
@given(first=NAMES, second=NAMES)
def test_keys_are_printable_and_never_shared(first: bytes, second: bytes) -> None:
    one, two = (key_part(os.fsdecode(name)) for name in (first, second))
    assert (one == two) == (first == second)
    assert one.encode("utf-8").decode("utf-8") == one
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in one)


@settings(deadline=None)
@given(first=st.lists(NAMES, min_size=1, max_size=3), second=st.lists(NAMES, min_size=1, max_size=3))
def test_output_names_fit_and_are_never_shared(first: list[bytes], second: list[bytes]) -> None:
    one, two = (path_key("/".join(map(os.fsdecode, names))) for names in (first, second))
    assert (record_name(one) == record_name(two)) == (one == two)
    assert all(len(part.encode()) <= 255 for part in record_name(one).split("/"))


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    long = ["é" * 200 + end for end in ("a.jpg", "b.jpg")] + ["é" * 199 + "xé.jpg"]
    names = {output_name(key, ".png") for key in long}
    assert len(names) == 3
    assert all(len(name.encode()) <= 255 and name.endswith(".png") for name in names)
    # What a cut name looks like cannot be had by naming a photo so.
    assert record_name(key_part(names.pop().removesuffix(".png"))) not in {record_name(key) for key in long}


def test_a_folder_never_meets_the_record_of_a_photo_beside_it() -> None:
    assert record_name("a.jpg") == "a.jpg.json"
    assert record_name("a.jpg.json/b.jpg") == "a.jpg%2Ejson/b.jpg.json"
    assert output_name("a.jpg.json/b.jpg", ".png") == "a.jpg.json/b.jpg.png"
    assert record_name("a.jpg%252Ejson/b.jpg") != record_name("a.jpg.json/b.jpg")
