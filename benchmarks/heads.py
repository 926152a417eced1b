"""How good are labels on VOC photos: the embedded bundle's, a simpler head's, and those of the paper's setting?

python benchmarks/heads.py --pictures ../shared/data/web20 --voc ../shared/data/voc2012_dev --work build/heads

docs/evaluate.md lists every look that was taken at these photos. A killed run goes on in --work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from result import Cell, write_result

from gransam_sdk.annotate.record import iter_records
from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.bundle import HeadInfo, open_bundle
from gransam_sdk.evaluation.outcome import Evaluation
from gransam_sdk.evaluation.voc import evaluate_voc
from gransam_sdk.export.assemble import add_head
from gransam_sdk.runtime.load import load_model
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.config import PAPER, HeadConfig
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.rehearse import fit_calibrated
from gransam_sdk.training.tokens import extract_bags
from gransam_sdk.types import ClassInfo

SHIPPED = HeadConfig()


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A setting beside the embedded bundle's; without ``calibrated``, its config's threshold holds for all classes."""

    name: str
    config: HeadConfig
    calibrated: bool


FINALISTS = (
    Finalist(name="the paper's setting on this segmenter", config=PAPER, calibrated=False),
    Finalist(
        name="tokens and features, no rim rule, one head",
        config=replace(SHIPPED, inputs="fused", rim=PAPER.rim, members=1),
        calibrated=True,
    ),
)
# arXiv 2312.02420, supplement, table 1: IoU by class, background first.
PAPER_SYNTHETIC = (
    *(79.73, 0.05, 29.88, 14.96, 7.34, 34.21, 54.05, 47.47, 9.40, 5.12, 21.12),
    *(6.09, 15.21, 8.64, 44.26, 60.03, 16.56, 14.15, 11.12, 26.68, 22.26),
)
PAPER_WEB = (
    *(78.91, 33.89, 15.48, 12.13, 8.26, 22.46, 36.46, 41.23, 9.85, 4.41, 6.89),
    *(2.21, 18.92, 19.22, 44.30, 38.98, 11.39, 14.71, 14.96, 17.22, 18.85),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    rows: list[tuple[Cell, ...]] = [
        ("GranSAM, SAM, web pictures (the paper)", 22.42, None, None, None),
        ("GranSAM, SAM, synthetic pictures (the paper)", 25.16, None, None, None),
    ]
    run = annotated("nano-voc20", options.work / "embedded", options.voc)
    embedded = evaluate_voc(run, options.voc)
    rows.append(row("shipped: the embedded bundle nano-voc20", embedded, run))
    for finalist, run in runs(options.pictures, options.voc, options.work):
        rows.append(row(finalist.name, evaluate_voc(run, options.voc), run))
    saw = (
        "The nano segmenter saw VOC train masks, without their classes; SAM did not. "
        "The paper's figures are for all of VOC val."
    )
    write_result(
        "heads",
        title="Quality on VOC photos",
        question="mIoU over 21 classes on the 360 photos of `voc2012_dev` (from VOC 2012 val).",
        columns=("head", "mIoU21", "95 % interval", "foreground", "masks a photo"),
        rows=rows,
        notes=[
            saw,
            f"The paper's setting keeps masks from {PAPER.threshold}; all others from their own thresholds, calibrated "
            "on example pictures. One seed each; three seeds, on held-out pictures, are in the ablation. "
            "[evaluate.md](evaluate.md) lists every look at these photos.",
        ],
    )
    scores = [round(100 * value, 2) for value in embedded.iou]
    write_result(
        "classes",
        title="IoU by class",
        question="The embedded bundle beside the paper's two tables.",
        columns=("class", "nano-voc20", "paper, web", "paper, synthetic"),
        rows=list(zip(embedded.classes, scores, PAPER_WEB, PAPER_SYNTHETIC, strict=True)),
        notes=[saw],
    )


def runs(pictures: Path, voc: Path, work: Path) -> Iterator[tuple[Finalist, Path]]:
    """Each finalist's run folder, made where it is not there yet."""
    bags: list[Bags] = []
    for number, finalist in enumerate(FINALISTS):
        bundle = work / f"{number}-bundle"
        if not bundle.exists():
            if not bags:
                with load_model(open_bundle("nano-voc20"), device="cpu") as model:
                    bags.append(extract_bags(model, pictures))
            write_bundle(bags[0], finalist, bundle)
        yield finalist, annotated(str(bundle), work / f"{number}-run", voc)


def write_bundle(bags: Bags, finalist: Finalist, out: Path) -> None:
    """Trains a finalist and writes its bundle, as ``gransam train`` does."""
    config, calibration = finalist.config, None
    if finalist.calibrated:
        rehearsed = fit_calibrated(bags, config, log=print)
        fitted, calibration = rehearsed.fitted, rehearsed.calibration
    else:
        fitted = fit_head(bags, config, log=print)
    classes = [
        ClassInfo(
            id=i + 1,
            name=name,
            threshold=calibration.thresholds[i] if calibration else config.threshold,
            evidence=calibration.evidence[i] if calibration else None,
        )
        for i, name in enumerate(bags.classes)
    ]
    info = HeadInfo(
        background=fitted.background, labels="prompt", calibration=calibration.facts if calibration else None
    )
    base = open_bundle("nano-voc20")
    add_head(base, fitted.head, out, name="trial", classes=classes, head_info=info, training_data=[], card="trial\n")


def annotated(bundle: str, run: Path, voc: Path) -> Path:
    """Annotates the photos as a user would; goes on where a killed run was."""
    annotate_folder(voc / "JPEGImages", run, bundle=bundle, device="cpu", to=(), report=False)
    return run


def row(name: str, found: Evaluation, run: Path) -> tuple[Cell, ...]:
    low, high = (round(100 * value, 1) for value in found.interval)
    figures = round(100 * found.miou, 2), f"{low}-{high}", round(100 * found.foreground, 2)
    return name, *figures, kept_per_photo(run)


def kept_per_photo(run: Path) -> float:
    """Masks at or above their label's threshold."""
    described: dict[str, Any] = json.loads((run / "run.json").read_bytes())
    least = {entry["id"]: entry["threshold"] for entry in described["classes"]}
    kept = [
        sum(a["confidence"] >= least[a["category_id"]] for a in record["annotations"]) for record in iter_records(run)
    ]
    return round(float(np.mean(kept)), 2)


if __name__ == "__main__":
    main()
