"""``gransam synth``: class names in, folders of example pictures out, made by a diffusion model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .streams import narrate


def synth(
    classes: Annotated[
        list[str],
        typer.Option("--class", "-c", metavar="NAME", help="A class, as the prompt is to name it; repeat it."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PICTURES", help="Folder to fill; what is there is not made again.")
    ],
    per_class: Annotated[
        int, typer.Option("--per-class", metavar="N", min=1, max=1000, help="Pictures of each class.")
    ] = 200,
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME|DIR", help="Text-to-image model: a name on the hub or a local folder."),
    ] = "CompVis/stable-diffusion-v1-4",
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="The model's branch, tag or commit on the hub.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Denoising steps.")] = 50,
    guidance: Annotated[
        float, typer.Option("--guidance", metavar="W", min=0.0, help="How closely to follow the prompt.")
    ] = 7.5,
    template: Annotated[
        str, typer.Option("--template", metavar="TEXT", help="Prompt; {c} stands for the class.")
    ] = "a photo of a {c}",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Added to every picture's seed.")] = 0,
    batch: Annotated[
        str, typer.Option("--batch", metavar="auto|N", help="Pictures made at a time; fewer when memory runs out.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Make example pictures of classes with a diffusion model, for `gransam train`."""
    from ..training.sources.diffusion import DiffusionConfig, DiffusionSource

    config = DiffusionConfig(
        model=model,
        revision=revision,
        template=template,
        steps=steps,
        guidance=guidance,
        seed=seed,
        batch=_parse_batch(batch),
        device=device,
    )
    try:
        report = DiffusionSource(config, log=narrate).collect(classes, out, per_class=per_class, progress=_say_progress)
    except (KeyboardInterrupt, SystemExit):  # the second is SIGTERM
        narrate("stopped; what was made is saved, and the same command goes on from there")
        raise
    for line in report.lines():
        narrate(line)
    if report.missing:
        raise typer.Exit(3)


def _parse_batch(batch: str) -> int | None:
    if batch == "auto":
        return None
    if not (batch.isascii() and batch.isdecimal() and int(batch)):
        raise InputError("--batch", expected="auto or a whole number from 1", found=repr(batch))
    return int(batch)


def _say_progress(name: str, there: int, wanted: int) -> None:
    if there % 10 == 0 or there == wanted:
        narrate(f"{name}: {there} of {wanted} pictures")
