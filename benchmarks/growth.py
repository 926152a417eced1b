"""How does the time of a photo grow with its size, with prompts, kept masks, threads and the chunk?

python benchmarks/growth.py --photos ../shared/data/voc2012_dev/JPEGImages [--sweep NAME ...] [--count N] [--rounds N]

Each sweep changes one thing of the embedded bundle's default settings. All places of a sweep take turns, photo by
photo, another one first each time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from growth_report import COLUMNS, Axes, Measured, Swept, report_notes
from PIL import Image
from result import write_result
from roofline import measure_roof, photo_work

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.run import with_record_floor
from gransam_sdk.evaluation.timing import time_photo
from gransam_sdk.runtime.load import load
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 6.0, 12.0, 24.0)
SIDES = (5, 7, 10, 14, 20, 24, 32)
"""Points a side: 25 to 1,024 prompts."""
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the prompts, that are confident enough in the sweep of kept masks."""
CHUNKS = (1, 2, 5, 10, 20, 50, 100)
DEFAULT = with_record_floor(Settings())
ALL_KEPT = replace(DEFAULT, record_floor=None, stability_score_thresh=0.0, nms_iou=0.999, containment=1.0)
"""Suppression that compares as always and drops next to nothing; containment would drop much whatever its share."""
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place on the axis of a sweep.

    Attributes:
        at: Value on the axis; None for masks kept, which are counted.
        photos: Files.
        settings: Of the segmenter.
        threads: Of one run.
    """

    at: float | None
    photos: Sequence[Path]
    settings: Settings = DEFAULT
    threads: int = CORES


@dataclass(slots=True, kw_only=True)
class Clocked:
    """A place while it is measured: by round, seconds by stage and kept masks, of each photo."""

    segmenter: Segmenter
    seconds: list[list[Mapping[str, float]]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What all sweeps have in common: the photos, a folder for more of them, and the rounds."""

    photos: Sequence[Path]
    scratch: Path
    rounds: int

    def measure(self, places: Sequence[Place]) -> list[Measured]:
        """Times all places in turn; a first round does not count."""
        with ExitStack() as stack:
            records = stack.enter_context(tempfile.TemporaryDirectory(dir=self.scratch))
            out = stack.enter_context(OutputFolder.open(records))
            clocked = [
                Clocked(segmenter=stack.enter_context(open_place(place.settings, place.threads))) for place in places
            ]
            for turn in range(1 + self.rounds):
                for one in clocked:
                    one.seconds.append([])
                for number in range(len(self.photos)):
                    for i in np.roll(range(len(places)), turn + number):
                        result, seconds = time_photo(clocked[i].segmenter, places[i].photos[number], out)
                        clocked[i].seconds[turn].append(seconds)
                        clocked[i].kept.append(len(result))
        return [self.measured(place, one) for place, one in zip(places, clocked, strict=True)]

    def measured(self, place: Place, clocked: Clocked) -> Measured:
        """The median of the rounds' means, beside what the graphs need."""
        kept = float(np.mean(clocked.kept))
        rounds = [
            {stage: float(np.mean([photo[stage] for photo in photos])) for stage in photos[0]}
            for photos in clocked.seconds[1:]
        ]
        work = photo_work(
            clocked.segmenter.bundle,
            prompts=clocked.segmenter.grid.per_side**2,
            masks=self.confident(place),
            chunk=clocked.segmenter.chunk,
        )
        print(f"{place.at if place.at is not None else kept:g}: {kept:.1f} masks", file=sys.stderr)
        return Measured(
            at=kept if place.at is None else place.at,
            seconds={stage: float(np.median([one[stage] for one in rounds])) for stage in rounds[0]},
            kept=kept,
            roof=measure_roof(place.threads).seconds(work),
        )

    def confident(self, place: Place) -> float:
        """Masks of a photo that the mask graph draws, mean: what is kept if nothing is suppressed."""
        with open_place(replace(place.settings, nms_iou=1.0, containment=1.0), CORES) as segmenter:
            return float(np.mean([len(result) for result in segmenter.stream(place.photos)]))


def open_place(settings: Settings, threads: int) -> Segmenter:
    """The embedded bundle on the processor."""
    return load("nano-voc20", device="cpu", settings=settings, threads=threads)


