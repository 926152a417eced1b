"""A trained head to the head graph of a bundle."""

from __future__ import annotations

import torch

from gransam_sdk.models.head import Head

from .graphs import HeadGraph, TokenHeadGraph
from .nano import round_to_half
from .onnx_file import export_graph


def head_graph(head: Head, token_width: int, feature_width: int) -> bytes:
    """Exports a head.

    Args:
        head: Its weights are rounded to 16 bits in place, so that it stays equal to its graph.
        token_width: d.
        feature_width: f; a head whose width is 4·d reads tokens alone.

    Returns:
        ONNX bytes.
    """
    round_to_half(head)
    inputs = {"tokens": torch.zeros(2, 4, token_width)}
    if head.fc.in_features == 4 * token_width:
        return export_graph(TokenHeadGraph(head).eval(), inputs, ("logits",), "g")
    inputs["features"] = torch.zeros(2, feature_width)
    return export_graph(HeadGraph(head).eval(), inputs, ("logits",), "g")
