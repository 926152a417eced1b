"""Batches by number: the same whoever asks and when; what breaks in a worker keeps its words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import write_data
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.training.nano.batches import Batch, Batches, read_batches
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import TrainingPhoto, load_data

CONFIG = SegmenterConfig(sides=(64, 96), photos=3, clicks=4, held_out=0.0, mosaic=0.3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingPhoto, ...]:
    return load_data(write_data(tmp_path_factory.mktemp("discs") / "data"), CONFIG).photos


def batch_of(batches: Batches, step: int) -> Batch:
    batch = batches[step]
    assert isinstance(batch, Batch)
    return batch


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_is_what_its_number_says(photos: tuple[TrainingPhoto, ...]) -> None:
    batches = Batches(photos, CONFIG, stream=2, clicks=True)
    alone = [batch_of(batches, step) for step in range(6)]
    for workers in (0, 2):
        others = Batches(photos, CONFIG, stream=2, clicks=True)
        made = list(read_batches(others, range(2, 6), workers=workers))
        assert len(made) == 4 and all(map(same, alone[2:], made))
    assert not any(same(alone[0], other) for other in alone[1:])
    assert not same(alone[0], batch_of(Batches(photos, CONFIG, stream=1, clicks=True), 0))
    assert not same(alone[0], batch_of(Batches(photos, replace(CONFIG, seed=1), stream=2, clicks=True), 0))


def test_shapes_and_sides(photos: tuple[TrainingPhoto, ...]) -> None:
    batches = Batches(photos, CONFIG, stream=2, clicks=True)
    for step, side in enumerate((64, 96, 64)):
        batch = batch_of(batches, step)
        assert batch.photos.shape == (3, 3, side, side) and batch.photos.dtype == torch.uint8
        assert batch.points.shape == (3, 4, 2) and batch.whole.all()
        assert batch.masks.shape == (3, 4, side // 4, side // 4) and 0 < batch.masks.max() <= 16
    plain = batch_of(Batches(photos, CONFIG, stream=0, clicks=False), 0)
    assert plain.photos.shape == (3, 3, 64, 64) and plain.points.shape == (3, 0, 2)


def test_clicks_hit_discs_in_mosaics_too(photos: tuple[TrainingPhoto, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Discs are red or blue and all else is grey, where photos are not recoloured."""
    monkeypatch.setattr("gransam_sdk.training.nano.batches.recolour", lambda rng, pixels: pixels)
    config = replace(CONFIG, sides=(128,), mosaic=1.0, paste=0.0, photos=16)
    batch = batch_of(Batches(photos, config, stream=2, clicks=True), 0)
    hits, areas = [], []
    for photo, points, masks in zip(batch.photos, batch.points, batch.masks, strict=True):
        spread = (photo.amax(0).int() - photo.amin(0).int()).float()
        for (x, y), mask in zip((points * 128).int().tolist(), masks, strict=True):
            hits.append(bool(spread[y, x] > 50))
            areas.append(float(mask.float().mean() / 16))
            half = (0 if x < 64 else 16, 0 if y < 64 else 16)
            inside = torch.zeros_like(mask)
            inside[half[1] : half[1] + 16, half[0] : half[0] + 16] = 1
            assert not (mask * (1 - inside)).any(), "a mask stays in its own quarter"
    assert np.mean(hits) > 0.95 and np.mean(areas) < 0.1


def test_sources_are_drawn_by_their_weights(photos: tuple[TrainingPhoto, ...]) -> None:
    coco = [replace(photo, source="coco_train2017") for photo in photos[:6]]
    batches = Batches([*coco, *photos[6:]], CONFIG, stream=0, clicks=False)
    np.testing.assert_allclose(np.diff(batches.upto, prepend=0), [4 / 30] * 6 + [1 / 30] * 6, rtol=1e-9)


def test_photos_without_maps_are_for_features_only(photos: tuple[TrainingPhoto, ...]) -> None:
    bare = [replace(photo, maps=()) for photo in photos]
    assert len(Batches([*bare, photos[0]], CONFIG, stream=2, clicks=True).photos) == 1
    assert len(Batches(bare, CONFIG, stream=0, clicks=False).photos) == 12
    with pytest.raises(InputError, match="label maps"):
        Batches(bare, CONFIG, stream=2, clicks=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_breaks_in_a_worker_keeps_its_words(tmp_path: Path, workers: int) -> None:
    root = write_data(tmp_path / "data", 1)
    Image.new("L", (80, 61)).save(root / "masks/00000.png")
    batches = Batches(load_data(root, CONFIG).photos, CONFIG, stream=2, clicks=True)
    with pytest.raises(InputError) as caught:
        list(read_batches(batches, range(2), workers=workers))
    assert caught.value.what.endswith("masks/00000.png") and "80 x 61" in caught.value.found


def test_empty_maps_end(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", 1)
    Image.new("L", (80, 60)).save(root / "masks/00000.png")
    batches = Batches(load_data(root, CONFIG).photos, CONFIG, stream=2, clicks=True)
    with pytest.raises(InputError, match="large enough"):
        list(read_batches(batches, range(1), workers=0))
