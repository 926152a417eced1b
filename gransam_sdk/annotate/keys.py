"""Names: the key by which a photo is known, and the names of the files that a run writes for it.

A key is the photo's path relative to its input, with forward slashes, as printable UTF-8: control characters, line
breaks, marks that turn the direction of writing, bytes that are no UTF-8, and ``%`` itself are written ``%XX``. Two
paths never share a key, and two keys never share an output name.
"""

from __future__ import annotations

import hashlib
import os
import re

LONGEST_NAME = 255
"""Bytes that a file system gives one name (ext4, XFS, APFS, NTFS)."""

_ENCODED = re.compile("[\x00-\x1f%\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_CUT_MARK = "%~"
"""Stands where a long name was cut; a key never holds it, for there ``%`` is followed by two hex digits."""
_HASH_DIGITS = 32


def key_part(name: str) -> str:
    """One name of a path, as it stands in a key.

    Args:
        name: As ``os.listdir`` gives it, undecodable bytes as surrogates.
    """
    # Through bytes, so that the key does not depend on the locale.
    text = os.fsencode(name).decode("utf-8", "surrogateescape")
    return _ENCODED.sub(_percent, text)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def path_key(path: str) -> str:
    """A relative path as a key: each of its names encoded."""
    return "/".join(key_part(name) for name in path.split("/"))


def record_name(key: str) -> str:
    """The relative path of a photo's record below ``records/``: the key and ``.json``, names of at most 255 bytes."""
    return output_name(key, ".json")


def output_name(key: str, suffix: str) -> str:
    """The relative path of a file written for a photo: the key, its own extension kept, and a suffix.

    A name that would be too long is cut and ends in a hash of the whole. A folder called ``a.jpg.json`` stays apart
    from the record of ``a.jpg`` beside it.

    Args:
        key: The photo's key.
        suffix: ``.json``, ``.png``, ...
    """
    *folders, name = key.split("/")
    for i, folder in enumerate(folders):
        if folder.endswith(suffix):
            folder = f"{folder.removesuffix(suffix)}%2E{suffix[1:]}"
        folders[i] = _fitted(folder, "")
    return "/".join([*folders, _fitted(name, suffix)])


def _fitted(name: str, suffix: str) -> str:
    data = name.encode()
    if len(data) + len(suffix) <= LONGEST_NAME:
        return name + suffix
    digest = hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
    room = LONGEST_NAME - len(suffix) - len(_CUT_MARK) - _HASH_DIGITS
    return f"{data[:room].decode(errors='ignore')}{_CUT_MARK}{digest}{suffix}"
