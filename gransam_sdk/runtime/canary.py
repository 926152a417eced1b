"""The canary: a synthetic picture whose outputs a bundle records, checked once a load.

It catches what a checksum cannot: an engine that computes something else, an overflow, a head that belongs to another
segmenter in a bundle that was put together by hand.
"""

from __future__ import annotations

import numpy as np

from ..bundle import Bundle
from ..canary_picture import canary_picture
from ..errors import BundleError, ImageError
from ..shapes import Float
from .model import Model


def canary_outputs(model: Model, points: Float) -> dict[str, Float]:
    """What a bundle makes of the canary picture.

    Args:
        model: Its open sessions.
        points: (c,2) float32 XY in [0,1].

    Returns:
        ``tokens`` (c,4) norms, ``iou`` (c,4), ``lattice`` (c,4) means, ``mask`` (c,) means of the low-res logits of
        token 1 and, with a head, ``head`` logits, a flat row a point.
    """
    pixels = canary_picture(model.bundle.input_side)
    frame = model.frame(pixels)
    hoisted = model.hoist(model.prepare(pixels, frame))
    prompts = next(model.prompt(hoisted, frame, points, len(points)))
    masks = model.masks(hoisted, prompts.state, np.ones(len(points), dtype=np.int64), len(points))
    outputs = {
        "tokens": np.linalg.norm(prompts.tokens, axis=2),
        "iou": prompts.iou,
        "lattice": prompts.lattice.mean(axis=(2, 3)),
        "mask": masks.mean(axis=(1, 2)),
    }
    if model.bundle.has_head:
        outputs["head"] = model.classify(prompts.tokens, prompts.features[:, 1]).reshape(len(points), -1)
    return outputs


def check_canary(model: Model) -> None:
    """Compares a bundle's outputs on the canary picture with the recorded ones.

    Raises:
        BundleError: They differ by more than the recorded tolerance, or are not finite.
    """
    bundle = model.bundle
    try:
        found = canary_outputs(model, bundle.canary.points)
    except ImageError as error:
        raise _refusal(bundle, "finite outputs", error.what) from error
    for name, values in found.items():
        expected = bundle.canary.expected[name]
        worst = float(np.abs(values - expected).max()) if values.shape == expected.shape else float("inf")
        if not worst <= bundle.canary.tolerance:
            raise _refusal(
                bundle, f"{name} within {bundle.canary.tolerance:g} of the recorded values", f"off by {worst:.3g}"
            )


def _refusal(bundle: Bundle, expected: str, found: str) -> BundleError:
    return BundleError(
        f"canary of bundle {bundle.name}",
        expected=expected,
        found=found,
        do="the bundle or the engine computes something else than what was tested: build it again, or report this",
    )
