"""Counts of hand-made graphs by arithmetic; ``test_decoder_graphs`` counts exported ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.errors import InputError
from gransam_sdk.export.graph_cost import graph_cost


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    weights: dict[str, tuple[int, ...]] | None = None,
) -> bytes:
    stored = [
        numpy_helper.from_array(np.ones(shape, dtype=np.float32), name) for name, shape in (weights or {}).items()
    ]
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name, axes in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        stored,
    )
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), ["out"], **attributes)


@pytest.mark.parametrize(
    ("one", "inputs", "weights", "expected"),
    [
        (node("MatMul", "a", "w"), {"a": ["g", 3, 5]}, {"w": (5, 7)}, 2 * 3 * 5 * 7),
        (node("MatMul", "a", "b"), {"a": ["g", 4, 3, 5], "b": [4, 5, 6]}, {}, 2 * 4 * 3 * 5 * 6),
        (node("Gemm", "a", "w", "c", transB=1), {"a": ["g", 5]}, {"w": (7, 5), "c": (7,)}, 2 * 5 * 7),
        (node("Gemm", "a", "w", transA=1), {"a": [5, "g"]}, {"w": (5, 7)}, 2 * 5 * 7),
        (node("Conv", "a", "w", group=2, pads=[1] * 4), {"a": ["g", 4, 5, 6]}, {"w": (6, 2, 3, 3)}, 2 * 6 * 30 * 2 * 9),
        (node("Conv", "a", "w", strides=[2, 2]), {"a": ["g", 3, 8, 8]}, {"w": (16, 3, 2, 2)}, 2 * 16 * 16 * 3 * 4),
        (
            node("ConvTranspose", "a", "w", strides=[2, 2]),
            {"a": ["g", 8, 3, 3]},
            {"w": (8, 5, 2, 2)},
            2 * 9 * 8 * 5 * 4,
        ),
        (node("Einsum", "a", "b", equation="bij,kj->bik"), {"a": ["g", 3, 5], "b": [4, 5]}, {}, 2 * 3 * 5 * 4),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_each_operator_by_arithmetic(
    one: onnx.NodeProto, inputs: dict[str, Sequence[int | str]], weights: dict[str, tuple[int, ...]], expected: int
) -> None:
    cost = graph_cost(graph([one], inputs, weights), {"g": 2})
    assert cost.multiply_adds == expected and cost.by_operator == {one.op_type: expected}


def test_what_follows_from_weights_alone_is_free_and_sizes_are_followed() -> None:
    nodes = [
        helper.make_node("MatMul", ["v", "w"], ["once"]),
        helper.make_node("Shape", ["a"], ["size"]),
        helper.make_node("Expand", ["once", "size"], ["many"]),
        helper.make_node("MatMul", ["a", "many"], ["out"]),
    ]
    data = graph(nodes, {"a": ["g", 4, 4]}, {"v": (1, 4, 4), "w": (1, 4, 4)})
    cost = graph_cost(data, {"g": 3})
    assert cost.multiply_adds == 3 * 64
    assert cost.touched_bytes == 4 * 3 * (16 + 16 + 16)


def test_a_free_axis_without_a_size_is_refused() -> None:
    data = graph([node("MatMul", "a", "w")], {"a": ["g", 5]}, {"w": (5, 7)})
    with pytest.raises(InputError, match="axis g of a"):
        graph_cost(data, {"n": 1})
