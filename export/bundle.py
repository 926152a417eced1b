"""Writes a bundle: hashes, sizes, inputs and outputs come from the bytes; all is opened before it gets its name."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.manifest import MANIFEST
from gransam_sdk.manifest_reader import BUNDLE_NAME, MAX_NAME, SCHEMA, parse_manifest
from gransam_sdk.onnx_model import Tensor, read_onnx
from gransam_sdk.strict_json import parse_json

_LINE = 100


def write_bundle(
    folder: Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    graphs: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle, opens it with every check, and only then gives it its name.

    The same arguments write the same bytes. A crash leaves at most a folder ``.NAME.xxxxxxxx.part`` beside the target.

    Args:
        folder: Where it shall be; its parent is made if needed.
        manifest: All keys of ``gransam.json`` except ``schema``, ``graphs`` and ``files``, which are written here.
        files: Other files by name (``model-card.md``).
        graphs: ONNX bytes of ``image``, ``prompt``, ``mask`` and perhaps ``head``.
        overwrite: Replace a bundle that is there; anything else there is never touched.

    Returns:
        The opened bundle.

    Raises:
        InputError: See ``check_target``; or a value that JSON cannot hold.
        BundleError: What was given is no valid bundle; nothing was written at ``folder``.
    """
    check_target(folder, overwrite=overwrite)
    data = _manifest_bytes(manifest, files, graphs)
    parse_manifest(data)  # before any file name in it is used
    contents = {f"{name}.onnx": graph for name, graph in graphs.items()} | dict(files) | {MANIFEST: data}
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        for name, content in contents.items():
            (part / name).write_bytes(content)
        bundle = open_bundle(part)
        _move(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return replace(bundle, path=folder)


def _manifest_bytes(manifest: Mapping[str, Any], files: Mapping[str, bytes], graphs: Mapping[str, bytes]) -> bytes:
    written = {
        "schema": SCHEMA,
        "graphs": {name: _graph_entry(name, data) for name, data in graphs.items()},
        "files": {name: _file_entry(data) for name, data in files.items()},
    }
    try:
        return (_dump({**manifest, **written}) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise InputError("manifest", expected="values that JSON can hold", found=str(error)) from error


def _graph_entry(name: str, data: bytes) -> dict[str, Any]:
    model = read_onnx(data, f"{name} graph")
    entry = {"file": f"{name}.onnx", **_file_entry(data)}
    return entry | {"inputs": _tensors(model.inputs), "outputs": _tensors(model.outputs)}


def _file_entry(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _tensors(tensors: tuple[Tensor, ...]) -> list[dict[str, Any]]:
    return [{"name": tensor.name, "dtype": tensor.dtype, "axes": list(tensor.axes)} for tensor in tensors]


def _dump(value: object, indent: str = "") -> str:
    """JSON with sorted keys, a container on one line where it is short."""
    line = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list | tuple) or len(indent) + len(line) <= _LINE:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        keys = {key: json.dumps(key, ensure_ascii=False) for key in sorted(value)}
        items, brackets = [f"{text}: {_dump(value[key], deeper)}" for key, text in keys.items()], "{}"
    else:
        items, brackets = [_dump(item, deeper) for item in value], "[]"
    body = f",\n{deeper}".join(items)
    return f"{brackets[0]}\n{deeper}{body}\n{indent}{brackets[1]}"


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Checks that a bundle may be written at ``folder``; ask before long work, not only after it.

    Raises:
        InputError: Something is there that may not be replaced, or no bundle can have the folder's name.
    """
    pattern, like = BUNDLE_NAME
    if len(folder.name) > MAX_NAME or not re.fullmatch(pattern, folder.name):
        raise InputError(
            f"bundle folder {folder}", expected=f"a name of {like}, at most {MAX_NAME}", found=repr(folder.name)
        )
    if not folder.exists() and not folder.is_symlink():
        return
    if not overwrite or not _holds_only_a_bundle(folder):
        raise InputError(
            f"bundle folder {folder}",
            expected="a folder that holds a bundle and nothing else" if overwrite else "a path where nothing is",
            found="something else" if overwrite else "something is there",
            do="choose another folder" if overwrite else "choose another folder, or allow overwriting",
        )


def _holds_only_a_bundle(folder: Path) -> bool:
    """True if deleting the folder deletes nothing but files that its manifest names."""
    if folder.is_symlink() or not folder.is_dir() or not (folder / MANIFEST).is_file():
        return False
    try:
        manifest = parse_json((folder / MANIFEST).read_bytes(), MANIFEST)
    except BundleError:
        return False
    graphs = manifest.get("graphs") if isinstance(manifest, dict) else None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(graphs, dict) or not isinstance(files, dict):
        return False
    named = {MANIFEST, *files, *(str(graph.get("file")) for graph in graphs.values() if isinstance(graph, dict))}
    return all(path.name in named and path.is_file() for path in folder.iterdir())


def _move(part: Path, folder: Path) -> None:
    """Gives ``part`` its name; an old bundle steps aside first and comes back if that fails."""
    if not folder.exists():
        part.rename(folder)
        return
    old = part.with_name(part.name.removesuffix(".part") + ".old.part")
    folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
