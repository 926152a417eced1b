"""The middle of a fused graph: class logits to labels as ``runtime.select.label_masks`` gives them, best first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gransam_sdk.runtime.fused_spec import FusedSpec

from .graph_builder import GraphBuilder

NEVER = 2.0
"""Threshold of columns that nobody asked for: above any probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelParts:
    """Names of values of all g prompts, as ``runtime.select.Labels`` has them.

    Attributes:
        probabilities: (g,c) float32.
        label: (g,) int64 column of the largest; from the number of labels on it is none that was asked for.
        confidence: (g,) float32.
        passed: (g,) bool.
        recorded: (g,) bool.
    """

    probabilities: str
    label: str
    confidence: str
    passed: str
    recorded: str


def add_labels(builder: GraphBuilder, logits: str, spec: FusedSpec) -> LabelParts:
    """Adds softmax, groups, thresholds.

    Args:
        builder: The graph.
        logits: (g,c) float32 class logits of the chosen masks.
        spec: Groups, thresholds and floors.
    """
    probabilities = _add_groups(builder, builder.add("Softmax", logits, axis=1), spec)
    label = builder.add("ArgMax", probabilities, axis=1, keepdims=0)
    confidence = add_pick(builder, probabilities, label, (spec.prompts, len(spec.groups)))
    rest = [NEVER] * (len(spec.groups) - len(spec.thresholds))
    limits = (builder.store(np.array([*least, *rest], dtype=np.float32)) for least in (spec.thresholds, spec.floors))
    passed, recorded = (
        builder.add("GreaterOrEqual", confidence, builder.add("Gather", limit, label)) for limit in limits
    )
    return LabelParts(probabilities=probabilities, label=label, confidence=confidence, passed=passed, recorded=recorded)


def add_pick(builder: GraphBuilder, table: str, column: str, shape: tuple[int, ...]) -> str:
    """Adds ``table[row, column[row]]``.

    Args:
        builder: The graph.
        table: Of the given shape, (g,c,...).
        column: (g,) int64 in 0 to c - 1.
        shape: All axes of ``table``.

    Returns:
        (g,...).
    """
    rows, columns, *rest = shape
    flat = builder.add("Reshape", table, builder.integers(rows * columns, *rest))
    place = builder.add("Add", builder.store(np.arange(rows, dtype=np.int64) * columns), column)
    return builder.add("Gather", flat, place)


def add_best(builder: GraphBuilder, labels: LabelParts, score: str, kept: int) -> str:
    """Adds the choice of the n prompts that come first: passed, then only recorded, then the others, each by score.

    A key tells the three apart by whole numbers below scores, which lie in [0,1]. Scores of what passed are in it as
    they are; below that they are rounded to steps of 2⁻²³, and what that makes equal is ordered by prompt.

    Returns:
        (n,) int64 prompts.
    """
    back = builder.add("Where", labels.recorded, _number(builder, -2.0), _number(builder, -4.0))
    back = builder.add("Where", labels.passed, _number(builder, 0.0), back)
    key = builder.add("Add", score, back)
    return builder.add_split("TopK", key, builder.integers(kept), outputs=2, axis=0)[1]


def add_score(builder: GraphBuilder, confidence: str, iou: str) -> str:
    """Adds ``runtime.select.score``: confidence × predicted IoU, the latter held in [0,1]."""
    return builder.add("Mul", confidence, builder.add("Clip", iou, _number(builder, 0.0), _number(builder, 1.0)))


def _add_groups(builder: GraphBuilder, probabilities: str, spec: FusedSpec) -> str:
    """(g,c) to a column a group. No product of matrices: on some devices those are rounded to 10 bits."""
    most = max(map(len, spec.groups))
    columns = sum(map(len, spec.groups))
    # Short groups are filled up with a column of zeros behind the others.
    members = np.array([[*group, *[columns] * (most - len(group))] for group in spec.groups], dtype=np.int64)
    if most > 1:
        zeros = builder.store(np.zeros((spec.prompts, 1), dtype=np.float32))
        probabilities = builder.add("Concat", probabilities, zeros, axis=1)
    picked = builder.add("Gather", probabilities, builder.store(members), axis=1)  # (g,groups,most)
    return builder.add("Min", builder.sum(picked, -1), _number(builder, 1.0))


def _number(builder: GraphBuilder, value: float) -> str:
    return builder.store(np.array(value, dtype=np.float32))
