"""``gransam train-segmenter``: photos with label maps in, a checkpoint for ``gransam compile --arch nano`` out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .streams import narrate

if TYPE_CHECKING:
    from ..training.nano.config import SegmenterConfig
    from ..training.nano.data import TrainingData

DEFAULT_MINUTES = 90.0


def train_segmenter(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder with index.jsonl, images/ and masks/."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Checkpoint to write, .safetensors.")],
    teacher: Annotated[
        Path, typer.Option("--teacher", metavar="FILE", help="Weights of the classifier whose features are learned.")
    ],
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FILE", help="Start from this checkpoint, and skip distillation.")
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option("--unlabelled", metavar="DIR", help="Photos without labels, for features; repeat it."),
    ] = None,
    regions: Annotated[
        bool, typer.Option("--regions", help="Click on regions found without labels, too; they are made once.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="N", help="How long to train; 90 if neither this nor --steps is given."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Train so many steps instead: the same on every run.")
    ] = None,
    sides: Annotated[
        str, typer.Option("--sides", metavar="S,...", help="Sides that steps take turns at, multiples of 32.")
    ] = "224",
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Photos a step.")] = 16,
    clicks: Annotated[int, typer.Option("--clicks", metavar="N", min=1, help="Clicks a photo.")] = 6,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of initialisation and every draw.")] = 0,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=0, help="Processes that read photos; all threads but one."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Keeps unfinished training; $GRANSAM_HOME, else ~/.cache/gransam."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is already there.")] = False,
) -> None:
    """Train the embedded segmenter from photos with label maps."""
    import shutil

    from ..training.extra import require

    require("train", "torch", "safetensors")
    from ..annotate.disk import put_file
    from ..models.imagenet_teacher import load_teacher
    from ..models.nano_checkpoint import read_checkpoint
    from ..training.allocator import keep_freed_memory
    from ..training.nano.config import SegmenterConfig
    from ..training.nano.data import load_data
    from ..training.nano.divided import divided
    from ..training.nano.files import checkpoint_bytes, machine_facts, training_log
    from ..training.nano.fit import Budget, segmenter_identity, train_segmenter, weights_digest
    from ..training.nano.regions import with_regions
    from ..training.sources.painter import choose_device
    from ..training.token_cache import default_cache

    log_file = _check_target(out, overwrite)
    keep_freed_memory()
    config = SegmenterConfig(sides=_parse_sides(sides), photos=batch, clicks=clicks, seed=seed)
    budget = Budget(minutes=DEFAULT_MINUTES if minutes is None and steps is None else minutes, steps=steps)
    chosen = choose_device(device)
    model, start = load_teacher(teacher), None if init is None else read_checkpoint(init)
    examples = load_data(data, config, unlabelled=unlabelled or ())
    _say_data(examples, config)
    if regions:
        narrate("finding regions in the photos; those of an earlier training are taken from the cache")
        found = divided(model, examples.photos, (cache or default_cache()) / "regions")
        examples = with_regions(examples, found, progress=_say_regions)
    identity = segmenter_identity(examples, model, config, budget, start)
    unfinished = (cache or default_cache()) / "training" / identity
    facts = {
        **machine_facts(chosen),
        "teacher_sha256": weights_digest(model),
        "init_sha256": None if start is None else weights_digest(start),
    }
    try:
        trained = train_segmenter(
            examples,
            model,
            config,
            budget,
            init=start,
            device=chosen,
            workers=_default_workers() if workers is None else workers,
            checkpoint=unfinished,
            log=narrate,
        )
    except (KeyboardInterrupt, SystemExit):
        narrate("stopped; what was saved is kept, and the same command goes on from there")
        raise
    put_file(out, checkpoint_bytes(trained.nano))
    put_file(log_file, training_log(trained, examples, config, budget, facts))
    shutil.rmtree(unfinished, ignore_errors=True)  # the checkpoint is written; what stays is only space
    narrate(f"wrote {out} and {log_file.name}; gransam compile {out} --arch nano makes a bundle of it")


def _check_target(out: Path, overwrite: bool) -> Path:
    """Where the log goes; before anything is read."""
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}", expected="a file that ends in .safetensors", found=out.suffix or "no suffix")
    log_file = out.with_suffix(".json")
    for path in (out, log_file):
        if path.exists() and not overwrite:
            raise InputError(f"--out {path}", expected="no such file", found="a file", do="replace it with --overwrite")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}", expected="a folder that is there", found=f"no folder {out.parent}")
    return log_file


def _parse_sides(text: str) -> tuple[int, ...]:
    if not all(part.isascii() and part.isdecimal() for part in text.split(",")):
        raise InputError("--sides", expected="multiples of 32 from 64, with commas between them", found=repr(text))
    return tuple(int(part) for part in text.split(","))


def _say_regions(done: int, total: int) -> None:
    if done % 500 == 0 or done == total:
        narrate(f"regions of {done} of {total} photos")


def _default_workers() -> int:
    import os

    return max(1, len(os.sched_getaffinity(0)) - 1)


def _say_data(data: TrainingData, config: SegmenterConfig) -> None:
    for path, reason in data.skipped:
        narrate(f"skipped {path}: {reason}")
    sources = ", ".join(f"{count} {name}" for name, count in data.sources().items())
    narrate(f"{len(data.photos)} photos ({sources}), {len(data.held)} held out; sides {config.sides}")
