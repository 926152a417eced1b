"""An ONNX graph grown by hand: single nodes, stored tensors, and whole graphs spliced in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.onnx_model import Tensor
from gransam_sdk.shapes import AnyArray

IR_VERSION = 10

Names = Mapping[str, str]
"""Names of a spliced graph to names of the whole."""


class GraphBuilder:
    """A graph in the making; methods take and give names of values."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[TensorProto] = []

    def store(self, values: AnyArray) -> str:
        """Stores a tensor of any dtype and shape."""
        name = f"stored_{len(self._stored)}"
        self._stored.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name

    def integers(self, *values: int) -> str:
        """Stores a list of whole numbers, int64: axes, shapes, indices."""
        return self.store(np.array(values, dtype=np.int64))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output."""
        return self.add_split(op, *inputs, outputs=1, **attributes)[0]

    def add_split(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Adds a node with several outputs."""
        names = [f"{op}_{len(self._nodes)}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def cast(self, value: str, dtype: str) -> str:
        """Adds a cast to a dtype by numpy's name."""
        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def sum(self, value: str, *axes: int) -> str:
        """Adds a sum over axes, which go; over all of them where none is named."""
        return self.add("ReduceSum", value, *([self.integers(*axes)] if axes else []), keepdims=0)

    def splice(
        self, graph: onnx.GraphProto, prefix: str, shared: Names, parts: Sequence[Names]
    ) -> list[dict[str, str]]:
        """Takes a graph in, once for each part of its free axis.

        What depends on no part's own inputs, so on weights and shared inputs alone, is computed once for all parts.

        Args:
            graph: Its values get names of their own.
            prefix: Different for every graph that is spliced in.
            shared: Inputs that all parts have in common, to values of this builder.
            parts: For each part, its own inputs.

        Returns:
            For each part, the graph's outputs.
        """
        common = {tensor.name: f"{prefix}/{tensor.name}" for tensor in graph.initializer} | dict(shared)
        for tensor in graph.initializer:
            stored = TensorProto()
            stored.CopyFrom(tensor)
            stored.name = common[tensor.name]
            self._stored.append(stored)
        own: list[onnx.NodeProto] = []
        for node in graph.node:
            if all(name in common for name in node.input if name):
                common |= {name: f"{prefix}/{name}" for name in node.output}
                self._nodes.append(_renamed(node, common))
            else:
                own.append(node)
        answers = []
        for index, part in enumerate(parts):
            names = common | dict(part)
            for node in own:
                names |= {name: f"{prefix}.{index}/{name}" for name in node.output}
                self._nodes.append(_renamed(node, names))
            answers.append({value.name: names[value.name] for value in graph.output})
        return answers

    def model(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], values: Names, opset: int) -> onnx.ModelProto:
        """The finished model.

        Args:
            inputs: Declared inputs; nodes already read them by these names.
            outputs: Declared outputs.
            values: Which value each output is.
            opset: Of ONNX's own operators.
        """
        ends = [helper.make_node("Identity", [values[tensor.name]], [tensor.name]) for tensor in outputs]
        graph = helper.make_graph(
            [*self._nodes, *ends],
            "graph",
            [_declared(tensor) for tensor in inputs],
            [_declared(tensor) for tensor in outputs],
            initializer=self._stored,
        )
        return helper.make_model(
            graph, producer_name="gransam-sdk", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", opset)]
        )


def _renamed(node: onnx.NodeProto, names: Names) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = ""
    copy.input[:] = [names[name] if name else "" for name in node.input]
    copy.output[:] = [names[name] if name else "" for name in node.output]
    return copy


def _declared(tensor: Tensor) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, dtype, list(tensor.axes))
