"""What do threads of their own save, for reading and for the graphs, and what several photos at a time?

python benchmarks/overlap.py --photos ../shared/data/voc2012_dev/JPEGImages [--count N] [--rounds N]

The ways take turns over the same photos, another one first each time, and write the same records, which is checked.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

from decode_scale import encode, enlarge
from result import Cell, write_result

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.pipeline import InWork, infer_photos, read_ahead, read_photos
from gransam_sdk.annotate.record import dump_record, make_record, record_path
from gransam_sdk.annotate.run import with_record_floor
from gransam_sdk.annotate.walk import find_photos
from gransam_sdk.runtime.load import load
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

MEGAPIXELS = (None, 12.0)
"""Sizes of photos; None leaves them as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the steps of photos are laid out.

    Attributes:
        reader: Reading has a thread of its own.
        engine: The graphs have one.
        at_once: Photos in the graphs at a time, which share the threads; None takes what ``annotate`` does.
    """

    reader: bool = True
    engine: bool = True
    at_once: int | None = 1


WAYS = {
    "one after another": Way(reader=False, engine=False),
    "a thread reads": Way(engine=False),
    "a thread reads, one runs the graphs": Way(),
    "a thread reads, several run the graphs": Way(at_once=None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder; evenly spaced photos of it are taken")
    parser.add_argument("--count", type=int, default=24, help="photos")
    parser.add_argument("--rounds", type=int, default=5, help="times that each way takes them all")
    parser.add_argument("--bundle", default="nano-voc20")
    parser.add_argument("--json", type=Path, help="write here instead of into benchmarks/results")
    options = parser.parse_args()
    every = sorted(options.photos.iterdir())
    photos = every[:: max(1, len(every) // options.count)][: options.count]
    rows: list[tuple[Cell, ...]] = []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        segmenters = {
            at_once: stack.enter_context(load(options.bundle, settings=with_record_floor(Settings()), at_once=at_once))
            for at_once in {way.at_once for way in WAYS.values()}
        }
        for megapixels in MEGAPIXELS:
            folder = Path(scratch) / f"photos-{megapixels}"
            folder.mkdir()
            for path in photos:
                data = path.read_bytes() if megapixels is None else encode(enlarge(path, round(megapixels * 1e6)))
                (folder / f"{path.stem}.jpg").write_bytes(data)
            seconds = compare(folder, segmenters, Path(scratch) / f"runs-{megapixels}", options.rounds)
            size = "as they are" if megapixels is None else f"{megapixels:g} megapixels"
            rows.extend(table(size, seconds, len(photos)))
        beside, threads = segmenters[None].at_once, segmenters[1].threads
    write_result(
        "overlap",
        title="Reading, graphs and masks beside each other",
        question="What do threads of their own save, for reading and for the graphs?",
        columns=("photos", "way", "ms a photo", "photos a second", "times faster"),
        rows=rows,
        notes=[
            f"{len(photos)} photos from file to record, median of {options.rounds} rounds that take turns; enlarged "
            "ones are JPEGs of quality 90. The records are the same byte for byte, which the script checks. "
            "`gransam annotate` works the last way.",
            f"The graphs have {threads} threads in all: for one photo, or in the last row for {beside} photos at a "
            "time, which share them.",
        ],
        path=options.json,
    )


def compare(
    folder: Path, segmenters: Mapping[int | None, Segmenter], runs: Path, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each way over the folder, by round; one more goes before that does not count."""
    names, seconds = list(WAYS), {name: list[float]() for name in WAYS}
    for number in range(-1, rounds):
        records = set()
        for name in names[number % len(names) :] + names[: number % len(names)]:
            segmenter = segmenters[WAYS[name].at_once]
            spent, record = annotate(folder, segmenter, runs / f"{names.index(name)}-{number}", WAYS[name])
            records.add(record)
            if number >= 0:
                seconds[name].append(spent)
        if len(records) > 1:
            raise SystemExit("the ways wrote different records")
    return seconds


def annotate(folder: Path, segmenter: Segmenter, run: Path, way: Way) -> tuple[float, bytes]:
    """Seconds that the photos of a folder took, and all records in one."""
    begun, records = time.perf_counter(), []
    with OutputFolder.open(run) as out:
        source = read_photos(find_photos(folder), out, segmenter, scale16=False)
        with (
            read_ahead(source) if way.reader else nullcontext(source) as read,
            read_ahead(infer_photos(read, segmenter), patience=None)
            if way.engine
            else nullcontext(infer_photos(read, segmenter)) as steps,
        ):
            for step in steps:
                if not isinstance(step, InWork):
                    raise SystemExit(f"{step.key} was not annotated")
                result = segmenter.finish(step.work)
                record = make_record(result, key=step.key, sha256=step.sha256, orientation=step.orientation)
                records.append(dump_record(record))
                out.put(record_path(step.key), records[-1])
    return time.perf_counter() - begun, b"".join(records)


def table(size: str, seconds: dict[str, list[float]], photos: int) -> Iterator[tuple[Cell, ...]]:
    """A row a way; "times faster" is the median of the rounds' ratios."""
    first = next(iter(seconds.values()))
    for name, spent in seconds.items():
        middle = statistics.median(spent)
        ratio = statistics.median(a / b for a, b in zip(first, spent, strict=True))
        yield size, name, round(1000 * middle / photos, 1), round(photos / middle, 2), round(ratio, 2)


if __name__ == "__main__":
    main()
