"""Do the graphs of the embedded bundle compute what the plain torch module computes, and what does rounding cost?

python benchmarks/parity.py --checkpoint ../shared/models/nano-seed.safetensors \
    --photos ../shared/data/voc2012_dev/JPEGImages [--count N]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from result import write_result

from gransam_sdk.bundle import open_bundle
from gransam_sdk.export.nano import deployed, read_checkpoint
from gransam_sdk.export.parity import Outputs, Parity, measure_parity, run_torch, summarise
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.load import load_model
from gransam_sdk.types import PointGrid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    photos = sorted(options.photos.iterdir())[: options.count]
    plain, rounded = read_checkpoint(options.checkpoint), deployed(read_checkpoint(options.checkpoint))
    with load_model(open_bundle("nano-voc20"), device="cpu") as model:
        graphs = measure_parity(model, rounded, photos)

        def pairs() -> Iterator[tuple[str, Outputs, Outputs]]:
            points = PointGrid(per_side=model.bundle.points_per_side).points()
            for photo in photos:
                pixels = as_pixels(photo)
                image = model.prepare(pixels, model.frame(pixels))
                yield photo.name, run_torch(rounded, image, points), run_torch(plain, image, points)

        rounding = summarise(pairs())
    write_result(
        "parity",
        title="Parity of the exported graphs",
        question="Do the hoisted, absorbed graphs in ONNX Runtime equal the plain PyTorch module on real photos?",
        columns=(
            "compared",
            "photos",
            "masks",
            "tokens max abs",
            "logits max abs",
            "mask IoU mean",
            "mask IoU min",
            "worst",
        ),
        rows=[
            row("graphs against the module with the same rounded weights", graphs),
            row("rounded and folded weights against the checkpoint's, both in PyTorch", rounding),
        ],
        notes=[
            "All four masks of all 100 prompts of a photo, one to one, where the reference has at least 100 low-res "
            "pixels; of tokens and logits the largest difference. The bar for the graphs: tokens within 1e-3, mask IoU "
            "at least 0.999 on average and 0.98 for each.",
            "The second row is what storing weights in 16 bits costs (BatchNorm is folded first); it has no bar.",
        ],
    )


def row(what: str, parity: Parity) -> tuple[str | int | float, ...]:
    return (
        what,
        parity.photos,
        parity.masks,
        f"{parity.tokens_max_abs:.1e}",
        f"{parity.logits_max_abs:.1e}",
        f"{parity.mask_iou_mean:.6f}",
        f"{parity.mask_iou_min:.4f}",
        parity.worst_photo,
    )


if __name__ == "__main__":
    main()
