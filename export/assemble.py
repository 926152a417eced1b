"""A base bundle and a trained head to a bundle that names classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gransam_sdk.bundle import Bundle, HeadInfo
from gransam_sdk.evaluation.parity import HEAD_FIGURES
from gransam_sdk.types import ClassInfo

from .bundle import write_bundle
from .head import head_graph
from .head_part import HEAD_SOURCE, HeadPart, put_head
from .proof import recorded_canary, scratch_model


def add_head(
    base: Bundle,
    head: nn.Module,
    out: Path,
    *,
    name: str,
    classes: Sequence[ClassInfo],
    head_info: HeadInfo,
    training_data: Sequence[str],
    card: str,
    overwrite: bool = False,
) -> Bundle:
    """Makes a bundle of a base bundle's graphs and a trained head.

    The base's parity goes along, but for the figures that speak of another head's labels.

    Args:
        base: Its image, prompt and mask graphs are taken as they are; a head that it has is replaced.
        head: One of ``gransam_sdk.models.head``; its weights are rounded to 16 bits in place.
        out: Folder to write.
        name: The bundle's name.
        classes: k classes, in the order of the head's logits; each with evidence where the head is calibrated.
        head_info: What the logits mean.
        training_data: One line a source of the head's; the segmenter's stay before them.
        card: What to add to the base's model card.
        overwrite: Replace a bundle that is already there.

    Raises:
        InputError: A head of another width than the base bundle's tokens, or a taken folder.
        BundleError: Classes, logits and calibration do not fit each other.
    """
    graphs = {graph: base.graph_bytes(graph) for graph in base.graphs if graph != "head"}
    part = HeadPart(
        graph=head_graph(head, base.token_width, base.feature_width, head_info.labels),
        info=head_info,
        classes=tuple(classes),
        training_data=tuple(HEAD_SOURCE + line for line in training_data),
        card=card.encode(),
    )
    manifest = _manifest_of(base) | {"name": name}
    files = {file: base.file_bytes(file) for file in base.files}
    put_head(part, manifest, files, graphs)
    with scratch_model(manifest, files, graphs) as model:
        manifest["canary"] = recorded_canary(model)
    return write_bundle(out, manifest, files, graphs, overwrite=overwrite)


def _manifest_of(bundle: Bundle) -> dict[str, Any]:
    """An opened bundle's manifest as JSON values, without what ``write_bundle`` derives and what a head changes."""
    return {
        "name": bundle.name,
        "version": bundle.version,
        "description": bundle.description,
        "precision": bundle.precision,
        "model": {
            "architecture": bundle.architecture,
            "input_side": bundle.input_side,
            "embedding_side": bundle.embedding_side,
            "low_res_side": bundle.low_res_side,
            "token_width": bundle.token_width,
            "feature_width": bundle.feature_width,
            "lattice_offset": bundle.lattice_offset,
        },
        "preprocess": {
            "resize": bundle.preprocess.resize,
            "interpolation": bundle.preprocess.interpolation,
            "mean": list(bundle.preprocess.mean),
            "std": list(bundle.preprocess.std),
        },
        "grid": {"points_per_side": bundle.points_per_side},
        "prompt_chunk": bundle.prompt_chunk,
        "opset": bundle.opset,
        "head": None,
        "classes": [],
        "parity": {name: value for name, value in bundle.parity.items() if name not in HEAD_FIGURES},
        "licence": dict(bundle.licence),
        "provenance": {key: list(v) if isinstance(v, tuple) else v for key, v in bundle.provenance.items()},
    }
