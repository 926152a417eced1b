"""A bundle of a narrow MobileSAM with letterbox, random weights and explicit background, and its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sam_random import NARROW_TINY, random_sam
from sample_photos import sample_path, sample_pixels
from torch import nn

from gransam_sdk.bundle import Bundle, HeadInfo
from gransam_sdk.export.assemble import add_head
from gransam_sdk.export.compile import compile_bundle
from gransam_sdk.models import sam_checkpoint, segment_anything
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.types import ClassInfo, PointGrid


def sam_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bundle, nn.Module]:
    """The bundle and its head, which is centred on its tokens; the checkpoint is ``tiny.pt`` in the folder."""
    for module in (segment_anything, sam_checkpoint):
        monkeypatch.setattr(module, "ARCHITECTURES", {"mobile-sam": NARROW_TINY})
    (folder / "card.md").write_text("# Random\n")
    torch.save(random_sam(NARROW_TINY, seed=7).state_dict(), folder / "tiny.pt")
    base = compile_bundle(
        folder / "tiny.pt",
        folder / "base",
        arch="mobile-sam",
        name="base",
        photos=[sample_path("chelsea.png")],
        card=folder / "card.md",
        decoder="low-rank",
    )
    with open_sessions(base, "cpu", 1) as model:
        pixels = sample_pixels("coffee.png")
        frame = model.frame(pixels)
        hoisted = model.hoist(model.prepare(pixels, frame))
        tokens = next(model.prompt(hoisted, frame, PointGrid(per_side=4).points(), 16)).tokens.reshape(16, 1024)
    linear = torch.nn.Linear(1024, 4)
    linear.weight.data = torch.randn(4, 1024, generator=torch.Generator().manual_seed(3)) / 4
    linear.bias.data = -(linear.weight.data @ torch.from_numpy(tokens.mean(axis=0)))
    head = torch.nn.Sequential(linear)
    head.register_buffer("mean", torch.zeros(1024))
    info = HeadInfo(background=True, labels="prompt", calibration=None)
    named = [ClassInfo(id=i + 1, name=name, threshold=0.5) for i, name in enumerate(("cat", "dog", "cup"))]
    made: Bundle = add_head(
        base,
        head.requires_grad_(False),
        folder / "sam",
        name="sam",
        classes=named,
        head_info=info,
        training_data=[],
        card="Random.",
    )
    return made, head
