"""How large the values inside graphs get on real photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from gransam_sdk.errors import InputError
from gransam_sdk.shapes import AnyArray, Float
from gransam_sdk.types import PointGrid

from .constants import Constants, element_types
from .onnx_run import open_graph

Ranges = dict[str, tuple[float, float]]
"""Least and largest number by value name."""

LARGEST_HALF = 65504.0
HEADROOM = 8.0
"""A photo that was not measured may need more room than those that were: so many times."""
_LOW, _HIGH = "__low", "__high"
AT_ONCE = 24
"""Values looked at in one run: each may stay in memory to its end, and one of a large encoder has 800 MB."""
_POINTS_PER_SIDE = 3


def image_ranges(data: bytes, images: Iterable[Float]) -> Ranges:
    """Ranges of all float32 values of the image graph that depend on the photo.

    Args:
        data: ONNX bytes.
        images: (1,3,s,s) float32 each, as the runtime prepares photos.

    Raises:
        InputError: No images.
    """
    feeds = [{"image": image} for image in images]
    if not feeds:
        raise no_photos()
    found = _ranges(data, feeds)
    for feed in feeds:
        _widen(found, "image", float(feed["image"].min()), float(feed["image"].max()))
    return found


def too_large(graphs: Mapping[str, bytes], images: Iterable[Float]) -> dict[str, set[str]]:
    """Values that may leave float16, by graph: more than an eighth of its largest number on a photo.

    Args:
        graphs: ONNX bytes of image, prompt and mask.
        images: (1,3,s,s) float32 each.

    Raises:
        InputError: No images.
    """
    points = PointGrid(per_side=_POINTS_PER_SIDE).points()
    choice = np.arange(len(points), dtype=np.int64) % 4
    known: list[dict[str, AnyArray]] = [{"image": image, "points": points, "choice": choice} for image in images]
    if not known:
        raise no_photos()
    limit, found = LARGEST_HALF / HEADROOM, dict[str, set[str]]()
    for name in ("image", "prompt", "mask"):
        read = [value.name for value in onnx.load_from_string(graphs[name]).graph.input]
        feeds = [{key: photo[key] for key in read} for photo in known]
        ranges, run = _ranges(graphs[name], feeds), open_graph(graphs[name])
        found[name] = {value for value, (low, high) in ranges.items() if not -limit <= low <= high <= limit}
        for photo, feed in zip(known, feeds, strict=True):
            # The image graph alone has a batch axis.
            photo |= {key: value[0] if name == "image" else value for key, value in run(feed).items()}
    return found


def no_photos() -> InputError:
    """What to raise where photos were needed."""
    return InputError("calibration photos", expected="at least one photo", found="none", do="name a folder of photos")


def _ranges(data: bytes, feeds: Sequence[Mapping[str, AnyArray]]) -> Ranges:
    """Ranges of a graph's float32 values over several runs."""
    found = Ranges()
    for part in _parts(data):
        run = open_graph(part)
        for feed in feeds:
            outputs = run(feed)
            for name in outputs:
                if name.endswith(_LOW):
                    base = name.removesuffix(_LOW)
                    _widen(found, base, float(outputs[name]), float(outputs[base + _HIGH]))
    return found


def _parts(data: bytes) -> Iterator[bytes]:
    """The graph several times, each with the least and the largest number of a few float32 values for outputs."""
    model = onnx.load_from_string(data)
    constants, types = Constants(model.graph), element_types(model)
    made = [name for node in model.graph.node for name in node.output]
    values = [name for name in made if name not in constants.names and types.get(name) == TensorProto.FLOAT]
    for start in range(0, len(values), AT_ONCE):
        part = onnx.ModelProto()
        part.CopyFrom(model)
        del part.graph.output[:]
        for name in values[start : start + AT_ONCE]:
            for operator, suffix in (("ReduceMin", _LOW), ("ReduceMax", _HIGH)):
                part.graph.node.append(helper.make_node(operator, [name], [name + suffix], keepdims=0))
                part.graph.output.append(helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, []))
        yield bytes(part.SerializeToString())


def _widen(ranges: Ranges, name: str, low: float, high: float) -> None:
    before = ranges.get(name, (low, high))
    ranges[name] = min(before[0], low), max(before[1], high)
