"""A float32 graph to one that computes in float16 or bfloat16 where that is safe, its inputs and outputs unchanged.

Matrix products and convolutions run in 16 bits, and so does what lies between them: element-wise operators and views
whose inputs are in 16 bits already. Norms, softmax, powers, sums and divisions do not. A value that is wanted in both
types is cast once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.errors import InputError
from gransam_sdk.shapes import AnyArray

from .constants import Constants, element_types, rebuild
from .full_precision import full_precision_nodes

Sixteen = Literal["fp16", "bf16"]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""What 16 bits are for."""

FOLLOWERS = frozenset(
    {
        *("Add", "Clip", "Concat", "Expand", "Flatten", "Gather", "Gelu", "Identity", "Max", "MaxPool", "Min", "Mul"),
        *("Neg", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Sub", "Transpose"),
        *("Unsqueeze", "Where"),
    }
)
"""In 16 bits where all that they read is; a division by a constant too."""

_VIEWS = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Of constants: in 16 bits where all readers are."""

_TYPES: dict[Sixteen, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_SUFFIX = "__16"
"""Exporters number values: ``permute_16`` may be there already."""


def to_mixed(
    data: bytes, precision: Sixteen, *, large: Collection[str] = (), outputs: Collection[str] = ()
) -> tuple[bytes, set[str]]:
    """Writes the precision of each operator into a graph.

    Args:
        data: ONNX bytes as ``onnx_file.export_graph`` makes them.
        precision: What products run in.
        large: Values too large for 16 bits, see ``ranges.too_large``: what makes or reads them stays in 32.
        outputs: Graph outputs that another graph makes variances of: made in 32 bits.

    Returns:
        ONNX bytes of the same inputs and outputs, and the inputs that this graph makes variances of.

    Raises:
        InputError: A weight is too large for 16 bits.
    """
    model = onnx.load_from_string(data)
    constants, types = Constants(model.graph), element_types(model)
    kept, reached = full_precision_nodes(model.graph, constants.names, outputs)
    kept |= _unfit(model, types, precision, large)
    chosen = _choose(model.graph, constants, kept)
    writer = _Writer(model.graph, constants, types, chosen, precision)
    for index, node in enumerate(model.graph.node):
        writer.copy(node, sixteen=index in chosen)
    out = rebuild(model, writer.nodes, writer.stored)
    return bytes(out.SerializeToString(deterministic=True)), reached


def _unfit(model: onnx.ModelProto, types: dict[str, int], precision: Sixteen, large: Collection[str]) -> set[int]:
    """Nodes that touch a value that is too large, or whose operator ONNX does not define in this type."""
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    wanted = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}[precision]
    unfit = set()
    for index, node in enumerate(model.graph.node):
        schema = onnx.defs.get_schema(node.op_type, opset)
        allowed = {name for rule in schema.type_constraints for name in rule.allowed_type_strs}
        if wanted not in allowed or not set(large).isdisjoint([*node.input, *node.output]):
            unfit.add(index)
    return unfit


def _choose(graph: onnx.GraphProto, constants: Constants, kept: set[int]) -> set[int]:
    """Indices of nodes that run in 16 bits."""
    chosen: set[int] = set()
    narrow = set(constants.names)  # can be had in 16 bits without making them so
    fixed = [index for index, node in enumerate(graph.node) if constants.names.issuperset(node.output)]
    for index in sorted(set(range(len(graph.node))) - kept - set(fixed)):
        node = graph.node[index]
        read = [name for name in node.input if name]
        follows = node.op_type in FOLLOWERS or (node.op_type == "Div" and node.input[1] in constants.names)
        if node.op_type in PRODUCTS or (follows and narrow.issuperset(read)):
            chosen.add(index)
            narrow.update(node.output)
    for index in reversed(fixed):
        node = graph.node[index]
        readers = [i for i, other in enumerate(graph.node) if set(node.output).intersection(other.input)]
        if node.op_type in _VIEWS and readers and chosen.issuperset(readers):
            chosen.add(index)
    return chosen


class _Writer:
    """The new nodes and weights, in order; a value ``x`` in 16 bits is called ``x__16``."""

    def __init__(
        self, graph: onnx.GraphProto, constants: Constants, types: dict[str, int], chosen: set[int], kind: Sixteen
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = list(graph.initializer)
        self._constants, self._types, self._kind = constants, types, kind
        self._outputs = {output.name for output in graph.output}
        made = {name for index in chosen for name in graph.node[index].output if types[name] == TensorProto.FLOAT}
        self._narrow_only = made  # values that exist in 32 bits only after a Cast
        self._names: dict[tuple[str, bool], str] = {}

    def copy(self, node: onnx.NodeProto, *, sixteen: bool) -> None:
        """Adds a node in its precision, and the casts before and after it."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for place, name in enumerate(node.input):
            # Resize takes its region and scales as float32 in any case.
            if self._types.get(name) == TensorProto.FLOAT and not (node.op_type == "Resize" and place):
                new.input[place] = self._narrow(name) if sixteen else self._wide(name)
        self.nodes.append(new)
        for place, name in enumerate(node.output):
            if name in self._narrow_only:
                new.output[place] = self._names[name, True] = name + _SUFFIX
                if name in self._outputs:
                    self._wide(name)

    def _wide(self, name: str) -> str:
        if name in self._narrow_only and (name, False) not in self._names:
            self._cast(name + _SUFFIX, name, TensorProto.FLOAT)
            self._names[name, False] = name
        return name

    def _narrow(self, name: str) -> str:
        if (name, True) not in self._names:
            self._names[name, True] = self._weight(name) if self._constants.is_weight(name) else name + _SUFFIX
            if not self._constants.is_weight(name):
                self._cast(name, name + _SUFFIX, _TYPES[self._kind])
        return self._names[name, True]

    def _weight(self, name: str) -> str:
        """A weight stored in 16 bits; where it already is in the right ones, the very same."""
        if self._kind == "fp16" and self._constants.stored_in_half(name):
            return self._constants.stored_name(name)
        self.stored.append(_tensor(name + _SUFFIX, self._constants.values(name), self._kind))
        return name + _SUFFIX

    def _cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=to))


def _tensor(name: str, values: AnyArray, kind: Sixteen) -> onnx.TensorProto:
    """A float32 array stored in 16 bits, rounded to the nearest, ties to even."""
    if kind == "fp16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise InputError(
                f"weight {name.removesuffix(_SUFFIX)}",
                expected="numbers below 65,520, which float16 can hold",
                found=f"{float(np.abs(values).max()):.6g}",
                do="use --precision bf16 or fp32-w16",
            )
        return numpy_helper.from_array(half, name)
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return helper.make_tensor(name, TensorProto.BFLOAT16, values.shape, rounded.astype("<u2").tobytes(), raw=True)
