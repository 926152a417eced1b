"""Twelve small random truths, predictions of them, and the truths as a VOC folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_run import label_map


@pytest.fixture
def maps() -> dict[str, np.ndarray]:
    """Twelve random truths of blocks, with ignored pixels."""
    random = np.random.default_rng(5)
    made = {}
    for i in range(12):
        blocks = random.choice([0, 0, 0, 3, 8, 15, 20, 255], size=(4, 5))
        made[f"2007_{i:06}"] = np.kron(blocks, np.ones((6, 7))).astype(np.uint8)
    return made


@pytest.fixture
def guesses(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predictions that are right in places; class 5 is in no truth."""
    random = np.random.default_rng(6)
    return {
        photo: np.where(random.random(truth.shape) < 0.7, truth, random.choice([0, 5, 8, 15], truth.shape)) % 255
        for photo, truth in maps.items()
    }


@pytest.fixture
def gt(tmp_path: Path, maps: dict[str, np.ndarray]) -> Path:
    for photo, truth in maps.items():
        label_map(tmp_path / "gt", photo, truth)
    return tmp_path / "gt"
