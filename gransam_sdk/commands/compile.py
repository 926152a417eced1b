"""``gransam compile``: a segmenter's checkpoint in, a bundle without a head out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .streams import narrate


def compile_(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Weights in safetensors format.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write.")],
    photos: Annotated[Path, typer.Option("--photos", metavar="DIR", help="Real photos to prove parity on.")],
    card: Annotated[Path, typer.Option("--card", metavar="FILE", help="Model card in Markdown, put into the bundle.")],
    arch: Annotated[str, typer.Option("--arch", metavar="NAME", help="The checkpoint's architecture: nano.")] = "nano",
    side: Annotated[int, typer.Option("--side", metavar="S", help="Model side, a multiple of 32.")] = 320,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Photos to compare on.")] = 24,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
) -> None:
    """Export a segmenter to ONNX graphs, prove them equal to PyTorch, and write a bundle."""
    from ..annotate.walk import Item, find_photos
    from ..training.extra import require

    require("export", "torch", "onnx", "onnxscript", "safetensors")
    from ..export.assemble import compile_nano

    if arch != "nano":
        raise InputError("--arch", expected="nano", found=repr(arch))
    if not card.is_file():
        raise InputError(f"model card {card}", expected="a Markdown file", found="no such file")
    found = [item.path for item in find_photos([str(photos)], exclude=None) if isinstance(item, Item)]
    bundle = compile_nano(
        checkpoint, out, name=out.name, side=side, photos=found[:limit], card=card, overwrite=overwrite, log=narrate
    )
    narrate(f"wrote {bundle.path} (sha256 {bundle.digest[:16]}...)")
