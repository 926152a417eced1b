"""Photos to run over, and where to."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_in import make_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine good photos and the three of ``stand_in.BAD``."""
    return make_photos(tmp_path / "photos", 9)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
