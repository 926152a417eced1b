"""Graphs in float32 to graphs that carry a reduced precision in themselves, as strongly typed engines need it.

``docs/precision.md`` says what each precision does and what it costs. Inputs and outputs keep their names and types, so
a runtime that hands them on does not see the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.errors import EnvironmentFault, InputError
from gransam_sdk.shapes import Float

from .int8 import quantise
from .int8_choice import choose
from .mixed import Sixteen, to_mixed
from .onnx_file import OPSET
from .onnx_run import open_graph
from .ranges import too_large

Precision = Literal["fp16", "bf16", "int8"]

_IR_VERSION = 10


def to_precision(
    graphs: Mapping[str, bytes],
    precision: str,
    images: Iterable[Float],
    *,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, bytes]:
    """Writes a precision into graphs.

    Args:
        graphs: ONNX bytes of image, prompt and mask as ``onnx_file.export_graph`` makes them. Others, such as the
            head, are returned as they are.
        precision: ``fp16`` and ``bf16`` change all three graphs, ``int8`` the image graph.
        images: (1,3,s,s) float32 each, photos as the runtime prepares them; other ones than parity is judged on.
            bf16 needs none.
        log: Told what was decided.

    Returns:
        ONNX bytes by the same names.

    Raises:
        InputError: Another precision, no photos, or a weight that the precision cannot hold.
    """
    if precision == "int8":
        return {**graphs, "image": choose(graphs["image"], images, log=log).data}
    sixteen: Sixteen
    if precision == "fp16":
        sixteen, large = "fp16", too_large(graphs, images)
    elif precision == "bf16":
        sixteen, large = "bf16", {}
    else:
        raise InputError("precision", expected=", ".join(get_args(Precision)), found=repr(precision))
    for name, values in large.items():
        if values:
            log(f"fp16: {len(values)} values of the {name} graph are too large and stay in 32 bits")
    prompt, variances = to_mixed(graphs["prompt"], sixteen, large=large.get("prompt", ()))
    image, _ = to_mixed(graphs["image"], sixteen, large=large.get("image", ()), outputs=variances)
    mask, _ = to_mixed(graphs["mask"], sixteen, large=large.get("mask", ()))
    return {**graphs, "image": image, "prompt": prompt, "mask": mask}


def can_run_here(precision: Precision) -> bool:
    """Whether ONNX Runtime's CPU provider on this machine computes such graphs; found out by running a small one.

    True says nothing about how it rounds, see ``rounding``.
    """
    data = _small_graph(precision)
    try:
        found = open_graph(data)({"image": np.ones((1, 8), np.float32)})["y"]
    except EnvironmentFault:
        return False
    return bool(np.allclose(found, 8.0, rtol=0.02))


def _small_graph(precision: Precision) -> bytes:
    """A product of ones (1,8) with ones (8,8)."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 8])],
        [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    data = bytes(model.SerializeToString())
    if precision == "int8":
        return quantise(data, {"y"}, {"image": (0.0, 1.0)})
    return to_mixed(data, precision)[0]
