"""Convolutions and matrix products in 8 bits: what they read is quantised and dequantised, all else is as it was.

Weights are int8 by output channel, activations int8 by tensor, both symmetric, results and biases float32: the one form
that ONNX Runtime, OpenVINO and TensorRT all take.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gransam_sdk.shapes import AnyArray

from .constants import Constants, rebuild
from .ranges import Ranges

_LEVELS = 127.0
_QUANTISED, _BACK, _SCALE, _ZERO = "__q", "__dq", "__scale", "__zero"


@dataclass(frozen=True, kw_only=True)
class Product:
    """A convolution or matrix product with stored weights.

    Attributes:
        name: Of its output in the graph.
        weight: Its weight's name.
        size: Numbers in the weight.
    """

    name: str
    weight: str
    size: int


def products(data: bytes) -> list[Product]:
    """What could be in 8 bits, in the graph's order.

    Args:
        data: ONNX bytes as ``onnx_file.export_graph`` makes them.
    """
    graph = onnx.load_from_string(data).graph
    constants = Constants(graph)
    return [
        Product(name=node.output[0], weight=node.input[1], size=constants.values(node.input[1]).size)
        for node in graph.node
        if _is_product(node, constants)
    ]


def quantise(data: bytes, chosen: Collection[str], ranges: Ranges) -> bytes:
    """Writes 8 bits into a graph.

    Args:
        data: ONNX bytes as ``onnx_file.export_graph`` makes them.
        chosen: ``Product.name`` of those that run in 8 bits.
        ranges: Of every value, see ``ranges.image_ranges``.

    Returns:
        ONNX bytes of the same inputs and outputs.
    """
    model = onnx.load_from_string(data)
    writer = _Writer(model, chosen, ranges)
    for value in model.graph.input:
        writer.pass_on(value.name)
    for node in model.graph.node:
        writer.copy(node)
    out = rebuild(model, writer.nodes, writer.stored)
    return bytes(out.SerializeToString(deterministic=True))


def _is_product(node: onnx.NodeProto, constants: Constants) -> bool:
    """A Conv, or a MatMul of something by a stored matrix."""
    if node.op_type not in ("Conv", "MatMul") or not constants.is_weight(node.input[1]):
        return False
    return node.input[0] not in constants.names and (node.op_type == "Conv" or len(constants.axes(node.input[1])) == 2)


class _Writer:
    """The new nodes and weights, in order; a value ``x`` comes back from 8 bits as ``x__dq``."""

    def __init__(self, model: onnx.ModelProto, chosen: Collection[str], ranges: Ranges) -> None:
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = list(graph.initializer)
        self._constants, self._ranges = Constants(graph), ranges
        wanted = [node for node in graph.node if node.output[0] in chosen and _is_product(node, self._constants)]
        self._chosen = {node.output[0] for node in wanted}
        self._read = {node.input[0] for node in wanted}
        self._made: set[str] = set()

    def copy(self, node: onnx.NodeProto) -> None:
        """Adds a node; one that is chosen reads 8 bits."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if node.output[0] in self._chosen:
            new.input[0] = node.input[0] + _BACK
            new.input[1] = self._weight(node)
        self.nodes.append(new)
        for name in node.output:
            self.pass_on(name)

    def pass_on(self, name: str) -> None:
        """After a value: its way into 8 bits and back, if a chosen product reads it."""
        if name not in self._read:
            return
        low, high = self._ranges[name]
        self._store(np.array(max(-low, high, 1e-6) / _LEVELS, np.float32), name + _SCALE)
        self._store(np.array(0, np.int8), name + _ZERO)
        steps = [name + _SCALE, name + _ZERO]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *steps], [name + _QUANTISED]))
        self.nodes.append(helper.make_node("DequantizeLinear", [name + _QUANTISED, *steps], [name + _BACK]))

    def _weight(self, node: onnx.NodeProto) -> str:
        """The weight, back from int8."""
        name = str(node.input[1])
        axis = 0 if node.op_type == "Conv" else 1  # (c_out,c_in,...) or (c_in,c_out)
        if name not in self._made:
            self._made.add(name)
            scales, levels = _by_channel(self._constants.values(name), axis)
            self._store(levels, name + _QUANTISED)
            self._store(scales, name + _SCALE)
            inputs = [name + _QUANTISED, name + _SCALE]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name + _BACK], axis=axis))
        return name + _BACK

    def _store(self, values: AnyArray, name: str) -> None:
        self.stored.append(numpy_helper.from_array(values, name))


def _by_channel(weight: AnyArray, axis: int) -> tuple[AnyArray, AnyArray]:
    """Steps (c_out,) float32 and levels -127 to 127 int8."""
    others = tuple(place for place in range(weight.ndim) if place != axis)
    scales = (np.abs(weight).max(axis=others) / _LEVELS).astype(np.float32)
    scales[scales == 0] = 1.0
    shape = [1] * weight.ndim
    shape[axis] = -1
    return scales, np.round(weight / scales.reshape(shape)).clip(-_LEVELS, _LEVELS).astype(np.int8)
