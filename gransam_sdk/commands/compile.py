"""``gransam compile``: a segmenter's checkpoint in, a bundle without a head out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .streams import narrate


def compile_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Weights: safetensors for nano, else the official file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write.")],
    photos: Annotated[Path, typer.Option("--photos", metavar="DIR", help="Real photos to prove parity on.")],
    card: Annotated[Path, typer.Option("--card", metavar="FILE", help="Model card in Markdown, put into the bundle.")],
    arch: Annotated[
        str,
        typer.Option(
            "--arch", metavar="NAME", help="The checkpoint's architecture: nano, sam-vit-b, -l or -h, mobile-sam."
        ),
    ] = "nano",
    side: Annotated[
        int | None, typer.Option("--side", metavar="S", help="Nano's side, a multiple of 32; 320 if not given.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Photos to compare on.")] = 24,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
) -> None:
    """Export a segmenter to ONNX graphs, prove them equal to PyTorch, and write a bundle."""
    from ..annotate.walk import Item, find_photos
    from ..training.extra import require

    require("export", "torch", "onnx", "onnxscript", "safetensors")
    from ..export.assemble import compile_nano, compile_sam
    from ..models.segment_anything import ARCHITECTURES

    if arch not in ("nano", *ARCHITECTURES):
        raise InputError("--arch", expected=f"nano, {', '.join(ARCHITECTURES)}", found=repr(arch))
    if arch != "nano" and side is not None:
        raise InputError("--side", expected=f"none: the side of {arch} is fixed", found=str(side))
    if not card.is_file():
        raise InputError(f"model card {card}", expected="a Markdown file", found="no such file")
    found = [item.path for item in find_photos([str(photos)], exclude=None) if isinstance(item, Item)]
    nano = partial(compile_nano, side=320 if side is None else side)
    make = nano if arch == "nano" else partial(compile_sam, arch=arch)
    bundle = make(checkpoint, out, name=out.name, photos=found[:limit], card=card, overwrite=overwrite, log=narrate)
    narrate(f"wrote {bundle.path} (sha256 {bundle.digest[:16]}...)")
