"""Opening a bundle: a folder of ``gransam.json`` and ONNX files becomes checked bytes, and nothing in it is executed.

Every file is opened once, without following links, and read whole; what was hashed is what ``graph_bytes`` returns, so
nothing that happens to the folder afterwards matters. An engine sees bytes only after all checks have passed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from .errors import BundleError
from .graph_contract import check_contract, check_tensors
from .manifest import MANIFEST, Canary, Graph, HeadCalibration, HeadInfo, Manifest, Preprocess
from .manifest_reader import MAX_MANIFEST_BYTES, parse_manifest
from .onnx_model import Tensor, read_onnx
from .onnx_rules import check_rules
from .onnx_wire import Refusal

__all__ = [
    "BUNDLED",
    "Bundle",
    "Canary",
    "Graph",
    "HeadCalibration",
    "HeadInfo",
    "Manifest",
    "Preprocess",
    "Tensor",
    "open_bundle",
]

BUNDLED = ("nano-voc20",)
"""Bundles that come with the package; they are opened by name."""

_EXECUTABLE = frozenset(
    {".engine", ".plan", ".trt", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}
)
"""Engines and pickles: loading one may run code that is in it."""

_FETCH = "fetch the bundle again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle(Manifest):
    """A bundle that passed every check that needs no engine.

    Attributes:
        path: Its folder.
        digest: Hex sha256 of ``gransam.json``, which names the sha256 of everything else: the bundle's identity.
    """

    path: Path
    digest: str
    contents: Mapping[str, bytes] = field(repr=False)

    @property
    def has_head(self) -> bool:
        """True if it can name classes; False before any training."""
        return "head" in self.graphs

    def graph_bytes(self, graph: str) -> bytes:
        """The ONNX bytes of ``image``, ``prompt``, ``mask`` or ``head``, as they were hashed.

        Raises:
            BundleError: The bundle has no such graph.
        """
        if graph not in self.graphs:
            do = "train one: gransam train --base" if graph == "head" else ""
            raise BundleError(f"{self.path}", expected=f"a {graph} graph", found=", ".join(self.graphs), do=do)
        return self.contents[self.graphs[graph].file]

    def file_bytes(self, name: str) -> bytes:
        """The bytes of a file such as ``model-card.md``, as they were hashed.

        Raises:
            BundleError: The bundle has no such file.
        """
        if name not in self.contents:
            raise BundleError(f"{self.path}", expected=f"a file {name!r}", found=", ".join(sorted(self.contents)))
        return self.contents[name]


def open_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Opens a bundle and checks all of it that can be checked without running it.

    Args:
        name_or_path: A name of ``BUNDLED``, or a folder (``./name`` where a folder has a bundled name).

    Returns:
        The bundle, with the bytes of every file in memory.

    Raises:
        BundleError: The first check that fails: folder, manifest, files, hashes, graphs.
    """
    name = os.fspath(name_or_path)
    path = _bundled(name) if name in BUNDLED else Path(name)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _no_folder(path, error) from error
    try:
        return _open_folder(path, folder)
    finally:
        os.close(folder)


def _no_folder(path: Path, error: OSError | ValueError) -> BundleError:
    expected = f"a folder with {MANIFEST}, or one of {', '.join(BUNDLED)}"
    do = "check the spelling; `gransam train PICTURES -o BUNDLE` makes a bundle of your own"
    found = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, NotADirectoryError):
        found = "a file; a bundle is a folder"
        if path.suffix.lower() in _EXECUTABLE:
            found = f"refusing executable format {path.suffix.lower()}"
            do = "engines are built from a bundle on the machine that runs them; a bundle holds ONNX graphs only"
    return BundleError(f"bundle {str(path)!r}", expected=expected, found=found, do=do)


def _bundled(name: str) -> Path:
    return Path(__file__).resolve().parent / "bundles" / name


