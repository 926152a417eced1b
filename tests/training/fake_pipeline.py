"""A text-to-image pipeline that fails on demand, and what its tests ask of a source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from gransam_sdk.training.sources import painter as painter_module
from gransam_sdk.training.sources.diffusion import DiffusionConfig, DiffusionSource
from gransam_sdk.training.sources.painter import Painter
from gransam_sdk.training.sources.source import ClassReport

CLASSES = ("red fox", "badger")
FAKE = DiffusionConfig(model="a/model", steps=7, guidance=5)


class FakePipeline:
    """Paints the seed into a picture; what it is told to blank it blanks, and it has only so much memory."""

    def __init__(self) -> None:
        self.flagged: set[int] = set()
        self.black: set[int] = set()
        self.memory = 100
        self.out_of_memory: Callable[[], BaseException] = lambda: torch.OutOfMemoryError("CUDA out of memory")
        self.stop_after: int | None = None
        self.seeds: list[list[int]] = []
        self.prompts: set[str] = set()

    def __call__(self, prompt: list[str], generator: list[torch.Generator], **settings: object) -> SimpleNamespace:
        assert settings == {"num_inference_steps": 7, "guidance_scale": 5}
        if len(prompt) > self.memory:
            raise self.out_of_memory()
        if self.stop_after is not None and len(self.seeds) >= self.stop_after:
            raise KeyboardInterrupt
        seeds = [one.initial_seed() for one in generator]
        self.seeds.append(seeds)
        self.prompts |= set(prompt)
        assert len(prompt) == len(seeds)
        colors = [(0, 0, 0) if s in self.black | self.flagged else (1, s % 256, s // 256 % 256) for s in seeds]
        images = [Image.new("RGB", (8, 6), color) for color in colors]
        return SimpleNamespace(images=images, nsfw_content_detected=[s in self.flagged for s in seeds])

    @property
    def made(self) -> list[int]:
        return [seed for some in self.seeds for seed in some]


def load_instead(monkeypatch: pytest.MonkeyPatch, *, commit: str = "abc") -> FakePipeline:
    """The pipeline that is loaded from now on in place of any model; it is of ``commit`` unless a revision is named."""
    pipeline = FakePipeline()

    def load(model: str, revision: str | None, *, device: str, batch: int | None, log: Any) -> Painter:
        return Painter(pipeline, batch=batch or 4, commit=revision or commit, dtype="float32", log=log)

    monkeypatch.setattr(painter_module, "load_painter", load)
    return pipeline


def make(
    out: Path, config: DiffusionConfig = FAKE, classes: tuple[str, ...] = CLASSES, n: int = 3
) -> tuple[ClassReport, ...]:
    return DiffusionSource(config).collect(classes, out, per_class=n).classes


def provenance_of(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(path.stem): json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
