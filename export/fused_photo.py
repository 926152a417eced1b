"""The beginning of a fused graph: a resized photo to the image graph's input, prompts, and the cells that show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gransam_sdk.bundle import Bundle
from gransam_sdk.types import PointGrid

from .graph_builder import GraphBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoParts:
    """Names of values.

    Attributes:
        image: (1,3,s,s) float32, what ``runtime.preprocess`` gives.
        points: (g,2) float32 XY in [0,1] of the square, what ``Frame.to_model`` gives.
        cells: (1,l,l) bool, true on ``Frame.valid``'s rows and columns.
    """

    image: str
    points: str
    cells: str


def add_photo(builder: GraphBuilder, bundle: Bundle, grid: PointGrid) -> PhotoParts:
    """Adds what stands before the image graph.

    Args:
        builder: Has inputs ``photo`` (s,s,3) uint8 and ``valid`` (2,) int64: height and width of the resized photo at
            the top left of the square.
        bundle: Its preprocessing and sides.
        grid: The prompts, g of them.
    """
    s, low = bundle.input_side, bundle.low_res_side
    pixels = builder.cast("photo", "float32")
    for op, values in (("Sub", bundle.preprocess.mean), ("Div", bundle.preprocess.std)):
        pixels = builder.add(op, pixels, builder.store(np.array(values, dtype=np.float32)))
    # Pixel i is in the photo where i < valid. Cell i is where its centre is: (i + 1/2)·s/l < valid; the first always.
    inside = _inside(builder, np.arange(s), 1)  # (s,s)
    inside = builder.add("Unsqueeze", inside, builder.integers(-1))  # (s,s,1)
    pixels = builder.add("Where", inside, pixels, builder.store(np.zeros((), dtype=np.float32)))
    image = builder.add("Transpose", pixels, perm=[2, 0, 1])
    centres = (2 * np.arange(low) + 1) * s
    centres[0] = 0
    cells = _inside(builder, centres, 2 * low)
    sides = builder.cast(builder.add("Gather", "valid", builder.integers(1, 0)), "float32")  # width, height
    scale = builder.add("Div", sides, builder.store(np.array(s, dtype=np.float32)))
    first = builder.integers(0)
    return PhotoParts(
        image=builder.add("Unsqueeze", image, first),
        points=builder.add("Mul", builder.store(grid.points()), scale),
        cells=builder.add("Unsqueeze", cells, first),
    )


def _inside(builder: GraphBuilder, places: np.ndarray, scale: int) -> str:
    """(p,p) bool: both ``places[row] < scale·valid[0]`` and ``places[column] < scale·valid[1]``."""
    limits = builder.add("Mul", "valid", builder.integers(scale))
    rows, columns = builder.add_split("Split", limits, builder.integers(1, 1), outputs=2, axis=0)
    stored = places.astype(np.int64)
    return builder.add(
        "And",
        builder.add("Less", builder.store(stored[:, None]), rows),
        builder.add("Less", builder.store(stored[None, :]), columns),
    )
