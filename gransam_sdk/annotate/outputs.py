"""The one writer: every byte of a run folder goes through here, whole or not at all, and never outside the folder.

A file is written under a temporary name of our own pattern in the folder where it belongs, then moved into place with
``os.replace``: whoever looks sees the old file, the new file or none, never a part of one. ``kill -9`` needs no more
than that. Against power loss, one ``os.sync`` follows every 256 files and the end of the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ..errors import OutputError
from .disk import TEMP_NAME, OutputStream, operate

LOCK_NAME = ".lock"
RUN_NAME = "run.json"
SYNC_EVERY = 256
"""Files between two flushes to the disk; one flush costs 0.1-0.2 ms a file, an fsync each about 3 ms."""

_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def check_output(path: str | Path) -> tuple[Path, bool]:
    """Whether a path can become or go on being a run folder; looks, and touches nothing.

    Args:
        path: What the user calls the run folder.

    Returns:
        The real path, and whether nothing is in it yet.

    Raises:
        OutputError: It is a file, or holds something else than a run.
    """
    root = Path(os.path.realpath(path))
    if not operate(root, os.path.lexists, root):
        return root, True
    if not root.is_dir():
        raise OutputError(f"output {root}", expected="a folder", found="a file", do="choose another folder with -o")
    names = operate(root, os.listdir, root)
    if all(name == LOCK_NAME or TEMP_NAME.fullmatch(name) for name in names):
        return root, True
    # Asked after the listing: a run that starts beside us writes run.json before anything else.
    if not (root / RUN_NAME).is_file():
        raise OutputError(
            f"output {root}",
            expected=f"an empty folder, or the folder of an earlier run (with {RUN_NAME})",
            found=f"{len(names)} other entries, no {RUN_NAME}",
            do="choose another folder with -o; nothing was written to this one",
        )
    return root, False


class OutputFolder:
    """A run folder, locked for this process; made by :meth:`open`, given back by :meth:`close`.

    Paths are relative, with forward slashes; folders in between are made as needed. Only one thread may write.

    Attributes:
        root: The real, absolute path of the folder.
    """

    def __init__(self, root: Path, lock: int, *, made: bool, empty: bool) -> None:
        """Use :meth:`open`."""
        self.root = root
        self._lock = lock
        self._made = made
        self._untouched = empty
        self._unsynced = 0

    @classmethod
    def open(cls, path: str | Path) -> OutputFolder:
        """Makes the folder if need be, locks it, proves that it can be written to, sweeps what a killed run left.

        Args:
            path: The run folder: missing, empty, or of an earlier run.

        Raises:
            OutputError: The path is a file, is not writable, holds something else than a run, or another process is
                writing to it (said at once, never waited for).
        """
        root, empty = check_output(path)
        made = not root.exists()
        if made:
            operate(root, os.makedirs, root, exist_ok=True)
        folder = cls(root, take_lock(root), made=made, empty=empty)
        try:
            folder._probe()
            _sweep(root)
        except BaseException:
            folder.close()
            raise
        return folder

    def put(self, relative: str, data: bytes) -> None:
        """Writes one file whole; an old one of that name is replaced.

        Args:
            relative: Path inside the folder, such as ``records/a/b.jpg.json``.
            data: Its bytes.

        Raises:
            OutputError: The path leaves the folder, or the disk refused; the old file, if any, is still there.
        """
        with self.open_stream(relative) as stream:
            stream.write(data)

    @contextlib.contextmanager
    def open_stream(self, relative: str) -> Iterator[OutputStream]:
        """Writes one file piece by piece; it appears under its name when the block ends without an error.

        Args:
            relative: Path inside the folder.

        Raises:
            OutputError: As :meth:`put`.
        """
        target = self._place(relative)
        self._untouched = False
        stream = OutputStream(target)
        try:
            stream.begin()
            yield stream
            stream.place()
        except BaseException:
            stream.abandon()
            raise
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self.sync()

    def read(self, relative: str) -> bytes | None:
        """The bytes of a file, or None if there is none.

        Raises:
            OutputError: It is there but cannot be read.
        """
        target = self._inside(relative)
        return operate(target, target.read_bytes) if operate(target, target.is_file) else None

    def exists(self, relative: str) -> bool:
        """Whether the file is there."""
        target = self._inside(relative)
        return operate(target, target.is_file)

    def remove(self, relative: str) -> bool:
        """Deletes a file; returns whether there was one.

        Raises:
            OutputError: It cannot be deleted.
        """
        target = self._inside(relative)
        if not operate(target, target.is_file):
            return False
        operate(target, os.unlink, target)
        return True

    def sync(self) -> None:
        """Asks the system to bring everything written so far to the disk."""
        operate(self.root, os.sync)
        self._unsynced = 0

    def close(self) -> None:
        """Unlocks the folder. One that was made for this run and never written to is taken away again."""
        if self._lock < 0:
            return
        lock, self._lock = self._lock, -1
        if self._untouched:
            with contextlib.suppress(OSError):
                (self.root / LOCK_NAME).unlink()
                if self._made:
                    self.root.rmdir()
        os.close(lock)

    def __enter__(self) -> OutputFolder:
        """The folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlocks the folder."""
        self.close()

    def _place(self, relative: str) -> Path:
        """The path to write to; makes the folders in between."""
        target = self._inside(relative)
        for folder in reversed(target.relative_to(self.root).parents[:-1]):
            if not os.path.lexists(self.root / folder):
                operate(self.root / folder, os.mkdir, self.root / folder)
        return target

    def _inside(self, relative: str) -> Path:
        """The absolute path of ``relative``, which may pass through real folders inside the root only."""
        parts = relative.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in relative:
            raise OutputError(
                f"output path {relative!r}", expected="a path inside the run folder", found="one that leaves it"
            )
        folder = self.root
        for part in parts[:-1]:
            folder = folder / part
            if not _is_real_folder(folder):
                raise OutputError(
                    f"output {folder}",
                    expected="a real folder inside the run folder",
                    found="a link or a file",
                    do="choose another folder with -o, or take this entry away",
                )
        return folder / parts[-1]

    def _probe(self) -> None:
        """Proves before any model is loaded that files can be made here."""
        stream = OutputStream(self.root / RUN_NAME)
        try:
            stream.begin()
        finally:
            stream.abandon()


def take_lock(root: Path) -> int:
    """The locked descriptor of a folder's lock file; the kernel frees it however this process ends.

    Raises:
        OutputError: Another process holds the lock, or the disk refused.
    """
    path = root / LOCK_NAME
    handle = operate(path, os.open, path, _LOCK_FILE, 0o666)
    try:
        operate(path, fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = _is_named(handle, path)
    except OutputError as error:
        os.close(handle)
        if not isinstance(error.__cause__, BlockingIOError):
            raise
        raise _locked(root) from error
    if not same:  # its owner gave it back and took the file away while we opened it
        os.close(handle)
        raise _locked(root)
    return handle


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _locked(root: Path) -> OutputError:
    return OutputError(
        f"output {root}",
        expected="a folder that no other run is writing to",
        found=f"a lock held by another process ({LOCK_NAME})",
        do="wait for the other run, or choose another folder with -o",
    )


def _sweep(root: Path) -> None:
    """Deletes temporary files that a killed run left: those of our own pattern, and no others."""
    for folder, _, names in os.walk(root):  # does not follow links
        for name in filter(TEMP_NAME.fullmatch, names):
            operate(Path(folder, name), os.unlink, Path(folder, name))


def _is_real_folder(path: Path) -> bool:
    """True for a folder that is not a link, and for nothing at all (it will be made)."""
    return not os.path.lexists(path) or stat.S_ISDIR(operate(path, path.lstat).st_mode)
