"""From the walk to what the graphs say of each photo: one thread reads, one runs the graphs, a third does the rest."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from ..errors import EnvironmentFault, GranSAMError, InputError, OutputError
from ..runtime.decode import decode_photo
from ..runtime.photo_file import read_bytes
from ..runtime.segmenter import Segmenter
from ..runtime.steps import Inferred, Prepared
from .failures import Failure
from .outputs import OutputFolder
from .record import parse_record, record_path
from .walk import Item, Skip

AHEAD = 2
"""Items that may be made ahead."""
_POLL_SECONDS = 0.1
_JOIN_SECONDS = 5.0

_T = TypeVar("_T")


_Work = TypeVar("_Work")


@dataclass(frozen=True, slots=True, kw_only=True)
class InWork(Generic[_Work]):
    """A photo that is being annotated.

    Attributes:
        key: Its path relative to its input.
        sha256: Hex digest of its bytes.
        orientation: Its EXIF orientation, 1 to 8.
        redo: It has a record, but a damaged one or one of other bytes.
        seconds: Time by stage: ``read``, ``decode``.
        work: What became of it so far.
    """

    key: str
    sha256: str
    orientation: int
    redo: bool
    seconds: dict[str, float]
    work: _Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A photo whose record is there and belongs to the bytes it has now."""

    key: str


Read: TypeAlias = InWork[Prepared] | Done | Failure
Step: TypeAlias = InWork[Inferred] | Done | Failure


def read_photos(
    entries: Iterable[Item | Skip], out: OutputFolder, segmenter: Segmenter, *, scale16: bool
) -> Generator[Read]:
    """Reads, hashes, decodes and prepares each photo that still needs a record.

    Args:
        entries: The walk.
        out: The run folder; only read from.
        segmenter: What the photos are prepared for.
        scale16: Scale 16-bit photos to 8 bits instead of refusing them.

    Yields:
        One for each entry, in their order.
    """
    for entry in entries:
        if isinstance(entry, Skip):
            yield Failure(key=entry.key, reason=entry.reason, message=entry.message)
            continue
        try:
            yield _read_photo(entry, out, segmenter, scale16)
        except GranSAMError as error:
            yield photo_failure(entry.key, error)


def infer_photos(photos: Iterator[Read], segmenter: Segmenter) -> Generator[Step]:
    """Runs the graphs on each photo, ``segmenter.at_once`` at a time; what needs none of it passes through.

    Yields:
        One for each photo, in their order.
    """
    waiting: deque[Future[Step]] = deque()
    pool = ThreadPoolExecutor(segmenter.at_once, thread_name_prefix="gransam-graphs")
    try:
        for photo in photos:
            waiting.append(pool.submit(_infer, photo, segmenter))
            # One more than are run waits, so that a thread whose photo is done need not wait for those before it.
            if len(waiting) > segmenter.at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _infer(photo: Read, segmenter: Segmenter) -> Step:
    if not isinstance(photo, InWork):
        return photo
    try:
        return InWork(
            key=photo.key,
            sha256=photo.sha256,
            orientation=photo.orientation,
            redo=photo.redo,
            seconds=photo.seconds,
            work=segmenter.infer(photo.work),
        )
    except GranSAMError as error:
        return photo_failure(photo.key, error)


def photo_failure(key: str, error: GranSAMError) -> Failure:
    """The failure of a photo. A fault of the machine or of the disk is none of a photo's: it is raised again."""
    if isinstance(error, EnvironmentFault | OutputError):
        raise error
    return Failure.of(key, error)


def _read_photo(item: Item, out: OutputFolder, segmenter: Segmenter, scale16: bool) -> Read:
    begun = time.perf_counter()
    data = read_bytes(item.path)
    sha256 = hashlib.sha256(data).hexdigest()
    old = out.read(record_path(item.key))
    if old is not None and record_holds(old, item.key, sha256):
        return Done(key=item.key)
    read = time.perf_counter()
    photo = decode_photo(data, name=item.key, scale16=scale16, least=segmenter.least)
    seconds = {"read": read - begun, "decode": time.perf_counter() - read}
    return InWork(
        key=item.key,
        sha256=sha256,
        orientation=photo.orientation,
        redo=old is not None,
        seconds=seconds,
        work=segmenter.prepare(photo.pixels, size=photo.size),
    )


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
def read_ahead(
    source: Generator[_T],
    *,
    name: str = "gransam-reader",
    stopped: threading.Event | None = None,
    patience: float | None = _JOIN_SECONDS,
) -> Iterator[Iterator[_T]]:
    """Runs a source in a thread, at most ``AHEAD`` items before its consumer.

    An error in the source is raised where the consumer stands, after the items before it. When the block ends, for
    whatever reason, the thread stops after the item it is at; it never keeps the process alive.

    Args:
        source: Iterated in the thread.
        name: Of the thread.
        stopped: Set when the block ends. Where one source reads from another they share it, so that none waits for
            what will not come.
        patience: Seconds to wait for the thread at the end; None waits for the item it is at, however long.

    Yields:
        The same items in the same order.
    """
    # One more waits in the thread's hand while the queue is full.
    ready: queue.Queue[_T | _End] = queue.Queue(maxsize=AHEAD - 1)
    stopped = stopped or threading.Event()

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
            with closing(source):
                for item in source:
                    if not offer(item):
                        return
        except BaseException as error:
            end = _End(error)
        offer(end)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield _take(ready, stopped)
    finally:
        stopped.set()
        thread.join(patience)


def _take(ready: queue.Queue[_T | _End], stopped: threading.Event) -> Iterator[_T]:
    while not stopped.is_set():
        try:
            item = ready.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item
