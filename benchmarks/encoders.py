"""The maps of stride 16 and 32 that the teacher and nano encoders make of pictures, and how alike they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gransam_sdk.bundle import Preprocess
from gransam_sdk.export.nano import PREPROCESS
from gransam_sdk.geometry import Frame
from gransam_sdk.models.imagenet_teacher import Teacher
from gransam_sdk.models.nano import ConvNorm, ImageEncoder
from gransam_sdk.runtime.decode import decode_source
from gransam_sdk.runtime.preprocess import preprocess

STRIDES = (16, 32)
BLOCKS, STAGES = (13, 17), (4, 6)
"""Which of the teacher's maps, and what follows which of the encoder's stages: 96 channels and 320."""
BATCH = 4
"""Pictures at a time: maps of more outgrow the cache, and time goes into new memory."""

Maps = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(b,3,s,s) to (b,96,s/16,s/16) and (b,320,s/32,s/32)."""


def teacher_maps(teacher: Teacher) -> Maps:
    def maps(images: Tensor) -> tuple[Tensor, Tensor]:
        every = teacher(images)
        return every[BLOCKS[0]], every[BLOCKS[1]]

    return maps


def encoder_maps(encoder: ImageEncoder) -> Maps:
    def maps(images: Tensor) -> tuple[Tensor, Tensor]:
        every = [encoder.stem(images)]
        for stage in encoder.stages:
            every.append(stage(every[-1]))
        return every[1 + STAGES[0]], every[1 + STAGES[1]]

    return maps


def random_encoder(batches: Iterable[Tensor], device: str, seed: int = 0) -> ImageEncoder:
    """Where a training starts: torch's initial weights, and BatchNorm statistics of some pictures.

    Without the statistics every layer shrinks what it is given, and the probe sees nothing but rounding.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ImageEncoder().to(device)
    norms = [module.norm for module in encoder.modules() if isinstance(module, ConvNorm)]
    for norm in norms:
        norm.momentum = None  # the plain mean of all batches
    maps = encoder_maps(encoder.train())
    with torch.no_grad():
        for images in batches:
            maps(images)
    return encoder.eval().requires_grad_(False)


def read_batches(paths: Sequence[Path], side: int, device: str) -> Iterator[Tensor]:
    """(b,3,s,s) float32 of picture files, as the segmenter is shown photos."""
    spec = Preprocess(**PREPROCESS)
    for start in range(0, len(paths), BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            pixels = decode_source(path).pixels
            frame = Frame.fit((pixels.shape[0], pixels.shape[1]), side, spec.resize)
            images.append(torch.from_numpy(preprocess(pixels, spec, frame)))
        yield torch.cat(images).to(device)


class Share:
    """``imagenet_teacher.explained``, batch by batch: no folder's maps have to fit into memory.

    Args:
        channels: Of the maps.
    """

    def __init__(self, channels: int) -> None:
        self.places = 0
        self.sums = torch.zeros(3, channels, dtype=torch.float64)  # of wanted, of its squares, of squared errors

    def add(self, found: Tensor, wanted: Tensor) -> None:
        """Maps (b,c,y,x) of one batch."""
        self.places += wanted[:, 0].numel()
        values = (wanted, wanted.square(), (found - wanted).square())
        self.sums += torch.stack([each.sum((0, 2, 3), dtype=torch.float64) for each in values]).cpu()

    def value(self) -> float:
        """Mean over channels of 1 - squared error / variance; NaN without a batch."""
        mean, squares, error = self.sums / self.places if self.places else self.sums * torch.nan
        variance = squares - mean.square()
        return float(1 - (error / (variance + torch.finfo(torch.float32).eps)).mean())
