"""``gransam bench``: how long photos take on this machine, stage by stage, from the file to the record."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError
from .streams import narrate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..evaluation.timing import Open


def bench(
    photos: Annotated[Path, typer.Option("--photos", metavar="DIR", help="Photos to time, a folder or one file.")],
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE", help="Bundles by name or folder; nano-voc20 by default, several side by side."
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="Engine: auto, onnxruntime, openvino; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="CPU threads; all that may be used by default."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Only the first N photos.")] = 20,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Times that each photo is taken.")] = 3,
    warm_up: Annotated[
        int, typer.Option("--warm-up", metavar="N", min=1, help="Photos taken before, which do not count.")
    ] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to a file.")
    ] = None,
) -> None:
    """Time bundles and engines side by side; with several, say how many masks they have in common."""
    from ..annotate.walk import Item, find_photos
    from ..evaluation.timing import time_segmenters
    from ..evaluation.timing_report import timing_json, timing_lines

    found = [item.path for item in find_photos([str(photos)], exclude=None) if isinstance(item, Item)][:limit]
    setups = plan_setups(bundles or ["nano-voc20"], backend or ["auto"], device=device, threads=threads)
    run = time_segmenters(setups, found, rounds=rounds, warm_up=warm_up, progress=_say)
    print("\n".join(timing_lines(run)))
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(timing_json(run), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(str(json_file), expected="a file that can be written", found=str(error)) from error


def plan_setups(
    bundles: Sequence[str], backends: Sequence[str], *, device: str, threads: int | None
) -> Mapping[str, Open]:
    """Every bundle on every engine, by what tells them apart; nothing is opened yet.

    Args:
        bundles: Names or folders.
        backends: As ``load`` takes them.
        device: As ``load`` takes it.
        threads: Threads for one run.
    """
    from ..runtime.load import load

    pairs = [(bundle, backend) for bundle in dict.fromkeys(bundles) for backend in dict.fromkeys(backends)]
    return {
        f"{bundle} on {backend}" if len(set(backends)) > 1 else bundle: partial(
            load, bundle, device=device, backend=backend, threads=threads
        )
        for bundle, backend in pairs
    }


def _say(done: int, total: int) -> None:
    if total > done and done % max(total // 10, 1) == 0:
        narrate(f"{done} of {total} photos")
