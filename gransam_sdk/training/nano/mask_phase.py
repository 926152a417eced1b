"""The whole segmenter learns masks; the encoder is kept near the teacher's features meanwhile."""

from __future__ import annotations

import torch
from torch import nn

from ...models.imagenet_teacher import Teacher
from ...models.nano import Nano
from .batches import Batch
from .clicks import SIXTEENTHS
from .config import SegmenterConfig
from .distill import STRIDE16, STRIDE32, encoder_layers, meaning_error
from .forward import normalised, precision_of, segment
from .mask_loss import feature_error, mask_loss
from .phase import Losses, group


class MaskPhase:
    """Clicks in, masks out.

    Args:
        teacher: On the device that trains.
    """

    name = "masks"
    stream = 2
    clicks = True
    clip = 1.0

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def groups(self, nano: Nano, config: SegmenterConfig) -> list[dict[str, object]]:
        """Everything; stem and blocks more slowly."""
        encoder = nano.image_encoder
        taught = encoder_layers(encoder)
        known = {id(parameter) for layer in taught for parameter in layer.parameters()}
        rest = [module for module in nano.modules() if _owns(module, known)]
        return [
            *group(taught, config.mask_rate * config.encoder_rate, config.mask_decay),
            *group(rest, config.mask_rate, config.mask_decay),
        ]

    def losses(self, nano: Nano, batch: Batch, config: SegmenterConfig) -> Losses:
        """The masks' loss, plus the features' at strides 16 and 32 and that of their meaning."""
        photos = normalised(batch.photos)
        with precision_of(photos.device, config.precision):
            with torch.no_grad():
                wanted = self.teacher(photos)
            said = segment(nano, photos, batch.points)
            meaning = meaning_error(self.teacher, said.maps[6], wanted[STRIDE32])
        truth = batch.masks.flatten(0, 1).float() / SIXTEENTHS
        masks = mask_loss(said.logits.flatten(0, 1), said.iou.flatten(0, 1), truth, batch.whole.flatten(), config)
        features = feature_error(said.maps[4], wanted[STRIDE16].float())
        features = features + feature_error(said.maps[6], wanted[STRIDE32].float())
        return {
            **masks._asdict(),
            "total": masks.total + config.features * (features + config.meaning * meaning),
            "features": features.detach(),
            "meaning": meaning.detach(),
        }


def _owns(module: nn.Module, known: set[int]) -> bool:
    """Whether a module has parameters of its own that are not among those known."""
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(id(parameter) in known for parameter in own)
