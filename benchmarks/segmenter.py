"""How good are the masks of one click, what do 100 clicks find, and does predicted IoU say how good a mask is?

python benchmarks/segmenter.py CHECKPOINT_OR_BUNDLE [...] --data ../shared/data [--side 224 320 448] [--device cuda] \
    [--photos N] [--sheet FILE] [--json FILE]

A checkpoint (.safetensors) is measured at every side; a bundle, by name or folder, at its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from click_sheet import Shown, write_sheet
from click_truth import SPECK, ClickPhoto, coco_photos, voc_photos
from clicked import CHECKPOINT, CHUNK, Answers, Clicked, full_size, open_clicked
from plot import Axis, Line, Plot
from result import Cell, write_result

from gransam_sdk.evaluation.clicks import click_point
from gransam_sdk.evaluation.one_click import SMALL, Clicks, OneClick, by_size
from gransam_sdk.nms import mask_nms
from gransam_sdk.rle import rle_area, rle_encode
from gransam_sdk.shapes import Bool, Float
from gransam_sdk.types import PointGrid, Settings

GRID, LIMIT = 10, 100
"""Points a side, and proposals a photo, for average recall."""
SIDES = (224, 320, 448)
SHOWN_SIZE = "from 32²"
LEAST_IN_BIN = 10
"""Clicks from which a tenth of the predictions is plotted."""
PUBLISHED = {"SAM, ViT-B": (52.1, 68.2), "UnSAM": (40.3, 59.5)}
"""One click on COCO, chosen mask and best mask, as the paper of UnSAM (arXiv 2406.20081) has them."""
COLUMNS = ("segmenter", "side", "instances", "clicks", "mask 0 %", "chosen %", "95 % interval", "best of three %")
MORE = ("chosen, small / medium / large %", "AR100 %", "IoU gap", "correlation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One segmenter at one side.

    Attributes:
        name: The segmenter's.
        side: s.
        coco: Figures on COCO's instances, by size.
        voc: On pieces of VOC's class masks.
        recall: Average recall on COCO, of all instances and of those from 32².
        shown: COCO's instances from 32², for the sheet.
    """

    name: str
    side: int
    coco: dict[str, OneClick]
    voc: dict[str, OneClick]
    recall: tuple[float, float]
    shown: list[Shown]


def main() -> None:
    options = parse()
    check_names(options.segmenters)
    measured = []
    for name in options.segmenters:
        for side in options.side if name.endswith(CHECKPOINT) else options.side[:1]:
            with open_clicked(name, side, options.device) as segmenter:
                measured.append(measure(segmenter, options.data, options.photos))
            print(f"{measured[-1].name} at {measured[-1].side} is measured", file=sys.stderr)
    if options.sheet:
        write_sheet(measured[0].shown, options.sheet, f"{measured[0].name} at {measured[0].side}")
    report(measured, options)


def check_names(segmenters: Sequence[str]) -> None:
    """Rows are told apart by a file's name without its folder."""
    names = [Path(each).name for each in segmenters]
    if len(set(names)) < len(names):
        raise SystemExit(f"two segmenters of one name: {', '.join(segmenters)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segmenters", nargs="+", help="checkpoints, bundles' folders or names")
    parser.add_argument("--data", type=Path, required=True, help="folder with coco_dev and voc2012_dev")
    parser.add_argument("--side", type=int, nargs="+", default=list(SIDES), help="of checkpoints")
    parser.add_argument("--device", default="cpu", choices=tuple(CHUNK))
    parser.add_argument("--photos", type=int, help="only the first so many of each set")
    parser.add_argument("--sheet", type=Path, help="picture of the first segmenter's best, median and worst clicks")
    parser.add_argument("--json", type=Path, help="result file instead of benchmarks/results/")
    return parser.parse_args()


