"""What a training has come to, on photos that it never sees: explained features, and masks of one click a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...models.imagenet_teacher import Teacher, explained
from ...models.nano import Nano
from .augment import as_input, whole_view
from .clicks import SIXTEENTHS, low_res, surest_point
from .config import SegmenterConfig
from .data import TrainingPhoto
from .distill import STRIDE16, STRIDE32, meaning_error
from .forward import normalised, precision_of, segment
from .mask_loss import hard_iou

PHOTOS, REGIONS = 128, 4
"""Most photos looked at, spread over all, and most regions of each: the largest."""

PART = 16
"""Photos encoded at once."""


class _Shown(NamedTuple):
    """A held-out photo: (3,s,s) uint8, points (r,2) float32, masks (r,l,l) uint8."""

    photo: Tensor
    points: Tensor
    masks: Tensor


class HeldOut:
    """Held-out photos, whole, with one click in each region, at the pixel that is farthest from its border.

    Args:
        photos: The first label map of each is asked for; unlabelled photos and others without a region are left out.
        teacher: On the device that trains.
        config: Side, precision and least area.
        device: That trains.

    Raises:
        InputError: A photo or label map is broken.
    """

    def __init__(
        self, photos: Sequence[TrainingPhoto], teacher: Teacher, config: SegmenterConfig, device: torch.device
    ) -> None:
        self.teacher, self.config, self.device = teacher, config, device
        labelled = [photo for photo in photos if photo.maps]
        every = max(1, math.ceil(len(labelled) / PHOTOS))
        shown = [_show(photo, config) for photo in labelled[::every]]
        self.shown = [one for one in shown if one is not None]

    @torch.no_grad()
    def explained(self, nano: Nano) -> dict[str, float]:
        """Share of the teacher's features that the encoder's explain at strides 16 and 32, and ``meaning_error``."""
        pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for start in range(0, len(self.shown), PART):
            photos = self._photos(self.shown[start : start + PART])
            with precision_of(self.device, self.config.precision):
                found, wanted = nano.image_encoder.stage_maps(photos), self.teacher(photos)
            maps = (found[4], wanted[STRIDE16], found[6], wanted[STRIDE32])
            pairs.append(tuple(x.float() for x in maps))  # type: ignore[arg-type]
        found16, wanted16, found32, wanted32 = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        shares = {"stride16": float(explained(found16, wanted16)), "stride32": float(explained(found32, wanted32))}
        return shares | {"meaning": float(meaning_error(self.teacher, found32, wanted32))}

    @torch.no_grad()
    def masks(self, nano: Nano) -> dict[str, float]:
        """Mean low-res IoU of mask 0, of the mask of 1 to 3 that is predicted best, and of the best of the three."""
        rows = []
        for one in self.shown:
            with precision_of(self.device, self.config.precision):
                said = segment(nano, self._photos([one]), one.points[None].to(self.device))
            found = hard_iou(said.logits[0], one.masks.to(self.device).float() / SIXTEENTHS)
            predicted = 1 + said.iou[0, :, 1:].argmax(dim=1, keepdim=True)
            rows.append(torch.stack([found[:, 0], found.gather(1, predicted)[:, 0], found[:, 1:].amax(1)], dim=1))
        mean = torch.cat(rows).mean(dim=0).tolist()
        return dict(zip(("single", "predicted", "best_of_three"), mean, strict=True))

    def _photos(self, shown: Sequence[_Shown]) -> Tensor:
        return normalised(torch.stack([one.photo for one in shown]).to(self.device))


def _show(photo: TrainingPhoto, config: SegmenterConfig) -> _Shown | None:
    """The photo at the largest side that is trained at; none without a region."""
    pixels, numbers = photo.pixels(), photo.maps[0].regions()
    if numbers.shape != pixels.shape[:2]:
        raise InputError(photo.maps[0].name, expected=f"the size of {photo.name}", found=f"{numbers.shape}")
    view = whole_view(pixels, max(config.sides))
    seen = view.of_map(numbers)
    areas = np.bincount(seen.ravel())
    areas[0] = 0
    largest = [n for n in np.argsort(-areas, kind="stable")[:REGIONS] if areas[n] >= config.least_area * seen.size]
    if not largest:
        return None
    regions = [seen == number for number in largest]
    return _Shown(
        torch.from_numpy(as_input(view.of_photo(pixels))),
        torch.from_numpy(np.stack([surest_point(region) for region in regions])),
        torch.from_numpy(np.stack([low_res(region) for region in regions])),
    )
