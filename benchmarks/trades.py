"""What is each part of the embedded segmenter worth, and what does it cost?

python benchmarks/trades.py --checkpoint weights/nano.safetensors --data ../shared/data \
    --teacher ../shared/models/mobilenetv2-imagenet.safetensors [--part NAME ...] [--steps N] [--side S] [--photos N]

Cuts one part out of the trained segmenter, trains what is left for a while, and clicks. The whole is trained as long.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from click_truth import coco_photos, voc_photos
from clicked import ClickedModule
from result import Cell, write_result
from segmenter import GRID, SHOWN_SIZE, click, interval, percent
from torch import Tensor, nn

from gransam_sdk.evaluation.one_click import OneClick, by_size
from gransam_sdk.export.nano import deployed
from gransam_sdk.export.nano_graphs import nano_graphs
from gransam_sdk.export.onnx_run import Run, open_graph
from gransam_sdk.models.imagenet_teacher import Teacher, load_teacher
from gransam_sdk.models.nano import Nano
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.shapes import AnyArray
from gransam_sdk.training.allocator import keep_freed_memory
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import TrainingData, load_data
from gransam_sdk.training.nano.held_out import HeldOut
from gransam_sdk.training.nano.loop import Loop, Pace
from gransam_sdk.training.nano.mask_phase import MaskPhase
from gransam_sdk.training.nano.state import SegmenterState
from gransam_sdk.types import PointGrid

CHUNK = 20
"""Prompts at a time, as in the embedded bundle."""
ROUNDS = 12
"""Of timing, after one that does not count."""
RATE = 0.5
"""Largest learning rate, as a share of a whole training's."""
COLUMNS = ("segmenter", "M weights", "image ms", f"{GRID**2} prompts ms", "held out: chosen %", "best of three %")
MORE = ("COCO chosen %", "95 % interval", "COCO best of three %", "VOC chosen %", "VOC best of three %")


class Zeros(nn.Module):
    """In the place of a layer: maps of zeros, of some channels.

    Args:
        channels: Of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(b,c,y,x) to (b,channels,y,x)."""
        return torch.zeros_like(x[:, :1]).expand(-1, self.channels, -1, -1)


class NoDetail(nn.Module):
    """In the place of ``models.nano.Detail``: adds nothing, and passes zeros on.

    Args:
        hidden: Channels of what is passed on.
        c_out: Of the skip.
    """

    def __init__(self, hidden: int, c_out: int) -> None:
        super().__init__()
        self.added, self.heard = Zeros(c_out), Zeros(hidden)

    def forward(self, fine: Tensor, _coarse: Tensor) -> tuple[Tensor, Tensor]:
        """See ``models.nano.Detail``."""
        return self.added(fine), self.heard(fine)


def whole(_nano: Nano) -> None:
    """Nothing is cut."""


def half_context(nano: Nano) -> None:
    nano.image_encoder.context = nano.image_encoder.context[:1]


def no_context(nano: Nano) -> None:
    nano.image_encoder.context = nn.Sequential()


def no_detail(nano: Nano) -> None:
    encoder = nano.image_encoder
    for name in ("detail8", "detail4"):
        project = getattr(encoder, name).project
        setattr(encoder, name, NoDetail(project.in_channels, project.out_channels))


def no_skips(nano: Nano) -> None:
    """Masks are made from the embedding alone, as SAM's are."""
    no_detail(nano)
    for name in ("skip8", "skip4"):
        setattr(nano.image_encoder, name, Zeros(getattr(nano.image_encoder, name).out_channels))


def one_layer(nano: Nano) -> None:
    nano.mask_decoder.transformer.layers = nano.mask_decoder.transformer.layers[:1]


PARTS: Mapping[str, Callable[[Nano], None]] = {
    "whole": whole,
    "one block of context": half_context,
    "no context": no_context,
    "no detail": no_detail,
    "no skips": no_skips,
    "one layer of attention": one_layer,
}
NO_GRAPHS = ("one layer of attention",)
"""What the exported decoder cannot say: its form has two layers."""


def main() -> None:
    options = parse()
    keep_freed_memory()
    config = SegmenterConfig(sides=(options.side,))
    config = replace(config, mask_rate=RATE * config.mask_rate)
    data, teacher = load_data(options.data / "nano_train", config), load_teacher(options.teacher).eval()
    parts, held = {}, {}
    for name in options.part:
        parts[name], held[name] = train(name, options, config, data, teacher)
        print(f"{name}: trained", file=sys.stderr)
    taken = clock(
        {name: open_graphs(nano, options.side) for name, nano in parts.items() if name not in NO_GRAPHS}, options.side
    )
    rows = []
    for name, nano in parts.items():
        segmenter = ClickedModule(name, nano, options.side, "cpu")
        sets = (
            coco_photos(options.data / "coco_dev", options.photos),
            voc_photos(options.data / "voc2012_dev", options.photos),
        )
        shown = [by_size(click(segmenter, photos)[0])[SHOWN_SIZE] for photos in sets]
        rows.append([name, *row_of(nano, taken.get(name, (None, None)), held[name], shown)])
        print(f"{name}: measured", file=sys.stderr)
    report(rows, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with nano_train, coco_dev and voc2012_dev")
    parser.add_argument("--teacher", type=Path, required=True, help="weights of the classifier whose features are kept")
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=tuple(PARTS))
    parser.add_argument("--steps", type=int, default=150, help="of training after the cut")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--photos", type=int, help="click on the first so many photos of each set only")
    parser.add_argument("--json", type=Path, help="result file instead of benchmarks/results/")
    return parser.parse_args()


