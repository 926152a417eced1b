"""A graph in 16 bits as a float32 graph that rounds where the other one does: what rounding costs, on any engine.

ONNX Runtime's CPU provider has few 16-bit kernels: it computes such a graph in 32 bits and drops most casts between,
so its answers say nothing about a GPU's. Here each result of an operator is rounded to the bits that the type has, by
arithmetic that no engine takes out: with c = x·(2ᵏ + 1), c - (c - x) is x rounded to 24 - k bits (Dekker 1971). Sums
inside a product are in 32 bits, as a GPU's are. Range is not imitated: see ``ranges.too_large``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.bundle import Bundle

from .constants import element_types, rebuild

_DROPPED_BITS: dict[int, int] = {TensorProto.FLOAT16: 13, TensorProto.BFLOAT16: 16}
"""Of float32's 24 bits of mantissa."""

_EXACT = frozenset(
    {
        *("Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "Relu"),
        *("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"),
    }
)
"""Results are among the inputs: nothing to round."""


def rounded_bundle(bundle: Bundle) -> Bundle:
    """An ``fp16`` bundle whose graphs imitate its rounding, to be judged on a processor; others as they are."""
    if bundle.precision != "fp16":
        return bundle
    graphs = {graph.file: with_rounding(bundle.contents[graph.file]) for graph in bundle.graphs.values()}
    return replace(bundle, contents={**bundle.contents, **graphs})


def with_rounding(data: bytes) -> bytes:
    """A graph in mixed precision as one in float32.

    Args:
        data: ONNX bytes of ``mixed.to_mixed``.

    Returns:
        ONNX bytes for measuring: the same inputs and outputs, every value rounded as in ``data``.
    """
    model = onnx.load_from_string(data)
    types = element_types(model)
    stored = [_in_single(tensor) for tensor in model.graph.initializer]
    nodes: list[onnx.NodeProto] = []
    for bits in set(_DROPPED_BITS.values()):
        stored.append(numpy_helper.from_array(np.array(2.0**bits + 1.0, np.float32), f"split__{bits}"))
    for node in model.graph.node:
        bits = _DROPPED_BITS.get(types[node.output[0]], 0)
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if node.op_type == "Cast" and (bits or types[node.input[0]] in _DROPPED_BITS):
            to_float = types[node.input[0]] in (TensorProto.FLOAT, *_DROPPED_BITS)
            new = helper.make_node("Identity", node.input, node.output) if to_float else new
        if bits and node.op_type not in _EXACT:
            new.output[0] = f"{node.output[0]}__exact"
            nodes += [new, *_round(new.output[0], node.output[0], bits)]
        else:
            nodes.append(new)
    return bytes(rebuild(model, nodes, stored).SerializeToString(deterministic=True))


def _round(source: str, target: str, bits: int) -> list[onnx.NodeProto]:
    split, rest = f"{target}__split", f"{target}__rest"
    return [
        helper.make_node("Mul", [source, f"split__{bits}"], [split]),
        helper.make_node("Sub", [split, source], [rest]),
        helper.make_node("Sub", [split, rest], [target]),
    ]


def _in_single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type not in _DROPPED_BITS:
        return tensor
    if tensor.data_type == TensorProto.FLOAT16:
        values = np.frombuffer(tensor.raw_data, dtype="<f2").astype(np.float32)
    else:  # bfloat16 is the upper half of a float32
        values = (np.frombuffer(tensor.raw_data, dtype="<u2").astype("<u4") << 16).view("<f4")
    return numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name)
