"""What a bundle's graphs may compute: known operators of one domain, and no value that grows while it is loaded.

An engine evaluates constant parts of a graph when it loads it. A file of 110 bytes can so ask for gigabytes (one
``ConstantOfShape``). Hence two rules: only operators of the list below, and a value that follows from constants alone
may not be larger than what it is made of (``_folded_elements``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .onnx_model import BFLOAT16, DTYPES, MAX_RANK, Node, OnnxModel, Tensor
from .onnx_wire import Refusal

MIN_OPSET = 17
"""The first with LayerNormalization; before it several operators below had other meanings."""
MAX_OPSET = 21
"""The newest whose operators were tested with the engines this version supports."""
MAX_IR_VERSION = 10
"""The ONNX file version that came with MAX_OPSET."""

_VIEWS = frozenset(
    {
        *("Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze"),
    }
)
"""No output has more elements than the first input: scales and zero points are spread over it, never the other way."""

_BROADCAST = frozenset(
    {
        *("Abs", "Add", "And", "Clip", "Cos", "Div", "Equal", "Erf", "Exp", "Gather", "GatherElements", "GatherND"),
        *("Gelu", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Pow"),
        *("Reciprocal", "Relu", "Sigmoid", "Sin", "Softmax", "Sqrt", "Sub", "Tanh", "Where"),
    }
)
"""The output has at most as many elements as its inputs multiplied."""

_GROWING = frozenset(
    {
        *("ArgMax", "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Expand", "Gemm"),
        *("GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "MatMul", "MaxPool", "Pad"),
        *("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Resize", "TopK"),
    }
)
"""May yield more than it is given (a sum over an axis of size 0 too), so never from constants alone."""

OPERATORS = _VIEWS | _BROADCAST | _GROWING | {"Concat", "Constant", "Shape"}
"""All operators that a bundle may use; ConstantOfShape, Range, Tile, If, Loop, Scan and random numbers are not here."""

SMALL_ELEMENTS = 1 << 16
"""Arithmetic on shapes and short tables may grow up to this."""
FOLD_FACTOR = 16
"""All constants together may be copied this often (a 1-byte weight cast to 8 bytes, reshaped, transposed)."""


def check_rules(model: OnnxModel, opset: int) -> None:
    """Checks one graph against the rules.

    Args:
        model: What ``read_onnx`` read.
        opset: The newest operator set that the manifest allows.

    Raises:
        Refusal: The first rule that the graph breaks.
    """
    _check_versions(model, opset)
    for node in model.nodes:
        _check_node(node)
    _check_names(model)
    _check_folding(model)


def _check_versions(model: OnnxModel, opset: int) -> None:
    versions = [version for domain, version in model.opsets if domain == ""]
    if len(versions) != 1 or len(model.opsets) != 1:
        domains = ", ".join(repr(domain) for domain, _ in model.opsets)
        raise Refusal("ONNX's own operators, imported once", f"operator domains {domains or 'none'}")
    newest = "install a newer gransam-sdk and onnxruntime"
    if not MIN_OPSET <= versions[0] <= MAX_OPSET:
        do = newest if versions[0] > MAX_OPSET else "export the bundle again"
        raise Refusal(f"opset {MIN_OPSET} to {MAX_OPSET}", f"opset {versions[0]}", do)
    if versions[0] > opset:
        raise Refusal(f"opset {opset} or older, as the manifest says", f"opset {versions[0]}")
    if not 1 <= model.ir_version <= MAX_IR_VERSION:
        raise Refusal(f"ONNX file version 1 to {MAX_IR_VERSION}", f"version {model.ir_version}", newest)


def _check_node(node: Node) -> None:
    if node.domain:
        raise Refusal("ONNX's own operators", f"{node.op} of domain {node.domain!r}")
    if node.op not in OPERATORS:
        raise Refusal("an operator of the list in docs/bundle-format.md", repr(node.op))
    if node.op == "Cast" and node.ints.get("to", 0) not in (BFLOAT16, *DTYPES):
        raise Refusal("Cast to a number type", f"Cast to ONNX data type {node.ints.get('to', 0)}")
    if node.op == "QuantizeLinear" and node.ints.get("output_dtype", 0) not in (0, *DTYPES):
        found = f"QuantizeLinear to ONNX data type {node.ints['output_dtype']}"
        raise Refusal("QuantizeLinear to a number type", found)


def _check_names(model: OnnxModel) -> None:
    """Every value is made once, before it is used: what a single pass over the nodes concludes is then true."""
    known = set(model.initializers)
    for value in model.inputs:
        if not value.name or value.name in known:
            raise Refusal("inputs with names of their own, none stored in the file", repr(value.name))
        known.add(value.name)
    for node in model.nodes:
        for name in node.inputs:
            if name and name not in known:
                raise Refusal("every value made before it is used", f"{node.op} reads {name!r}")
        for name in node.outputs:
            if name in known:
                raise Refusal("every value made once", f"{node.op} makes {name!r} again")
            if name:
                known.add(name)
    names = [value.name for value in model.outputs]
    if len(set(names)) != len(names) or not known.issuperset(names):
        raise Refusal("outputs that the graph makes, each once", ", ".join(names))


def _check_folding(model: OnnxModel) -> None:
    fixed = dict(model.initializers)  # elements of every value that follows from constants alone
    inputs = {value.name: value for value in model.inputs}
    stored, made = sum(fixed.values()), 0
    for node in model.nodes:
        elements = _folded_elements(node, fixed, inputs)
        if elements is None:
            continue
        fixed |= dict.fromkeys(node.outputs, elements)
        if node.op == "Constant":
            stored += elements
        else:
            made += elements * len(node.outputs)
    budget = FOLD_FACTOR * stored + (1 << 20)
    if made > budget:
        raise Refusal(f"at most {budget} numbers computed from constants at load", str(made))


def _folded_elements(node: Node, fixed: Mapping[str, int], inputs: Mapping[str, Tensor]) -> int | None:
    """An upper bound on the elements of a node's outputs where an engine may compute them at load, else None."""
    if node.op == "Constant":
        return node.elements
    names = [name for name in node.inputs if name]
    if node.op == "Shape":
        return None if names and _shape_varies(node, inputs.get(names[0])) else MAX_RANK
    if any(name not in fixed for name in names):
        return None
    sizes: Sequence[int] = [fixed[name] for name in names] or [1]
    if node.op in _VIEWS:
        return sizes[0]
    if node.op == "Concat":
        return sum(sizes)
    elements = math.prod(sizes)
    if node.op in _GROWING or elements > max(SMALL_ELEMENTS, *sizes):
        raise Refusal(
            "no constants that grow when they are loaded",
            f"{node.op} of constants only ({', '.join(names) or 'no input'})",
            "compute it while exporting and store the result as an initializer",
        )
    return elements


def _shape_varies(node: Node, source: Tensor | None) -> bool:
    """True for the shape of a graph input where an axis that is read is a letter; any other may be folded."""
    if source is None:
        return False
    rank = len(source.axes)
    start, end, _ = slice(node.ints.get("start", 0), node.ints.get("end", rank)).indices(rank)
    return any(isinstance(axis, str) for axis in source.axes[start:end])
