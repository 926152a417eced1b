"""A segmenter that is clicked on: a nano checkpoint in PyTorch, on any device and at any side, or a bundle's graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from gransam_sdk.bundle import Preprocess, open_bundle
from gransam_sdk.export.nano import PREPROCESS, PlainNano
from gransam_sdk.geometry import Frame, full_size_mask
from gransam_sdk.models.nano import Nano
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.runtime.load import load_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.preprocess import preprocess
from gransam_sdk.shapes import Bool, Float, Pixels

CHECKPOINT = ".safetensors"
STRIDE = 32
"""Sides that a nano checkpoint can be run at are multiples of it."""
CHUNK = {"cpu": 10, "cuda": 100}
"""Prompts at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What g clicks on a photo brought.

    Attributes:
        frame: The photo's place in the model's square.
        predicted: (g,4) float32 predicted IoU.
        logits: (g,4,l,l) float32 low-res logits.
    """

    frame: Frame
    predicted: Float
    logits: Float

    def mask(self, click: int, token: int) -> Bool:
        """(h,w) bool, at the photo's size."""
        return full_size(self.logits[click, token], self.frame)


class Clicked(Protocol):
    """What is measured.

    Attributes:
        name: In tables.
        side: s.
    """

    name: str
    side: int

    def __call__(self, pixels: Pixels, points: Float) -> Answers:
        """Clicks on a photo (h,w,3) uint8 at points (g,2) float32, XY in [0,1] of it."""
        ...


class ClickedModule:
    """The plain module: no export is needed, so that a training can be watched.

    Args:
        name: In tables.
        nano: In evaluation mode.
        side: s, a multiple of ``STRIDE``.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, name: str, nano: Nano, side: int, device: str) -> None:
        self.name, self.side, self.device = name, side, device
        self.plain = PlainNano(nano.to(device))
        self.preprocess = Preprocess(**PREPROCESS)

    @torch.inference_mode()
    def __call__(self, pixels: Pixels, points: Float) -> Answers:
        """See ``Clicked``."""
        frame = Frame.fit((pixels.shape[0], pixels.shape[1]), self.side, self.preprocess.resize)
        image = torch.from_numpy(preprocess(pixels, self.preprocess, frame)).to(self.device)
        maps = {name: value[0] for name, value in self.plain.encode(image).items()}
        parts = torch.from_numpy(frame.to_model(points)).to(self.device).split(CHUNK[self.device])
        found = [self.plain.decode(maps, part)[1:] for part in parts]
        predicted, logits = (torch.cat(each).float().cpu().numpy() for each in zip(*found, strict=True))
        return Answers(frame=frame, predicted=predicted, logits=logits)


class ClickedBundle:
    """A bundle's graphs, as they are deployed; a head is not asked.

    Args:
        model: Opened.
        device: Where it runs.
    """

    def __init__(self, model: Model, device: str) -> None:
        self.name, self.side = model.bundle.name, model.bundle.input_side
        self.model, self.chunk = model, CHUNK[device]

    def __call__(self, pixels: Pixels, points: Float) -> Answers:
        """See ``Clicked``."""
        model = self.model
        frame = model.frame(pixels)
        hoisted = model.hoist(model.prepare(pixels, frame))
        predicted, logits = [], []
        for prompts in model.prompt(hoisted, frame, points, self.chunk):
            g = len(prompts.points)
            tokens = [model.masks(hoisted, prompts.state, np.full(g, token), self.chunk) for token in range(4)]
            predicted.append(prompts.iou)
            logits.append(np.stack(tokens, axis=1))
        return Answers(frame=frame, predicted=np.concatenate(predicted), logits=np.concatenate(logits))


@contextmanager
def open_clicked(name: str, side: int, device: str) -> Iterator[Clicked]:
    """A checkpoint's file at a side, or a bundle, by name or folder, at its own."""
    if name.endswith(CHECKPOINT):
        if side % STRIDE or side < STRIDE:
            raise SystemExit(f"--side: a multiple of {STRIDE}, not {side}")
        yield ClickedModule(Path(name).stem, read_checkpoint(Path(name)), side, device)
        return
    with load_model(open_bundle(name), device=device) as model:
        yield ClickedBundle(model, device)


def full_size(logits: Float, frame: Frame) -> Bool:
    """Low-res logits (l,l) to a mask (h,w) of the photo, as the product does."""
    crop, x0, y0 = full_size_mask(logits, frame)
    mask = np.zeros(frame.size, dtype=np.bool_)
    mask[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    return mask
