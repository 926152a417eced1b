"""How large the values inside graphs get on real photos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from gransam_sdk.errors import InputError
from gransam_sdk.shapes import AnyArray, Float
from gransam_sdk.types import PointGrid

from .constants import Constants, element_types
from .onnx_run import Run, open_graph

Ranges = dict[str, tuple[float, float]]
"""Least and largest number by value name."""

LARGEST_HALF = 65504.0
HEADROOM = 8.0
"""A photo that was not measured may need more room than those that were: so many times."""
_LOW, _HIGH = "__low", "__high"
_POINTS_PER_SIDE = 3


def image_ranges(data: bytes, images: Iterable[Float]) -> Ranges:
    """Ranges of all float32 values of the image graph that depend on the photo.

    Args:
        data: ONNX bytes.
        images: (1,3,s,s) float32 each, as the runtime prepares photos.

    Raises:
        InputError: No images.
    """
    run, found = open_graph(_with_ranges(data)), Ranges()
    for image in images:
        _split(run({"image": image}), found)
        _widen(found, "image", float(image.min()), float(image.max()))
    if not found:
        raise no_photos()
    return found


def too_large(graphs: Mapping[str, bytes], images: Iterable[Float]) -> dict[str, set[str]]:
    """Values that may leave float16, by graph: more than an eighth of its largest number on a photo.

    Args:
        graphs: ONNX bytes of image, prompt and mask.
        images: (1,3,s,s) float32 each.

    Raises:
        InputError: No images.
    """
    runs = {name: open_graph(_with_ranges(graphs[name])) for name in ("image", "prompt", "mask")}
    found: dict[str, Ranges] = {name: {} for name in runs}
    points = PointGrid(per_side=_POINTS_PER_SIDE).points()
    for image in images:
        hoisted = {name: value[0] for name, value in _split(runs["image"]({"image": image}), found["image"]).items()}
        known = {**hoisted, "points": points, "choice": np.arange(len(points), dtype=np.int64) % 4}
        known |= _run_known(graphs["prompt"], runs["prompt"], known, found["prompt"])
        _run_known(graphs["mask"], runs["mask"], known, found["mask"])
    if not found["image"]:
        raise no_photos()
    limit = LARGEST_HALF / HEADROOM
    return {
        name: {value for value, (low, high) in ranges.items() if not -limit <= low <= high <= limit}
        for name, ranges in found.items()
    }


def no_photos() -> InputError:
    """What to raise where photos were needed."""
    return InputError("calibration photos", expected="at least one photo", found="none", do="name a folder of photos")


def _run_known(data: bytes, run: Run, known: Mapping[str, AnyArray], ranges: Ranges) -> dict[str, AnyArray]:
    read = (value.name for value in onnx.load_from_string(data).graph.input)
    return _split(run({name: known[name] for name in read}), ranges)


def _with_ranges(data: bytes) -> bytes:
    """The graph with two more outputs for each float32 value, its least and its largest number."""
    model = onnx.load_from_string(data)
    constants, types = Constants(model.graph), element_types(model)
    for node in list(model.graph.node):
        for name in node.output:
            if name in constants.names or types.get(name) != TensorProto.FLOAT:
                continue
            for operator, suffix in (("ReduceMin", _LOW), ("ReduceMax", _HIGH)):
                model.graph.node.append(helper.make_node(operator, [name], [name + suffix], keepdims=0))
                model.graph.output.append(helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, []))
    return bytes(model.SerializeToString())


def _split(outputs: Mapping[str, AnyArray], ranges: Ranges) -> dict[str, AnyArray]:
    """The graph's own outputs; the others widen the ranges."""
    for name, value in outputs.items():
        if name.endswith(_LOW):
            base = name.removesuffix(_LOW)
            _widen(ranges, base, float(value), float(outputs[base + _HIGH]))
    return {name: value for name, value in outputs.items() if not name.endswith((_LOW, _HIGH))}


def _widen(ranges: Ranges, name: str, low: float, high: float) -> None:
    before = ranges.get(name, (low, high))
    ranges[name] = min(before[0], low), max(before[1], high)
