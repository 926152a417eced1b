"""What a graph holds before it sees a photo: weights, however they are stored, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.errors import EnvironmentFault
from gransam_sdk.shapes import AnyArray


class Constants:
    """Names of a graph that do not depend on its inputs.

    Args:
        graph: As ``onnx_file.export_graph`` makes them: float32 weights stored as such, or as float16 and a Cast.

    Attributes:
        names: Initializers and everything computed from them alone.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._cast: dict[str, str] = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Cast" and node.input[0] in self._stored
        }
        self.names = set(self._stored)
        for node in graph.node:
            if all(name in self.names for name in node.input if name):
                self.names.update(node.output)

    def is_weight(self, name: str) -> bool:
        """True for float32 values that are stored, not computed."""
        stored = self._stored.get(self._cast.get(name, name))
        return stored is not None and stored.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def stored_name(self, name: str) -> str:
        """The initializer behind a weight."""
        return self._cast.get(name, name)

    def stored_in_half(self, name: str) -> bool:
        """True for a weight whose stored numbers are float16."""
        return self.is_weight(name) and self._stored[self.stored_name(name)].data_type == TensorProto.FLOAT16

    def values(self, name: str) -> AnyArray:
        """A weight as float32."""
        array: AnyArray = numpy_helper.to_array(self._stored[self.stored_name(name)])
        return array.astype(np.float32)

    def axes(self, name: str) -> Sequence[int]:
        """Sizes of a weight."""
        return tuple(self._stored[self.stored_name(name)].dims)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX data type number of every value.

    Raises:
        EnvironmentFault: The type of a value cannot be told.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    declared = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {value.name: int(value.type.tensor_type.elem_type) for value in declared}
    types |= {tensor.name: int(tensor.data_type) for tensor in inferred.initializer}
    for node in inferred.node:
        for name in node.output:
            if name and not types.get(name):
                raise EnvironmentFault(f"value {name} of {node.op_type}", expected="a known data type", found="none")
    return types


def rebuild(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], stored: Iterable[onnx.TensorProto]
) -> onnx.ModelProto:
    """The same inputs and outputs with other nodes and weights; what no output needs is left out.

    Raises:
        onnx.checker.ValidationError: The nodes make no valid graph.
    """
    needed = {output.name for output in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    graph = helper.make_graph(
        list(reversed(kept)),
        model.graph.name,
        model.graph.input,
        model.graph.output,
        [tensor for tensor in stored if tensor.name in needed],
    )
    out = helper.make_model(graph, ir_version=model.ir_version, opset_imports=model.opset_import)
    out.producer_name = model.producer_name
    onnx.checker.check_model(out, full_check=True)
    return out
