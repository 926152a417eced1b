"""Batches by their number: step i of a phase always sees the same photos, crops and clicks, whoever asks and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...errors import GranSAMError, InputError
from ...shapes import AnyArray, Float, Int, Pixels
from .augment import as_input, draw_view, four_in_one, recolour
from .clicks import Clicks, SeenMap, draw_clicks
from .config import SegmenterConfig
from .data import LabelMap, TrainingPhoto
from .paste import Cutout, draw_cutout, paste

TRIES = 50
"""Photos drawn for one place in a batch until one has a region that can be clicked."""

MOST_PASTED = 3
"""Objects that are put into one picture at most."""

PREFETCH = 3
"""Batches that each worker has ready."""


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        photos: (b,3,s,s) uint8 RGB.
        points: (b,p,2) float32 XY in [0,1]; p is 0 where no clicks were asked for.
        masks: (b,p,l,l) uint8, pixels of 16 that are inside.
        whole: (b,p) bool, whether the mask is one whole object.
    """

    photos: Tensor
    points: Tensor
    masks: Tensor
    whole: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


class Batches(Dataset["Batch | GranSAMError"]):
    """All batches of a phase.

    An error is an answer here, not raised: what a worker process raises would lose its words on the way.

    Args:
        photos: To draw from; without clicks all of them, with clicks those that have label maps.
        config: How.
        stream: Number of the phase: each draws its own batches.
        clicks: Whether the phase clicks.

    Raises:
        InputError: No photo has label maps, and the phase clicks.
    """

    def __init__(self, photos: Sequence[TrainingPhoto], config: SegmenterConfig, *, stream: int, clicks: bool) -> None:
        self.photos = [photo for photo in photos if photo.maps or not clicks]
        if not self.photos:
            raise InputError("photos to train on", expected="label maps", found=f"none for {len(photos)} photos")
        self.config, self.stream, self.clicks = config, stream, clicks
        self.upto = _upto(self.photos)
        self.objects = [photo for photo in photos if photo.objects() is not None]
        self.upto_objects = _upto(self.objects)

    def __getitem__(self, step: int) -> Batch | GranSAMError:
        """Batch number ``step``, or why there is none."""
        rng = np.random.Generator(np.random.PCG64([self.config.seed, self.stream, step]))
        side = self.config.sides[step % len(self.config.sides)]
        try:
            samples = [self._sample(rng, side) for _ in range(self.config.photos)]
        except GranSAMError as error:
            return error
        parts: list[AnyArray] = [np.stack([as_input(pixels) for pixels, _ in samples])]
        if self.clicks:
            clicks = [clicks for _, clicks in samples if clicks is not None]
            parts += [np.stack([getattr(one, name) for one in clicks]) for name in ("points", "masks", "whole")]
        else:
            count, low = len(samples), side // 4
            parts += [np.empty((count, 0, 2), np.float32), np.empty((count, 0, low, low), np.uint8)]
            parts.append(np.empty((count, 0), np.bool_))
        return Batch(*map(torch.from_numpy, parts))

    def _sample(self, rng: np.random.Generator, side: int) -> tuple[Pixels, Clicks | None]:
        """One place of a batch: a photo, or four in one, and its clicks if there are to be any."""
        for _ in range(TRIES):
            if rng.random() < self.config.mosaic:
                quarters = [self._view(rng, side // 2) for _ in range(4)]
                pixels: Pixels = four_in_one([pixels for pixels, _ in quarters])
                maps = [_placed(item, i) for i, (_, items) in enumerate(quarters) for item in items]
            else:
                pixels, maps = self._view(rng, side)
            if rng.random() < self.config.paste and (cutouts := self._cutouts(rng)):
                pixels, maps = paste(rng, pixels, maps, cutouts)
            clicks = draw_clicks(rng, maps, self.config) if self.clicks else None
            if clicks is not None or not self.clicks:
                return recolour(rng, pixels), clicks
        raise InputError(
            "label maps",
            expected="photos with regions that are large enough to click",
            found=f"none in {TRIES} photos drawn",
            do="check that the masks are not empty",
        )

    def _view(self, rng: np.random.Generator, side: int) -> tuple[Pixels, list[SeenMap]]:
        """A random view of a random photo, with its maps if there are to be clicks."""
        photo = _draw(rng, self.photos, self.upto)
        pixels = photo.pixels()
        view = draw_view(rng, pixels, side, self.config)
        maps = []
        for item in photo.maps if self.clicks else ():
            numbers = _regions(item, photo, pixels)
            maps.append(SeenMap(numbers=view.of_map(numbers), whole=item.whole, labelled=item.labelled))
        return view.of_photo(pixels), maps

    def _cutouts(self, rng: np.random.Generator) -> list[Cutout]:
        """A few whole objects of other photos; none where no photo has any."""
        out = []
        for _ in range(int(rng.integers(1, MOST_PASTED + 1)) if self.objects else 0):
            photo = _draw(rng, self.objects, self.upto_objects)
            objects, pixels = photo.objects(), photo.pixels()
            cutout = draw_cutout(rng, pixels, _regions(objects, photo, pixels)) if objects else None
            out += [cutout] if cutout else []
        return out


def _upto(photos: Sequence[TrainingPhoto]) -> Float:
    """Share of the draws that go to the photos up to each: (n,) float64."""
    upto = np.cumsum([photo.weight() for photo in photos])
    return upto / upto[-1] if len(upto) else upto


def _draw(rng: np.random.Generator, photos: Sequence[TrainingPhoto], upto: Float) -> TrainingPhoto:
    return photos[min(int(np.searchsorted(upto, rng.random(), "right")), len(photos) - 1)]


def _regions(item: LabelMap, photo: TrainingPhoto, pixels: Pixels) -> Int:
    """A label map of a photo (h,w,3), which must be of its size."""
    numbers = item.regions()
    if numbers.shape != pixels.shape[:2]:
        raise InputError(
            item.name,
            expected=f"the size of {photo.name}, {pixels.shape[1]} x {pixels.shape[0]}",
            found=f"{numbers.shape[1]} x {numbers.shape[0]}",
        )
    return numbers


def _placed(item: SeenMap, quarter: int) -> SeenMap:
    """A map of one of four photos as one of all four."""
    nothing = np.zeros_like(item.numbers)
    numbers = four_in_one([item.numbers if i == quarter else nothing for i in range(4)])
    return SeenMap(numbers=numbers, whole=item.whole, labelled=item.labelled)


def read_batches(batches: Batches, steps: range, *, workers: int, pinned: bool = False) -> Iterator[Batch]:
    """Batches of some steps in their order, made ahead by worker processes.

    Args:
        batches: All of a phase.
        steps: Which.
        workers: Processes; 0 makes each batch when it is asked for. The batches are the same however many there are.
        pinned: In memory that a GPU copies from quickly.

    Raises:
        InputError: A photo or label map is broken.
    """
    loader: DataLoader[Batch | GranSAMError] = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=pinned,
    )
    for batch in loader:
        if isinstance(batch, GranSAMError):
            raise batch
        yield batch
