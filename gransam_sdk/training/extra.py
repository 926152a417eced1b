"""Whether the packages of an extra are there, said before any work is done."""

from __future__ import annotations

import importlib.util

from ..errors import MissingExtraError


def require(extra: str, *packages: str) -> None:
    """Checks that packages can be imported, without importing them.

    Raises:
        MissingExtraError: One is missing; names the extra to install.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{', '.join(missing)} not installed", do=f'pip install "gransam-sdk[{extra}]"')
