"""``gransam train``: folders of example pictures in, a bundle that knows the classes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .streams import narrate

if TYPE_CHECKING:
    from ..training.fit import Fitted, HeadConfig
    from ..training.tokens import Bags
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
        bool, typer.Option("--paper", help="The paper's setting: tokens alone, dropout 0.9, no background pictures.")
    ] = False,
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
    import shutil
    from dataclasses import replace

    from ..bundle import open_bundle
    from ..runtime.load import load_model
    from ..training.extra import require

    require("train", "torch", "onnx", "onnxscript", "safetensors")
    from ..export.assemble import add_head
    from ..export.bundle import check_target
    from ..training.checkpoint import training_identity
    from ..training.fit import PAPER, HeadConfig, fit_head
    from ..training.token_cache import default_cache
    from ..training.tokens import extract_bags
    from .token_progress import TokenProgress

    check_target(out, overwrite=overwrite)
    config = replace(PAPER if paper else HeadConfig(), seed=seed)
    base_bundle = open_bundle(base)
    with load_model(base_bundle, device=device) as model, TokenProgress() as shown:
        bags = extract_bags(model, pictures, cache=cache, announce=shown.announce, progress=shown.advance)
    for path, reason in bags.skipped:
        narrate(f"skipped {path}: {reason}")
    unfinished = (cache or default_cache()) / "training" / training_identity(bags, config)
    fitted = fit_head(bags, config, log=narrate, checkpoint=unfinished)
    bundle = add_head(
        base_bundle,
        fitted.head,
        out,
        name=out.name,
        classes=_classes(bags, config),
        training_data=[f"{len(bags.labels)} example pictures in class folders, image-level labels only"],
        card=_card(bags, config, fitted),
        overwrite=overwrite,
    )
    shutil.rmtree(unfinished, ignore_errors=True)  # the bundle is written; what stays is only space
    narrate(f"wrote {bundle.path}: {len(bundle.classes)} classes, sha256 {bundle.digest[:16]}...")


def _classes(bags: Bags, config: HeadConfig) -> list[ClassInfo]:
    from ..runtime.draw import voc_palette
    from ..training.aliases import aliases_of
    from ..types import ClassInfo

    colors = voc_palette().reshape(-1, 3)
    return [
        ClassInfo(
            id=i + 1,
            name=name,
            aliases=aliases_of(name, bags.classes),
            color=tuple(int(v) for v in colors[(i + 1) % len(colors)]),  # type: ignore[arg-type]
            threshold=config.threshold,
        )
        for i, name in enumerate(bags.classes)
    ]


def _card(bags: Bags, config: HeadConfig, fitted: Fitted) -> str:
    counts = [f"{name} {int((bags.labels == i).sum())}" for i, name in enumerate(bags.classes)]
    background = int((bags.labels < 0).sum())
    epochs = " + ".join(map(str, fitted.epochs))
    return f"""\
Labels {len(bags.classes)} classes, learned from image-level labels alone (arXiv 2312.02420: multiple-instance learning,
then uncertainty distillation).

- **Example pictures**: {", ".join(counts)}; background {background}.
- **Setting**: inputs {config.inputs}, dropout {config.dropout}, a = {config.divisor}, {epochs} epochs, weight of
  uncertainty {config.uncertainty_weight}, of background {config.background_weight}, seed {config.seed}.
- **On the example pictures themselves**: {fitted.bag_accuracy:.1%} of the pictures get their folder's class; the
  teacher was unsure or wrong about {fitted.bad_share:.0%} of their prompts.
- **Threshold** {config.threshold} for every class; confidences are not calibrated.
- One label a click: a click between two things, or on a part that looks like another class, is labelled wrongly. What
  is often beside a class (rails, sky, grass) may be taken for it.
"""