def measure(segmenter: Clicked, data: Path, limit: int | None) -> Measured:
    """All figures of one segmenter."""
    coco, shown = click(segmenter, coco_photos(data / "coco_dev", limit))
    voc, _ = click(segmenter, voc_photos(data / "voc2012_dev", limit))
    return Measured(
        name=segmenter.name,
        side=segmenter.side,
        coco=by_size(coco),
        voc=by_size(voc),
        recall=recall(segmenter, data / "coco_dev", limit),
        shown=[each for each in shown if rle_area(each.truth) >= SMALL],
    )


def click(segmenter: Clicked, photos: Iterable[ClickPhoto]) -> tuple[Clicks, list[Shown]]:
    """Clicks on every instance once, at its deepest pixel."""
    iou, predicted, areas, owners, shown = [], [], [], [], []
    for number, photo in enumerate(photos):
        if not len(photo.truths):
            continue
        points = np.array([click_point(truth) for truth in photo.truths], dtype=np.float32)
        answers = segmenter(photo.pixels, points / np.array(photo.counted.shape[::-1], dtype=np.float32))
        own = np.array([overlaps(truth, answers, i, photo.counted) for i, truth in enumerate(photo.truths)])
        iou.append(own)
        predicted.append(answers.predicted)
        areas.append(photo.truths.sum(axis=(1, 2)))
        owners.append(np.full(len(points), number))
        shown += list(seen(photo, points, answers, own))
    clicks = Clicks(
        iou=np.concatenate(iou),
        predicted=np.concatenate(predicted),
        areas=np.concatenate(areas),
        photos=np.concatenate(owners),
    )
    return clicks, shown


def overlaps(truth: Bool, answers: Answers, number: int, counted: Bool) -> list[float]:
    """IoU of a click's four masks with what was clicked on, at the photo's size, where the ground truth counts."""
    found = [answers.mask(number, token) & counted for token in range(4)]
    return [float((mask & truth).sum() / (mask | truth).sum()) for mask in found]


def seen(photo: ClickPhoto, points: Float, answers: Answers, iou: Float) -> Iterator[Shown]:
    """What a sheet can show of a photo's clicks."""
    choice = answers.predicted[:, 1:].argmax(axis=1) + 1
    for i, truth in enumerate(photo.truths):
        yield Shown(
            photo=photo.path,
            name=photo.names[i],
            point=(float(points[i, 0]), float(points[i, 1])),
            truth=rle_encode(truth),
            found=rle_encode(answers.mask(i, choice[i])),
            iou=float(iou[i, choice[i]]),
            predicted=float(answers.predicted[i, choice[i]]),
        )


def recall(segmenter: Clicked, folder: Path, limit: int | None) -> tuple[float, float]:
    """Average recall of the grid's masks, of all instances and of those from 32² pixels."""
    from gransam_sdk.evaluation.average_recall import average_recall

    truths = (photo.truths for photo in coco_photos(folder, limit))
    found = (propose(segmenter, photo) for photo in coco_photos(folder, limit))
    figures = average_recall(truths, found, limit=LIMIT)
    return figures.ar, figures.ar_large


def propose(segmenter: Clicked, photo: ClickPhoto) -> Bool:
    """All four masks of every point of the grid, best predicted IoU first, without those of one thing: (p,h,w) bool."""
    answers = segmenter(photo.pixels, PointGrid(per_side=GRID).points())
    low_res, predicted = answers.logits.reshape(-1, *answers.logits.shape[2:]), answers.predicted.ravel()
    rows, columns = answers.frame.valid(low_res.shape[-1])
    masks = low_res[:, :rows, :columns] > 0
    some = np.flatnonzero(masks.any(axis=(1, 2)))
    kept = some[mask_nms(masks[some], predicted[some], Settings().nms_iou)][:LIMIT]
    full = [mask for i in kept if (mask := full_size(low_res[i], answers.frame)).any()]
    return np.array(full, dtype=np.bool_).reshape(len(full), *photo.counted.shape)


