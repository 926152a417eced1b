"""Graphs to a bundle that carries its own proof: the canary is recorded and parity measured before it is written."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gransam_sdk.bundle import Bundle, HeadInfo, open_bundle
from gransam_sdk.errors import BundleError
from gransam_sdk.models.nano import FEATURES, WIDTH
from gransam_sdk.models.sam_checkpoint import read_sam_checkpoint
from gransam_sdk.runtime.canary import canary_outputs
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.model import Model
from gransam_sdk.types import ClassInfo

from .bundle import check_target, write_bundle
from .graphs import LATTICE_OFFSET
from .head import head_graph
from .nano import deployed, nano_graphs, read_checkpoint
from .onnx_file import OPSET
from .parity import measure_parity
from .sam import PlainSam, sam_manifest
from .sam_graphs import deployed_sam, sam_graphs

CANARY_POINTS = ((0.3, 0.27), (0.7, 0.5), (0.25, 0.75), (0.85, 0.1))
CANARY_TOLERANCE = 0.01
"""Engines and processors round differently (about 1e-4 here); a wrong head or graph is off by far more."""
CARD = "model-card.md"
HEAD_MARK = b"\n## Head\n\n"
"""What follows in a card belongs to the head and is replaced with it."""
HEAD_SOURCE = "head: "
"""Begins the lines of training data that belong to the head and are replaced with it."""


def compile_nano(
    checkpoint: Path,
    out: Path,
    *,
    name: str,
    side: int,
    photos: Sequence[Path],
    card: Path,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Makes a bundle without a head from a nano checkpoint.

    Args:
        checkpoint: safetensors file.
        out: Folder to write.
        name: The bundle's name.
        side: s, a multiple of 32.
        photos: Real photos to measure parity on.
        card: Model card in Markdown.
        overwrite: Replace a bundle that is already there.
        log: Told what is being done.

    Raises:
        InputError: The checkpoint is of another kind.
        BundleError: The graphs do not compute what the torch module computes.
    """
    check_target(out, overwrite=overwrite)
    nano = deployed(read_checkpoint(checkpoint))
    log("exporting the image, prompt and mask graphs")
    graphs, manifest = nano_graphs(nano, side), _nano_manifest(name, side)
    _prove(nano, graphs, manifest, photos, card, log)
    return write_bundle(out, manifest, {CARD: card.read_bytes()}, graphs, overwrite=overwrite)


