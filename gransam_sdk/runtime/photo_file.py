"""Reading a photo's file whole: only regular files, never one that changes meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..errors import ImageError

MAX_FILE_BYTES = 1 << 30
"""100 megapixels at 8 bytes a pixel fit, uncompressed."""

_PIECE = 1 << 22
_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "loop",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
}


def read_bytes(path: Path) -> bytes:
    """The bytes of a photo's file.

    A file that is no regular one is not opened: a pipe would block, a device would not end. Links are followed.

    Args:
        path: The file.

    Raises:
        ImageError: With reason ``empty``, ``missing``, ``loop``, ``permission``, ``not-a-file``, ``changed`` (it
            grew, shrank, was written to or deleted while it was read), ``unreadable`` (over 1 GiB) or ``io``.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _not_a_file(path)
        # Between the two looks the name may have become a pipe: O_NONBLOCK keeps even that from blocking.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return _read_regular(path, file)
        finally:
            os.close(file)
    except OSError as error:
        raise ImageError(os_reason(error), str(path), found=error.strerror or str(error)) from error
    except ImageError:
        raise
    except ValueError as error:  # a NUL in the name
        raise ImageError("missing", repr(str(path)), found=str(error)) from error


def _read_regular(path: Path, file: int) -> bytes:
    before = os.fstat(file)
    if not stat.S_ISREG(before.st_mode):
        raise _not_a_file(path)
    if before.st_size == 0:
        raise ImageError("empty", str(path), expected="a photo", found="0 bytes")
    if before.st_size > MAX_FILE_BYTES:
        raise ImageError(
            "unreadable", str(path), expected=f"at most {MAX_FILE_BYTES} bytes", found=f"{before.st_size} bytes"
        )
    pieces = []
    left = before.st_size
    while left and (piece := os.read(file, min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    after = os.fstat(file)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if left or not same or after.st_nlink == 0:
        raise ImageError(
            "changed",
            str(path),
            expected=f"{before.st_size} bytes that stay as they are while they are read",
            found="a file that was written to or deleted meanwhile",
            do="run again when nothing writes to it",
        )
    return b"".join(pieces)


def _not_a_file(path: Path) -> ImageError:
    return ImageError("not-a-file", str(path), expected="a regular file", found="a folder, pipe, socket or device")


def os_reason(error: OSError) -> str:
    """The short word for what the system said: ``missing``, ``loop``, ``permission``, otherwise ``io``."""
    return _REASONS.get(error.errno or 0, "io")
