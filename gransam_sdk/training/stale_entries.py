"""Entries of the token cache that nobody has used for long; they go when the cache has grown too large.

Only what looks exactly like an entry is ever deleted: a real folder that is named by the hash of its ``run.json``,
which says that it holds tokens, and in it nothing but shards, a lock, and what a killed pass left. Shards go first, so
an entry whose deletion was cut is a smaller entry.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ..annotate.disk import TEMP_NAME, operate
from ..annotate.outputs import LOCK_NAME, RUN_NAME, OutputFolder
from ..errors import OutputError
from .cache_key import WHAT, entry_name
from .token_shard import SHARD_NAME

SHARDS = "shards"
CAP_BYTES = 10 << 30
IDLE_SECONDS = 30 * 86_400.0

_ENTRY_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An entry as it is found.

    Attributes:
        folder: It.
        shards: Sizes in bytes of its shards, by name.
        used: Seconds since the epoch; its last use.
    """

    folder: Path
    shards: dict[str, int]
    used: float


def mark_used(folder: Path) -> None:
    """Notes that an entry is in use now: as the time of its ``run.json``. In a cache that is read-only, nothing."""
    with contextlib.suppress(OSError):
        os.utime(folder / RUN_NAME)


def free_stale(entries: Path, keep: Path, *, cap: int, coming: int) -> int:
    """Deletes entries that were not used for 30 days, the least recently used first, while the cache is too large.

    One that another process writes to stays, and so does one that cannot be deleted: this is no reason to stop.

    Args:
        entries: Folder that holds the entries.
        keep: The entry in use.
        cap: Bytes that all of them may take.
        coming: Bytes that are going to be written.

    Returns:
        Bytes that were freed.
    """
    try:
        found = [entry for path in entries.iterdir() if (entry := _look(path))]
    except OSError:
        return 0
    left = coming + sum(sum(entry.shards.values()) for entry in found)
    freed = 0
    for entry in sorted(found, key=lambda entry: entry.used):
        if left - freed <= cap or not _is_stale(entry):
            break
        if entry.folder != keep:
            freed += _delete(entry.folder)
    return freed


def _is_stale(entry: _Entry) -> bool:
    return time.time() - entry.used > IDLE_SECONDS


def _look(folder: Path) -> _Entry | None:
    """What a folder holds, if it is an entry to the last file."""
    if not _ENTRY_NAME.fullmatch(folder.name):
        return None
    ours = {RUN_NAME, LOCK_NAME, SHARDS}
    try:
        about = (folder / RUN_NAME).read_bytes()
        header = json.loads(about)
        if entry_name(about) != folder.name or header["what"] != WHAT or type(header["format"]) is not int:
            return None
        if any(path.is_symlink() for path in (folder, folder / RUN_NAME, folder / SHARDS)):
            return None
        if not all(name in ours or TEMP_NAME.fullmatch(name) for name in os.listdir(folder)):  # noqa: PTH208 - names
            return None
        with os.scandir(folder / SHARDS) as files:
            sizes = {file.name: file.stat().st_size for file in files if file.is_file(follow_symlinks=False)}
        if not all(SHARD_NAME.fullmatch(name) or TEMP_NAME.fullmatch(name) for name in sizes):
            return None
        if len(sizes) != len(os.listdir(folder / SHARDS)):  # noqa: PTH208
            return None
        return _Entry(folder=folder, shards=sizes, used=(folder / RUN_NAME).stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _delete(folder: Path) -> int:
    """Deletes an entry under its lock, if it still is a stale one then; the bytes that this freed."""
    freed = 0
    with contextlib.suppress(OutputError), OutputFolder.open(folder) as out:
        entry = _look(folder)  # again: it may have been used meanwhile
        if entry is None or not _is_stale(entry):
            return 0
        for name, size in entry.shards.items():
            if out.remove(f"{SHARDS}/{name}"):
                freed += size
        operate(folder, (folder / SHARDS).rmdir)
        out.remove(RUN_NAME)
        out.remove(LOCK_NAME)
        operate(folder, folder.rmdir)
    return freed
