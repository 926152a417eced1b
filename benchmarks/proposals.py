"""How many of the annotated instances do regions hold that are found without labels, and from which features?

python benchmarks/proposals.py --data ../shared/data --teacher ../shared/models/mobilenetv2-imagenet.safetensors

Thresholds are calibrated on photos of nano_train, without their labels; recall is that of coco_dev's instances.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from result import Cell, write_result

from gransam_sdk.evaluation.average_recall import Overlaps, overlaps, recall_of
from gransam_sdk.evaluation.class_names import COCO_VALUES
from gransam_sdk.evaluation.coco_truth import TruePhoto, read_instances
from gransam_sdk.models.imagenet_teacher import Teacher, load_teacher
from gransam_sdk.proposals.calibrate import COUNTS, thresholds
from gransam_sdk.proposals.divide_conquer import propose
from gransam_sdk.proposals.picture_features import combine, grid_shape, picture_features
from gransam_sdk.proposals.smoothing import smooth_within
from gransam_sdk.rle import rle_decode
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.shapes import Bool, Float, Pixels
from gransam_sdk.training.nano.divided import CELLS, DEEP, DEEP_SHARE, FINE, FINE_SHARE, TEACHER_SIDE, teacher_maps

LIMIT, ALL = 100, 10**9
Maps = Mapping[int, Float]
Way = Callable[[Pixels, Maps, tuple[int, int]], Float]


@dataclass(kw_only=True)
class Tally:
    """What one kind of features gives."""

    photos: list[Overlaps] = field(default_factory=list)
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with coco_dev and nano_train.")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--count", type=int, help="Photos of coco_dev; all if not given.")
    parser.add_argument("--calibrate", type=int, default=50, help="Photos of nano_train.")
    parser.add_argument("--cells", type=int, default=CELLS, help="Along a photo's longer side.")
    parser.add_argument("--finest", type=int, default=256, help="Clusters of a level before those of methods 2.8.")
    parser.add_argument("--json", type=Path, help="instead of benchmarks/results/proposals.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = load_teacher(options.teacher)
    truth = read_instances(options.data / "coco_dev" / "instances.json", COCO_VALUES)[: options.count]
    learning = sorted((options.data / "nano_train" / "images").iterdir())
    learning = learning[:: max(len(learning) // options.calibrate, 1)][: options.calibrate]
    counts = [options.finest, *COUNTS]
    rows = [
        measure(name, way, options.data / "coco_dev" / "images", truth, learning, teacher, options.cells, counts)
        for name, way in ways().items()
    ]
    write_result(
        "proposals",
        title="Regions found without labels",
        question="How many of COCO's instances (`coco_dev`) do the regions of divide and conquer hold?",
        columns=(
            *("features", f"AR at {LIMIT} %", "AR at all %", f"AR of large at {LIMIT} %", "AR of large at all %"),
            *("IoU of the best region", "regions a photo", "seconds a photo"),
        ),
        rows=rows,
        notes=[
            f"{len(truth)} photos, {sum(not region.crowd for photo in truth for region in photo.regions)} instances "
            "of any class, crowds left out; recall without classes, mean over IoU 0.50 to 0.95; large is from 32² px "
            f"on, as COCO counts. The first {LIMIT} regions are the largest.",
            f"Grids of {options.cells} cells along the longer side; thresholds for {counts} clusters, from "
            f"{len(learning)} photos of `nano_train` without their labels. The teacher is the encoder's, MobileNetV2 "
            f"trained on ImageNet, at {TEACHER_SIDE} pixels. One thread; seconds are from decoded photo to masks.",
        ],
        path=options.json,
    )


def ways() -> dict[str, Way]:
    """How a grid of features is made, by what the table calls it."""

    def colour(pixels: Pixels, _: Maps, shape: tuple[int, int]) -> Float:
        return picture_features(pixels, shape)

    def fine(_: Pixels, maps: Maps, shape: tuple[int, int]) -> Float:
        return combine(np.zeros((*shape, 1), dtype=np.float32), maps[FINE], 1.0)

    def deep(_: Pixels, maps: Maps, shape: tuple[int, int]) -> Float:
        return combine(np.zeros((*shape, 1), dtype=np.float32), maps[DEEP], 1.0)

    def with_fine(pixels: Pixels, maps: Maps, shape: tuple[int, int]) -> Float:
        return combine(picture_features(pixels, shape), maps[FINE], FINE_SHARE)

    def with_both(pixels: Pixels, maps: Maps, shape: tuple[int, int]) -> Float:
        return combine(with_fine(pixels, maps, shape), maps[DEEP], DEEP_SHARE)

    return {
        "colour and texture": colour,
        "teacher, block 12": fine,
        "teacher, block 16": deep,
        "colour, texture and block 12, half each": with_fine,
        "that, and 15 % of block 16": with_both,
    }


def measure(
    name: str,
    way: Way,
    folder: Path,
    truth: list[TruePhoto],
    learning: list[Path],
    teacher: Teacher,
    cells: int,
    counts: list[int],
) -> list[Cell]:
    """One row: recall, how many regions, how long."""

    def features(pixels: Pixels) -> Float:
        maps = teacher_maps(teacher, pixels) if name != "colour and texture" else {}
        return smooth_within(way(pixels, maps, grid_shape(pixels.shape[:2], cells)))

    levels = thresholds((features(as_pixels(path)) for path in learning), counts)
    paths = {path.stem: path for path in folder.iterdir()}
    tally = Tally()
    for photo, truths in ((photo, true_masks(photo)) for photo in truth):
        pixels = as_pixels(paths[photo.name])
        begun = time.perf_counter()
        found = propose(features(pixels), levels=levels, size=photo.size)
        tally.seconds += time.perf_counter() - begun
        tally.photos.append(overlaps(truths, stack(photo.size, (proposal.mask for proposal in found))))
    few, every = recall_of(tally.photos, LIMIT), recall_of(tally.photos, ALL)
    best = np.concatenate([photo.iou.max(axis=0, initial=0.0) for photo in tally.photos])
    recalls = [round(100 * value, 2) for value in (few.ar, every.ar, few.ar_large, every.ar_large)]
    photos = len(tally.photos)
    return [name, *recalls, round(float(best.mean()), 3), round(every.found / photos), round(tally.seconds / photos, 2)]


def true_masks(photo: TruePhoto) -> Bool:
    """(t,h,w) a photo's instances, without crowds."""
    return stack(photo.size, (rle_decode(region.mask) for region in photo.regions if not region.crowd))


def stack(size: tuple[int, int], masks: Iterator[Bool]) -> Bool:
    return np.array(list(masks), dtype=np.bool_).reshape(-1, *size)


if __name__ == "__main__":
    main()
