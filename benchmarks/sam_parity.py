"""Do the graphs of a SAM-shaped model compute what the plain torch module computes, over a thousand kept masks?

python benchmarks/sam_parity.py --arch mobile-sam --photos ../shared/data/coco_dev/images \
    --pictures ../shared/data/web20 --work build/stand-in [--count N]

Without --pictures the graphs alone are compared, without a head: for SAMs that take minutes a photo.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from parity import COLUMNS, row
from random_bundle import random_bundle
from result import write_result

from gransam_sdk.evaluation.parity import measure_parity
from gransam_sdk.export.reference import read_plain, reference_model
from gransam_sdk.models.segment_anything import ARCHITECTURES
from gransam_sdk.parity_bars import BARS, LEAST_MASKS, broken_bars
from gransam_sdk.runtime.load import load_model

SET_ON = 2
"""Photos, before those that are measured, on which the stand-in's weights and threshold are set."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, help="class folders, for the stand-in's head")
    parser.add_argument("--work", type=Path, required=True, help="keeps the stand-in")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write here instead of into benchmarks/results")
    options = parser.parse_args()
    photos = sorted(options.photos.iterdir())[: SET_ON + options.count]
    bundle, checkpoint = random_bundle(options.arch, options.work, pictures=options.pictures, photos=photos[:SET_ON])
    plain = read_plain(checkpoint, options.arch, bundle.precision)
    with load_model(bundle, device="cpu") as model, reference_model(bundle, plain) as reference:
        measured = measure_parity(
            model, reference, photos[SET_ON:], progress=lambda done: print(f"{done} photos", flush=True)
        )
    broken = ", ".join(map(str, broken_bars(bundle.precision, measured.figures())))
    compared = measured.masks if measured.kept is None else measured.kept
    enough = "" if compared >= LEAST_MASKS else f" Fewer than {LEAST_MASKS} masks: no verdict."
    head = "trained on this model's tokens, its threshold such that about 30 masks of a photo are kept"
    bars = ", ".join(f"{bar.figure} {bar}" for bar in BARS[bundle.precision])
    write_result(
        f"parity_{options.arch.replace('-', '_')}",
        title=f"Parity of {options.arch} at full size",
        question="Does a bundle compute what segment-anything's own modules compute in PyTorch? Random weights.",
        columns=("compared", *COLUMNS.values(), "worst"),
        rows=[row("graphs against the module with the same rounded weights", measured)],
        notes=[
            f"The architecture is exact and every weight random; the head: "
            f"{'none' if measured.kept is None else head}. Columns: as of the embedded bundle.",
            f"The graphs {f'break {broken}' if broken else 'keep every bar'} of {bundle.precision}: {bars}.{enough}",
        ],
        path=options.json,
    )


if __name__ == "__main__":
    main()
