"""What does a larger input bring the embedded segmenter, and what does it cost?

python benchmarks/sides.py --checkpoint weights/nano.safetensors --data ../shared/data [--side S ...] [--count N]

Compiles the checkpoint at each side, measures masks of one click as segmenter.py does, and times a photo's graphs:
the image, a grid of 100 prompts, and 25 masks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from clicked import ClickedBundle
from result import Cell, write_result
from segmenter import GRID, SHOWN_SIZE, Measured, interval, measure, percent

from gransam_sdk.export.compile import compile_bundle
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.load import load_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.shapes import Pixels
from gransam_sdk.types import PointGrid

SIDES = (224, 256, 320, 352, 384, 448)
DRAWN = 25
"""Masks drawn a photo."""
ROUNDS = 3
"""Of timing, after one that does not count."""
STAGES = ("image", "prompts", "masks")
COLUMNS = ("side", "image ms", f"{GRID**2} prompts ms", f"{DRAWN} masks ms", "all ms", "bundle MB")
QUALITY = (
    "COCO chosen %",
    "95 % interval",
    "COCO best of three %",
    "COCO AR100 %",
    "VOC chosen %",
    "VOC best of three %",
)


def main() -> None:
    options = parse()
    photos = sorted((options.data / "coco_dev" / "images").iterdir())
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        models, sizes = {}, {}
        for side in options.side:
            out = Path(scratch) / f"nano-{side}"
            bundle = compile_bundle(
                options.checkpoint, out, arch="nano", name=out.name, photos=photos[:2], side=side, decoder="low-rank"
            )
            models[side] = stack.enter_context(load_model(bundle, device="cpu"))
            sizes[side] = sum(path.stat().st_size for path in out.iterdir()) / 1e6
            print(f"{side}: compiled", file=sys.stderr)
        seconds = clock(models, [as_pixels(photo) for photo in photos[: options.count]])
        measured = {}
        for side, model in models.items():
            measured[side] = measure(ClickedBundle(model, "cpu"), options.data, options.photos)
            print(f"{side}: measured", file=sys.stderr)
    report([row_of(measured[side], seconds[side], sizes[side]) for side in options.side], options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with coco_dev and voc2012_dev")
    parser.add_argument("--side", type=int, nargs="+", default=list(SIDES))
    parser.add_argument("--count", type=int, default=20, help="photos that are timed")
    parser.add_argument("--photos", type=int, help="measure masks on the first so many photos of each set only")
    parser.add_argument("--json", type=Path, help="result file instead of benchmarks/results/")
    return parser.parse_args()


def clock(models: Mapping[int, Model], photos: Sequence[Pixels]) -> dict[int, dict[str, float]]:
    """Seconds of each stage: the median over rounds of the mean over photos; sides take turns photo by photo."""
    rounds: dict[int, list[list[tuple[float, ...]]]] = {side: [] for side in models}
    sides = list(models)
    for turn in range(1 + ROUNDS):
        for side in sides:
            rounds[side].append([])
        for number, pixels in enumerate(photos):
            for i in np.roll(range(len(sides)), turn + number):
                rounds[sides[i]][turn].append(clock_photo(models[sides[i]], pixels))
    return {
        side: dict(zip(STAGES, np.median([np.mean(one, axis=0) for one in found[1:]], axis=0).tolist(), strict=True))
        for side, found in rounds.items()
    }


def clock_photo(model: Model, pixels: Pixels) -> tuple[float, float, float]:
    """Seconds of a photo's three graphs."""
    frame, chunk = model.frame(pixels), model.bundle.prompt_chunk
    image = model.prepare(pixels, frame)
    start = time.perf_counter()
    hoisted = model.hoist(image)
    encoded = time.perf_counter()
    prompts = list(model.prompt(hoisted, frame, PointGrid(per_side=GRID).points(), chunk))
    decoded = time.perf_counter()
    state = {name: np.concatenate([each.state[name] for each in prompts])[:DRAWN] for name in prompts[0].state}
    model.masks(hoisted, state, np.ones(DRAWN, dtype=np.int64), chunk)
    return encoded - start, decoded - encoded, time.perf_counter() - decoded


def row_of(measured: Measured, seconds: Mapping[str, float], size: float) -> tuple[Cell, ...]:
    milliseconds = [1000 * seconds[stage] for stage in STAGES]
    coco, voc = measured.coco[SHOWN_SIZE], measured.voc[SHOWN_SIZE]
    times = [round(each, 1) for each in (*milliseconds, sum(milliseconds))]
    figures = percent(coco.chosen), interval(coco), percent(coco.best), percent(measured.recall[1])
    return measured.side, *times, round(size, 2), *figures, percent(voc.chosen), percent(voc.best)


def report(rows: Sequence[tuple[Cell, ...]], options: argparse.Namespace) -> None:
    some = f", the first {options.photos} photos each" if options.photos else ""
    write_result(
        "sides",
        title="Input side of the embedded segmenter",
        question="What a larger input brings and costs: masks of one click on instances from 32² pixels of `coco_dev` "
        f"and pieces of `voc2012_dev`{some}, and the graphs' time of a photo on two threads.",
        columns=(*COLUMNS, *QUALITY),
        rows=rows,
        notes=[
            f"Times: {options.count} photos of `coco_dev`, decoding and resizing left out; the median of {ROUNDS} "
            "rounds' means, sides taking turns photo by photo. The bundle has no head. Figures of masks as in the "
            "table of the segmenter's quality.",
        ],
        path=options.json,
    )


if __name__ == "__main__":
    main()
