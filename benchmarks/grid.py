"""What do more points buy: a head trained on a finer grid, and photos prompted with one?

python benchmarks/grid.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hold_out import THRESHOLDS, Counts, best_threshold, count_units, f1_scores, named_share
from result import Cell, write_result

from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.bundle import open_bundle
from gransam_sdk.evaluation.voc import evaluate_voc
from gransam_sdk.runtime.load import load_model
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.sources.folder import BACKGROUND
from gransam_sdk.training.split import split_bags
from gransam_sdk.training.tokens import extract_bags
from gransam_sdk.types import Settings

FOLDERS = ("bus", "car", "cat", "dog", BACKGROUND)
PICTURES = 60
TRAINED = (10, 16)
SEEDS = (0, 1, 2)
HELD = 0.2
ASKED = (10, 16, 32)
PHOTOS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with web20 and voc2012_dev.")
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as scratch:
        trained = [train_row(side, data / "web20", Path(scratch) / "pictures") for side in TRAINED]
        asked = [photo_row(side, data / "voc2012_dev", Path(scratch)) for side in ASKED]
    write_result(
        "grid",
        title="Finer grids",
        question="The points a side that a head is trained on, and that photos are prompted with.",
        columns=("points a side", "named alone %", "named in scenes %", "F1 %", "spread", "mIoU21 %"),
        rows=[*trained, *asked],
        notes=[
            f"*Trained*: one head in the shipped setting on up to {PICTURES} pictures each of {', '.join(FOLDERS)}, "
            f"mean of {len(SEEDS)} seeds, each of which holds out a fifth; columns as in the table of switches. A head "
            "on a finer grid sees more clicks a picture, and an eighth of them speaks for it.",
            f"*Asked*: the embedded bundle, trained with 10, on the first {PHOTOS} photos of `voc2012_dev`.",
        ],
    )


def train_row(side: int, pictures: Path, root: Path) -> tuple[Cell, ...]:
    """A head trained on so many points a side, on pictures that were held out."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
        for picture in sorted((pictures / name).iterdir())[:PICTURES]:
            if not (root / name / picture.name).exists():
                (root / name / picture.name).symlink_to(picture.resolve())
    with load_model(replace(open_bundle("nano-voc20"), points_per_side=side), device="cpu") as model:
        bags = extract_bags(model, root)
    counts = [held_out(bags, seed) for seed in SEEDS]
    at = best_threshold(counts)
    scores = [100 * float(f1_scores(one)[at]) for one in counts]
    named = [round(100 * float(np.mean([named_share(one, in_scene=s) for one in counts])), 1) for s in (False, True)]
    spread = f"{min(scores):.1f}-{max(scores):.1f} (threshold {THRESHOLDS[at]})"
    return f"{side}, trained", *named, round(float(np.mean(scores)), 1), spread, None


def held_out(bags: Bags, seed: int) -> Counts:
    config = replace(HeadConfig(), members=1, seed=seed)
    rest, held = split_bags(bags, HELD, seed)
    return count_units(fit_head(rest, config).head, held, config)


def photo_row(side: int, voc: Path, scratch: Path) -> tuple[Cell, ...]:
    """The embedded bundle on a few photos with so many points a side."""
    some, run = scratch / "voc", scratch / f"run-{side}"
    ids = sorted((voc / "dev.txt").read_text(encoding="utf-8").split())[:PHOTOS]
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (some / folder).mkdir(parents=True, exist_ok=True)
        for name in (f"{photo}.{ending}" for photo in ids):
            if not (some / folder / name).exists():
                (some / folder / name).symlink_to((voc / folder / name).resolve())
    settings = Settings(points_per_side=side)
    annotate_folder(some / "JPEGImages", run, settings=settings, device="cpu", to=(), report=False, follow=True)
    miou = evaluate_voc(run, some, bootstrap=1).miou
    return f"{side}, asked", None, None, None, None, round(100 * miou, 2)


if __name__ == "__main__":
    main()
