"""``failures.jsonl``: one line for each photo that has no record, in the order of the walk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import GranSAMError, ImageError

NAME = "failures.jsonl"

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Where an object lay in memory: libraries put it into their messages, and it differs from run to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a photo has no record.

    Attributes:
        key: The photo's path relative to its input.
        reason: A short word for machines: ``truncated``, ``format``, ``non-finite``, ``engine``, ...
        message: For people; made one printable line that is the same in every run.
    """

    key: str
    reason: str
    message: str

    def __post_init__(self) -> None:
        """Joins lines, drops memory addresses, spells out bytes of file names that are no UTF-8."""
        line = "; ".join(" ".join(line.split()) for line in self.message.splitlines())
        plain = _ADDRESS.sub("", line).encode("utf-8", "backslashreplace").decode()
        object.__setattr__(self, "message", plain)

    @classmethod
    def of(cls, key: str, error: GranSAMError) -> Failure:
        """What an error says about a photo."""
        reason = error.reason if isinstance(error, ImageError) else "engine"
        return cls(key=key, reason=reason, message=str(error))


def dump_failure(failure: Failure) -> bytes:
    """The failure as one line of UTF-8 JSON."""
    return json.dumps(asdict(failure), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def iter_failures(run: Path) -> Iterator[Failure]:
    """The failures that the last run in a folder wrote down; one is in memory at a time."""
    path = run / NAME
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield Failure(**json.loads(line))
