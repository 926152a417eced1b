"""From the walk to decoded photos, read ahead by one thread while the main thread works."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from ..errors import ImageError, InputError
from ..runtime.decode import Photo, decode_photo
from ..runtime.decode_scale import Least
from ..runtime.photo_file import read_bytes
from .failures import Failure
from .outputs import OutputFolder
from .record import parse_record, record_path
from .walk import Item, Skip

AHEAD = 2
"""Photos that may be decoded ahead; at 100 megapixels each is 300 MB."""
_POLL_SECONDS = 0.1
_JOIN_SECONDS = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A photo that is to be annotated.

    Attributes:
        key: Its path relative to its input.
        sha256: Hex digest of its bytes.
        photo: Its upright pixels and its size.
        redo: It has a record, but a damaged one or one of other bytes.
        seconds: Time by stage: ``read``, ``decode``.
    """

    key: str
    sha256: str
    photo: Photo
    redo: bool
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A photo whose record is there and belongs to the bytes it has now."""

    key: str


Step: TypeAlias = Decoded | Done | Failure


def read_photos(
    entries: Iterable[Item | Skip], out: OutputFolder, *, scale16: bool, least: Least | None = None
) -> Iterator[Step]:
    """Reads, hashes and decodes each photo that still needs a record.

    Args:
        entries: The walk.
        out: The run folder; only read from.
        scale16: Scale 16-bit photos to 8 bits instead of refusing them.
        least: What decoding to scale has to leave of a photo; None decodes in full.

    Yields:
        One step for each entry, in their order.
    """
    for entry in entries:
        if isinstance(entry, Skip):
            yield Failure(key=entry.key, reason=entry.reason, message=entry.message)
            continue
        try:
            yield _read_photo(entry, out, scale16, least)
        except ImageError as error:
            yield Failure.of(entry.key, error)


def _read_photo(item: Item, out: OutputFolder, scale16: bool, least: Least | None) -> Step:
    begun = time.perf_counter()
    data = read_bytes(item.path)
    sha256 = hashlib.sha256(data).hexdigest()
    old = out.read(record_path(item.key))
    if old is not None and record_holds(old, item.key, sha256):
        return Done(key=item.key)
    read = time.perf_counter()
    photo = decode_photo(data, name=item.key, scale16=scale16, least=least)
    seconds = {"read": read - begun, "decode": time.perf_counter() - read}
    return Decoded(key=item.key, sha256=sha256, photo=photo, redo=old is not None, seconds=seconds)


def record_holds(data: bytes, key: str, sha256: str) -> bool:
    """Whether a record file is whole and describes the photo as it is now.

    Args:
        data: Bytes of the record file.
        key: The photo's key.
        sha256: Hex digest of the photo's bytes now.
    """
    try:
        image = parse_record(data)["image"]
    except InputError:
        return False
    return bool(image["sha256"] == sha256 and image["file_name"] == key)


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing in the queue: how the source ended."""

    error: BaseException | None


@contextmanager
def read_ahead(source: Iterator[_T]) -> Iterator[Iterator[_T]]:
    """Runs a source in a thread, at most ``AHEAD`` items before its consumer.

    An error in the source is raised where the consumer stands, after the items before it. When the block ends, for
    whatever reason, the thread stops after the item it is at; it never keeps the process alive.

    Args:
        source: Iterated in the thread.

    Yields:
        The same items in the same order.
    """
    # One more waits in the thread's hand while the queue is full.
    ready: queue.Queue[_T | _End] = queue.Queue(maxsize=AHEAD - 1)
    stopped = threading.Event()

    def offer(item: _T | _End) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        end = _End(None)
        try:
            for item in source:
                if not offer(item):
                    return
        except BaseException as error:
            end = _End(error)
        offer(end)

    thread = threading.Thread(target=work, name="gransam-reader", daemon=True)
    thread.start()
    try:
        yield _take(ready)
    finally:
        stopped.set()
        thread.join(_JOIN_SECONDS)


def _take(ready: queue.Queue[_T | _End]) -> Iterator[_T]:
    while True:
        item = ready.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item
