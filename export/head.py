"""A trained head to the head graph of a bundle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gransam_sdk.errors import InputError
from gransam_sdk.manifest import LabelUnit

from .graphs import FeatureHeadGraph, HeadGraph, MaskHeadGraph, TokenHeadGraph
from .nano import round_to_half
from .onnx_file import export_graph


def head_graph(head: nn.Module, token_width: int, feature_width: int, labels: LabelUnit) -> bytes:
    """Exports a head.

    Args:
        head: Takes (...,width) to logits (...,c), and has a buffer ``mean`` (width,), as the heads of
            ``gransam_sdk.models.head`` do. Its weights are rounded to 16 bits in place, so that it stays equal to its
            graph.
        token_width: d.
        feature_width: f.
        labels: ``mask``: the head reads one token at a time, width d, and labels tokens 1 to 3. ``prompt``: it reads a
            prompt's four tokens, width 4·d, the pooled features, width f, or both, width 4·d + f.

    Returns:
        ONNX bytes.

    Raises:
        InputError: The head has another width.
    """
    mean = head.get_buffer("mean")
    round_to_half(head)
    tokens, features = torch.zeros(2, 4, token_width), torch.zeros(2, feature_width)
    by_width: dict[int, tuple[nn.Module, dict[str, Tensor]]] = {
        feature_width: (FeatureHeadGraph(head), {"features": features}),
        4 * token_width: (TokenHeadGraph(head), {"tokens": tokens}),
        4 * token_width + feature_width: (HeadGraph(head), {"tokens": tokens, "features": features}),
    }
    if labels == "mask":
        by_width = {token_width: (MaskHeadGraph(head), {"tokens": tokens})}
    if len(mean) not in by_width:
        raise InputError(
            f"head that labels a {labels}",
            expected=f"instances of width {' or '.join(map(str, by_width))}",
            found=f"width {len(mean)}",
            do="train it on tokens of this bundle",
        )
    graph, inputs = by_width[len(mean)]
    return export_graph(graph.eval(), inputs, ("logits",), "g", fold=True)