def sweep_photo_size(lab: Lab) -> Swept:
    """The same photos with fewer and with more pixels."""
    places = [
        Place(at=size, photos=[resample(photo, size, lab.scratch) for photo in lab.photos]) for size in MEGAPIXELS
    ]
    return Swept(axes=Axes(label="photo size, megapixels", log=True), places=lab.measure(places))


def sweep_prompts(lab: Lab) -> Swept:
    """Finer grids."""
    places = [Place(at=side**2, photos=lab.photos, settings=replace(DEFAULT, points_per_side=side)) for side in SIDES]
    return Swept(axes=Axes(label="prompts", log=True), places=lab.measure(places))


def sweep_kept(lab: Lab) -> Swept:
    """Thresholds that let a share of the prompts through, and suppression that leaves them all."""
    everything = replace(DEFAULT, conf=1e-6, stability_score_thresh=0.0, nms_iou=1.0, containment=1.0)
    with open_place(everything, CORES) as segmenter:
        confidence = np.concatenate([result.confidence for result in segmenter.stream(lab.photos)])
    places = []
    for share in SHARES:
        least = float(np.quantile(confidence, 1.0 - share)) if share else 1.0
        places.append(Place(at=None, photos=lab.photos, settings=replace(ALL_KEPT, conf=least)))
    return Swept(axes=Axes(label="masks kept"), places=lab.measure(places))


def sweep_threads(lab: Lab) -> Swept:
    """From one thread to one a core."""
    counts = sorted({1, CORES, *(2**i for i in range(CORES.bit_length()))})
    places = [Place(at=count, photos=lab.photos, threads=count) for count in counts if count <= CORES]
    return Swept(axes=Axes(label="threads"), places=lab.measure(places))


def sweep_chunk(lab: Lab) -> Swept:
    """More prompts at a time."""
    places = [Place(at=chunk, photos=lab.photos, settings=replace(DEFAULT, chunk=chunk)) for chunk in CHUNKS]
    return Swept(axes=Axes(label="prompts decoded at a time", log=True), places=lab.measure(places))


def resample(photo: Path, megapixels: float, folder: Path) -> Path:
    """The photo with other pixels, as a JPEG of quality 90."""
    target = folder / f"{photo.stem}-{megapixels:g}.jpg"
    if not target.exists():
        with Image.open(photo) as opened:
            picture = opened.convert("RGB")
        scale = (1e6 * megapixels / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.resize(size, Image.Resampling.LANCZOS).save(target, quality=90)
    return target


SWEEPS: Mapping[str, Callable[[Lab], Swept]] = {
    "photo-size": sweep_photo_size,
    "prompts": sweep_prompts,
    "kept": sweep_kept,
    "threads": sweep_threads,
    "chunk": sweep_chunk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder; evenly spaced photos of it are taken")
    parser.add_argument("--sweep", nargs="+", choices=SWEEPS, help="only these")
    parser.add_argument("--count", type=int, default=4, help="photos")
    parser.add_argument("--rounds", type=int, default=5, help="times that each place takes each photo")
    parser.add_argument("--json", type=Path, help="write here instead of into benchmarks/results")
    options = parser.parse_args()
    if options.sweep and not options.json:
        parser.error("--sweep makes a part of the table: say with --json where it goes")
    every = sorted(options.photos.iterdir())
    photos = [every[i * len(every) // options.count] for i in range(min(options.count, len(every)))]
    swept: dict[str, Swept] = {}
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(photos=photos, scratch=Path(scratch), rounds=options.rounds)
        for name in options.sweep or SWEEPS:
            print(name, file=sys.stderr)
            swept[name] = SWEEPS[name](lab)
    write_result(
        "growth",
        title="How cost grows",
        question="What does a photo cost with the embedded bundle as one thing grows, the others at their defaults?",
        columns=COLUMNS,
        rows=[row for name, one in swept.items() for row in one.rows(name)],
        notes=report_notes(len(photos), options.rounds, threads_used(swept)),
        plots=[one.plot(name) for name, one in swept.items()],
        path=options.json,
    )


def threads_used(swept: Mapping[str, Swept]) -> list[int]:
    """Threads whose roof was measured."""
    counts = [int(place.at) for place in swept["threads"].places] if "threads" in swept else []
    return sorted({CORES, *counts})


if __name__ == "__main__":
    main()
