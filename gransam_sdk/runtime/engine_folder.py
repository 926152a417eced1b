"""The folder where engines lie: ours alone, opened once, and every file in it by one open that follows no link.

An engine is native code: whoever can write here can run anything as us. So a folder that others may write to is
refused, and a file in it counts only if it is a plain file, ours, under one name. What was read is what was hashed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..errors import EnvironmentFault, OutputError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PATIENCE_S = 1.0
"""Waiting for a lock is said only after this long: another process that merely loads is done sooner."""
_POLL_S = 0.05

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Refused(Exception):
    """A file that may not be used, with the reason; the caller makes a new one in its place."""


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """An open engine folder.

    Attributes:
        path: For messages only; files are reached through the descriptor.
        handle: Descriptor of the folder.
    """

    path: Path
    handle: int

    def names(self) -> list[str]:
        """Names of all files, sorted."""
        return sorted(self._operate(os.listdir, self.handle))

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of a file that is ours alone.

        Raises:
            FileNotFoundError: There is none.
            Refused: A link, another kind of file, somebody else's, one that others may write, or a larger one.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: a FIFO must not hang
        try:
            with os.fdopen(os.open(name, flags, dir_fd=self.handle), "rb") as file:
                status = os.fstat(file.fileno())
                if reason := _foreign(status):
                    raise Refused(f"{name} is {reason}")
                if limit is not None and status.st_size > limit:
                    raise Refused(f"{name} has {status.st_size:,} bytes")
                return file.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Refused(f"{name} cannot be read: {error.strerror}") from error

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole, for us alone to read; an old one of that name is replaced.

        The caller holds a lock, so what is there under the temporary name was left by a process that was killed.

        Raises:
            OutputError: The disk refused; what was there before is still there.
        """
        temp = f".{name}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.remove(temp)
        try:
            with os.fdopen(self._operate(os.open, temp, flags, 0o600, dir_fd=self.handle), "wb") as file:
                self._operate(file.write, data)
                self._operate(file.flush)
            self._operate(os.replace, temp, name, src_dir_fd=self.handle, dst_dir_fd=self.handle)
        except BaseException:
            with suppress(OSError):
                os.unlink(temp, dir_fd=self.handle)
            raise

    def remove(self, name: str) -> int:
        """Deletes a file; returns its bytes, 0 if there is none.

        Raises:
            OutputError: The disk refused.
        """
        try:
            size = os.stat(name, dir_fd=self.handle, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        self._operate(os.unlink, name, dir_fd=self.handle)
        return size

    @contextmanager
    def locked(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Holds a lock; the kernel frees it however this process ends.

        Args:
            name: The lock's file.
            waiting: Called once if another process holds it for longer than loading takes.

        Raises:
            OutputError: The file system refused.
        """
        while True:
            handle = self._operate(
                os.open, name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.handle
            )
            try:
                self._take(handle, waiting)
                if self._is_named(handle, name):  # else its owner has deleted the file while we waited
                    yield
                    return
            finally:
                os.close(handle)

    def _take(self, handle: int, waiting: Callable[[], None]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(_POLL_S)
            except OSError as error:
                raise _broken(self.path, error) from error
        waiting()
        self._operate(fcntl.flock, handle, fcntl.LOCK_EX)

    def _is_named(self, handle: int, name: str) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(name, dir_fd=self.handle, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _operate(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except OSError as error:
            raise _broken(self.path, error) from error


@contextmanager
def open_engine_folder(path: Path) -> Iterator[EngineFolder]:
    """Opens the folder, made for this user alone if it is not there.

    Which folder was opened is settled here, whatever happens to its path afterwards.

    Raises:
        EnvironmentFault: It is a link, somebody else's, or others may write to it.
        OutputError: The disk refused.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _unsafe(path, "a link or a file", "remove it") from error
        raise _broken(path, error) from error
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid():
            raise _unsafe(path, f"a folder of user {status.st_uid}", "set GRANSAM_HOME to a folder of your own")
        if status.st_mode & _OTHERS_WRITE:
            raise _unsafe(
                path,
                f"mode {stat.S_IMODE(status.st_mode):o}: others may write to it",
                f"delete what is in it, which others may have put there, then: chmod 700 {path}",
            )
        yield EngineFolder(path, handle)
    finally:
        os.close(handle)


def _foreign(status: os.stat_result) -> str:
    """Why a file is not one that we wrote; empty if it may be."""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_uid != os.geteuid():
        return f"a file of user {status.st_uid}"
    if status.st_mode & _OTHERS_WRITE:
        return "writable by others"
    return "" if status.st_nlink == 1 else "a hard link"


def _unsafe(path: Path, found: str, do: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"engine folder {path}",
        expected="a folder of yours that nobody else may write to: engines are native code",
        found=found,
        do=do,
    )


def _broken(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"engine folder {path}",
        expected="a folder that can be read and written",
        found=f"{errno.errorcode.get(error.errno or 0, 'unknown error')}: {error.strerror}",
        do="free some space, or set GRANSAM_HOME to a folder on another disk",
    )
