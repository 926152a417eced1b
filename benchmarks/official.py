"""What segment-anything itself offers for everything mode, with nothing of the product in it but photo decoding.

Neither path names classes: they are timed, and their masks are not compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from kept import Kept, as_rle, encode, suppress
from official_decoder import IOU, LOW_RES, MASKS, cut, export_official
from torch import nn

from gransam_sdk.models.segment_anything import import_package
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.types import PointGrid, Settings


class StockGenerator:
    """``SamAutomaticMaskGenerator`` with its defaults, but for the number of points.

    Args:
        sam: The package's model.
        per_side: Points along each side.
    """

    def __init__(self, sam: nn.Module, per_side: int) -> None:
        make = import_package().SamAutomaticMaskGenerator
        self.generator: Any = make(sam, points_per_side=per_side, output_mode="coco_rle")

    def __call__(self, photo: Path) -> Kept:
        """A photo's file to masks without names."""
        found = self.generator.generate(np.array(as_pixels(photo)))
        return Kept(masks=tuple(each["segmentation"] for each in found), names=())


class OfficialLoop:
    """The package's encoder in PyTorch, then its ONNX decoder in ONNX Runtime, one prompt at a time.

    As the package's notebook on its ONNX model uses it, over the grid: all masks come at the photo's size, the one of
    the largest predicted IoU is taken, and those of IoU 0.5 with a better one go. In the package's 1.0 of PyPI the cut
    to the photo is a constant of the export, so that masks of photos of another shape than 3:2 come out shifted: they
    are timed.

    Args:
        sam: The package's model.
        decoder: ``export_decoder``'s file.
        per_side: Points along each side.
        threads: Of ONNX Runtime.
    """

    def __init__(self, sam: nn.Module, decoder: Path, per_side: int, threads: int) -> None:
        self.predictor: Any = import_package().SamPredictor(sam)
        self.points = PointGrid(per_side=per_side).points()
        self.session = open_session(decoder.read_bytes(), threads)

    @torch.no_grad()
    def __call__(self, photo: Path) -> Kept:
        """A photo's file to masks without names."""
        pixels = np.array(as_pixels(photo))
        size = pixels.shape[:2]
        self.predictor.set_image(pixels)
        shared = {
            "image_embeddings": self.predictor.get_image_embedding().numpy(),
            "mask_input": np.zeros((1, 1, *(4 * side for side in self.predictor.features.shape[2:])), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array(size, np.float32),
        }
        codes, scores = [], []
        for point in self.points * np.array([size[1], size[0]], np.float32):
            # A second point of label -1 stands where a box would be.
            coords = self.predictor.transform.apply_coords(np.array([[point, (0, 0)]]), size).astype(np.float32)
            feeds = {**shared, "point_coords": coords, "point_labels": np.array([[1, -1]], np.float32)}
            masks, iou, _ = self.session.run(None, feeds)
            best = int(iou[0, 1:].argmax()) + 1
            codes += encode(masks[0, best : best + 1] > 0)
            scores.append(float(iou[0, best]))
        labels = np.zeros(len(codes), np.int64)
        keep = suppress(codes, labels, np.array(scores), Settings(containment=1.0))
        return Kept(masks=tuple(as_rle(codes[i]) for i in keep), names=())


def export_decoder(sam: nn.Module, path: Path) -> Path:
    """The package's own ``SamOnnxModel`` as its script exports it, unless the file is there."""
    if not path.exists():
        path.write_bytes(cut(export_official(sam, batched=False), (MASKS, IOU, LOW_RES)))
    return path


def open_session(data: bytes, threads: int) -> Any:
    """ONNX Runtime on the processor, with the options of the product's sessions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
