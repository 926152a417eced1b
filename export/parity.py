"""Do the exported graphs compute what the plain torch module computes? Measured on real photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gransam_sdk.errors import EnvironmentFault, InputError
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.model import Model
from gransam_sdk.shapes import Bool, Float
from gransam_sdk.types import PointGrid

LEAST_PIXELS = 100
"""Masks of fewer low-res pixels than this say little about parity: one pixel is a percent of them."""
TOKENS_BAR, MASK_MEAN_BAR, MASK_MIN_BAR = 1e-3, 0.999, 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far two computations of the same prompts are apart.

    Attributes:
        photos: Photos compared.
        masks: Masks of at least ``LEAST_PIXELS`` low-res pixels compared (up to four a prompt).
        tokens_max_abs: Largest difference of a mask token's channel.
        iou_max_abs: Largest difference of a predicted IoU.
        logits_max_abs: Largest difference of a low-res logit.
        mask_iou_mean: Mean IoU of the thresholded masks.
        mask_iou_min: Least such IoU.
        worst_photo: File name of the photo with the least IoU.
    """

    photos: int
    masks: int
    tokens_max_abs: float
    iou_max_abs: float
    logits_max_abs: float
    mask_iou_mean: float
    mask_iou_min: float
    worst_photo: str

    @property
    def passes(self) -> bool:
        """Tokens within 1e-3, mask IoU at least 0.999 on average and 0.98 for each mask."""
        return (
            self.tokens_max_abs <= TOKENS_BAR
            and self.mask_iou_mean >= MASK_MEAN_BAR
            and self.mask_iou_min >= MASK_MIN_BAR
        )

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)


Outputs = tuple[Float, Float, Float]
"""Tokens (g,4,d), predicted IoU (g,4) and low-res logits (g,4,l,l) of one photo."""


def run_torch(plain: nn.Module, image: Float, points: Float) -> Outputs:
    """The plain module: nothing hoisted, nothing absorbed.

    Args:
        plain: Of (1,3,s,s) and (g,2) makes tokens, predicted IoU and low-res logits of all four masks.
        image: (1,3,s,s), as the runtime prepares it.
        points: (g,2) XY in [0,1] of the model square.
    """
    with torch.no_grad():
        tokens, iou, logits = plain(torch.from_numpy(image), torch.from_numpy(points))
    return tokens.numpy(), iou.numpy(), logits.numpy()


def run_graphs(model: Model, photo: Path, points: Float) -> tuple[Float, Float, Outputs]:
    """The bundle's graphs through the runtime, before it the (1,3,s,s) input and the points (g,2) that they saw."""
    pixels = as_pixels(photo)
    frame = model.frame(pixels)
    image = model.prepare(pixels, frame)
    hoisted = model.hoist(image)
    chunk = model.bundle.prompt_chunk
    tokens, iou, logits = [], [], []
    for prompts in model.prompt(hoisted, frame, points, chunk):
        count = len(prompts.points)
        every = [model.masks(hoisted, prompts.state, np.full(count, mask), chunk) for mask in range(4)]
        tokens.append(prompts.tokens)
        iou.append(prompts.iou)
        logits.append(np.stack(every, axis=1))
    return image, frame.to_model(points), (np.concatenate(tokens), np.concatenate(iou), np.concatenate(logits))


def measure_parity(model: Model, plain: nn.Module, photos: Sequence[Path]) -> Parity:
    """Compares a bundle's graphs with the plain torch module on the bundle's point grid.

    Args:
        model: Open sessions of the bundle.
        plain: The module with the same rounded weights, see ``run_torch``.
        photos: Real photos.

    Raises:
        InputError: No photos.
    """
    points = PointGrid(per_side=model.bundle.points_per_side).points()
    pairs = ((photo.name, *_both(model, plain, photo, points)) for photo in photos)
    return summarise(pairs)


def _both(model: Model, plain: nn.Module, photo: Path, points: Float) -> tuple[Outputs, Outputs]:
    image, in_square, found = run_graphs(model, photo, points)
    return found, run_torch(plain, image, in_square)


def summarise(pairs: Iterable[tuple[str, Outputs, Outputs]]) -> Parity:
    """(name, outputs, reference outputs) of each photo to one ``Parity``."""
    names: list[str] = []
    worst: list[float] = []
    overlaps: list[Float] = []
    differences = np.zeros(3)
    for name, found, expected in pairs:
        gaps = [np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]
        differences = np.maximum(differences, gaps)
        overlap = _mask_ious(found[2] > 0, expected[2] > 0)
        names.append(name)
        worst.append(float(overlap.min(initial=1.0)))
        overlaps.append(overlap)
    if not names:
        raise InputError("photos for parity", expected="real photos", found="none")
    every = np.concatenate(overlaps)
    if not len(every):
        raise EnvironmentFault("parity", expected=f"masks of {LEAST_PIXELS} pixels or more", found="none")
    return Parity(
        photos=len(names),
        masks=len(every),
        tokens_max_abs=float(differences[0]),
        iou_max_abs=float(differences[1]),
        logits_max_abs=float(differences[2]),
        mask_iou_mean=float(every.mean()),
        mask_iou_min=float(every.min()),
        worst_photo=names[int(np.argmin(worst))],
    )


def _mask_ious(found: Bool, expected: Bool) -> Float:
    """IoU of masks (g,4,l,l) one to one, where the reference has at least ``LEAST_PIXELS``."""
    inter = (found & expected).sum(axis=(2, 3))
    union = (found | expected).sum(axis=(2, 3))
    large = expected.sum(axis=(2, 3)) >= LEAST_PIXELS
    return np.asarray(inter[large] / np.maximum(union[large], 1), dtype=np.float32)
