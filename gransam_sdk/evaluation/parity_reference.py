"""Another bundle as the reference of one: its segmenter under the judged bundle's head."""

from __future__ import annotations

from dataclasses import replace

from ..bundle import Bundle
from ..errors import InputError
from ..runtime.model import Model
from ..runtime.onnxruntime_session import OrtSession


def bundle_as_reference(reference: Bundle, judged: Bundle, *, device: str, threads: int | None = None) -> Model:
    """Opens a bundle's segmenter and, beside it, the head of the bundle that is judged, so that labels are comparable.

    Args:
        reference: The bundle to compare with; a head of its own is left out.
        judged: Its head, if it has one, labels the reference's masks.
        device: As ``resolve_device`` names it.
        threads: Threads for one run.

    Raises:
        InputError: The head does not fit the reference's tokens and features.
    """
    widths = (judged.token_width, judged.feature_width)
    if judged.has_head and (reference.token_width, reference.feature_width) != widths:
        raise InputError(
            f"reference bundle {reference.name}",
            expected=f"tokens of width {widths[0]} and features of width {widths[1]}, which the head reads",
            found=f"{reference.token_width} and {reference.feature_width}",
            do="compare with a bundle of the same checkpoint",
        )
    graphs = {name: graph for name, graph in reference.graphs.items() if name != "head"}
    data = {name: reference.graph_bytes(name) for name in graphs}
    if judged.has_head:
        graphs["head"], data["head"] = judged.graphs["head"], judged.graph_bytes("head")
    sessions = {name: OrtSession(data[name], graph, device=device, threads=threads) for name, graph in graphs.items()}
    return Model(replace(reference, graphs=graphs, head=judged.head, classes=judged.classes), sessions)
