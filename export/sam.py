"""SAM and MobileSAM checkpoints to bundles: what graphs are compared with, and what the manifest says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gransam_sdk.models.catalogue import CATALOGUE
from gransam_sdk.models.segment_anything import PIXEL_MEAN, PIXEL_STD, WIDTH

from .graphs import LATTICE_OFFSET
from .onnx_file import OPSET

PROMPT_CHUNK = 10


class PlainSam(nn.Module):
    """segment-anything's own prompt encoder and mask decoder, one point a prompt (see ``reference.PlainSegmenter``).

    Args:
        sam: ``build_sam``'s module with its weights.
    """

    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        self.maps: Mapping[str, tuple[int, int]] = {"h_embedding": (WIDTH, 1)}
        self.features = "h_embedding"
        self.sam = sam

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """(1,3,s,s) float32, normalised, zeros right and below, to the embedding (1,256,e,e)."""
        return {"h_embedding": self.sam.get_submodule("image_encoder")(image)}

    def decode(self, maps: Mapping[str, Tensor], points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes prompts, each with image tokens of its own.

        Args:
            maps: The embedding (256,e,e).
            points: (g,2) float32 XY in [0,1] of the square.

        Returns:
            Mask tokens (g,4,256), predicted IoU (g,4), low-res logits (g,4,l,l).
        """
        embedding = maps["h_embedding"][None]
        sam: Any = self.sam
        pixels = points[:, None] * sam.prompt_encoder.input_image_size[0]
        labels = torch.ones(len(points), 1, device=points.device)
        sparse, dense = sam.prompt_encoder(points=(pixels, labels), boxes=None, masks=None)
        seen: list[Tensor] = []  # the package keeps the tokens to itself
        hook = sam.mask_decoder.transformer.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        try:
            logits, iou = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)
        finally:
            hook.remove()
        return seen[0][:, 1:5], iou, logits


def sam_manifest(name: str, arch: str, sam: nn.Module, checkpoint: Path) -> dict[str, Any]:
    """What ``gransam.json`` says of a SAM bundle without a head.

    Args:
        name: The bundle's name.
        arch: A name in ``models.segment_anything.ARCHITECTURES``.
        sam: The module, for its sizes.
        checkpoint: The file; its sha256 says whether it is an official one.
    """
    prompt: Any = sam.get_submodule("prompt_encoder")
    side, cells = int(prompt.input_image_size[0]), int(prompt.image_embedding_size[0])
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    official = next((weights for weights in CATALOGUE if weights.sha256 == digest), None)
    return {
        "name": name,
        "version": "1",
        "description": f"Segment Anything as {arch}",
        "precision": "fp32-w16",
        "model": {
            "architecture": arch,
            "input_side": side,
            "embedding_side": cells,
            "low_res_side": 4 * cells,
            "token_width": WIDTH,
            "feature_width": WIDTH,
            "lattice_offset": LATTICE_OFFSET,
        },
        "preprocess": {
            "resize": "letterbox",
            "interpolation": "pillow-bilinear",
            "mean": list(PIXEL_MEAN),
            "std": list(PIXEL_STD),
        },
        "grid": {"points_per_side": 10},
        "prompt_chunk": PROMPT_CHUNK,
        "opset": OPSET,
        "head": None,
        "classes": [],
        "licence": {"code": "Apache-2.0", "weights": official.licence if official else "unknown"},
        "provenance": {
            "weights": f"{official.file} of {official.project}" if official else "no official file",
            "weights_sha256": digest,
            "training_data": ["SA-1B, as its makers say"] if official else ["unknown"],
        },
    }
