"""The bottom of the one writer: a single file operation, and a file that grows under a temporary name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..errors import OutputError

TEMP_NAME = re.compile(r"\.gransam-[0-9a-f]{16}\.tmp")
"""Names of unfinished files; nothing else of this shape is ever written, so what a killed run left can be swept."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BUFFER = 1 << 16

_P = ParamSpec("_P")
_T = TypeVar("_T")


class OutputStream:
    """A file on its way: bytes collect under a temporary name until :meth:`OutputFolder.open_stream` places them."""

    def __init__(self, target: Path) -> None:
        """Touches nothing yet."""
        self._target = target
        self._temp = target.with_name(f".gransam-{os.urandom(8).hex()}.tmp")
        self._pending = bytearray()
        self._handle = -1

    def begin(self) -> None:
        """Makes the temporary file beside the target.

        Not part of making the stream, so that a Ctrl-C that comes meanwhile finds somebody who can clean up.

        Raises:
            OutputError: The disk refused.
        """
        self._handle = operate(self._target, os.open, self._temp, _NEW_FILE, 0o666)

    def write(self, data: bytes) -> int:
        """Adds bytes; returns how many (all of them).

        Raises:
            OutputError: The disk refused.
        """
        self._pending += data
        if len(self._pending) >= _BUFFER:
            self._flush()
        return len(data)

    def place(self) -> None:
        """Hands the last bytes over, closes the file and gives it its name, in place of an older one.

        Raises:
            OutputError: The disk refused.
        """
        self._flush()
        # Forgotten before it is closed: a descriptor whose close failed is gone too, and its number may be reused.
        handle, self._handle = self._handle, -1
        operate(self._target, os.close, handle)
        operate(self._target, os.replace, self._temp, self._target)

    def abandon(self) -> None:
        """Closes and deletes the temporary file; what a broken disk keeps is swept by the next run."""
        handle, self._handle = self._handle, -1
        with contextlib.suppress(OSError):
            if handle >= 0:
                os.close(handle)
        with contextlib.suppress(OSError):
            self._temp.unlink()

    def _flush(self) -> None:
        with memoryview(self._pending) as rest:
            done = 0
            while done < len(rest):  # a write may take less than it was given
                done += operate(self._target, os.write, self._handle, rest[done:])
        self._pending.clear()


def operate(path: Path, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """One file operation.

    Args:
        path: What an error message names.
        function: The operation, with its arguments.

    Raises:
        OutputError: The system refused; the message names the path and the errno.
    """
    try:
        return _call(function, *args, **kwargs)
    except OSError as error:
        raise _refused(path, error) from error


def _call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """The single place where this module touches the file system, so that tests can make any operation fail."""
    return function(*args, **kwargs)


def _refused(path: Path, error: OSError) -> OutputError:
    """What the system said about a path, as an error that says what to do."""
    code = errno.errorcode.get(error.errno or 0, "unknown error")
    advice = "run the same command again when the disk works: it goes on where it stopped"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space, then run the same command again: it goes on where it stopped"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG):
        advice = "choose a folder that you may write to with -o"
    return OutputError(
        f"output {path}",
        expected="a folder that can be written to",
        found=f"{code}, errno {error.errno}: {error.strerror}",
        do=advice,
    )


def put_file(target: Path, data: bytes) -> None:
    """Writes one file whole; an old one of that name is replaced.

    Raises:
        OutputError: The disk refused; the old file, if any, is still there.
    """
    stream = OutputStream(target)
    try:
        stream.begin()
        stream.write(data)
        stream.place()
    except BaseException:
        stream.abandon()
        raise


def open_folder(path: Path) -> None:
    """Makes a folder if need be, and sweeps unfinished files that a killed run left in it.

    Raises:
        OutputError: The disk refused.
    """
    operate(path, os.makedirs, path, exist_ok=True)
    for name in filter(TEMP_NAME.fullmatch, operate(path, os.listdir, path)):
        operate(path / name, os.unlink, path / name)
