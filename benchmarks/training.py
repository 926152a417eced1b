"""How long does training take: five classes of forty pictures from nothing, and 4,000 pictures from the cache?

python benchmarks/training.py --pictures ../shared/data/web20
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from result import Cell, write_result

from gransam_sdk.bundle import open_bundle
from gransam_sdk.runtime.load import load_model
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.config import PAPER, HeadConfig
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.folds import fold_numbers
from gransam_sdk.training.tokens import extract_bags

CLASSES, PICTURES = ("bus", "car", "cat", "chair", "dog"), 40
MANY = 4000
SETTINGS = {
    "4,000 pictures from the cache, shipped setting": HeadConfig(),
    "4,000 pictures from the cache, the paper's setting": PAPER,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    options = parser.parse_args()
    rows: list[tuple[Cell, ...]] = [small(options.pictures)]
    bags = many(options.pictures)
    rows += [large(name, bags, config) for name, config in SETTINGS.items()]
    write_result(
        "training",
        title="Time to train",
        question="Seconds on this machine, of a command from start to end and of training alone.",
        columns=("what", "seconds", "epochs (teacher + student)", "seconds an epoch"),
        rows=rows,
        notes=[
            "The first row is `gransam train` with an empty cache: tokens of pictures and scenes, rehearsal, final "
            "training, export, checks. The others are teacher and student alone, of a head on all pictures.",
            "The 4,000 pictures are those that there are, repeated; in the shipped setting 1,463 of them are scenes.",
        ],
    )


def small(pictures: Path) -> tuple[Cell, ...]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in CLASSES:
            (root / "pictures" / name).mkdir(parents=True)
            for picture in sorted((pictures / name).iterdir())[:PICTURES]:
                shutil.copy(picture, root / "pictures" / name)
        command = [Path(sys.executable).with_name("gransam"), "train", root / "pictures", "-o", root / "bundle"]
        begun = time.perf_counter()
        subprocess.run([*command, "--cache", root / "cache"], check=True)
        return "gransam train, 5 classes of 40 pictures, nothing cached", round(time.perf_counter() - begun), "", ""


def many(pictures: Path) -> Bags:
    """Real tokens of ``MANY`` class pictures and scenes together, pictures repeated."""
    with load_model(open_bundle("nano-voc20"), device="cpu") as model:
        bags = extract_bags(model, pictures)
    return repeated(bags, MANY - len(bags.scenes.folds))


def repeated(bags: Bags, count: int) -> Bags:
    """So many class pictures, and the background pictures once."""
    of_class = np.resize(np.flatnonzero(bags.labels >= 0), count)
    rows = np.concatenate([of_class, np.flatnonzero(bags.labels < 0)])
    labels = bags.labels[rows]
    more = replace(bags, instances=bags.instances[rows], labels=labels, rim=bags.rim[rows])
    return replace(more, folds=fold_numbers(labels))


def large(name: str, bags: Bags, config: HeadConfig) -> tuple[Cell, ...]:
    bags = bags if config.scenes else repeated(bags, MANY)
    begun = time.perf_counter()
    fitted = fit_head(bags, config, log=print)
    seconds = time.perf_counter() - begun
    epochs = " + ".join(map(str, fitted.epochs))
    each = f"{epochs}, {config.members} heads" if config.members > 1 else epochs
    return name, round(seconds), each, round(seconds / (config.members * sum(fitted.epochs)), 1)


if __name__ == "__main__":
    main()
