"""What an ONNX file holds, read without an engine: inputs, outputs, operators, and the size of every stored tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from . import onnx_wire as wire
from .onnx_wire import Refusal

DTYPES: Mapping[int, np.dtype[np.generic]] = {
    1: np.dtype("float32"),
    2: np.dtype("uint8"),
    3: np.dtype("int8"),
    6: np.dtype("int32"),
    7: np.dtype("int64"),
    9: np.dtype("bool"),
    10: np.dtype("float16"),
    11: np.dtype("float64"),
}
"""ONNX data type number to dtype: those that a bundle may use."""

BFLOAT16 = 16
"""ONNX's number of the type that numpy has not: allowed inside a graph, never for its inputs and outputs."""
_BITS16 = np.dtype("<u2")
_EXPONENT: Mapping[np.dtype[np.generic], int] = {np.dtype("float16"): 0x7C00, _BITS16: 0x7F80}
"""Bits of the exponent; ``_BITS16`` holds bfloat16."""

MAX_RANK = 16
MAX_EMPTY_ELEMENTS = 1024
"""What the other axes of an empty tensor may span: [0, 2³⁰] takes no byte here, but 4 GB once it is summed."""

_PLAIN_ATTRIBUTES = frozenset({1, 2, 3, 4, 6, 7, 8, 9})
"""AttributeType FLOAT, INT, STRING, TENSOR and their lists; the others are graphs, sparse tensors and types."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A declared input or output.

    Attributes:
        name: Its name in the graph.
        dtype: numpy's name: ``float32``, ``int64``, ...
        axes: One entry an axis: a size, or the letter of an axis whose size is known only at run time.
    """

    name: str
    dtype: str
    axes: tuple[int | str, ...]

    def __str__(self) -> str:
        """As written in messages: ``points float32 [g, 2]``."""
        return f"{self.name} {self.dtype} [{', '.join(str(axis) for axis in self.axes)}]"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call.

    Attributes:
        op: Operator name, ``Conv``.
        domain: Operator domain; empty is ONNX itself.
        inputs: Value names; an empty one is an optional input left out.
        outputs: Value names.
        ints: Integer attributes by name.
        elements: At least as many numbers as its attributes hold (what a ``Constant`` yields).
    """

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: Mapping[str, int]
    elements: int


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """What was read.

    Attributes:
        ir_version: Version of the file format.
        opsets: (domain, version) pairs.
        inputs: Graph inputs.
        outputs: Graph outputs.
        nodes: Operator calls in file order.
        initializers: Elements of each stored tensor by name, an axis of size 0 counted as 1.
    """

    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, int]


def read_onnx(data: bytes, what: str) -> OnnxModel:
    """Reads the bytes of one ONNX file.

    Args:
        data: The whole file.
        what: Its name, for messages.

    Raises:
        BundleError: Malformed bytes, or something that no bundle may contain: external data, subgraphs, local
            functions, sparse tensors, tensors whose bytes do not match their axes, NaN or infinity.
    """
    try:
        return _read_model(memoryview(data))
    except Refusal as refusal:
        raise refusal.about(what) from None


def _read_model(view: memoryview) -> OnnxModel:
    model = wire.read_message(view, wire.MODEL)
    graph = wire.read_message(wire.only_view(model, "graph", "ModelProto"), wire.GRAPH)
    initializers: dict[str, int] = {}
    for stored in wire.views(graph, "initializer"):
        name, elements = _read_tensor(stored)
        if not name or name in initializers:
            raise Refusal("a name of its own for every initializer", repr(name))
        initializers[name] = elements
    return OnnxModel(
        ir_version=wire.number(model, "ir_version"),
        opsets=tuple(_read_opset(view) for view in wire.views(model, "opset_import")),
        inputs=tuple(_read_value_info(view) for view in wire.views(graph, "input")),
        outputs=tuple(_read_value_info(view) for view in wire.views(graph, "output")),
        nodes=tuple(_read_node(view) for view in wire.views(graph, "node")),
        initializers=initializers,
    )


def _read_opset(view: memoryview) -> tuple[str, int]:
    opset = wire.read_message(view, wire.OPSET)
    return wire.text(opset, "domain"), wire.number(opset, "version")


def _read_value_info(view: memoryview) -> Tensor:
    info = wire.read_message(view, wire.VALUE_INFO)
    name = wire.text(info, "name")
    kind = wire.read_message(wire.only_view(info, "type", name), wire.TYPE)
    tensor = wire.read_message(wire.only_view(kind, "tensor_type", name), wire.TENSOR_TYPE)
    shape = wire.read_message(wire.only_view(tensor, "shape", name), wire.SHAPE)
    axes = tuple(_read_axis(dim, name) for dim in wire.views(shape, "dim"))
    if len(axes) > MAX_RANK:
        raise Refusal(f"at most {MAX_RANK} axes", f"{name!r} with {len(axes)}")
    return Tensor(name, str(_dtype(wire.number(tensor, "elem_type"), name)), axes)


def _read_axis(view: memoryview, name: str) -> int | str:
    dim = wire.read_message(view, wire.DIM)
    size, letter = wire.number(dim, "dim_value"), wire.text(dim, "dim_param")
    if bool(size) == bool(letter) or size < 0:
        raise Refusal(f"a size from 1 or a letter for every axis of {name!r}", f"size {size}, letter {letter!r}")
    return letter or size


def _read_node(view: memoryview) -> Node:
    node = wire.read_message(view, wire.NODE)
    op = wire.text(node, "op_type")
    ints: dict[str, int] = {}
    elements = 0
    for stored in wire.views(node, "attribute"):
        name, value, count = _read_attribute(stored, op)
        if name in ints:
            raise Refusal("a name of its own for every attribute", f"{name!r} twice on {op}")
        ints[name] = value
        elements += count
    inputs = tuple(wire.decode(view) for view in wire.views(node, "input"))
    outputs = tuple(wire.decode(view) for view in wire.views(node, "output"))
    return Node(op, wire.text(node, "domain"), inputs, outputs, ints, elements)


def _read_attribute(view: memoryview, op: str) -> tuple[str, int, int]:
    """Name, integer value (0 for other kinds) and number of elements of one attribute."""
    attribute = wire.read_message(view, wire.ATTRIBUTE)
    name = wire.text(attribute, "name")
    if wire.number(attribute, "type") not in _PLAIN_ATTRIBUTES:
        raise Refusal("numbers, strings and tensors as attributes", f"another kind of {name!r} on {op}")
    floats = b"".join(bytes(view) for key in ("f", "floats") for view in wire.views(attribute, key))
    if len(floats) % 4 or not _all_finite(memoryview(floats), DTYPES[1]):
        raise Refusal("finite attributes", f"NaN or infinity in {name!r} on {op}")
    elements = len(floats) // 4 + sum(1 for _ in wire.numbers(attribute, "ints"))
    elements += sum(_read_tensor(stored)[1] for key in ("t", "tensors") for stored in wire.views(attribute, key))
    elements += sum(len(attribute[key]) for key in ("i", "s", "strings"))
    return name, wire.number(attribute, "i"), elements


def _read_tensor(view: memoryview) -> tuple[str, int]:
    """Name and number of elements of a stored tensor: all its numbers are here, finite, in ``raw_data``."""
    tensor = wire.read_message(view, wire.TENSOR)
    name = wire.text(tensor, "name")
    if wire.number(tensor, "data_location"):
        raise Refusal("weights inside the file", f"external data for {name!r}")
    dtype = _stored_dtype(wire.number(tensor, "data_type"), name)
    dims = list(islice(wire.numbers(tensor, "dims"), MAX_RANK + 1))
    if len(dims) > MAX_RANK or any(dim < 0 for dim in dims):
        raise Refusal(f"at most {MAX_RANK} axes, sizes from 0", f"tensor {name!r} with axes {dims}")
    raw = next(wire.views(tensor, "raw_data"), memoryview(b""))
    if len(raw) != math.prod(dims) * dtype.itemsize:
        raise Refusal(f"{math.prod(dims) * dtype.itemsize} bytes for {name!r}, {dtype} {dims}", f"{len(raw)} bytes")
    elements = math.prod(max(dim, 1) for dim in dims)
    if not raw and elements > MAX_EMPTY_ELEMENTS:
        raise Refusal("empty tensors of small axes", f"tensor {name!r} with axes {dims}")
    if not _all_finite(raw, dtype):
        raise Refusal("finite weights", f"NaN or infinity in {name!r}", "train again: these weights are broken")
    return name, elements


def _all_finite(raw: memoryview, dtype: np.dtype[np.generic]) -> bool:
    if dtype in _EXPONENT:  # infinity and NaN have all exponent bits set; numpy's isfinite is slow in half precision
        bits = _EXPONENT[dtype]
        return not bool(((np.frombuffer(raw, dtype=_BITS16) & bits) == bits).any())
    if dtype.kind != "f":
        return True
    return bool(np.isfinite(np.frombuffer(raw, dtype=dtype.newbyteorder("<"))).all())


def _stored_dtype(number: int, name: str) -> np.dtype[np.generic]:
    """That of a stored tensor; bfloat16 comes as the 16 bits that it is."""
    return _BITS16 if number == BFLOAT16 else _dtype(number, name)


def _dtype(number: int, name: str) -> np.dtype[np.generic]:
    if number not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES.values())
        raise Refusal(f"one of {known}", f"{name!r} with ONNX data type {number}")
    return DTYPES[number]
