"""How many times as fast as everything mode in PyTorch is a bundle on a GPU, and does it keep the same masks?

python benchmarks/gpu.py --arch mobile-sam --photos DIR --work build/stand-in [--pictures DIR] [--json FILE]
python benchmarks/gpu.py --arch nano --checkpoint nano-seed.safetensors --photos DIR --work build/stand-in
python benchmarks/gpu.py --arch nano --checkpoint nano-seed.safetensors --photos DIR --work W --device cpu --quick

Builds, checks and times every path of ``gpu_sections.py``, one after the other, each within its share of ``--budget``
seconds; the result file is written after each of them. Of a path that cannot run here the table says why. Nothing is
needed but the photos and, of nano, the checkpoint: a stand-in for SAM is made of random weights first, its class
pictures of further photos unless some are given.
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_report import report
from gpu_sections import REFERENCE, SECTIONS, Bench, Section
from random_bundle import CLASSES, PICTURES
from reference import SETUP_PHOTOS, prepare

from gransam_sdk.errors import GranSAMError

if TYPE_CHECKING:
    from kept import Kept

QUICK = (REFERENCE, "module", "captured", "four", "bound", "tensorrt-fused")


class OutOfTime(BaseException):
    """A section's time is over; no library that is being called may take it for an error of its own."""


@dataclass(kw_only=True)
class Measured:
    """What became of a section.

    Attributes:
        reason: Why it did not run, or not to its end; empty if it did.
        setup: Seconds until the path was open and had taken a photo that does not count.
        seconds: Of each photo, file to run-length codes.
        kept: Of each photo.
        memory: Bytes of the device that it took beyond what was taken before; None where that is not known.
    """

    reason: str = ""
    setup: float | None = None
    seconds: list[float] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    memory: int | None = None


def main() -> None:
    begun = time.monotonic()
    options = parse()
    bundle, checkpoint = prepare(options)
    bench = Bench(bundle, checkpoint, options)
    measured: dict[str, Measured] = {}
    for name in options.rows:
        section, left = SECTIONS[name], options.budget - (time.monotonic() - begun)
        print(f"{section.title}: {left:.0f} s left", file=sys.stderr)
        found = measured[name] = Measured()
        take(section, bench, options.measured, min(section.share * options.budget, left), found)
        print(f"  {len(found.seconds)} photos {found.reason}", file=sys.stderr)
        with redirect_stdout(io.StringIO()):  # the table is printed once, at the end
            report(options, measured)
    if measured:
        report(options, measured)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="mobile-sam", choices=("nano", "mobile-sam", "sam-vit-b"))
    parser.add_argument("--photos", type=Path, required=True, help="folder; its first photos are measured")
    parser.add_argument("--count", type=int, default=40, help="photos measured")
    parser.add_argument("--work", type=Path, required=True, help="keeps the stand-in and engines")
    parser.add_argument("--pictures", type=Path, help="class folders that a stand-in's head is trained on")
    parser.add_argument("--checkpoint", type=Path, help="of nano")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; cpu runs what can run there")
    parser.add_argument("--kept", type=int, help="masks of a fused graph; all prompts if not given")
    parser.add_argument("--memory-limit", type=int, help="bytes for each graph on ONNX Runtime")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--rows", nargs="*", choices=SECTIONS, help="only these; none makes the stand-in and ends")
    parser.add_argument("--quick", action="store_true", help=f"one photo, and only {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, help="result file instead of benchmarks/results/")
    options = parser.parse_args(words)
    if options.rows is None:
        options.rows = list(QUICK if options.quick else SECTIONS)
    photos = sorted(options.photos.iterdir())
    aside = SETUP_PHOTOS if options.pictures or options.arch == "nano" else SETUP_PHOTOS + len(CLASSES) * PICTURES
    if len(photos) <= aside:
        parser.error(f"--photos: more than {aside} photos are needed: the last ones are not measured")
    options.setup = photos[-SETUP_PHOTOS:]
    options.measured = photos[:-aside][: 1 if options.quick else options.count]
    if aside > SETUP_PHOTOS:
        options.pictures = class_folders(photos[-aside:-SETUP_PHOTOS], options.work / "class-pictures")
    return options


def class_folders(photos: Sequence[Path], to: Path) -> Path:
    """Photos in class folders, as ``random_bundle`` reads them: weights are random, so are the classes."""
    for number, photo in enumerate(photos):
        folder = to / CLASSES[number // PICTURES]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder)
    return to


def take(section: Section, bench: Bench, photos: Sequence[Path], seconds: float, found: Measured) -> None:
    """Opens a path, lets it take one photo for nothing, then all; whatever happens ends this section alone.

    Args:
        section: The path.
        bench: What paths share.
        photos: To measure.
        seconds: That it may take.
        found: Filled as far as it comes.
    """
    free = free_memory(bench.device)
    try:
        with within(seconds):
            start = time.perf_counter()
            with section.open(bench) as run:
                run(photos[-1])
                found.setup = time.perf_counter() - start
                for photo in photos:
                    clock(run, photo, found)
                    if free is not None:
                        found.memory = max(found.memory or 0, free - (free_memory(bench.device) or 0))
    except OutOfTime:
        found.reason = f"out of time after {max(seconds, 0):.0f} s"
    except (Exception, SystemExit) as error:
        found.reason = reason_of(error)
        print(f"  {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        if bench.device != "cpu" and torch.cuda.is_available():
            torch.cuda.empty_cache()


def clock(run: Callable[[Path], Kept], photo: Path, found: Measured) -> None:
    begun = time.perf_counter()
    kept = run(photo)
    found.seconds.append(time.perf_counter() - begun)
    found.kept.append(kept)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises ``OutOfTime`` in the block when the time is over; a call into a library is let finish first."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    if seconds <= 0:
        raise OutOfTime
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reason_of(error: BaseException) -> str:
    """One line of an error for a table's cell."""
    if isinstance(error, GranSAMError):
        parts = (error.what, f"expected {error.expected}" if error.expected else "", error.found)
        text = ", ".join(part for part in parts if part)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.splitlines()[0].split()).replace("|", "/")[:160]


def free_memory(device: str) -> int | None:
    """Bytes of a GPU's memory that nobody has, or None."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    return int(torch.cuda.mem_get_info(torch.device(device))[0])


if __name__ == "__main__":
    main()