def report(measured: list[Measured], options: argparse.Namespace) -> None:
    some = f"the first {options.photos} photos each of" if options.photos else ""
    write_result(
        "segmenter",
        title="Quality of the segmenter",
        question=f"One click on each instance, and a grid of clicks, on {some} `coco_dev` and `voc2012_dev`.",
        columns=(*COLUMNS, *MORE),
        rows=[*(row for each in measured for row in rows_of(each)), *map(published_row, PUBLISHED)],
        notes=[
            "One click at the pixel of an instance that lies deepest (maximum of the exact distance transform, the "
            "photo's edge counting as outside); masks in one bilinear step at the photo's resolution; mean IoU over "
            "all instances that are no crowd, and over those of 32² pixels or more. VOC: pieces of class masks, of "
            f"{SPECK} pixels or more, connected along edges and corners (derived: VOC's instances were not at hand); "
            "ignored pixels count nowhere.",
            "*Chosen*: of masks 1 to 3, that of the largest predicted IoU; *best of three* needs the ground truth. "
            "The interval is of the chosen masks, over photos.",
            f"*AR100*: {GRID} x {GRID} clicks, all four masks of each, by predicted IoU after suppression at mask IoU "
            f"{Settings().nms_iou}, the first {LIMIT} a photo; recall without classes, mean over IoU 0.50 to 0.95.",
            "*IoU gap*: by how much predicted and true IoU of the chosen masks differ, mean over ten bins of the "
            "prediction; *correlation* is Pearson's.",
            "Published rows are of another protocol (all of COCO val2017, other clicks, masks at other sizes; UnSAM, "
            "arXiv 2406.20081): they say where the field stands, and are no comparison.",
        ],
        plots=plots(measured),
        path=options.json,
    )


def rows_of(measured: Measured) -> list[tuple[Cell, ...]]:
    """Two rows a set of photos: all instances, and those from 32²."""
    rows: list[tuple[Cell, ...]] = []
    for data, figures, recalls in (("COCO", measured.coco, measured.recall), ("VOC", measured.voc, (math.nan,) * 2)):
        for size, ar in zip(("all", SHOWN_SIZE), recalls, strict=True):
            own = figures[size]
            sizes = " / ".join(f"{100 * figures[name].chosen:.1f}" for name in ("small", "medium", "large"))
            means = percent(own.single), percent(own.chosen), interval(own), percent(own.best)
            more = sizes if size == "all" else None, percent(ar)
            known = rounded(own.calibration.gap), rounded(own.calibration.correlation)
            rows.append((measured.name, measured.side, f"{data}, {size}", own.count, *means, *more, *known))
    return rows


def published_row(name: str) -> tuple[Cell, ...]:
    chosen, best = PUBLISHED[name]
    figures = (chosen, None, best, *[None] * len(MORE))
    return (f"{name}, published", None, "COCO, another protocol", None, None, *figures)


def plots(measured: list[Measured]) -> list[Plot]:
    """Predicted against true IoU, a line a segmenter and side."""
    lines = []
    for each in measured:
        bins = each.coco["all"].calibration.bins
        points = [(round(b.predicted, 3), round(b.true, 3)) for b in bins if b.count >= LEAST_IN_BIN]
        if points:
            lines.append(Line(label=f"{each.name}, {each.side}", points=points))
    return [
        Plot(
            name="segmenter-predicted-iou",
            title="Predicted and true IoU of the chosen mask",
            sentence="One click on each of COCO's instances, by tenths of the predicted IoU that hold "
            f"{LEAST_IN_BIN} clicks or more. On the dashed line a "
            "prediction is right on average; below it, masks are worse than predicted.",
            x=Axis(label="predicted IoU", ticks=[0, 0.2, 0.4, 0.6, 0.8, 1]),
            y=Axis(label="mean true IoU", ticks=[0, 0.2, 0.4, 0.6, 0.8, 1]),
            lines=[*lines, Line(label="as predicted", points=[(0, 0), (1, 1)], kind="bound")],
        )
    ]


def interval(figures: OneClick) -> str | None:
    low, high = (percent(bound) for bound in figures.interval)
    return None if low is None else f"{low}-{high}"


def percent(fraction: float) -> float | None:
    return None if math.isnan(fraction) else round(100 * fraction, 1)


def rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


if __name__ == "__main__":
    main()
