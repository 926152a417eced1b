"""How many times as fast as everything mode in PyTorch is a bundle, and does it keep the same masks?

python benchmarks/reference.py --arch mobile-sam --photos ../shared/data/coco_dev/images \
    --pictures ../shared/data/web20 --work build/stand-in [--threads 2] [--quick] [--json FILE]
python benchmarks/reference.py --arch nano --checkpoint weights/nano.safetensors \
    --photos ../shared/data/coco_dev/images --work build/stand-in

Every photo goes from its file to run-length codes through each path in turn, in one process with the same threads, the
order rotated. The paths are described where they are written: ``eager.py``, ``official.py``, ``hoist_free.py``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reference_paths import QUICK, ROWS, Run, build, open_paths
from reference_report import Clocked, Found, report

from gransam_sdk.machine import peak_memory

if TYPE_CHECKING:
    from gransam_sdk.bundle import Bundle

SETUP_PHOTOS = 2
"""The last photos of the folder set weights and threshold of a stand-in, and are not measured."""


def main() -> None:
    options = parse()
    bundle, checkpoint = prepare(options)
    if options.alone:
        path = build(options.alone, bundle, checkpoint, options)
        path(options.measured[0])
        print(peak_memory())
        return
    paths = open_paths(bundle, checkpoint, options)
    seconds, kept = interleave(paths, options.measured, options.rounds)
    memory = {name: alone(name) for name in paths} if options.memory else {}
    report(options, seconds, kept, memory)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="mobile-sam", choices=("nano", "mobile-sam", "sam-vit-b"))
    parser.add_argument("--photos", type=Path, required=True, help="folder; its first photos are measured")
    parser.add_argument("--count", type=int, default=40, help="photos measured")
    parser.add_argument("--rounds", type=int, default=1, help="times that each photo is taken")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, required=True, help="keeps the stand-in and exported decoders")
    parser.add_argument("--pictures", type=Path, help="class folders that a stand-in's head is trained on")
    parser.add_argument("--checkpoint", type=Path, help="of nano")
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="only these paths, beside the reference")
    parser.add_argument("--quick", action="store_true", help=f"one photo, and only {', '.join(QUICK)}")
    parser.add_argument("--memory", action="store_true", help="also peak memory, each path in a process of its own")
    parser.add_argument("--json", type=Path, help="result file instead of benchmarks/results/")
    parser.add_argument("--alone", choices=ROWS, help=argparse.SUPPRESS)  # what --memory starts
    options = parser.parse_args()
    photos = sorted(options.photos.iterdir())
    options.setup = photos[-SETUP_PHOTOS:]
    options.measured = photos[: len(photos) - SETUP_PHOTOS][: 1 if options.quick else options.count]
    return options


def prepare(options: argparse.Namespace) -> tuple[Bundle, Path]:
    """The bundle and the checkpoint that it was made of; torch is imported only where something must be made."""
    from gransam_sdk.bundle import open_bundle

    options.work.mkdir(parents=True, exist_ok=True)
    if options.arch == "nano":
        if options.checkpoint is None:
            raise SystemExit("--arch nano needs --checkpoint")
        return open_bundle("nano-voc20"), options.checkpoint
    out, checkpoint = options.work / f"{options.arch}-0", options.work / f"{options.arch}-0.pt"
    if not (out.exists() and checkpoint.exists()):
        if options.pictures is None:
            raise SystemExit("a stand-in has to be made first: give --pictures")
        from random_bundle import random_bundle

        random_bundle(options.arch, options.work, pictures=options.pictures, photos=options.setup)
    return open_bundle(out), checkpoint


def interleave(paths: dict[str, Run], photos: Sequence[Path], rounds: int) -> tuple[Clocked, Found]:
    """Seconds of each path for every photo of every round, and what it kept in the first round.

    Each path takes one photo first, which does not count.
    """
    names = list(paths)
    for name in names:
        paths[name](photos[-1])
    seconds: Clocked = {name: [] for name in names}
    kept: Found = {name: [] for name in names}
    for turn in range(rounds):
        for number, photo in enumerate(photos):
            start = (turn + number) % len(names)
            for name in names[start:] + names[:start]:
                begun = time.perf_counter()
                found = paths[name](photo)
                seconds[name].append(time.perf_counter() - begun)
                if turn == 0:
                    kept[name].append(found)
            said = ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in names)
            print(f"{photo.name}: {said}", file=sys.stderr)
    return seconds, kept


def alone(name: str) -> int:
    """Peak memory in bytes of a process that does nothing but this path on one photo."""
    command = [sys.executable, *sys.argv, "--alone", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
