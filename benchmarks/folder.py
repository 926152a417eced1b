"""Does a long run stay small and even: memory and time of ``gransam annotate`` over a folder of many photos?

python benchmarks/folder.py --photos ../shared/data/voc2012_dev/JPEGImages [--count 10000]

The photos are crops of real ones, each a file of its own with other bytes, small so that decoding is light, and
prompted with a coarse grid. A process of its own annotates them and looks at its own memory ten times on the way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from plot import Axis, Line, Plot
from result import Cell, write_result

from gransam_sdk.annotate.progress import PhotoStatus
from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.machine import STATUS
from gransam_sdk.types import Settings

MIB = 1 << 20
LOOKS = 10
ALLOWED_MIB = 64
"""What a run may grow by from the first tenth of its photos to the last."""
PIXELS = 50_000
SIDE = 4
"""Points of the grid along each side."""
CROPS = 9
"""A photo's margin in pixels that crops are shifted by, across and down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The annotating process at one moment.

    Attributes:
        photos: Through so far.
        seconds: Since the loop began; the last one's end when exports and report are written too.
        resident: Bytes now.
        peak: Bytes at most so far.
    """

    photos: int
    seconds: float
    resident: int
    peak: int


START = Look(photos=0, seconds=0.0, resident=0, peak=0)


class Watch:
    """Progress that looks at this process every so many photos, and tells the parent in lines of JSON."""

    def __init__(self, every: int) -> None:
        self.every, self.photos, self.begun = every, 0, 0.0

    def start(self, total: int | None) -> None:
        self.begun = time.perf_counter()

    def advance(self, key: str, status: PhotoStatus) -> None:
        self.photos += 1
        if self.photos % self.every == 0:
            self.look()

    def finish(self) -> None:
        pass

    def look(self) -> None:
        resident, peak = memory()
        look = Look(photos=self.photos, seconds=time.perf_counter() - self.begun, resident=resident, peak=peak)
        print(json.dumps(asdict(look)), flush=True)


def memory() -> tuple[int, int]:
    """Resident bytes of this process now and at most, as Linux counts them."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
    resident, peak = (1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return resident, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of real photos that crops are taken of")
    parser.add_argument("--count", type=int, default=10_000, help="photos annotated")
    parser.add_argument("--json", type=Path, help="write here instead of into benchmarks/results")
    parser.add_argument("--annotate", type=Path, help=argparse.SUPPRESS)  # what the parent starts
    options = parser.parse_args()
    if options.count < LOOKS**2 and not options.annotate:
        parser.error(f"--count: at least {LOOKS**2}")
    if options.annotate:
        annotate(options.photos, options.annotate, options.count // LOOKS)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        make_photos(sorted(options.photos.iterdir()), folder, options.count)
        few, _ = watched(folder, Path(scratch) / "few", options.count // LOOKS)
        looks, masks = watched(folder, Path(scratch) / "run", options.count)
    closing = [one[-1].seconds - one[-2].seconds for one in (few, looks)]
    steps = looks[:-1]
    write_result(
        "folder",
        title="A folder of many photos",
        question="Do memory and time a photo stay as they are while a run goes on?",
        columns=("photos done", "resident MiB", "peak MiB", "seconds for the last step", "photos a second"),
        rows=rows(looks),
        notes=[
            f"From photo {steps[0].photos:,} to {steps[-1].photos:,} resident memory grew by "
            f"**{growth_mib(looks):.1f} MiB**; {ALLOWED_MIB} are allowed.",
            f"Closing (export to COCO and report) took {closing[1]:.1f} s after {looks[-1].photos:,} photos, "
            f"{1e3 * closing[1] / looks[-1].photos:.2f} ms a photo; after {few[-1].photos:,}, in a run of its own, "
            f"{1e3 * closing[0] / few[-1].photos:.2f} ms a photo. The last row is after it.",
            f"Crops of about {PIXELS / 1e6:g} megapixels of real photos, each a file of its own, prompted {SIDE**2} "
            f"times, with the embedded bundle; {masks} masks recorded. Memory is the annotating process's own.",
        ],
        plots=plots(looks),
        path=options.json,
    )


def annotate(folder: Path, out: Path, every: int) -> None:
    """The child: annotates, and prints a look every so many photos, one at the end, and the masks recorded."""
    watch = Watch(every)
    settings = Settings(points_per_side=SIDE, chunk=SIDE**2)
    report = annotate_folder(folder, out, settings=settings, device="cpu", limit=every * LOOKS, progress=watch)
    watch.look()
    print(report.masks)


def watched(folder: Path, out: Path, count: int) -> tuple[list[Look], int]:
    """What a run over the first ``count`` photos said: ``LOOKS`` looks and the one at the end; and masks recorded."""
    options = ["--photos", str(folder), "--annotate", str(out), "--count", str(count)]
    done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
    *looks, masks = done.stdout.splitlines()
    return [Look(**json.loads(look)) for look in looks], int(masks)


def make_photos(sources: Sequence[Path], folder: Path, count: int) -> None:
    """Writes ``count`` JPEGs, no two of the same pixels: photo after photo, each time cropped elsewhere."""
    folder.mkdir()
    small = itertools.cycle([shrink(source) for source in sources[:count]])
    shifts = (shift for shift in itertools.product(range(CROPS), repeat=4) for _ in sources[:count])
    for number, (picture, (left, top, right, bottom)) in enumerate(
        itertools.islice(zip(small, shifts, strict=False), count)
    ):
        box = (left, top, picture.width - right, picture.height - bottom)
        picture.crop(box).save(folder / f"{number:06}.jpg", quality=85)


def shrink(source: Path) -> Image.Image:
    """A photo at ``PIXELS``, and a margin for the crops."""
    with Image.open(source) as opened:
        opened.draft("RGB", (400, 400))
        picture = opened.convert("RGB")
    scale = (PIXELS / (picture.width * picture.height)) ** 0.5
    return picture.resize([round(side * scale) + CROPS - 1 for side in picture.size])


def rows(looks: Sequence[Look]) -> list[tuple[Cell, ...]]:
    """The table, one row a look."""
    lines: list[tuple[Cell, ...]] = []
    for before, look in itertools.pairwise([START, *looks]):
        spent, photos = look.seconds - before.seconds, look.photos - before.photos
        sizes = (round(size / MIB, 1) for size in (look.resident, look.peak))
        lines.append((look.photos, *sizes, round(spent, 1), round(photos / spent, 1) if photos else None))
    return lines


def growth_mib(looks: Sequence[Look]) -> float:
    """What resident memory grew by between the first look and the last one in the loop, in MiB."""
    return (looks[-2].resident - looks[0].resident) / MIB


def plots(looks: Sequence[Look]) -> list[Plot]:
    """Memory, and time a thousand photos, by photos done."""
    steps = looks[:-1]
    allowed = steps[0].resident / MIB + ALLOWED_MIB
    x = Axis(label="photos done", ticks=[0, *(look.photos for look in steps)])
    paces = [
        (after.photos, 1000 * (after.seconds - before.seconds) / (after.photos - before.photos))
        for before, after in itertools.pairwise([START, *steps])
    ]
    slowest, fastest = (pick(pace for _, pace in paces) for pick in (max, min))
    return [
        Plot(
            name="folder-memory",
            title="Memory of a run by photos done",
            sentence=f"Resident memory moves by {growth_mib(looks):.1f} MiB from photo {steps[0].photos:,} to "
            f"{steps[-1].photos:,}.",
            x=x,
            y=Axis(label="resident MiB"),
            lines=[
                Line(label="resident", points=[(look.photos, look.resident / MIB) for look in steps], kind="whole"),
                Line(label="peak so far", points=[(look.photos, look.peak / MIB) for look in steps]),
                Line(label="allowed", points=[(look.photos, allowed) for look in steps], kind="bound"),
            ],
        ),
        Plot(
            name="folder-time",
            title="Time of a thousand photos by photos done",
            sentence=f"A thousand photos take {fastest:.1f} to {slowest:.1f} s wherever they are in the run.",
            x=x,
            y=Axis(label="seconds a thousand photos"),
            lines=[Line(label="loop", points=paces, kind="whole")],
        ),
    ]


if __name__ == "__main__":
    main()
