"""How much of what a picture shows do the encoder's maps hold: linear probes, and the share of the teacher's maps.

python benchmarks/probe.py CHECKPOINT [...] --teacher ../shared/models/mobilenetv2-imagenet.safetensors \
    --pictures ../shared/data/web20 [--photos ../shared/data/coco_dev/images] [--side 224] [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoders import STRIDES, Maps, Share, encoder_maps, random_encoder, read_batches, teacher_maps
from result import Cell, write_result
from ridge import Float64, predict

from gransam_sdk.evaluation.miou import interval95
from gransam_sdk.models.imagenet_teacher import load_teacher
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.shapes import Bool, Int
from gransam_sdk.training.sources.folder import find_pictures

FOLDS = 5
DRAWS = 1000
WARM_UP = 512
"""Pictures that give the random start its BatchNorm statistics."""
TEACHER, RANDOM = "teacher (ImageNet, labels)", "random start"
CHANNELS = (96, 320)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one encoder makes of a folder's pictures.

    Attributes:
        means: By stride, (p,c) float64, each map's mean over its cells.
        shares: By stride, of the teacher's maps.
    """

    means: tuple[Float64, Float64]
    shares: tuple[float, float]


def main() -> None:
    options = parse()
    names, listed = find_pictures(options.pictures)
    paths = [path for path, label in listed if label >= 0]
    labels = np.array([label for _, label in listed if label >= 0])
    folds = np.array([fold_of(path.relative_to(options.pictures)) for path in paths])
    encoders = open_encoders(options, paths)
    seen = look(encoders, paths, options)
    apart = look(encoders, sorted(options.photos.iterdir()), options) if options.photos else {}
    rows = []
    for name in encoders:
        right = [held_out(means, labels, folds) for means in seen[name].means]
        print(f"{name} is probed", file=sys.stderr)
        rows.append(row(name, right, seen[name], apart.get(name)))
    report(rows, len(names), len(paths), options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="nano checkpoints (.safetensors)")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="class folders")
    parser.add_argument("--photos", type=Path, help="photos that no training sees, for the teacher's share")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="result file instead of benchmarks/results/")
    return parser.parse_args()


def open_encoders(options: argparse.Namespace, paths: Sequence[Path]) -> dict[str, Maps]:
    """The teacher first, then the random start, then the checkpoints, by name."""
    device = options.device
    some = paths[:: max(1, len(paths) // WARM_UP)]
    start = random_encoder(read_batches(some, options.side, device), device)
    encoders = {TEACHER: teacher_maps(load_teacher(options.teacher).to(device)), RANDOM: encoder_maps(start)}
    for path in options.checkpoints:
        if path.stem in encoders:
            raise SystemExit(f"two checkpoints of one name: {path.stem}")
        encoders[path.stem] = encoder_maps(read_checkpoint(path).image_encoder.to(device))
    return encoders


def look(encoders: Mapping[str, Maps], paths: Sequence[Path], options: argparse.Namespace) -> dict[str, Seen]:
    """Shows every picture to every encoder."""
    means: dict[str, list[tuple[Float64, ...]]] = {name: [] for name in encoders}
    shares = {name: [Share(channels) for channels in CHANNELS] for name in encoders}
    with torch.inference_mode():
        for images in read_batches(paths, options.side, options.device):
            wanted = encoders[TEACHER](images)
            for name, maps in encoders.items():
                found = wanted if name == TEACHER else maps(images)
                means[name].append(tuple(each.double().mean((2, 3)).cpu().numpy() for each in found))
                for share, own, teacher in zip(shares[name], found, wanted, strict=True):
                    share.add(own, teacher)
    seen = {}
    for name, parts in means.items():
        stride16, stride32 = (np.concatenate(each) for each in zip(*parts, strict=True))
        of16, of32 = (share.value() for share in shares[name])
        seen[name] = Seen(means=(stride16, stride32), shares=(of16, of32))
    return seen


def held_out(features: Float64, labels: Int, folds: Int) -> Bool:
    """(p,) whether each picture is named rightly by a probe that was fitted on the other folds."""
    right = np.zeros(len(labels), dtype=np.bool_)
    for fold in np.unique(folds):
        held = folds == fold
        right[held] = predict(features[~held], labels[~held], features[held]) == labels[held]
    return right


def fold_of(path: Path) -> int:
    """The fold of a picture, from its path in the class folders alone: more pictures move none."""
    return int.from_bytes(hashlib.sha256(path.as_posix().encode()).digest()[:8], "big") % FOLDS


def accuracy_interval(right: Bool) -> tuple[float, float]:
    """95 % bootstrap interval of the share that is right, over pictures."""
    count = len(right)
    return interval95(np.random.default_rng(0).binomial(count, right.mean(), size=DRAWS) / count)


def row(name: str, right: Sequence[Bool], seen: Seen, apart: Seen | None) -> tuple[Cell, ...]:
    cells: list[Cell] = [name]
    for each in right:
        low, high = accuracy_interval(each)
        cells += [percent(each.mean()), f"{percent(low)}-{percent(high)}"]
    told = name not in (TEACHER, RANDOM)  # of itself the teacher tells all, and a random start less than nothing
    cells += [percent(share) if told else None for share in seen.shares]
    if apart:
        cells += [percent(share) if told else None for share in apart.shares]
    return tuple(cells)


def report(rows: Sequence[tuple[Cell, ...]], classes: int, pictures: int, options: argparse.Namespace) -> None:
    probes = [cell for stride in STRIDES for cell in (f"stride {stride}, named %", "95 % interval")]
    shares = [f"teacher's stride {stride} explained %" for stride in STRIDES]
    apart = [f"{share}, photos apart" for share in shares] if options.photos else []
    write_result(
        "probe",
        title="What the encoder knows",
        question=f"Linear probes on the maps of {pictures} pictures of {classes} classes at side {options.side}.",
        columns=("encoder", *probes, *shares, *apart),
        rows=rows,
        notes=[
            f"*Named*: the mean of a map over its cells, standardised, ridge regression to the classes; {FOLDS} folds "
            "by a hash of the path, every picture named by a probe that did not see it, the strength chosen by leaving "
            "out one training picture at a time. The random start has BatchNorm statistics of the same pictures.",
            "*Explained*: 1 - squared error / variance of the teacher's map, mean over its channels. An encoder's "
            "training may have seen the pictures, without their classes."
            + (" *Photos apart* are none of any training's." if options.photos else ""),
        ],
        path=options.json,
    )


def percent(fraction: float) -> float | None:
    return None if math.isnan(fraction) else round(100 * float(fraction), 1)


if __name__ == "__main__":
    main()
