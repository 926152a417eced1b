"""Which back end runs a bundle's graphs faster, and do they answer the same? Photo by photo, taking turns.

python benchmarks/backends.py --photos ../shared/data/voc2012_dev/JPEGImages [--bundle NAME|DIR] [--count N] \
    [--threads N ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from result import Cell, write_result

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.runtime.backends import session_maker
from gransam_sdk.runtime.canary import check_canary
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.model import Model
from gransam_sdk.shapes import AnyArray, Float, Pixels
from gransam_sdk.types import PointGrid

PAIR = ("onnxruntime", "openvino")
STAGES = ("image graph", "prompt graph", "mask graph", "all three")
EVERY = 3
"""Every third prompt's best mask is drawn: about as many as a photo keeps."""
LEAST_PIXELS = 100
"""Smaller low-res masks say little: one pixel is a percent of them."""


T = TypeVar("T")
Seconds = tuple[float, float]
"""On the clock, and of processors: the second is what other work on the machine changes least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Of one photo: tokens (g,4,d), thresholded masks (n,l,l), and by stage seconds on the clock and of processors."""

    tokens: Float
    masks: AnyArray
    seconds: dict[str, Seconds]


@dataclass(slots=True)
class Comparison:
    """Sums over photos of one number of threads."""

    seconds: dict[str, dict[str, list[Seconds]]] = field(
        default_factory=lambda: {stage: {name: [] for name in PAIR} for stage in STAGES}
    )
    tokens_max_abs: float = 0.0
    overlaps: list[float] = field(default_factory=list)

    def add(self, answers: dict[str, Answer]) -> None:
        """Counts a photo."""
        reference, found = (answers[name] for name in PAIR)
        self.tokens_max_abs = max(self.tokens_max_abs, float(np.abs(reference.tokens - found.tokens).max()))
        for a, b in zip(reference.masks, found.masks, strict=True):
            if a.sum() >= LEAST_PIXELS:
                self.overlaps.append(float((a & b).sum() / (a | b).sum()))
        for name, answer in answers.items():
            for stage, seconds in answer.seconds.items():
                self.seconds[stage][name].append(seconds)

    def rows(self, threads: int) -> list[tuple[Cell, ...]]:
        """Medians, and the median of each photo's ratio, which a busy moment moves less."""
        rows: list[tuple[Cell, ...]] = []
        for stage, times in self.seconds.items():
            reference, found = (times[name] for name in PAIR)
            medians = [
                round(statistics.median(clock for clock, _ in values) * 1000, 1) for values in (reference, found)
            ]
            ratios = [
                round(statistics.median(a[kind] / b[kind] for a, b in zip(reference, found, strict=True)), 2)
                for kind in (0, 1)
            ]
            rows.append((threads, stage, *medians, *ratios))
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--bundle", default="nano-voc20")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="instead of benchmarks/results/backends.json")
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    photos = [as_pixels(path) for path in sorted(options.photos.iterdir())[: options.count]]
    rows, notes = [], []
    for threads in options.threads:
        opened: dict[str, tuple[Model, float]] = {name: open_model(bundle, name, threads) for name in PAIR}
        comparison = compare({name: model for name, (model, _) in opened.items()}, photos)
        shown = [round(seconds * 1000, 1) for _, seconds in opened.values()]
        rows += [
            *comparison.rows(threads),
            (threads, "open and canary, once", *shown, round(shown[0] / shown[1], 2), None),
        ]
        notes.append(
            f"{threads} threads: {len(comparison.overlaps)} masks, mean IoU {np.mean(comparison.overlaps):.6f}, least "
            f"{np.min(comparison.overlaps):.4f}; tokens within {comparison.tokens_max_abs:.1e}; "
            f"{' and '.join(model.provider for model, _ in opened.values())}."
        )
    write_result(
        "backends",
        title="Back ends",
        question="Does OpenVINO run the graphs faster than ONNX Runtime, and does it answer the same?",
        columns=("threads", "what", "onnxruntime ms", "openvino ms", "openvino is faster by", "with less work by"),
        rows=rows,
        notes=[
            f"Bundle {bundle.name}, {len(photos)} photos, {bundle.points_per_side**2} prompts each in chunks of "
            f"{bundle.prompt_chunk}, the best mask of every third. The back ends take turns, photo by photo; of each "
            "photo's ratios the median. Faster: time on the clock. Less work: processor time of all threads, which "
            "other work on the machine changes less.",
            *notes,
        ],
        path=options.json,
    )


def open_model(bundle: Bundle, backend: str, threads: int) -> tuple[Model, float]:
    """Open sessions whose canary has passed, and the seconds that took."""
    start = time.perf_counter()
    make = session_maker(bundle, backend=backend, device="cpu", threads=threads)
    model = Model(bundle, {name: make(name) for name in bundle.graphs})
    check_canary(model)
    return model, time.perf_counter() - start


def compare(models: dict[str, Model], photos: list[Pixels]) -> Comparison:
    """Runs every photo on both; who is first changes from photo to photo, and a first round is not counted."""
    comparison = Comparison()
    for model in models.values():
        answer(model, photos[0])
    for index, photo in enumerate(photos):
        order = PAIR if index % 2 else PAIR[::-1]
        comparison.add({name: answer(models[name], photo) for name in order})
    return comparison


def answer(model: Model, photo: Pixels) -> Answer:
    """One photo through the three graphs."""
    points, chunk = PointGrid(per_side=model.bundle.points_per_side).points(), model.bundle.prompt_chunk
    frame = model.frame(photo)
    image = model.prepare(photo, frame)
    seconds: dict[str, Seconds] = {}
    hoisted = timed(seconds, "image graph", lambda: model.hoist(image))
    parts = timed(seconds, "prompt graph", lambda: list(model.prompt(hoisted, frame, points, chunk)))
    chosen = slice(None, None, EVERY)
    state = {name: np.concatenate([part.state[name] for part in parts])[chosen].copy() for name in parts[0].state}
    choice = np.concatenate([part.iou for part in parts])[chosen, 1:].argmax(axis=1) + 1
    logits = timed(seconds, "mask graph", lambda: model.masks(hoisted, state, choice, chunk))
    clock, work = (sum(kind) for kind in zip(*seconds.values(), strict=True))
    seconds["all three"] = (clock, work)
    rows, cols = frame.valid(model.bundle.low_res_side)
    tokens = np.concatenate([part.tokens for part in parts])
    return Answer(tokens=tokens, masks=logits[:, :rows, :cols] > 0, seconds=seconds)


def timed(seconds: dict[str, Seconds], stage: str, work: Callable[[], T]) -> T:
    clock, processors = time.perf_counter(), time.process_time()
    done = work()
    seconds[stage] = (time.perf_counter() - clock, time.process_time() - processors)
    return done


if __name__ == "__main__":
    main()
