"""Nano with the dense features of the classifier that taught it: not to be shipped, but a better tutor's eyes."""

from __future__ import annotations

from torch import Tensor, nn

from .imagenet_teacher import Teacher
from .nano import ImageEncoder


class BorrowedFeatures(nn.Module):
    """An encoder whose embedding and skips are its own, and whose dense features are the classifier's.

    Args:
        encoder: Nano's.
        teacher: The classifier, whose blocks the encoder's correspond to.
    """

    def __init__(self, encoder: ImageEncoder, teacher: Teacher) -> None:
        super().__init__()
        self.encoder, self.teacher = encoder, teacher

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``ImageEncoder.forward``."""
        embedding, skip8, skip4, _ = self.encoder(image)
        return embedding, skip8, skip4, self.teacher.features(image)
