"""Which operators of a graph need 32 bits whatever the precision of the rest, told from the graph itself.

Sums of squares leave float16's range at one channel of size 256, and they cancel; positions are angles of many turns;
a sum over thousands of pixels that is divided by its weight afterwards is large before that. Each ends in an operator
that gives it away, and begins where numbers were normalised last, so the way back from the one to the other is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx

_FRESH = frozenset({"Conv", "ConvTranspose", "Exp", "LayerNormalization", "Sigmoid", "Softmax"})
"""Where the way back ends: what these yield is of ordinary size again, or of no statistic."""

KEPT_OUTPUTS = frozenset({"iou"})
"""Outputs of the prompt graph that thresholds read: a small MLP, kept whole."""


def full_precision_nodes(
    graph: onnx.GraphProto, constants: Collection[str], outputs: Collection[str]
) -> tuple[set[int], set[str]]:
    """Operators that stay in 32 bits because of what their results become.

    Args:
        graph: Any of the graphs of a bundle.
        constants: Names that do not depend on the graph's inputs.
        outputs: Graph outputs that are needed in 32 bits, besides those of ``KEPT_OUTPUTS``: what the variances of
            another graph are made of.

    Returns:
        Indices of nodes, and the graph's inputs that variances are made of.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    inputs = {value.name for value in graph.input}
    variances, others = _roots(graph, constants)
    nodes, reached = _way_back(graph, makers, variances)
    more, _ = _way_back(graph, makers, [*others, *outputs, *KEPT_OUTPUTS.intersection(makers)])
    return nodes | more, reached & inputs


def _roots(graph: onnx.GraphProto, constants: Collection[str]) -> tuple[list[str], list[str]]:
    """What square roots are taken of; angles, and both sides of a division by something computed."""
    variances, others = [], []
    for node in graph.node:
        if node.op_type == "Sqrt":
            variances.extend(node.input)
        elif node.op_type in ("Cos", "Sin") or (node.op_type == "Div" and node.input[1] not in constants):
            others.extend(node.input)
    return variances, others


def _way_back(graph: onnx.GraphProto, makers: dict[str, int], names: Iterable[str]) -> tuple[set[int], set[str]]:
    """Nodes that values are made by, back to ``_FRESH``, and all names seen on the way."""
    nodes: set[int] = set()
    seen: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        index = makers.get(name)
        if index is not None and graph.node[index].op_type not in _FRESH:
            nodes.add(index)
            left.extend(graph.node[index].input)
    return nodes, seen
