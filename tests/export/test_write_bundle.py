"""The bundle writer: what it derives is right, its bytes never vary, and nothing half-made ever has the name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from bundles import Parts, good_parts

import gransam_sdk.export.bundle
from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.export.bundle import write_bundle


def write(folder: Path, parts: Parts, *, overwrite: bool = False, **changes: Any) -> Bundle:
    manifest = {key: value for key, value in parts.manifest.items() if key not in ("schema", "graphs", "files")}
    return write_bundle(folder, {**manifest, **changes}, parts.files, parts.graphs, overwrite=overwrite)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("head", [True, False])
def test_what_is_derived_equals_the_manifest_written_by_hand(head: bool, tmp_path: Path) -> None:
    parts = good_parts(head=head)
    bundle = write(tmp_path / "deep" / "bundle", parts)
    parts.seal()
    assert json.loads((tmp_path / "deep" / "bundle" / "gransam.json").read_bytes()) == parts.manifest
    assert bundle.path == tmp_path / "deep" / "bundle"
    assert open_bundle(bundle.path).digest == bundle.digest
    assert bundle.graph_bytes("mask") == parts.graphs["mask"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bundle"]


def test_the_same_bundle_is_the_same_bytes(tmp_path: Path) -> None:
    parts = good_parts()
    write(tmp_path / "a", parts)
    shuffled = good_parts()
    shuffled.manifest = dict(reversed(shuffled.manifest.items()))
    shuffled.graphs = dict(reversed(shuffled.graphs.items()))
    write(tmp_path / "b", shuffled)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    text = (tmp_path / "a" / "gransam.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert max(len(line) for line in text.splitlines()) < 140
    keys = [line.split('"')[1] for line in text.splitlines() if line.startswith('  "')]
    assert keys == sorted(parts.manifest)


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "bundle", good_parts())
    finally:
        os.umask(before)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("kind", ["file", "folder", "bundle", "link"])
def test_what_is_there_stays_without_leave(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    if kind == "file":
        target.write_bytes(b"mine")
    elif kind == "folder":
        target.mkdir()
    elif kind == "bundle":
        write(target, good_parts(seed=1))
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="something is there"):
        write(target, good_parts())


def test_a_bundle_is_replaced_with_leave(tmp_path: Path) -> None:
    old = write(tmp_path / "bundle", good_parts(seed=1))
    new = write(tmp_path / "bundle", good_parts(head=False), overwrite=True)
    assert new.digest != old.digest
    assert open_bundle(tmp_path / "bundle").digest == new.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def _add_file(folder: Path) -> None:
    (folder / "notes.txt").write_bytes(b"mine")


def _add_folder(folder: Path) -> None:
    (folder / "photos").mkdir()


def _other_json(folder: Path) -> None:
    (folder / "gransam.json").write_bytes(b'{"graphs": [], "files": 7}')


def _no_json(folder: Path) -> None:
    (folder / "gransam.json").write_bytes(b"\xff")


@pytest.mark.parametrize("change", [_add_file, _add_folder, _other_json, _no_json])
def test_a_folder_with_anything_else_in_it_is_never_replaced(change: Any, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    write(target, good_parts(seed=1))
    change(target)
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(InputError, match="nothing else"):
        write(target, good_parts(), overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == before


def test_a_link_to_a_bundle_is_never_replaced(tmp_path: Path) -> None:
    write(tmp_path / "real", good_parts(seed=1))
    (tmp_path / "bundle").symlink_to(tmp_path / "real")
    with pytest.raises(InputError):
        write(tmp_path / "bundle", good_parts(), overwrite=True)


def _break_file_name(parts: Parts) -> dict[str, Any]:
    parts.files["../escaped.md"] = b"x"
    return {}


def _break_graph(parts: Parts) -> dict[str, Any]:
    parts.graphs["head"] = parts.graphs["mask"]
    return {}


def _break_name(parts: Parts) -> dict[str, Any]:
    parts.graphs["tail"] = parts.graphs["mask"]
    return {}


@pytest.mark.parametrize(
    ("breaks", "error"),
    [
        (_break_file_name, BundleError),
        (_break_graph, BundleError),
        (_break_name, BundleError),
        (lambda parts: {"prompt_chunk": 0}, BundleError),
        (lambda parts: {"tuned": 1}, BundleError),
        (lambda parts: {"canary": {"tolerance": float("nan")}}, InputError),
        (lambda parts: {"description": b"bytes"}, InputError),
    ],
)
def test_nothing_is_left_of_a_bundle_that_is_none(breaks: Any, error: type[Exception], tmp_path: Path) -> None:
    parts = good_parts()
    changes = breaks(parts)
    with pytest.raises(error):
        write(tmp_path / "rooms" / "bundle", parts, **changes)
    assert not (tmp_path / "rooms").exists() or not list((tmp_path / "rooms").iterdir())
    assert not (tmp_path / "escaped.md").exists()


@pytest.mark.parametrize("k", range(1, 12))
def test_whatever_operation_fails_the_old_bundle_stays_whole(
    k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The k-th of: make two folders, write six files, open, move the old one away, move the new one in."""
    old = write(tmp_path / "bundle", good_parts(seed=1))
    calls = 0

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == k:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    for name in ("mkdir", "write_bytes", "rename"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(gransam_sdk.export.bundle, "open_bundle", counted(open_bundle))
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "bundle", good_parts(), overwrite=True)
    monkeypatch.undo()
    assert open_bundle(tmp_path / "bundle").digest == old.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
