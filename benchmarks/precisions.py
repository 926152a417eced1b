"""What does each reduced precision of a bundle cost, and what does it save?

python benchmarks/precisions.py --photos ../shared/data/voc2012_dev/JPEGImages [--bundle NAME|DIR] [--count N] \
    [--calibrate N] [--precision P ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from result import Cell, write_result

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import EnvironmentFault
from gransam_sdk.evaluation.parity import Parity, measure_parity
from gransam_sdk.export.onnx_run import open_graph
from gransam_sdk.export.precision import can_run_here, to_precision
from gransam_sdk.export.rounding import with_rounding
from gransam_sdk.parity_bars import broken_bars
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.shapes import Float

EMBEDDED, REDUCED = "nano-voc20", ("fp16", "bf16", "int8")
ROUNDS = 30
COLUMNS = (
    *("precision", "image graph MB", "all graphs MB", "ms beside fp32", "cosine min", "relative norm", "sign flips"),
    *("mask IoU mean", "mask IoU p1", "kept IoU p1", "labels", "kept F1", "bars broken"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="photos to judge on, the first by name")
    parser.add_argument("--calibrate", type=int, default=32, help="photos to calibrate on, those after them")
    parser.add_argument("--bundle", default=EMBEDDED)
    parser.add_argument("--precision", nargs="+", choices=REDUCED, default=REDUCED)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    every = sorted(options.photos.iterdir())
    judged, calibration = every[: options.count], every[options.count : options.count + options.calibrate]
    bundle = open_bundle(options.bundle)
    full = {name: bundle.graph_bytes(name) for name in bundle.graphs}
    image = next(prepared(bundle, judged))
    rows = [row("fp32-w16", full, "1.00 x", None, "")]
    with opened(bundle, full) as reference:
        for precision in options.precision:
            graphs = to_precision(full, precision, prepared(bundle, calibration), log=print)
            ratio = time_ratio(graphs["image"], full["image"], image) if can_run_here(precision) else "cannot run here"
            exact = precision == "int8"
            judgeable = graphs if exact else {name: with_rounding(data) for name, data in graphs.items()}
            with opened(bundle, judgeable) as model:
                parity = measure_parity(model, reference, judged)
            broken = ", ".join(str(one) for one in broken_bars(precision, parity.figures())) or "none"
            rows.append(row(precision if exact else f"{precision}, rounding imitated", graphs, ratio, parity, broken))
            print(*rows[-1], flush=True)
    arch = bundle.architecture
    stand_in = bundle.provenance["weights"] == "no official file"
    write_result(
        "precisions" if options.bundle == EMBEDDED else f"precisions_{arch.replace('-', '_')}",
        title=f"Reduced precisions of {arch}",
        question="What does each reduced precision of a bundle cost beside its own 32 bits?",
        columns=COLUMNS,
        rows=rows,
        notes=[
            f"Judged on {len(judged)} photos, calibrated on {len(calibration)} others. Reference: the bundle itself, "
            "computed in 32 bits from weights stored in 16; it is compared with PyTorch in its own table.",
            "Cosine min: the least of all mask tokens. Labels: share of the confident prompts with the same label.",
            "Rounding imitated: the graphs run in 32 bits and each result is rounded to 16, because ONNX Runtime's CPU "
            "provider leaves out most of the roundings of a graph in 16 bits (docs/precision.md).",
            f"Time: median of {ROUNDS} interleaved runs of the image graph on ONNX Runtime's CPU provider, as a "
            "multiple of the 32-bit graph's; it says nothing of a GPU.",
            *(["A stand-in of `sam_parity.py`: the exact architecture, every weight random."] if stand_in else []),
        ],
        path=options.json,
    )


def prepared(bundle: Bundle, photos: Sequence[Path]) -> Iterator[Float]:
    """(1,3,s,s) of each photo, as the runtime prepares it."""
    model = Model(bundle, {})
    for photo in photos:
        pixels = as_pixels(photo)
        yield model.prepare(pixels, model.frame(pixels))


def opened(bundle: Bundle, graphs: Mapping[str, bytes]) -> Model:
    return Model(bundle, {name: OrtSession(data, bundle.graphs[name]) for name, data in graphs.items()})


def time_ratio(data: bytes, full: bytes, image: Float) -> str:
    """Time of one graph over that of another, runs interleaved."""
    runs = (open_graph(data), open_graph(full))
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 3):
        for run, spent in zip(runs, times, strict=True):
            start = time.perf_counter()
            run({"image": image})
            if round_ >= 3:  # the first ones fill caches
                spent.append(time.perf_counter() - start)
    return f"{np.median(times[0]) / np.median(times[1]):.2f} x"


def row(name: str, graphs: Mapping[str, bytes], ratio: str, parity: Parity | None, broken: str) -> tuple[Cell, ...]:
    sizes = (f"{len(graphs['image']) / 1e6:.2f}", f"{sum(map(len, graphs.values())) / 1e6:.2f}")
    if parity is None:
        return (name, *sizes, ratio, *[None] * 9)
    if parity.label_agreement is None or parity.kept_f1 is None or parity.kept_iou_p1 is None:
        raise EnvironmentFault("parity of labels", expected="prompts that are confident", found="none")
    return (
        *(name, *sizes, ratio),
        *(f"{parity.tokens_cosine_min:.5f}", f"{parity.tokens_relative_norm:.1e}", f"{parity.sign_flips:.3%}"),
        *(f"{parity.mask_iou_mean:.4f}", f"{parity.mask_iou_p1:.4f}", f"{parity.kept_iou_p1:.4f}"),
        *(f"{parity.label_agreement:.2%}", f"{parity.kept_f1:.4f}", broken),
    )


if __name__ == "__main__":
    main()
