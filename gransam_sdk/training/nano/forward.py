"""The segmenter on b photos of p clicks each at once, with gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from ...models.nano import Nano
from .config import Precision


class Segmented(NamedTuple):
    """What the segmenter says of b photos.

    Attributes:
        logits: (b,p,4,l,l) low-res logits.
        iou: (b,p,4) predicted IoU.
        maps: The encoder's seven stage maps.
    """

    logits: Tensor
    iou: Tensor
    maps: list[Tensor]


def normalised(photos: Tensor) -> Tensor:
    """(b,3,s,s) uint8 to the model's float32, channels last in memory, which convolutions are faster in."""
    return ((photos.float() - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


def segment(nano: Nano, photos: Tensor, points: Tensor) -> Segmented:
    """``Nano.forward`` for photos with as many clicks each.

    Args:
        nano: The segmenter.
        photos: (b,3,s,s) float32, normalised.
        points: (b,p,2) float32 XY in [0,1] of each photo.
    """
    decoder, clicks = nano.mask_decoder, points.shape[1]
    maps = nano.image_encoder.stage_maps(photos)
    embedding, skip8, skip4 = nano.image_encoder.merge(maps)
    with torch.autocast(photos.device.type, enabled=False):  # angles of hundreds of degrees need all their digits
        tokens = nano.prompt_tokens(points.flatten(0, 1))  # (b·p,7,256)
        pe = nano.grid_encoding(embedding.shape[-1])[None]
    keys = (embedding + nano.prompt_encoder.no_mask.weight[:, :, None, None]).flatten(2).transpose(1, 2)
    keys, skip8, skip4 = (x.repeat_interleave(clicks, dim=0) for x in (keys, skip8, skip4))
    queries, keys = decoder.transformer(keys, pe, tokens)
    pixels = decoder.upscale(keys, skip8, skip4)  # (b·p,32,l,l)
    logits = (decoder.hyper(queries[:, 1:5]) @ pixels.flatten(2)).unflatten(2, pixels.shape[-2:])
    iou = decoder.iou_head(queries[:, 0])
    logits, iou = (x.float().unflatten(0, (-1, clicks)) for x in (logits, iou))
    return Segmented(logits, iou, maps)


def precision_of(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Products and convolutions inside are computed in that precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
