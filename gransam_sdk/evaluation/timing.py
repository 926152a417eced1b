"""How long photos take, stage by stage, from the file's bytes to the record on the disk.

Several segmenters are timed in one run, photo by photo in turn, so that what disturbs the machine disturbs all of them:
compare ratios, not times of different runs. Photos go through one after the other; nothing is read ahead.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from ..annotate.outputs import OutputFolder
from ..annotate.record import dump_record, make_record, record_path
from ..bundle import Bundle
from ..errors import ImageError, InputError
from ..runtime.decode import decode_photo
from ..runtime.photo_file import read_bytes
from ..runtime.result import Result
from ..runtime.segmenter import Segmenter
from .agreement import Agreement, AgreementTally

STAGES = (
    *("read", "decode", "preprocess", "image graph", "prompt graph", "head", "select", "mask graph", "nms", "rle"),
    "write",
)
"""In the order in which a photo meets them; what a photo takes beyond them is ``OTHER``."""
OTHER, WHOLE = "other", "whole photo"
PERCENTILES = (50, 90, 95, 99)

Stages = Mapping[str, float]
"""Seconds by stage, ``OTHER`` and ``WHOLE``."""
Open = Callable[[], Segmenter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one segmenter took.

    Attributes:
        name: What tells it from the others of the run.
        bundle: What ran.
        provider: Where, as the engine reports it.
        threads: Of one run; 0 where that is not the host's business.
        prompts: g, prompts a photo.
        chunk: Prompts decoded at a time.
        load: Seconds from the bundle's folder to a segmenter that is ready and checked.
        first: The first photo after that, stage by stage.
        visits: Every photo of every round, warm, in the order in which they were taken.
        masks: Masks recorded a photo, mean.
        agreement: With the first segmenter of the run; None for that one.
    """

    name: str
    bundle: Bundle
    provider: str
    threads: int
    prompts: int
    chunk: int
    load: float
    first: Stages
    visits: tuple[Stages, ...]
    masks: float
    agreement: Agreement | None

    def percentile(self, stage: str, rank: int) -> float:
        """Seconds that ``rank`` per cent of the warm photos do not exceed in a stage; linear between photos."""
        return float(np.percentile([visit.get(stage, 0.0) for visit in self.visits], rank))

    def share(self, stage: str) -> float:
        """A stage's share of all the time, in [0,1]."""
        return sum(visit.get(stage, 0.0) for visit in self.visits) / sum(visit[WHOLE] for visit in self.visits)

    @property
    def photos_per_second(self) -> float:
        """Warm photos over the time that they took, one after the other."""
        return len(self.visits) / sum(visit[WHOLE] for visit in self.visits)

    def speed_up(self, other: Timing) -> float:
        """How many times as fast as another one of the same run: the median of the photos' ratios."""
        pairs = zip(other.visits, self.visits, strict=True)
        return float(np.median([theirs[WHOLE] / ours[WHOLE] for theirs, ours in pairs]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRun:
    """What ``time_segmenters`` found.

    Attributes:
        photos: Different photos timed.
        pixels: h·w of each.
        rounds: Times that each was taken.
        warm_up: Photos that each segmenter took before, which are in no figure but ``Timing.first``.
        failed: Names of photos that could not be read, left out.
        timings: One a segmenter.
    """

    photos: int
    pixels: tuple[int, ...]
    rounds: int
    warm_up: int
    failed: tuple[str, ...]
    timings: tuple[Timing, ...]


def time_segmenters(
    setups: Mapping[str, Open],
    photos: Sequence[Path],
    *,
    rounds: int = 3,
    warm_up: int = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TimedRun:
    """Times segmenters side by side.

    Args:
        setups: What opens each segmenter, by name. The first one is what the others are compared with.
        photos: Photo files; those that cannot be decoded are left out.
        rounds: Times that each photo is taken, at least 1.
        warm_up: Photos that each segmenter takes first, at least 1.
        progress: Told (photos done, photos in all), counting rounds and segmenters.

    Raises:
        InputError: There is nothing to time, or a count is below 1.
        GranSAMError: A bundle cannot be opened.
    """
    if min(rounds, warm_up) < 1 or not setups:
        raise InputError("timing", expected="segmenters, rounds and warm-up from 1", found=f"{rounds}, {warm_up}")
    readable, failed, pixels = _readable(photos)
    if not readable:
        raise InputError("photos to time", expected="photos that can be read", found=f"{len(failed)} that cannot")
    runners = [_Runner(name, opener) for name, opener in setups.items()]
    total = len(readable) * rounds * len(runners)
    with tempfile.TemporaryDirectory() as scratch, OutputFolder.open(Path(scratch) / "run") as out:
        try:
            for runner in runners:
                runner.begin(list(islice(cycle(readable), warm_up)), out)
            for turn in range(rounds):
                for number, photo in enumerate(readable):
                    # Another one begins each time, so that none has the others' warm caches always before it.
                    start = (turn + number) % len(runners)
                    results = {runner.name: runner.take(photo, out) for runner in runners[start:] + runners[:start]}
                    if turn == 0:
                        for runner in runners[1:]:
                            runner.tally.add(results[runner.name], results[runners[0].name])
                    progress((turn * len(readable) + number + 1) * len(runners), total)
        finally:
            for runner in runners:
                runner.segmenter.close()
    return TimedRun(
        photos=len(readable),
        pixels=pixels,
        rounds=rounds,
        warm_up=warm_up,
        failed=failed,
        timings=tuple(runner.timing(compared=runner is not runners[0]) for runner in runners),
    )


def time_photo(segmenter: Segmenter, photo: Path, out: OutputFolder) -> tuple[Result, dict[str, float]]:
    """One photo from its file to its record.

    Args:
        segmenter: Labels it.
        photo: Its file.
        out: Where the record is written.

    Returns:
        The masks, and seconds by stage with ``OTHER`` and ``WHOLE``.

    Raises:
        ImageError: It cannot be read, or a graph gave NaN.
    """
    begun = time.perf_counter()
    data = read_bytes(photo)
    sha256 = hashlib.sha256(data).hexdigest()  # of the record; annotating reads and hashes in one stage too
    read = time.perf_counter()
    decoded = decode_photo(data, name=photo.name, least=segmenter.least)
    made = time.perf_counter()
    result = segmenter.segment(decoded.pixels, size=decoded.size)
    segmented = time.perf_counter()
    record = make_record(result, key=photo.name, sha256=sha256, orientation=decoded.orientation)
    out.put(record_path(photo.name), dump_record(record))
    ended = time.perf_counter()
    seconds = {"read": read - begun, "decode": made - read, **result.timings, "write": ended - segmented}
    whole = ended - begun
    return result, {**seconds, OTHER: whole - sum(seconds.values()), WHOLE: whole}


class _Runner:
    """One segmenter with what was clocked of it."""

    def __init__(self, name: str, opener: Open) -> None:
        self.name, self.tally = name, AgreementTally()
        begun = time.perf_counter()
        self.segmenter = opener()
        self.load = time.perf_counter() - begun
        self._first: Stages = {}
        self._visits: list[Stages] = []
        self._masks: list[int] = []

    def begin(self, photos: Sequence[Path], out: OutputFolder) -> None:
        """Takes photos that count for nothing but the cold figure."""
        clocked = [time_photo(self.segmenter, photo, out)[1] for photo in photos]
        self._first = clocked[0]

    def take(self, photo: Path, out: OutputFolder) -> Result:
        """Takes a photo that counts."""
        result, seconds = time_photo(self.segmenter, photo, out)
        self._visits.append(seconds)
        self._masks.append(len(result))
        return result

    def timing(self, *, compared: bool) -> Timing:
        """All of it."""
        return Timing(
            name=self.name,
            bundle=self.segmenter.bundle,
            provider=self.segmenter.provider,
            threads=self.segmenter.threads,
            prompts=self.segmenter.grid.per_side**2,
            chunk=self.segmenter.chunk,
            load=self.load,
            first=self._first,
            visits=tuple(self._visits),
            masks=float(np.mean(self._masks)),
            agreement=self.tally.sum() if compared else None,
        )


def _readable(photos: Sequence[Path]) -> tuple[list[Path], tuple[str, ...], tuple[int, ...]]:
    """Photos that can be decoded, names of the others, and the pixels of each that can."""
    good, bad, pixels = [], [], []
    for photo in photos:
        try:
            shape = decode_photo(read_bytes(photo), name=photo.name).pixels.shape
        except ImageError:
            bad.append(photo.name)
            continue
        good.append(photo)
        pixels.append(shape[0] * shape[1])
    return good, tuple(bad), tuple(pixels)
