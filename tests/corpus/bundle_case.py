"""One broken bundle, and the ways to break a good one at one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from bundles import good_parts, write_good


@dataclass(frozen=True)
class Case:
    """One broken bundle.

    Attributes:
        row: Of the table, ``B7``.
        name: What is wrong with it.
        build: Makes it in a folder and returns what to open.
        says: Regular expression that the message must match.
    """

    row: str
    name: str
    build: Callable[[Path], str | Path]
    says: str

    @property
    def id(self) -> str:
        """``B7-symlink``."""
        return f"{self.row}-{self.name}"


def on_disk(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    """A good bundle whose folder is changed after writing."""

    def build(folder: Path) -> Path:
        change(write_good(folder))
        return folder

    return build


def in_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    """A good bundle with another manifest; hashes are right."""

    def build(folder: Path) -> Path:
        parts = good_parts()
        parts.seal()
        change(parts.manifest)
        return parts.write(folder, seal=False)

    return build


def in_graph(graph: str, change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], Path]:
    """A good bundle with another graph; hashes are right."""

    def build(folder: Path) -> Path:
        parts = good_parts()
        parts.edit(graph, change)
        return parts.write(folder)

    return build


def raw_manifest(data: bytes | Callable[[str], str]) -> Callable[[Path], Path]:
    """A good bundle whose manifest is replaced by these bytes, or by a changed text of the right one."""

    def change(folder: Path) -> None:
        path = folder / "gransam.json"
        new = data if isinstance(data, bytes) else data(path.read_text(encoding="utf-8")).encode()
        path.write_bytes(new)

    return on_disk(change)


def set_at(path: str, new: object) -> Callable[[dict[str, Any]], None]:
    """Sets ``classes.0.name`` of a manifest."""

    def change(manifest: dict[str, Any]) -> None:
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        node: Any = manifest
        for key in parents:
            node = node[key]
        node[last] = new

    return change
