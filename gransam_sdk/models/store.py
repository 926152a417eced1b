"""Where fetched weights lie, and what is known of them.

    HOME/models/<name>/<file>         the weights, under the maker's name: only ever whole, and only with the right hash
    HOME/models/<name>/<file>.json    their size, sha256, and the address that they came from
    HOME/models/<name>/<file>.part    an unfinished download (``part_file``)
    HOME/models/<name>/.lock          held while a process fetches or removes them

A known sha256 is what the file has to have. Where none is known, that of the first pull is recorded, and what is there
later is compared with it. Nothing here opens a checkpoint: weights are bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..annotate.disk import operate, put_file
from ..annotate.outputs import LOCK_NAME, take_lock
from ..errors import EnvironmentFault, OutputError
from .catalogue import Weights
from .part_file import PartFile, Progress

Fetch = Callable[[PartFile], None]
"""Completes an unfinished download, or raises; what came stays in it."""
HashKind = Literal["published", "recorded", "new"]
"""What a hash was compared with: the catalogue's, an earlier pull's, or nothing: it is recorded now."""

_REPLACED = {
    "published": "If the maker has replaced the file, a newer gransam-sdk may know it",
    "recorded": "If the maker has replaced the file, forget the recorded hash with gransam models rm",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is there of some weights, as far as can be said without reading them.

    Attributes:
        path: Where the file is, or will be.
        bytes: Size of what is there; 0 for nothing.
        state: ``here``, ``unfinished``, ``absent``, or ``damaged`` if the file's size is wrong.
        recorded: The sha256 that was recorded when the file was fetched or verified; empty for none.
    """

    path: Path
    bytes: int
    state: Literal["here", "unfinished", "absent", "damaged"]
    recorded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Weights whose every byte was read and found right.

    Attributes:
        path: The file.
        sha256: Its hash.
        against: What it was compared with.
        fetched: Whether it was downloaded just now.
    """

    path: Path
    sha256: str
    against: HashKind
    fetched: bool = False


class Store:
    """The weights that were fetched.

    Args:
        home: The cache folder (``$GRANSAM_HOME``). It need not exist yet.
    """

    def __init__(self, home: Path) -> None:
        """Touches nothing yet."""
        self._home = home.absolute()

    def path(self, weights: Weights) -> Path:
        """Where the file belongs."""
        return self._home / "models" / weights.name / weights.file

    def look(self, weights: Weights) -> Holding:
        """What is there; reads no weights, so a file that is here may still have wrong bytes.

        Raises:
            OutputError: The disk refused.
        """
        path = self.path(weights)
        part = path.with_name(f"{path.name}.part")
        recorded = _recorded(path)
        if path.is_file():
            size = operate(path, os.path.getsize, path)
            return Holding(
                path=path, bytes=size, state="here" if size == weights.bytes else "damaged", recorded=recorded
            )
        if part.is_file():
            return Holding(path=path, bytes=operate(part, os.path.getsize, part), state="unfinished", recorded=recorded)
        return Holding(path=path, bytes=0, state="absent", recorded=recorded)

    def pull(
        self, weights: Weights, fetch: Fetch | None, *, url: str, progress: Progress = lambda done, total: None
    ) -> Verified:
        """Fetches weights, or goes on with what an earlier pull has left. What is here already is verified only.

        Args:
            weights: Which.
            fetch: Completes an unfinished download; None if nothing may be fetched.
            url: Address that the bytes come from.
            progress: Told after every piece.

        Raises:
            EnvironmentFault: Nothing could or may be fetched, or wrong bytes came; these are deleted.
            OutputError: Another process fetches them, or the disk refused or has too little room.
        """
        if fetch is None:
            return self._offline(weights, url)
        with self._locked(weights) as path:
            if path.is_file():
                return self.verify(weights)
            part = PartFile(path.with_name(f"{path.name}.part"), url=url, expected=weights.bytes, progress=progress)
            self._check_room(weights, part.expected - part.size)
            if part.size < part.expected:
                fetch(part)
            found = _hash(part.path)
            wanted, against = _wanted(weights, path)
            if wanted not in ("", found):
                part.discard()
                raise EnvironmentFault(
                    f"weights {weights.name} from {url}",
                    expected=f"sha256 {wanted}",
                    found=f"sha256 {found}; these bytes were deleted",
                    do=f"pull them from the maker if this was a mirror. {_REPLACED[against]}",
                )
            _record(path, weights, found, url)  # before the file: none is ever there without its hash
            part.finish(path)
            return Verified(path=path, sha256=found, against=against, fetched=True)

    def verify(self, weights: Weights) -> Verified:
        """Reads every byte of weights that are here, also of a file that was placed by hand.

        Raises:
            EnvironmentFault: They are not here, or not the right ones.
            OutputError: The disk refused.
        """
        path = self.path(weights)
        if not path.is_file():
            raise EnvironmentFault(
                f"weights {weights.name}",
                expected=f"a file {path}",
                found="an unfinished download" if self.look(weights).state == "unfinished" else "nothing there",
                do=f"gransam models pull {weights.name}",
            )
        wanted, against = _wanted(weights, path)
        found = _hash(path)
        size = operate(path, os.path.getsize, path)
        if wanted not in ("", found) or size != weights.bytes:
            raise EnvironmentFault(
                f"weights {path}",
                expected=f"{weights.bytes:,} bytes, sha256 {wanted or 'unknown'}",
                found=f"{size:,} bytes, sha256 {found}",
                do=f"do not load them: gransam models rm {weights.name}, then gransam models pull {weights.name}",
            )
        if _recorded(path) != found:
            _record(path, weights, found, "")
        return Verified(path=path, sha256=found, against=against)

    def remove(self, weights: Weights) -> int:
        """Deletes weights, what is recorded of them, and an unfinished download; returns the bytes of all that.

        Raises:
            OutputError: Another process fetches them, or the disk refused.
        """
        folder = self.path(weights).parent
        if not folder.is_dir():
            return 0
        freed = 0
        with self._locked(weights) as path:
            part = path.with_name(f"{path.name}.part")
            for there in (path, part, _record_path(path), _record_path(part)):
                if operate(there, os.path.lexists, there):
                    freed += operate(there, there.lstat).st_size
                    operate(there, there.unlink)
            with suppress(OSError):  # what somebody else put there stays
                (folder / LOCK_NAME).unlink()
                folder.rmdir()
        return freed

    @contextmanager
    def _locked(self, weights: Weights) -> Iterator[Path]:
        """The file's path, while no other process writes beside it. The cache folder is made for this user alone."""
        path = self.path(weights)
        operate(self._home, os.makedirs, self._home, mode=0o700, exist_ok=True)
        operate(path.parent, os.makedirs, path.parent, exist_ok=True)
        lock = take_lock(path.parent)
        try:
            yield path
        finally:
            os.close(lock)

    def _offline(self, weights: Weights, url: str) -> Verified:
        path = self.path(weights)
        if path.is_file():
            return self.verify(weights)
        known = f"{weights.bytes:,} bytes, sha256 {weights.sha256 or 'not known'}"
        raise EnvironmentFault(
            f"weights {weights.name}",
            expected=f"a file {path}",
            found="nothing there, and nothing may be fetched: --offline, or GRANSAM_OFFLINE in the environment",
            do=f"place {url} there by hand ({known}), then: gransam models verify {weights.name}",
        )

    def _check_room(self, weights: Weights, coming: int) -> None:
        free = operate(self._home, shutil.disk_usage, self._home).free
        if coming > free:
            raise OutputError(
                f"output {self._home}",
                expected=f"{coming / 1e6:,.1f} MB free for {weights.name}",
                found=f"{free / 1e6:,.1f} MB free",
                do="free some space, or choose a folder on another disk with -o",
            )


def _wanted(weights: Weights, path: Path) -> tuple[str, HashKind]:
    """The sha256 that a file has to have, empty for any, and where it is known from."""
    if weights.sha256:
        return weights.sha256, "published"
    recorded = _recorded(path)
    return recorded, "recorded" if recorded else "new"


def _hash(path: Path) -> str:
    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return operate(path, read)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _record(path: Path, weights: Weights, sha256: str, url: str) -> None:
    """Notes what was found; an empty address means that somebody placed the file by hand."""
    about = {"schema": 1, "bytes": weights.bytes, "sha256": sha256, "url": url}
    put_file(_record_path(path), (json.dumps(about, indent=2) + "\n").encode())


def _recorded(path: Path) -> str:
    try:
        about = json.loads(_record_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    sha256 = about.get("sha256") if isinstance(about, dict) else None
    return sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ""
