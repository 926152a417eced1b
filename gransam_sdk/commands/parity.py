"""``gransam parity``: how far a bundle is from what it was made of, and whether its precision allows that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .streams import narrate

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..evaluation.parity import Parity
    from ..runtime.model import Model

BROKEN = 5
"""Exit code: the bundle must not be run."""
FEW = 1000
"""Masks below which a share says little."""


def parity(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle to judge: a folder, or a bundle's name.")],
    reference: Annotated[
        str,
        typer.Option(
            "--reference", metavar="CHECKPOINT|BUNDLE", help="What it was made of, or another bundle of the same."
        ),
    ],
    photos: Annotated[Path, typer.Option("--photos", metavar="DIR", help="Real photos to compare on.")],
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="NAME", help="The checkpoint's architecture; the bundle's own if not given."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Compare on the first N photos only.")
    ] = None,
    gt: Annotated[
        str | None,
        typer.Option("--gt", metavar="voc:DIR|coco:DIR", help="Ground truth of the photos, for the change in mIoU."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write figures and bars to a file.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Compare a bundle with its reference on real photos; end with exit code 5 if a bar of its precision is broken."""
    from ..annotate.walk import Item, find_photos
    from ..bundle import open_bundle
    from ..evaluation.parity import measure_parity
    from ..evaluation.parity_truth import Truth
    from ..parity_bars import broken_bars
    from ..runtime.load import open_sessions
    from ..runtime.onnxruntime_session import resolve_device

    judged = open_bundle(bundle)
    place = resolve_device(device)
    found = [item.path for item in find_photos([str(photos)], exclude=None) if isinstance(item, Item)][:limit]
    truth = None if gt is None else Truth(gt, judged)
    # Neither its parity nor its canary are asked: a bundle that the runtime refuses is what one wants to look at.
    with _reference(reference, judged, arch, place) as told, open_sessions(_run(judged, place), place, None) as model:
        measured = measure_parity(
            model,
            told,
            found,
            truth=truth,
            progress=lambda done: narrate(f"{done} of {len(found)} photos") if done % 10 == 0 else None,
        )
    print("\n".join(table(judged.precision, measured)))
    broken = broken_bars(judged.precision, measured.figures())
    if json_file is not None:
        _write(json_file, judged, measured, [one.bar.figure for one in broken])
    if broken:
        narrate(f"bundle {judged.name} breaks the bars of {judged.precision}: {', '.join(map(str, broken))}")
        raise typer.Exit(BROKEN)


def table(precision: str, measured: Parity) -> list[str]:
    """Lines of a table: figure, bar, what was found, and whether it holds."""
    from ..parity_bars import BARS, broken_bars

    figures = measured.figures()
    bars = {bar.figure: bar for bar in BARS[precision] if not (bar.unless and bar.unless in figures)}
    broken = {one.bar.figure for one in broken_bars(precision, figures)}
    rows = [("figure", "bar", "found", precision)]
    for name, value in figures.items():
        bar = bars.get(name)
        verdict = "" if bar is None else "BROKEN" if name in broken else "ok"
        rows.append((name, str(bar or ""), str(value) if isinstance(value, int) else f"{value:.6g}", verdict))
    rows += [(name, str(bars[name]), "missing", "BROKEN") for name in sorted(broken - figures.keys())]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"worst photo: {measured.worst_photo}, mean mask IoU {measured.worst_photo_iou:.6f}"]
    lines.append(f"{measured.photos} photos, {measured.masks} masks")
    if measured.confident is None:
        lines.append("The bundle has no head: there are no labels and no kept masks to compare.")
    elif measured.confident < FEW:
        lines.append(f"Only {measured.confident} prompts are confident: under {FEW}, their shares say little.")
    return lines


def _run(judged: Bundle, device: str) -> Bundle:
    """What is run: on a processor, which computes 16-bit graphs in 32 bits, one that imitates the rounding."""
    if judged.precision != "fp16" or device != "cpu":
        return judged
    from ..training.extra import require

    require("export", "onnx")
    from ..export.rounding import rounded_bundle

    narrate("this processor computes in 32 bits: the rounding of fp16 is imitated")
    rounded: Bundle = rounded_bundle(judged)
    return rounded


def _reference(reference: str, judged: Bundle, arch: str | None, device: str) -> Model:
    from ..bundle import BUNDLED, open_bundle

    if reference in BUNDLED or Path(reference).is_dir():
        if arch is not None:
            raise InputError("--arch", expected="none: a bundle says what it is", found=repr(arch))
        from ..evaluation.parity_reference import bundle_as_reference

        return bundle_as_reference(open_bundle(reference), judged, device=device)
    from ..training.extra import require

    require("export", "torch", "onnx", "onnxscript", "safetensors")
    from ..export.reference import read_plain, reference_model

    plain = read_plain(Path(reference), arch or judged.architecture, judged.precision)
    made: Model = reference_model(judged, plain)
    return made


def _write(file: Path, judged: Bundle, measured: Parity, broken: list[str]) -> None:
    from ..annotate.disk import put_file

    document = {
        "bundle": judged.name,
        "sha256": judged.digest,
        "precision": judged.precision,
        "passes": not broken,
        "broken": broken,
        "parity": measured.to_json(),
    }
    put_file(file, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
