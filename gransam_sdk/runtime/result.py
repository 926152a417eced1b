"""What one photo yields: labelled masks as run-length codes, dense only on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError
from ..rle import rle_area, rle_decode
from ..shapes import Bool, Float, Int, Pixels
from ..types import Rle
from .select import score

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The labelled masks of one photo, highest score first.

    Attributes:
        size: (h, w) of the upright photo in pixels.
        class_ids: (n,) int64, ids of ``names``.
        names: Class or group name of each mask, n strings.
        confidence: (n,) float32 in [0,1], largest class probability: what thresholds test.
        predicted_iou: (n,) float32, SAM's own estimate of the mask's quality.
        stability_score: (n,) float32 in [0,1], IoU of the low-res logits cut at +1 and at -1.
        boxes: (n,4) float32 XYXY in pixels; the smallest box that holds the mask.
        masks: n COCO run-length codes at the photo's size.
        points: (n,2) float32 XY in pixels: the click behind each mask.
        runner_up: For each mask, up to two (name, probability) pairs behind the label.
        passed: (n,) bool, confidence at or above the class's threshold (all true unless a record floor was set).
        timings: Seconds by stage.
        tokens: (n,4,d) float32 mask tokens when asked for, otherwise None.
    """

    size: tuple[int, int]
    class_ids: Int
    names: tuple[str, ...]
    confidence: Float
    predicted_iou: Float
    stability_score: Float
    boxes: Float
    masks: tuple[Rle, ...]
    points: Float
    runner_up: tuple[tuple[tuple[str, float], ...], ...]
    passed: Bool
    timings: Mapping[str, float] = field(default_factory=dict)
    tokens: Float | None = None

    def __len__(self) -> int:
        """n, the number of masks."""
        return len(self.masks)

    @property
    def scores(self) -> Float:
        """(n,) float32: confidence × predicted IoU, what orders NMS, painting and COCO."""
        return score(self.confidence, self.predicted_iou)

    def to_dense(self) -> Bool:
        """(n,h,w) bool masks; memory is n·h·w bytes."""
        if not self.masks:
            return np.zeros((0, *self.size), dtype=np.bool_)
        return np.stack([rle_decode(mask) for mask in self.masks])

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO result entries, one a mask: bbox is [x, y, w, h], iscrowd 0, area the mask's own."""
        return [
            {
                "image_id": image_id,
                "category_id": int(self.class_ids[i]),
                "segmentation": dict(mask),
                "bbox": [float(v) for v in _xywh(self.boxes[i])],
                "area": rle_area(mask),
                "iscrowd": 0,
                "score": float(self.scores[i]),
            }
            for i, mask in enumerate(self.masks)
        ]

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections`` (dense masks).

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("supervision is not installed", do='pip install "gransam-sdk[formats]"') from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=self.to_dense(),
            confidence=self.scores,
            class_id=self.class_ids - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def plot(self, image: Pixels) -> Image.Image:
        """The photo with its masks painted over it.

        Args:
            image: (h,w,3) uint8, the upright photo that gave this result.

        Returns:
            A PIL image of the same size.
        """
        from .draw import draw_masks

        return draw_masks(image, self.masks, self.names)


def _xywh(box: Float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(v) for v in box)
    return x0, y0, x1 - x0, y1 - y0
