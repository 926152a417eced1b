"""Nano checkpoints: what graphs are compared with, and what the manifest says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gransam_sdk.models.nano import FEATURES, WIDTH, ConvNorm, Nano

from .graphs import LATTICE_OFFSET
from .onnx_file import OPSET

EMBEDDED_SHA256 = "5b9c913f2cf0f6e2dc380b5846323584c61b9c125c1056bbe636628bf3458d2d"
EMBEDDED_WEIGHTS = "trained for GranSAM SDK from a random start; no third-party weight inside"
EMBEDDED_DATA = (
    "PASCAL VOC 2012 train_aug photos, connected components of class masks (classes not used)",
    "COCO train2017 photos with panoptic and instance masks",
    "photos of endangered animals, street fashion, car parts, bottles and food with masks",
    "unlabelled photos of Caltech-101 and Animal-Pose",
)
"""The checkpoint of the embedded bundle, weights/nano.safetensors, and what is known of it."""

PREPROCESS: Mapping[str, Any] = {
    "resize": "stretch",
    "interpolation": "pillow-bilinear",
    "mean": [127.5, 127.5, 127.5],
    "std": [127.5, 127.5, 127.5],
}
"""How photos are shown to nano, in the manifest's words."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def deployed(nano: Nano) -> Nano:
    """Folds BatchNorm into convolutions and rounds every weight to 16 bits, in place: what the graphs must equal.

    Folding comes first, so that what is stored in 16 bits is what is computed with.
    """
    for module in nano.modules():
        if isinstance(module, ConvNorm):
            module.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return round_to_half(nano).eval()


class PlainNano(nn.Module):
    """The segmenter in its plain form, in two steps (see ``reference.PlainSegmenter``).

    Args:
        nano: The module with its weights.
    """

    def __init__(self, nano: Nano) -> None:
        super().__init__()
        self.maps: Mapping[str, tuple[int, int]] = {
            "h_embedding": (WIDTH, 1),
            "h_skip8": (64, 2),
            "h_skip4": (32, 4),
            "h_features": (FEATURES, 1),
        }
        self.features = "h_features"
        self.nano = nano

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """(1,3,s,s) float32, normalised, to embedding, skips and dense features."""
        return dict(zip(self.maps, self.nano.image_encoder(image), strict=True))

    def decode(self, maps: Mapping[str, Tensor], points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``Nano.forward`` does once the photo is encoded.

        Args:
            maps: Of one photo, without the batch axis.
            points: (g,2) float32 XY in [0,1] of the photo.

        Returns:
            Mask tokens (g,4,256), predicted IoU (g,4), low-res logits (g,4,l,l).
        """
        nano, decoder = self.nano, self.nano.mask_decoder
        embedding = maps["h_embedding"] + nano.prompt_encoder.no_mask.weight[0, :, None, None]
        keys = embedding.flatten(1).T.expand(len(points), -1, -1)
        pe = nano.grid_encoding(embedding.shape[-1])[None]
        queries, keys = decoder.transformer(keys, pe, nano.prompt_tokens(points))
        tokens = queries[:, 1:5]
        pixels = decoder.upscale(keys, maps["h_skip8"], maps["h_skip4"])
        logits = (decoder.hyper(tokens) @ pixels.flatten(2)).unflatten(2, pixels.shape[-2:])
        return tokens, decoder.iou_head(queries[:, 0]), logits


def round_to_half(module: ModuleT) -> ModuleT:
    """Rounds every parameter and buffer to the nearest float16, in place; they stay float32."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.data.half().float()
    return module.requires_grad_(False)


def nano_manifest(name: str, side: int, checkpoint: Path) -> dict[str, Any]:
    """What ``gransam.json`` says of a nano bundle without a head.

    Args:
        name: The bundle's name.
        side: s.
        checkpoint: Its hash tells whose weights they are.
    """
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = digest == EMBEDDED_SHA256
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
        "preprocess": dict(PREPROCESS),
        "grid": {"points_per_side": 10},
        "prompt_chunk": 20,
        "opset": OPSET,
        "head": None,
        "classes": [],
        "licence": {"code": "Apache-2.0", "weights": "Apache-2.0" if known else "unknown"},
        "provenance": {
            "weights": EMBEDDED_WEIGHTS if known else "a nano checkpoint of unknown origin",
            "weights_sha256": digest,
            "training_data": list(EMBEDDED_DATA) if known else ["unknown"],
        },
    }
