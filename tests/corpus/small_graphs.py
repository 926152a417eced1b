"""Small ONNX graphs written by hand, in the form in which the exporter leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODE = helper.make_node


def small_graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, np.ndarray],
    halved: Sequence[str] = (),
) -> bytes:
    """A float32 graph.

    Args:
        nodes: Operators.
        inputs: Axes by name.
        outputs: Axes by name.
        weights: Stored values by name.
        halved: Those of them that are stored as float16 and a Cast.
    """
    stored = [
        numpy_helper.from_array(value.astype(np.float16) if name in halved else value, _stored(name, halved))
        for name, value in weights.items()
    ]
    casts = [NODE("Cast", [_stored(name, halved)], [name], to=TensorProto.FLOAT) for name in halved]
    ports = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes)) for name, axes in each.items()]
        for each in (inputs, outputs)
    )
    graph = helper.make_graph([*casts, *nodes], "graph", *ports, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def runs_in(data: bytes) -> dict[str, set[str]]:
    """Operator type to the float types of its results, as the onnx library infers them; casts left out."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.output]}
    found: dict[str, set[str]] = {}
    for node in model.graph.node:
        kind = TensorProto.DataType.Name(kinds[node.output[0]])
        if node.op_type != "Cast" and "FLOAT" in kind:
            found.setdefault(node.op_type, set()).add(kind)
    return found


def _stored(name: str, halved: Sequence[str]) -> str:
    return f"{name}_half" if name in halved else name
