"""Bundles whose folder is wrong: files that are missing, extra, links, pipes, too large, or no bundle at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bundle_case import Case, on_disk
from bundles import good_parts, model_of, value
from onnx import helper


def cases() -> list[Case]:
    """All of this file."""
    makers = (listing_cases, file_kinds_cases, foreign_bytes_cases, offered_files_cases)
    return [case for maker in makers for case in maker()]


def listing_cases() -> Iterator[Case]:
    for name in ("image.onnx", "head.onnx", "model-card.md"):
        yield Case("B1", f"missing-{name}", on_disk(lambda f, n=name: (f / n).unlink()), f"no {name}")
    yield Case("B1", "missing-gransam.json", on_disk(lambda f: (f / "gransam.json").unlink()), "No such file")
    yield Case("B1", "extra", on_disk(lambda f: (f / "engine.plan").write_bytes(b"x")), "also 'engine.plan'")
    yield Case("B1", "extra-hidden", on_disk(lambda f: (f / ".hidden").write_bytes(b"x")), "also '.hidden'")
    yield Case("B1", "extra-folder", on_disk(lambda f: (f / "more").mkdir()), "also 'more'")
    yield Case("B1", "no-folder", lambda folder: folder / "nothing", "nano-voc20")
    yield Case("B1", "unknown-name", lambda folder: "nano-voc21", "nano-voc20")
    yield Case("B1", "nul-in-path", lambda folder: "nano\0", "null")
    yield Case("B1", "empty-folder", lambda folder: folder, "gransam.json")


def file_kinds_cases() -> Iterator[Case]:
    def replaced(make: Callable[[Path, Path], object], name: str) -> Callable[[Path], Path]:
        def change(folder: Path) -> None:
            saved = folder.parent / f"{folder.name}-saved"
            shutil.move(folder / name, saved)
            make(folder / name, saved)

        return on_disk(change)

    for name in ("gransam.json", "mask.onnx", "model-card.md"):
        yield Case("B7", f"symlink-{name}", replaced(lambda p, saved: p.symlink_to(saved), name), "symbolic link")
        yield Case("B7", f"hard-link-{name}", replaced(lambda p, saved: p.hardlink_to(saved), name), "hard link")
        yield Case("B7", f"fifo-{name}", replaced(lambda p, _: os.mkfifo(p), name), "another kind")
        yield Case("B7", f"folder-{name}", replaced(lambda p, _: p.mkdir(), name), "directory|another kind")
    yield Case("B7", "dangling", replaced(lambda p, _: p.symlink_to("/nothing/there"), "head.onnx"), "symbolic link")
    yield Case("B7", "device", replaced(lambda p, _: p.symlink_to("/dev/zero"), "head.onnx"), "symbolic link")


def foreign_bytes_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    foreign = model_of([helper.make_node("Relu", ["x"], ["y"])], [value("x", (1, 3))], [value("y", (1, 3))])
    offered = {f"random-{size}": rng.bytes(size) for size in (1, 7, 100, 10_000)}
    offered |= {"zeros": bytes(1000), "text": b"<html>not found</html>", "other-model": foreign.SerializeToString()}
    offered |= {"manifest": b'{"schema": 1}', "pickle": b"\x80\x04}\x94.", "zip": b"PK\x03\x04" + bytes(100)}
    for name, data in offered.items():

        def build(folder: Path, data: bytes = data) -> Path:
            parts = good_parts()
            parts.graphs["mask"] = data
            return parts.write(folder)

        says = "inputs" if name == "other-model" else "mask.onnx"
        yield Case("B11", name, build, says)

    def sparse_file(folder: Path) -> None:
        os.truncate(folder / "mask.onnx", 3 << 30)

    def large(folder: Path) -> Path:
        parts = good_parts()
        parts.seal()
        parts.manifest["graphs"]["mask"]["bytes"] = 3 << 30
        sparse_file(parts.write(folder, seal=False))
        return folder

    yield Case("B12", "declared", large, r"graphs\.mask\.bytes")
    yield Case("B12", "undeclared", on_disk(sparse_file), "3221225472 bytes")


def offered_files_cases() -> Iterator[Case]:
    for suffix in ("engine", "plan", "pt", "pth", "pkl", "npz", "PT"):

        def build(folder: Path, suffix: str = suffix) -> Path:
            path = folder / f"model.{suffix}"
            path.write_bytes(b"\x80\x04")
            return path

        yield Case("B23", suffix, build, rf"refusing executable format \.{suffix.lower()}")
    for suffix in ("safetensors", "onnx", "json", "zip"):

        def other(folder: Path, suffix: str = suffix) -> Path:
            path = folder / f"model.{suffix}"
            path.write_bytes(b"x")
            return path

        yield Case("B23", suffix, other, "a bundle is a folder")

    def listed(folder: Path) -> Path:
        parts = good_parts()
        parts.files["head.engine"] = b"code"
        return parts.write(folder)

    yield Case("B23", "listed-engine", listed, "head.engine")
