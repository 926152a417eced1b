"""Photos to annotate, and ``gransam`` run inside the test's own process, where it is quick and can be patched."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fake_gransam
import numpy as np
import pytest
from PIL import Image

from gransam_sdk.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Gransam = Callable[..., Done]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, color in enumerate([(220, 40, 40), (40, 70, 210), (40, 160, 60)]):
        pixels = np.full((40, 60, 3), 128, dtype=np.uint8)
        pixels[10:30, 15:45] = color
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def gransam(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Gransam]:
    """Runs a command line; ``fake=False`` leaves the loading of bundles as it is."""

    def call(*arguments: object, fake: bool = True) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["gransam", *map(str, arguments)])
            if fake:
                patch.setattr("gransam_sdk.annotate.run.load", fake_gransam.load)
                patch.setattr("gransam_sdk.annotate.plan.load", fake_gransam.load)
            with pytest.raises(SystemExit) as stopped:
                main()
        printed = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Done(stopped.value.code, printed.out, printed.err)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGPIPE)}
    yield call
    for number, handler in before.items():
        signal.signal(number, handler)