def train(
    name: str, options: argparse.Namespace, config: SegmenterConfig, data: TrainingData, teacher: Teacher
) -> tuple[Nano, dict[str, float]]:
    """The segmenter without a part, trained for some steps, and its figures on held-out photos."""
    nano, device = read_checkpoint(options.checkpoint).requires_grad_(True), torch.device("cpu")
    PARTS[name](nano)
    loop = Loop(
        nano,
        data.photos,
        None,
        config,
        SegmenterState(phase=MaskPhase.name),
        device=device,
        workers=1,
        pace=Pace(),
        log=lambda line: print(f"{name}: {line}", file=sys.stderr),
        save=lambda: None,
    )
    loop.run(MaskPhase(teacher), options.steps)
    nano.eval().requires_grad_(False)
    return nano, HeldOut(data.held, teacher, config, device).masks(nano)


def open_graphs(nano: Nano, side: int) -> tuple[Run, Run]:
    """Image and prompt graph of a copy, as they would be shipped."""
    made = nano_graphs(deployed(copy.deepcopy(nano)), side, "low-rank")
    return open_graph(made["image"]), open_graph(made["prompt"])


def clock(segmenters: Mapping[str, tuple[Run, Run]], side: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds of the image, and of a grid of prompts; segmenters take turns."""
    image = np.random.default_rng(0).standard_normal((1, 3, side, side), dtype=np.float32)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in segmenters}
    names = list(segmenters)
    for turn in range(1 + ROUNDS):
        for i in np.roll(range(len(names)), turn):
            taken[names[i]].append(clock_once(*segmenters[names[i]], image))
    return {name: tuple(np.median(rows[1:], axis=0).tolist()) for name, rows in taken.items()}


def clock_once(encode: Run, prompt: Run, image: AnyArray) -> tuple[float, float]:
    """Milliseconds of one image and of its grid."""
    start = time.perf_counter()
    hoisted = encode({"image": image})
    encoded = time.perf_counter()
    photo = {name: value[0] for name, value in hoisted.items()}
    for points in np.split(PointGrid(per_side=GRID).points(), GRID**2 // CHUNK):
        prompt(photo | {"points": points})
    return 1e3 * (encoded - start), 1e3 * (time.perf_counter() - encoded)


def row_of(
    nano: Nano, taken: Sequence[float | None], held: Mapping[str, float], shown: Sequence[OneClick]
) -> list[Cell]:
    """What follows the name."""
    coco, voc = shown
    weights = round(sum(parameter.numel() for parameter in nano.parameters()) / 1e6, 2)
    times = [None if each is None else round(each, 1) for each in taken]
    own = percent(held["predicted"]), percent(held["best_of_three"])
    return [
        weights,
        *times,
        *own,
        percent(coco.chosen),
        interval(coco),
        *map(percent, (coco.best, voc.chosen, voc.best)),
    ]


def report(rows: Sequence[Sequence[Cell]], options: argparse.Namespace) -> None:
    some = f", the first {options.photos} photos each" if options.photos else ""
    write_result(
        "trades",
        title="What each part of the embedded segmenter is worth",
        question="One part is cut out of the trained segmenter, and what is left is trained on for "
        f"{options.steps} steps, like the whole one. Masks of one click on instances from 32² pixels of `coco_dev` and "
        f"pieces of `voc2012_dev`{some}, at side {options.side}, and the graphs' time of a photo on two threads.",
        columns=(*COLUMNS, *MORE),
        rows=rows,
        notes=[
            "*Context*: two blocks that look around in the embedding. *Detail*: the skips hear of the coarser map. "
            "*Skips*: what the mask decoder gets from strides 8 and 4; without them no detail either, and the prompt "
            "graph still adds their zeros.",
            "*Held out*: low-res masks of photos of the training data that were never trained on. The short training "
            "mends what the cut tore; it does not show what a smaller segmenter would be after hours.",
            f"Times: median of {ROUNDS} rounds, segmenters taking turns. The exported decoder has two layers, so a "
            "decoder of one was not timed.",
        ],
        path=options.json,
    )


if __name__ == "__main__":
    main()
