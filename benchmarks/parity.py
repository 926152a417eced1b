"""Do the graphs of the embedded bundle compute what the plain torch module computes, and what does rounding cost?

python benchmarks/parity.py --checkpoint weights/nano.safetensors \
    --photos ../shared/data/voc2012_dev/JPEGImages [--gt voc:../shared/data/voc2012_dev] [--count N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from result import Cell, write_result

from gransam_sdk.bundle import open_bundle
from gransam_sdk.evaluation.parity import Parity, measure_parity
from gransam_sdk.evaluation.parity_truth import Truth
from gransam_sdk.export.reference import read_plain, reference_model
from gransam_sdk.parity_bars import BARS, broken_bars
from gransam_sdk.runtime.load import load_model

COLUMNS = {
    "photos": "photos",
    "masks": "masks",
    "tokens_max_abs": "tokens max abs",
    "tokens_p999_abs": "p99.9",
    "sign_flips": "sign flips",
    "mask_iou_mean": "mask IoU mean",
    "mask_iou_min": "min",
    "confident": "confident",
    "confident_iou_mean": "their IoU mean",
    "label_agreement": "labels equal",
    "kept": "kept",
    "kept_iou_mean": "kept IoU mean",
    "kept_f1": "kept F1",
    "miou_change": "mIoU change",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--gt")
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    photos = sorted(options.photos.iterdir())[: options.count]
    bundle = open_bundle("nano-voc20")
    plain, rounded = (
        reference_model(bundle, read_plain(options.checkpoint, "nano", precision)) for precision in ("fp32", "fp32-w16")
    )
    with load_model(bundle, device="cpu") as model, rounded, plain:
        compared = [
            ("graphs against the module with the same rounded weights", model, rounded),
            ("rounded and folded weights against the checkpoint's, both in PyTorch", rounded, plain),
        ]
        measured = [
            (what, measure_parity(a, b, photos, truth=Truth(options.gt, bundle) if options.gt else None))
            for what, a, b in compared
        ]
    broken = ", ".join(map(str, broken_bars(bundle.precision, measured[0][1].figures())))
    verdict = f"break {broken}" if broken else "keep every bar"
    bars = ", ".join(f"{bar.figure} {bar}" for bar in BARS[bundle.precision])
    write_result(
        "parity",
        title="Parity of the exported graphs",
        question="Do the exported graphs in ONNX Runtime equal the plain PyTorch module on real photos?",
        columns=("compared", *COLUMNS.values(), "worst"),
        rows=[row(what, parity) for what, parity in measured],
        notes=[
            "Masks: all four of all 100 prompts of a photo, one to one, where the reference has at least 100 low-res "
            "pixels. Confident: prompts above their class's threshold, before suppression. Kept: what the segmenter "
            "returns, paired one to one at IoU 0.5 or more. mIoU change in points of per cent.",
            f"The graphs {verdict} of {bundle.precision}: {bars}.",
            "The second row is what storing weights in 16 bits costs (BatchNorm is folded first); it has no bar.",
        ],
    )


def row(what: str, parity: Parity) -> tuple[Cell, ...]:
    return (what, *(cell(getattr(parity, name)) for name in COLUMNS), parity.worst_photo)


def cell(value: float | None) -> Cell:
    if value is None or isinstance(value, int):
        return value
    return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:.6f}"


if __name__ == "__main__":
    main()
