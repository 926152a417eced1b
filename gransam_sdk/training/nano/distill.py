"""The encoder learns the teacher's features: every block by itself first, then all in a row.

From a random start the whole encoder learns next to nothing in the minutes that a processor can give it. A block that
sees what the teacher's block saw, and is to say what that said, learns at once; the 17 blocks learn side by side. What
they add up to is then trained from end to end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.imagenet_teacher import Teacher
from ...models.nano import ImageEncoder, Nano
from .batches import Batch
from .config import SegmenterConfig
from .forward import normalised, precision_of
from .mask_loss import feature_error
from .phase import Losses, group

STRIDE16, STRIDE32 = 13, 17
"""Of the teacher's maps, those that masks are made from."""


def encoder_layers(encoder: ImageEncoder) -> list[nn.Module]:
    """The stem and the 17 blocks, whose outputs correspond to the teacher's 18 maps."""
    return [encoder.stem, *(block for stage in encoder.stages for block in stage)]  # type: ignore[attr-defined]


def meaning_error(teacher: Teacher, found: Tensor, wanted: Tensor) -> Tensor:
    """How differently the teacher's last layers judge a map and their own (Hinton et al. 2015, temperature 1).

    The squared error of features counts every direction the same. This one counts what tells things apart.

    Args:
        teacher: Whose layers; they are not trained.
        found: (b,320,y,x), the encoder's last map.
        wanted: The teacher's.

    Returns:
        Kullback-Leibler divergence in nats, mean over cells; scalar float32.
    """
    with torch.no_grad():
        truth = F.log_softmax(teacher.judge(wanted).float(), dim=1)
    said = F.log_softmax(teacher.judge(found).float(), dim=1)
    return F.kl_div(said, truth, reduction="none", log_target=True).sum(dim=1).mean()


class BlockPhase:
    """Each block from the teacher's map before it to the teacher's map behind it.

    Args:
        teacher: On the device that trains.
    """

    name = "blocks"
    stream = 0
    clicks = False
    clip = 5.0

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def groups(self, nano: Nano, config: SegmenterConfig) -> list[dict[str, object]]:
        """Stem and blocks."""
        return group(encoder_layers(nano.image_encoder), config.block_rate, config.distill_decay)

    def losses(self, nano: Nano, batch: Batch, config: SegmenterConfig) -> Losses:
        """Mean error of the 17 maps; told: that of strides 16 and 32.

        The stem has no error of its own, some of the teacher's channels are always 0 there: it learns with the first
        block.
        """
        photos = normalised(batch.photos)
        wanted = self._wanted(photos, config)
        stem, *blocks = encoder_layers(nano.image_encoder)
        with precision_of(photos.device, config.precision):
            found = [block(x) for block, x in zip(blocks, [stem(photos), *wanted[:-1]], strict=True)]
        errors = [feature_error(*pair) for pair in zip(found, wanted, strict=True)]
        return self._told(errors, torch.stack(errors).mean())

    def _wanted(self, photos: Tensor, config: SegmenterConfig) -> list[Tensor]:
        """The teacher's maps after each block."""
        with torch.no_grad(), precision_of(photos.device, config.precision):
            maps: list[Tensor] = [x.float() for x in self.teacher(photos)[1:]]
        return maps

    @staticmethod
    def _told(errors: list[Tensor], total: Tensor) -> Losses:
        return {"total": total, "stride16": errors[STRIDE16 - 1].detach(), "stride32": errors[STRIDE32 - 1].detach()}


class EncoderPhase(BlockPhase):
    """Every block from what the block before it said; the maps that masks are made from count once more, and what the
    last one means.
    """

    name = "encoder"
    stream = 1

    def losses(self, nano: Nano, batch: Batch, config: SegmenterConfig) -> Losses:
        """Mean error of the 17 maps, plus that of strides 16 and 32 and of their meaning."""
        photos = normalised(batch.photos)
        wanted = self._wanted(photos, config)
        stem, *blocks = encoder_layers(nano.image_encoder)
        errors = []
        with precision_of(photos.device, config.precision):
            x = stem(photos)
            for block, target in zip(blocks, wanted, strict=True):
                x = block(x)
                errors.append(feature_error(x, target))
            meaning = meaning_error(self.teacher, x, wanted[-1])
        total = torch.stack(errors).mean() + errors[STRIDE16 - 1] + errors[STRIDE32 - 1] + config.meaning * meaning
        return {**self._told(errors, total), "meaning": meaning.detach()}
