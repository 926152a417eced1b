"""Unfinished training on disk: a locked folder of safetensors files, each replaced whole, each proof of its own bytes.

What is no tensor is JSON in a file's header, beside a digest over all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..annotate.disk import open_folder, operate, put_file
from ..annotate.outputs import take_lock
from ..errors import OutputError
from .writer_words import said_of

FolderT = TypeVar("FolderT", bound="StateFolder")


class StateFolder:
    """The folder of one training, locked for this process until it is closed; nothing else may be in it.

    Args:
        folder: Made if need be. What a kill left half-written is swept.
        identity: Of the training: hex digest of its setting and of what it is trained on.

    Raises:
        OutputError: The folder cannot be made or written to, or another process trains into it.
    """

    kept = "the epoch before is kept"
    """What is still there when the disk refuses, in words."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        with self._words():
            operate(folder, os.makedirs, folder, exist_ok=True)
            # Not a method: a store that nobody closed gives its lock back when it goes.
            self._unlock = weakref.finalize(self, os.close, take_lock(folder))
            open_folder(folder)  # sweeps; not before the lock, or another's unfinished file would go

    def close(self) -> None:
        """Unlocks the folder."""
        self._unlock()

    def __enter__(self: FolderT) -> FolderT:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlocks the folder."""
        self.close()

    def put(self, stage: str, schema: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replaces the file of a stage.

        Args:
            stage: Names the file.
            schema: Version of its format.
            facts: JSON values.
            tensors: By name.

        Raises:
            OutputError: The disk refused; the file before is still there.
        """
        header = {"schema": schema, "identity": self.identity, "stage": stage, **facts}
        header["sha256"] = _digest(header, tensors)
        with self._words():
            put_file(self._path(stage), save(dict(tensors), {"gransam": json.dumps(header, sort_keys=True)}))

    def take(self, stage: str, schema: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Facts and tensors of a stage, or none where it was never put.

        Raises:
            OutputError: The file is damaged, of another format, or of another setting or other pictures.
        """
        path = self._path(stage)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["gransam"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            found, proof = header["schema"], header.pop("sha256", None)
            origin = header["identity"], header["stage"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _unusable(path, "a whole file", f"a damaged one ({error})") from error
        if found != schema:
            raise _unusable(path, f"format {schema}, this version's", f"format {found!r}")
        if proof != _digest(header, tensors):
            raise _unusable(path, "a whole file", "a damaged one (its bytes are not those that were written)")
        if origin != (self.identity, stage):
            raise _unusable(path, "the same setting and the same pictures", "another training")
        return header, tensors

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"

    def _words(self) -> AbstractContextManager[None]:
        return said_of("checkpoint", kept=self.kept)


def split_parts(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Tensors by ``PART.NAME`` to those of each part by name."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    return parts


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over what the header says, and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _unusable(path: Path, expected: str, found: str) -> OutputError:
    return OutputError(
        f"checkpoint {path}",
        expected=expected,
        found=found,
        do="delete its folder to train from the start, or name another",
    )
