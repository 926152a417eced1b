"""What the fused graph is fed and what it answers, checked and as the table that results are made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import BundleError, EnvironmentFault, ImageError
from ..geometry import Frame
from ..shapes import AnyArray, Float, Int, Pixels
from .found import Found
from .fused_spec import FusedSpec
from .preprocess import resize

_MADE_OF = ("logits", "confidence", "iou", "probabilities", "tokens")
"""Outputs that have to be numbers where a row is used."""


def fused_feeds(pixels: Pixels, frame: Frame) -> dict[str, AnyArray]:
    """The fused graph's inputs: the photo resized as ``preprocess`` does, at the top left of zeros.

    Args:
        pixels: (h,w,3) uint8, upright RGB.
        frame: Where the photo lies in the square.

    Returns:
        ``photo`` (s,s,3) uint8 and ``valid`` (2,) int64, height and width of the resized photo.

    Raises:
        InputError: ``frame`` was made for a photo of another size.
    """
    height, width = frame.resized
    square = np.zeros((frame.side, frame.side, 3), dtype=np.uint8)
    square[:height, :width] = resize(pixels, frame)
    return {"photo": square, "valid": np.array(frame.resized, dtype=np.int64)}


def check_answer(out: Mapping[str, AnyArray], spec: FusedSpec) -> None:
    """Checks that an answer is of the graph that was meant, and made of numbers.

    Raises:
        BundleError: Another graph's.
        ImageError: ``non-finite``.
    """
    if int(out["spec"]) != spec.number:
        raise BundleError(
            "fused graph",
            expected=f"one made for this bundle, these classes and settings (number {spec.number})",
            found=f"number {int(out['spec'])}",
            do="fuse the bundle again with the classes, thresholds and settings of this run",
        )
    used = out["recorded"]
    if int(out["non_finite"]) or not all(np.isfinite(out[name][used]).all() for name in _MADE_OF):
        raise ImageError(
            "non-finite",
            "fused graph",
            expected="finite numbers",
            found="NaN or infinity",
            do="report the photo; with a reduced-precision engine use a full-precision one",
        )


def recorded_rows(out: Mapping[str, AnyArray]) -> Int:
    """Rows of an answer that are confident enough to be recorded, by prompt, as ``Segmenter`` has them.

    Raises:
        EnvironmentFault: They are not as many as the graph counted, or not different prompts.
    """
    rows = np.flatnonzero(out["recorded"])
    prompts, confident = out["prompt"][rows], int(out["confident"])
    if len(rows) != confident or len(np.unique(prompts)) != confident:
        raise EnvironmentFault(
            "fused graph",
            expected=f"{confident} different confident prompts, as it counted",
            found=f"{len(rows)}, of prompts {', '.join(map(str, prompts[:20]))}",
            do="this engine orders wrongly: run the bundle's four graphs, and report it",
        )
    return np.asarray(rows[np.argsort(prompts)])


def found_in(out: Mapping[str, AnyArray], rows: Int, points: Float) -> Found:
    """Rows of an answer as a table without state: masks are made by then.

    Args:
        out: The fused graph's outputs.
        rows: (m,) int64.
        points: (g,2) float32 of the grid, XY in [0,1] of the photo.
    """
    probabilities: Float = out["probabilities"][rows]
    columns = {name: out[name][rows] for name in ("tokens", "iou", "choice", "label", "confidence", "passed")}
    return Found(
        **columns,
        points=points[out["prompt"][rows]],
        order=np.argsort(-probabilities, axis=1, kind="stable"),
        probabilities=probabilities,
        state={},
    )
