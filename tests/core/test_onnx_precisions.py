"""What the reader and the rules say to graphs in 16 and 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from bundles import OPSET, initializer, model_of, value
from onnx import TensorProto, helper

from gransam_sdk.errors import BundleError
from gransam_sdk.onnx_model import OnnxModel, read_onnx
from gransam_sdk.onnx_rules import check_rules
from gransam_sdk.onnx_wire import Refusal

NODE: Callable[..., onnx.NodeProto] = helper.make_node


def read(model: onnx.ModelProto) -> OnnxModel:
    return read_onnx(model.SerializeToString(), "test.onnx")


def refusal(nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto]) -> Refusal | None:
    """What the rules say to a graph with input ``points`` (g,2)."""
    model = model_of(nodes, [value("points", ("g", 2))], [value(nodes[-1].output[0], ("g",))], stored)
    try:
        check_rules(read(model), OPSET)
    except Refusal as error:
        return error
    return None


def test_quantised_weights_are_constants_that_do_not_grow() -> None:
    levels, scale = initializer("levels", np.ones(1 << 20, np.int8)), initializer("scale", np.ones(1, np.float32))
    nodes = [NODE("DequantizeLinear", ["levels", "scale"], ["w"]), NODE("Add", ["w", "points"], ["y"])]
    assert refusal(nodes, [levels, scale]) is None
    small, many = initializer("small", np.ones(1, np.int8)), initializer("many", np.ones(1 << 17, np.float32))
    grown = [NODE("DequantizeLinear", ["small", "many"], ["w"]), NODE("Expand", ["w", "big"], ["y"])]
    assert refusal(grown, [small, many, initializer("big", [1 << 27])]) is not None


@pytest.mark.parametrize(("kind", "good"), [(3, True), (2, True), (17, False), (22, False)])
def test_only_numbers_of_known_types_are_quantised_to(kind: int, good: bool) -> None:
    node = NODE("QuantizeLinear", ["points", "scale"], ["y"], output_dtype=kind)
    found = refusal([node], [initializer("scale", np.ones((), np.float32))])
    assert (found is None) == good


def test_bfloat16_is_for_weights_and_values_only() -> None:
    def stored(bits: int) -> onnx.TensorProto:
        return helper.make_tensor("w", TensorProto.BFLOAT16, [2], np.array([bits, 1], "<u2").tobytes(), raw=True)

    assert read(model_of([], [], [], [stored(0x3F80)])).initializers == {"w": 2}
    assert read(model_of([], [], [], [stored(0x7C00)])).initializers == {"w": 2}, "float16's infinity is a number here"
    for bits in (0x7F80, 0xFF80, 0x7FC0):
        with pytest.raises(BundleError, match="NaN or infinity"):
            read(model_of([], [], [], [stored(bits)]))
    check_rules(read(model_of([NODE("Cast", ["tokens"], ["y"], to=16)], [value("tokens", ("g", 4))], [], [])), OPSET)
    port = helper.make_tensor_value_info("tokens", TensorProto.BFLOAT16, ["g", 4])
    with pytest.raises(BundleError, match="data type 16"):
        read(model_of([], [port], [], []))
