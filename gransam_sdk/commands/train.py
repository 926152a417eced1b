"""``gransam train``: folders of example pictures in, a bundle that knows the classes out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .streams import narrate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bundle import Bundle, HeadInfo
    from ..training.bags import Bags
    from ..training.calibrate import Calibration
    from ..training.config import HeadConfig
    from ..training.rehearse import Rehearsed
    from ..types import ClassInfo


def train(
    pictures: Annotated[
        Path, typer.Argument(metavar="PICTURES", help="One folder of example pictures a class; _background for none.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write.")],
    base: Annotated[
        str, typer.Option("--base", metavar="NAME|DIR", help="Bundle whose segmenter is used.")
    ] = "nano-voc20",
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="The paper's setting: tokens alone, dropout 0.9, no scenes, no background pictures."
        ),
    ] = False,
    precision: Annotated[
        float,
        typer.Option("--precision", metavar="P", help="Share of what is kept on held-out pictures that must be right."),
    ] = 0.8,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of initialisation, order and dropout.")] = 0,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Keeps tokens and unfinished training; $GRANSAM_HOME, else ~/.cache/gransam.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
) -> None:
    """Learn classes from example pictures (no masks, no boxes) and write a bundle that labels them."""
    from dataclasses import replace

    from ..bundle import open_bundle
    from ..training.extra import require

    require("train", "torch", "onnx", "onnxscript", "safetensors")
    from ..export.bundle import check_target
    from ..training.calibrate import check_precision
    from ..training.config import PAPER, HeadConfig

    check_precision(precision)
    check_target(out, overwrite=overwrite)
    config = replace(PAPER if paper else HeadConfig(), seed=seed)
    base_bundle = open_bundle(base)
    bags = _tokens(base_bundle, pictures, config, device, cache)
    if len(bags.classes) == 1:
        narrate("one class: background gets a logit of its own, learned from the _background pictures")
        config = replace(config, background="explicit", hold_out=0.0, rim=PAPER.rim)
    _learn(base_bundle, bags, config, precision, out, cache=cache, overwrite=overwrite)
    narrate(f"try it: gransam annotate PHOTOS -o RUN --bundle {shlex.quote(str(out))} --overlays")


def _tokens(base: Bundle, pictures: Path, config: HeadConfig, device: str, cache: Path | None) -> Bags:
    """Tokens of the example pictures and of scenes of them; says what was skipped."""
    from ..runtime.load import load_model
    from ..training.tokens import extract_bags
    from .token_progress import TokenProgress

    with load_model(base, device=device) as model, TokenProgress() as shown:
        bags = extract_bags(
            model, pictures, scenes=config.scenes, cache=cache, announce=shown.announce, progress=shown.advance
        )
    for path, reason in bags.skipped:
        narrate(f"skipped {path}: {reason}")
    return bags


def _learn(
    base: Bundle, bags: Bags, config: HeadConfig, precision: float, out: Path, *, cache: Path | None, overwrite: bool
) -> None:
    """Rehearsal, training on all pictures, bundle, report."""
    import shutil

    from ..export.assemble import add_head
    from ..training.card import head_card
    from ..training.checkpoint import training_identity
    from ..training.rehearse import fit_calibrated
    from ..training.token_cache import default_cache

    unfinished = (cache or default_cache()) / "training" / training_identity(bags, config)
    try:
        rehearsed = fit_calibrated(bags, config, target=precision, log=narrate, checkpoint=unfinished)
    except (KeyboardInterrupt, SystemExit):
        narrate("stopped; the epochs that were trained are kept, and the same command goes on from there")
        raise
    bundle = add_head(
        base,
        rehearsed.fitted.head,
        out,
        name=out.name,
        classes=_classes(bags.classes, rehearsed),
        head_info=_head_info(config, rehearsed.calibration),
        training_data=[f"{len(bags.labels)} example pictures in class folders, image-level labels only"],
        card=head_card(bags, config, rehearsed),
        overwrite=overwrite,
    )
    shutil.rmtree(unfinished, ignore_errors=True)  # the bundle is written; what stays is only space
    for line in _report(rehearsed):
        narrate(line)
    narrate(f"wrote {bundle.path}: {len(bundle.classes)} classes, sha256 {bundle.digest[:16]}...")


def _classes(names: Sequence[str], rehearsed: Rehearsed) -> list[ClassInfo]:
    from ..runtime.draw import voc_palette
    from ..training.aliases import aliases_of
    from ..types import ClassInfo

    colors = voc_palette().reshape(-1, 3)
    evidence = rehearsed.calibration.evidence if rehearsed.calibration else [None] * len(names)
    return [
        ClassInfo(
            id=i + 1,
            name=lesson.name,
            aliases=aliases_of(lesson.name, tuple(names)),
            color=tuple(int(v) for v in colors[(i + 1) % len(colors)]),  # type: ignore[arg-type]
            threshold=lesson.threshold,
            evidence=evidence[i],
        )
        for i, lesson in enumerate(rehearsed.lessons)
    ]


def _head_info(config: HeadConfig, calibration: Calibration | None) -> HeadInfo:
    from ..bundle import HeadInfo

    return HeadInfo(
        background=config.background == "explicit",
        labels="mask" if config.inputs == "per_token" else "prompt",
        calibration=calibration.facts if calibration else None,
    )


def _report(rehearsed: Rehearsed) -> list[str]:
    """What the rehearsal showed, as a table that fits a terminal, with the remarks below it."""
    from ..training.lessons import lesson_rows

    lines = ["on held-out pictures; precision is the share of the kept clicks with their folder's class"]
    lines = lines if rehearsed.calibration else []
    lines += _table([row[:-1] for row in lesson_rows(rehearsed.lessons)])
    return lines + [f"{lesson.name}: {lesson.remark}" for lesson in rehearsed.lessons if lesson.remark]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
