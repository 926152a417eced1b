"""``gransam compile``: a segmenter's checkpoint in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .streams import narrate

CALIBRATION = 64
"""Photos that a precision is made by where the caller names none."""


def compile_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Weights: safetensors for nano, else the official file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write.")],
    photos: Annotated[Path, typer.Option("--photos", metavar="DIR", help="Real photos to prove parity on.")],
    arch: Annotated[
        str,
        typer.Option(
            "--arch", metavar="NAME", help="The checkpoint's architecture: nano, sam-vit-b, -l or -h, mobile-sam."
        ),
    ] = "nano",
    card: Annotated[
        Path | None,
        typer.Option("--card", metavar="FILE", help="Model card in Markdown; if not given, one is made."),
    ] = None,
    side: Annotated[
        int | None, typer.Option("--side", metavar="S", help="Nano's side, a multiple of 32; 320 if not given.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option("--head", metavar="BUNDLE", help="Take head and classes of a bundle trained on this checkpoint."),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", metavar="P", help="fp32, fp32-w16, fp16, bf16 or int8.")
    ] = "fp32-w16",
    decoder: Annotated[
        str,
        typer.Option(
            "--decoder",
            metavar="FORM",
            help="absorbed, low-rank, or auto: the one that is cheaper by count and by this machine's clock.",
        ),
    ] = "auto",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="DIR",
            help="Photos that fp16 and int8 are made by; if not given, the next 64 of --photos after --limit.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Photos to compare on.")] = 24,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
) -> None:
    """Export a segmenter to ONNX graphs, prove them equal to PyTorch, and write a bundle."""
    from ..bundle import open_bundle
    from ..training.extra import require

    require("export", "torch", "onnx", "onnxscript", "safetensors")
    from ..export.compile import compile_bundle

    _check(arch, side, precision, decoder, card)
    found = _photos(photos)
    bundle = compile_bundle(
        checkpoint,
        out,
        arch=arch,
        name=out.name,
        photos=found[:limit],
        card=card,
        side=side,
        precision=precision,
        decoder=decoder,
        calibration=_calibration(precision, photos, found, limit, calibrate),
        head=None if head is None else open_bundle(head),
        overwrite=overwrite,
        log=narrate,
    )
    narrate(f"wrote {bundle.path} (sha256 {bundle.digest[:16]}...)")


def _check(arch: str, side: int | None, precision: str, decoder: str, card: Path | None) -> None:
    from ..export.reference import architectures
    from ..export.segmenter_graphs import DECODERS
    from ..parity_bars import PRECISIONS

    if arch not in architectures():
        raise InputError("--arch", expected=", ".join(architectures()), found=repr(arch))
    if arch != "nano" and side is not None:
        raise InputError("--side", expected=f"none: the side of {arch} is fixed", found=str(side))
    if precision not in PRECISIONS:
        raise InputError("--precision", expected=", ".join(PRECISIONS), found=repr(precision))
    if decoder not in DECODERS:
        raise InputError("--decoder", expected=", ".join(DECODERS), found=repr(decoder))
    if card is not None and not card.is_file():
        raise InputError(f"model card {card}", expected="a Markdown file", found="no such file")


def _photos(folder: Path) -> list[Path]:
    from ..annotate.walk import Item, find_photos

    return [item.path for item in find_photos([str(folder)], exclude=None) if isinstance(item, Item)]


def _calibration(precision: str, photos: Path, found: list[Path], limit: int, calibrate: Path | None) -> list[Path]:
    """Photos that a precision is made by: never those that it is judged on, unless the caller names them."""
    if calibrate is not None:
        return _photos(calibrate)
    calibration = found[limit : limit + CALIBRATION]
    if precision in ("fp16", "int8") and not calibration:
        raise InputError(
            f"photos to make {precision} by",
            expected=f"more than the {limit} photos that parity is judged on",
            found=f"{len(found)} in {photos}",
            do="give others with --calibrate DIR, or judge fewer with --limit",
        )
    return calibration
