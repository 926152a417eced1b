"""The one writer's errors, said of what training keeps on disk instead of a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import OutputError

_GOES_ON = "goes on where it stopped"


@contextmanager
def said_of(name: str, *, kept: str) -> Iterator[None]:
    """Rewords the errors of a block.

    Args:
        name: What the folder is, such as ``token cache``.
        kept: What is still there when the disk refuses, such as ``the epoch before is kept``.

    Raises:
        OutputError: Any of the block's, with the name, the option that chooses the folder, and what is kept.
    """
    try:
        yield
    except OutputError as error:
        what = f"{name} {error.what.removeprefix('output ')}" if error.what.startswith("output ") else error.what
        do = error.do.replace("with -o", "with --cache").replace(_GOES_ON, f"{_GOES_ON}; {kept}")
        raise OutputError(what, expected=error.expected, found=error.found, do=do) from error
