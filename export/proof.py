"""A bundle carries its own proof: the canary is recorded and parity measured on its graphs before it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gransam_sdk.bundle import Bundle
from gransam_sdk.errors import BundleError
from gransam_sdk.evaluation.parity import Parity, measure_parity
from gransam_sdk.manifest import LABELLED_MASKS
from gransam_sdk.parity_bars import FULL_PRECISIONS, broken_bars
from gransam_sdk.runtime.canary import canary_outputs
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.model import Model

from .bundle import write_bundle
from .reference import PlainSegmenter, reference_model

CANARY_POINTS = ((0.3, 0.27), (0.7, 0.5), (0.25, 0.75), (0.85, 0.1))
CANARY_TOLERANCE = 0.01
"""Engines and processors round differently (about 1e-4 here); a wrong head or graph is off by far more."""
REDUCED_TOLERANCE = 0.25
"""Of precisions below 32 bits, whose kernels differ more from one processor to the next."""

_NO_PARITY = {"reference": "not measured yet", "verdict": "unverified"}


def scratch_bundle(manifest: Mapping[str, Any], files: Mapping[str, bytes], graphs: Mapping[str, bytes]) -> Bundle:
    """A bundle whose canary and parity are placeholders, to measure what the real one records; it has no folder.

    Args:
        manifest: As ``write_bundle`` takes it; without ``canary``, and perhaps without ``parity``.
        files: As ``write_bundle`` takes them.
        graphs: As ``write_bundle`` takes them.

    Raises:
        BundleError: They are no valid bundle.
    """
    widths: dict[str, tuple[int, ...]] = {"tokens": (4,), "iou": (4,), "lattice": (4,), "mask": ()}
    if manifest["head"] is not None:
        widths["head"] = (_head_width(manifest),)
    expected = {name: np.zeros((len(CANARY_POINTS), *shape)).tolist() for name, shape in widths.items()}
    canary = {"points": [list(p) for p in CANARY_POINTS], "expected": expected, "tolerance": CANARY_TOLERANCE}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        return write_bundle(path, {"parity": _NO_PARITY, **manifest, "canary": canary}, files, graphs)


def scratch_model(manifest: Mapping[str, Any], files: Mapping[str, bytes], graphs: Mapping[str, bytes]) -> Model:
    """Open sessions of ``scratch_bundle`` on the processor; close them.

    Raises:
        BundleError: They are no valid bundle, or ONNX Runtime cannot load a graph.
    """
    return open_sessions(scratch_bundle(manifest, files, graphs), "cpu", None)


def recorded_canary(model: Model) -> dict[str, Any]:
    """What a manifest says of the canary picture, as the model answers for it."""
    outputs = canary_outputs(model, np.array(CANARY_POINTS, dtype=np.float32))
    full = model.bundle.precision in FULL_PRECISIONS
    return {
        "points": [list(p) for p in CANARY_POINTS],
        "expected": {name: np.round(values.astype(np.float64), 5).tolist() for name, values in outputs.items()},
        "tolerance": CANARY_TOLERANCE if full else REDUCED_TOLERANCE,
    }


def prove(
    model: Model, plain: PlainSegmenter, photos: Sequence[Path], log: Callable[[str], None]
) -> dict[str, float | str]:
    """Measures parity with the plain module: the ``parity`` of the manifest.

    Args:
        model: The graphs' open sessions.
        plain: The module with the weights that the graphs were made of.
        photos: Real photos.
        log: Told what is being done.

    Raises:
        BundleError: A bar of the bundle's precision is broken.
    """
    bundle = model.bundle
    log(f"comparing them with PyTorch on {len(photos)} photos")
    with reference_model(bundle, plain) as reference:
        parity = measure_parity(model, reference, photos)
    log(f"  {_summary(parity)}")
    if broken := broken_bars(bundle.precision, parity.figures()):
        raise BundleError(
            f"parity of {bundle.name}",
            expected=", ".join(f"{one.bar.figure} {one.bar}" for one in broken),
            found=f"{', '.join(map(str, broken))}; worst photo {parity.worst_photo}",
            do="a bundle that computes something else is not written: report this, or use another precision",
        )
    rounded = "" if bundle.precision == "fp32" else ", weights rounded to 16 bits"
    return {"reference": f"PyTorch module{rounded}", **parity.figures()}


def _summary(parity: Parity) -> str:
    text = f"{parity.masks} masks, mean IoU {parity.mask_iou_mean:.6f}, tokens within {parity.tokens_max_abs:.1e}"
    if parity.label_agreement is None:
        return text
    return f"{text}; {parity.confident} confident prompts, {parity.label_agreement:.2%} with the same label"


def _head_width(manifest: Mapping[str, Any]) -> int:
    """Logits of a prompt, flattened."""
    head = manifest["head"]
    columns = len(manifest["classes"]) + int(head["background"] == "explicit")
    return columns * (LABELLED_MASKS if head["labels"] == "mask" else 1)
