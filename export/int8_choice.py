"""Which products bear 8 bits: each is quantised alone, on photos, and the most sensitive stay as they are.

The products are taken in order of their own error, as many as together stay within a budget. What they lose together is
measured, not added up: neighbours share the rounding of the value between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from gransam_sdk.errors import InputError
from gransam_sdk.shapes import Float

from .int8 import products, quantise
from .onnx_run import Run, open_graph
from .ranges import image_ranges, no_photos

BUDGET = 0.01
"""Relative error of the image graph's outputs, see docs/precision.md for what it costs in masks."""

PHOTOS = 3
"""Each costs one run of the image graph a product; ranges are taken from all calibration photos."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen.

    Attributes:
        data: ONNX bytes.
        errors: Relative error of the outputs with this product alone in 8 bits, for each product by name.
        chosen: Names of the products in 8 bits.
        weights: Share of the products' weights that they hold.
    """

    data: bytes
    errors: dict[str, float]
    chosen: frozenset[str]
    weights: float


def choose(
    data: bytes, images: Iterable[Float], *, budget: float = BUDGET, log: Callable[[str], None] = lambda line: None
) -> Choice:
    """Quantises what may be quantised.

    Args:
        data: ONNX bytes of the image graph, in float32.
        images: (1,3,s,s) float32 each, as the runtime prepares photos.
        budget: Relative error that the outputs may have.
        log: Told what was chosen.

    Raises:
        InputError: No images, or a graph in which no product bears 8 bits.
    """
    stream = iter(images)
    first = list(islice(stream, PHOTOS))
    if not first:
        raise no_photos()
    ranges = image_ranges(data, chain(first, stream))
    plain = open_graph(data)
    expected = [plain({"image": image}) for image in first]
    every = products(data)

    def lost(names: Sequence[str]) -> float:
        return _error(open_graph(quantise(data, names, ranges)), first, expected)

    errors = {item.name: lost([item.name]) for item in every}
    order = sorted(errors, key=lambda name: (errors[name], name))
    chosen = order[: most_within(len(order), budget, lambda count: lost(order[:count]))]
    if not chosen:
        found = f"at least {min(errors.values(), default=math.nan):.2g} in each of {len(errors)}"
        raise InputError(
            "int8", expected=f"a product that loses at most {budget}", found=found, do="use another --precision"
        )
    total, held = sum(item.size for item in every), sum(item.size for item in every if item.name in chosen)
    log(f"int8: {len(chosen)} of {len(every)} products, {held / total:.0%} of their weights")
    return Choice(data=quantise(data, chosen, ranges), errors=errors, chosen=frozenset(chosen), weights=held / total)


def most_within(most: int, budget: float, lost: Callable[[int], float]) -> int:
    """The largest count up to ``most`` whose loss, which grows with the count, is within a budget: by bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if lost(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _error(run: Run, images: Sequence[Float], expected: Sequence[dict[str, np.ndarray]]) -> float:
    """Norm of the difference over the reference's, a mean over photos, of the output where that is largest."""
    ratios: dict[str, list[float]] = {}
    for image, reference in zip(images, expected, strict=True):
        found = run({"image": image})
        for name, value in reference.items():
            gap = float(np.linalg.norm((found[name] - value).ravel()))
            ratios.setdefault(name, []).append(gap / max(float(np.linalg.norm(value.ravel())), 1e-12))
    return max(sum(values) / len(values) for values in ratios.values())
