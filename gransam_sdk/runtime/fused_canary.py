"""The canary of a fused graph: the canary picture through it and through the four graphs, once a load.

The four graphs' own canary was recorded with the bundle (``canary.py``) and has been checked by then; what is left to
show is that a fused engine computes what they do.
"""

from __future__ import annotations

import numpy as np

from ..canary_picture import canary_picture
from ..errors import BundleError, ImageError
from ..shapes import AnyArray, Int
from .fused import FusedSegmenter
from .model import Model
from .select import chosen_logits, softmax

ROWS = 4
"""Masks that are compared: the graph's first."""


def check_fused_canary(segmenter: FusedSegmenter) -> None:
    """Compares the graph's first rows with what the four graphs say of the same prompts.

    Raises:
        BundleError: They differ by more than the bundle's recorded tolerance, or are not finite.
    """
    bundle = segmenter.bundle
    try:
        out = segmenter.run_fused(canary_picture(bundle.input_side))
    except ImageError as error:
        raise _refusal(bundle.name, "finite outputs", error.what) from error
    rows = np.arange(min(ROWS, segmenter.spec.kept))
    found = {
        "tokens": np.linalg.norm(out["tokens"][rows], axis=2),
        "iou": out["iou"][rows],
        "probabilities": out["probabilities"][rows],
        "mask": out["logits"][rows].mean(axis=(1, 2)),
    }
    expected = _four_graphs(segmenter, out["prompt"][rows], out["choice"][rows])
    for name, values in found.items():
        worst = float(np.abs(values - expected[name]).max())
        if not worst <= bundle.canary.tolerance:
            limit = f"{name} within {bundle.canary.tolerance:g} of what the four graphs answer"
            raise _refusal(bundle.name, limit, f"off by {worst:.3g}")


def _four_graphs(segmenter: FusedSegmenter, prompts: Int, choice: Int) -> dict[str, AnyArray]:
    model: Model = segmenter.four_graphs
    pixels = canary_picture(segmenter.bundle.input_side)
    frame = model.frame(pixels)
    hoisted = model.hoist(model.prepare(pixels, frame))
    points = segmenter.grid.points()[prompts]
    part = next(model.prompt(hoisted, frame, points, len(points)))
    masks = model.masks(hoisted, part.state, choice, len(points))
    logits = model.classify(part.tokens, part.features[np.arange(len(choice)), choice])
    return {
        "tokens": np.linalg.norm(part.tokens, axis=2),
        "iou": part.iou[np.arange(len(choice)), choice],
        "probabilities": segmenter.classes.group(softmax(chosen_logits(logits, choice[:, None]))),
        "mask": masks.mean(axis=(1, 2)),
    }


def _refusal(bundle: str, expected: str, found: str) -> BundleError:
    return BundleError(
        f"canary of the fused graph of bundle {bundle}",
        expected=expected,
        found=found,
        do="the engine computes something else than the bundle's graphs: build it again, or report this",
    )
