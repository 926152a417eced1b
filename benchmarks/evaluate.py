"""How good are the embedded bundle's labels on COCO photos, and at the coarser granularity of five super-classes?

python benchmarks/evaluate.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from result import Cell, write_result

from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.evaluation.coco import evaluate_coco
from gransam_sdk.evaluation.outcome import Evaluation
from gransam_sdk.evaluation.super_classes import SUPER_CLASSES
from gransam_sdk.evaluation.voc import evaluate_voc
from gransam_sdk.training.sources.folder import BACKGROUND

GROUPS = Path(__file__).parents[1] / "docs" / "granularity.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder with coco_dev, voc2012_dev and web20.")
    data = parser.parse_args().data
    coco, voc = data / "coco_dev", data / "voc2012_dev"
    with tempfile.TemporaryDirectory() as scratch:
        on_coco = evaluate_coco(annotated(coco / "images", Path(scratch) / "coco"), coco)
        plain = annotated(voc / "JPEGImages", Path(scratch) / "voc")
        grouped = annotated(voc / "JPEGImages", Path(scratch) / "groups", classes=GROUPS)
        coarse = retrained(data / "web20", Path(scratch))
        again = annotated(voc / "JPEGImages", Path(scratch) / "again", bundle=coarse)
        rows: list[tuple[Cell, ...]] = [
            row("COCO, 20 shared classes", "mIoU21", on_coco.semantic),
            ("COCO, 20 shared classes", "instance AP50", percent(on_coco.instances.mean_ap50), ""),
            ("COCO, 20 shared classes", "instance AP", percent(on_coco.instances.mean_ap), ""),
            ("COCO, 20 shared classes", "region AP50", percent(on_coco.regions.mean_ap50), ""),
            row("VOC, 20 classes", "mIoU21", evaluate_voc(plain, voc)),
            row("VOC, labels merged after annotating", "mIoU6", evaluate_voc(plain, voc, super_classes=True)),
            row("VOC, annotated with groups (-c)", "mIoU6", evaluate_voc(grouped, voc, super_classes=True)),
            row("VOC, head retrained on five folders", "mIoU6", evaluate_voc(again, voc, super_classes=True)),
        ]
    write_result(
        "evaluate",
        title="Other data, other granularity",
        question="The embedded bundle on COCO photos (`coco_dev`, from val2017), and on five super-classes of VOC.",
        columns=("photos and labels", "figure", "%", "95 % interval"),
        rows=rows,
        notes=[
            "[evaluate.md](evaluate.md) says what each figure means; the groups are those of `docs/granularity.toml`.",
            "Retrained: `gransam train` on five folders, the pictures of the 20 classes sorted into them; one seed.",
        ],
    )


def retrained(pictures: Path, scratch: Path) -> str:
    """A bundle of the five super-classes: the class folders' pictures sorted into five, then ``gransam train``."""
    for folder in sorted(pictures.iterdir()):
        for name, members in {**SUPER_CLASSES, BACKGROUND: (BACKGROUND,)}.items():
            if folder.name in members:
                (scratch / "pictures" / name).mkdir(parents=True, exist_ok=True)
                for picture in folder.iterdir():
                    (scratch / "pictures" / name / f"{folder.name}-{picture.name}").symlink_to(picture.resolve())
    bundle = scratch / "five"
    subprocess.run([Path(sys.executable).with_name("gransam"), "train", scratch / "pictures", "-o", bundle], check=True)
    return str(bundle)


def annotated(photos: Path, run: Path, classes: Path | None = None, bundle: str = "nano-voc20") -> Path:
    annotate_folder(photos, run, bundle=bundle, classes=classes, device="cpu", to=(), report=False)
    return run


def row(what: str, figure: str, found: Evaluation) -> tuple[Cell, ...]:
    low, high = found.interval
    return what, figure, percent(found.miou), f"{100 * low:.1f}-{100 * high:.1f}"


def percent(value: float) -> float:
    return round(100 * value, 2)


if __name__ == "__main__":
    main()