def _open_folder(path: Path, folder: int) -> Bundle:
    # Installers such as uv hard-link a package's files from their cache, so only there a second name is no alarm.
    links_allowed = path.resolve() in {_bundled(name) for name in BUNDLED}
    reader = _FolderReader(path, folder, links_allowed)
    data = reader.read(MANIFEST, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(data, f"{path / MANIFEST}")
    check_contract(manifest, f"{path / MANIFEST}")
    entries = {graph.file: (graph.sha256, graph.bytes) for graph in manifest.graphs.values()}
    entries |= {name: (entry.sha256, entry.bytes) for name, entry in manifest.files.items()}
    _check_listing(path, set(os.listdir(folder)), {MANIFEST, *entries})
    contents = {name: reader.read_hashed(name, sha256, size) for name, (sha256, size) in entries.items()}
    for graph in manifest.graphs.values():
        _check_graph(contents[graph.file], graph, manifest.opset, f"{path / graph.file}")
    values = {item.name: getattr(manifest, item.name) for item in fields(Manifest)}
    return Bundle(path=path, digest=hashlib.sha256(data).hexdigest(), contents=contents, **values)


def _check_listing(path: Path, found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        raise BundleError(f"{path}", expected="every file of the manifest", found=f"no {', '.join(missing)}", do=_FETCH)
    if extra := sorted(found - expected):
        raise BundleError(
            f"{path}",
            expected="only the files of the manifest",
            found=f"also {', '.join(ascii(name) for name in extra[:5])}",
            do="remove what does not belong to the bundle",
        )


def _check_graph(data: bytes, graph: Graph, opset: int, what: str) -> None:
    model = read_onnx(data, what)
    try:
        check_rules(model, opset)
    except Refusal as refusal:
        raise refusal.about(what) from None
    check_tensors(f"{what}, inputs", model.inputs, graph.inputs)
    check_tensors(f"{what}, outputs", model.outputs, graph.outputs)


@dataclass(frozen=True, slots=True)
class _FolderReader:
    """Reads files of one open folder, each by a single open that follows no link."""

    path: Path
    folder: int
    links_allowed: bool

    def read_hashed(self, name: str, sha256: str, size: int) -> bytes:
        """The bytes of a file whose size and digest are known."""
        data = self.read(name, size)
        found = hashlib.sha256(data).hexdigest()
        if len(data) != size or found != sha256:
            expected = f"{size} bytes, sha256 {sha256[:16]}..."
            shown = f"{len(data)} bytes, sha256 {found[:16]}..."
            raise BundleError(f"{self.path / name}", expected=expected, found=shown, do=_FETCH)
        return data

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a regular file of at most ``limit`` bytes; a larger one is not read at all."""
        what = self.path / name
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: a FIFO must not hang
        try:
            with os.fdopen(os.open(name, flags, dir_fd=self.folder), "rb") as file:
                status = os.fstat(file.fileno())
                self._check_status(what, status, limit)
                data = file.read(status.st_size + 1)  # one more, to see it grow
        except OSError as error:
            raise _unreadable(what, error) from error
        if len(data) != status.st_size:
            raise BundleError(f"{what}", expected=f"{status.st_size} bytes", found=f"{len(data)} bytes", do=_FETCH)
        return data

    def _check_status(self, what: Path, status: os.stat_result, limit: int) -> None:
        expected, found = "a regular file", ""
        if not stat.S_ISREG(status.st_mode):
            found = f"a file of another kind (mode {stat.filemode(status.st_mode)})"
        elif status.st_nlink != 1 and not self.links_allowed:
            found = f"a hard link ({status.st_nlink} names)"
        elif status.st_size > limit:
            expected, found = f"at most {limit} bytes", f"{status.st_size} bytes"
        if found:
            raise BundleError(f"{what}", expected=expected, found=found, do=_FETCH)


def _unreadable(what: Path, error: OSError) -> BundleError:
    found = "a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
    return BundleError(f"{what}", expected="a readable file of the bundle", found=found, do=_FETCH)