def compile_sam(
    checkpoint: Path,
    out: Path,
    *,
    arch: str,
    name: str,
    photos: Sequence[Path],
    card: Path,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Makes a bundle without a head from a SAM or MobileSAM checkpoint.

    Args:
        checkpoint: The official file, or one with the same keys.
        out: Folder to write.
        arch: A name in ``models.segment_anything.ARCHITECTURES``.
        name: The bundle's name.
        photos: Real photos to measure parity on.
        card: Model card in Markdown.
        overwrite: Replace a bundle that is already there.
        log: Told what is being done.

    Raises:
        InputError: The checkpoint is of another kind.
        BundleError: The graphs do not compute what the torch module computes.
    """
    check_target(out, overwrite=overwrite)
    sam = deployed_sam(read_sam_checkpoint(checkpoint, arch))
    log("exporting the image, prompt and mask graphs")
    graphs, manifest = sam_graphs(sam), sam_manifest(name, arch, sam, checkpoint)
    _prove(PlainSam(sam), graphs, manifest, photos, card, log)
    return write_bundle(out, manifest, {CARD: card.read_bytes()}, graphs, overwrite=overwrite)


def _prove(
    plain: nn.Module,
    graphs: Mapping[str, bytes],
    manifest: dict[str, Any],
    photos: Sequence[Path],
    card: Path,
    log: Callable[[str], None],
) -> None:
    """Measures parity of graphs with the plain module, and puts it and the canary into the manifest.

    Raises:
        BundleError: They do not agree.
    """
    files = {CARD: card.read_bytes()}
    with tempfile.TemporaryDirectory() as scratch, _unchecked(Path(scratch), manifest, files, graphs) as model:
        log(f"comparing them with PyTorch on {len(photos)} photos")
        parity = measure_parity(model, plain, photos)
        log(f"  {parity.masks} masks, mean IoU {parity.mask_iou_mean:.6f}, tokens within {parity.tokens_max_abs:.1e}")
        if not parity.passes:
            raise BundleError(f"parity of {manifest['name']}", expected="parity.py's bars", found=str(parity))
        manifest["parity"] = {"reference": "PyTorch module, weights rounded to 16 bits", **parity.to_json()}
        manifest["parity"].pop("worst_photo")
        manifest["canary"] = _recorded_canary(model)


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
    graphs["head"] = head_graph(head, base.token_width, base.feature_width, head_info.labels)
    manifest = _base_manifest(base)
    manifest["name"] = name
    manifest["head"] = _head_entry(head_info)
    manifest["classes"] = [asdict(info) for info in classes]
    sources = [line for line in manifest["provenance"]["training_data"] if not line.startswith(HEAD_SOURCE)]
    manifest["provenance"]["training_data"] = sources + [HEAD_SOURCE + line for line in training_data]
    files = {file: base.file_bytes(file) for file in base.files}
    files[CARD] = files.get(CARD, b"").split(HEAD_MARK)[0] + HEAD_MARK + card.encode()
    width = math.prod(head_info.axes(len(classes)))
    with tempfile.TemporaryDirectory() as scratch, _unchecked(Path(scratch), manifest, files, graphs, width) as model:
        manifest["canary"] = _recorded_canary(model)
    return write_bundle(out, manifest, files, graphs, overwrite=overwrite)


def _head_entry(info: HeadInfo) -> dict[str, Any]:
    return {
        "background": "explicit" if info.background else "implicit",
        "labels": info.labels,
        "calibration": asdict(info.calibration) if info.calibration else None,
    }


def _base_manifest(bundle: Bundle) -> dict[str, Any]:
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
        "parity": dict(bundle.parity),
        "licence": dict(bundle.licence),
        "provenance": {key: list(v) if isinstance(v, tuple) else v for key, v in bundle.provenance.items()},
    }


def _nano_manifest(name: str, side: int) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1",
        "description": "A small SAM-style segmenter for processors without a GPU",
        "precision": "fp32-w16",
        "model": {
            "architecture": "nano",
            "input_side": side,
            "embedding_side": side // 16,
            "low_res_side": side // 4,
            "token_width": WIDTH,
            "feature_width": FEATURES,
            "lattice_offset": LATTICE_OFFSET,
        },
        "preprocess": {
            "resize": "stretch",
            "interpolation": "pillow-bilinear",
            "mean": [127.5, 127.5, 127.5],
            "std": [127.5, 127.5, 127.5],
        },
        "grid": {"points_per_side": 10},
        "prompt_chunk": 10,
        "opset": OPSET,
        "head": None,
        "classes": [],
        "licence": {"code": "Apache-2.0", "weights": "Apache-2.0"},
        "provenance": {
            "weights": "trained for GranSAM SDK from a random start; no third-party weight inside",
            "training_data": [
                "PASCAL VOC 2012 train_aug photos, connected components of class masks (classes not used)",
                "COCO train2017 photos with panoptic and instance masks",
                "photos of endangered animals, street fashion, car parts, bottles and food with masks",
                "unlabelled photos of Caltech-101 and Animal-Pose",
            ],
        },
    }


_NO_PARITY = {
    "reference": "not measured yet",
    "photos": 1,
    "masks": 1,
    "tokens_max_abs": 0,
    "mask_iou_mean": 0,
    "mask_iou_min": 0,
}


def _unchecked(
    scratch: Path,
    manifest: dict[str, Any],
    files: Mapping[str, bytes],
    graphs: Mapping[str, bytes],
    head_width: int = 0,
) -> Model:
    """Opens graphs in a scratch bundle whose canary is a placeholder, to measure what the real one records.

    ``head_width``: logits of a prompt, flattened; 0 without a head.
    """
    zeros = {"tokens": (4,), "iou": (4,), "lattice": (4,), "mask": ()} | ({"head": (head_width,)} if head_width else {})
    expected = {name: np.zeros((len(CANARY_POINTS), *shape)).tolist() for name, shape in zeros.items()}
    canary = {"points": [list(p) for p in CANARY_POINTS], "expected": expected, "tolerance": CANARY_TOLERANCE}
    write_bundle(scratch / "bundle", {"parity": _NO_PARITY, **manifest, "canary": canary}, files, graphs)
    return open_sessions(open_bundle(scratch / "bundle"), "cpu", None)


def _recorded_canary(model: Model) -> dict[str, Any]:
    outputs = canary_outputs(model, np.array(CANARY_POINTS, dtype=np.float32))
    return {
        "points": [list(p) for p in CANARY_POINTS],
        "expected": {name: np.round(values.astype(np.float64), 5).tolist() for name, values in outputs.items()},
        "tolerance": CANARY_TOLERANCE,
    }
