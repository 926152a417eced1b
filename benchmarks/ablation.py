"""What does each switch of the training buy, on pictures that were held out?

python benchmarks/ablation.py --pictures ../shared/data/web20

A killed run goes on where it stopped. What was measured is kept in --work; delete it after a change to the training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from hold_out import DRAWS, THRESHOLDS, Counts, best_threshold, count_units, f1_difference, f1_scores, named_share
from result import Cell, write_result

from gransam_sdk.annotate.disk import put_file
from gransam_sdk.bundle import open_bundle
from gransam_sdk.runtime.load import load_model
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.cache_key import describe_segmenter, entry_name
from gransam_sdk.training.fit import PAPER, HeadConfig, fit_head
from gransam_sdk.training.folds import FOLDS
from gransam_sdk.training.prototypes import fit_prototypes
from gransam_sdk.training.split import split_bags
from gransam_sdk.training.token_cache import CachePlan, default_cache
from gransam_sdk.training.tokens import CachedPictures, cache_pictures, load_bags
from gransam_sdk.types import MaskChoice

FORMAT = 1
"""To be raised when the same setting gives other counts."""
USED_FOLDS = 5
"""Of ten: half of the pictures, which is about the 45 a class of the paper's web setting."""
HELD = 0.1
"""Share of all ten folds that a seed holds out."""
SEEDS = (0, 1, 2)
QUICK_CLASSES = ("bus", "car", "cat", "dog")
QUICK_EPOCHS = 3

BASE = replace(PAPER, epochs=5, hold_out=0.0)
SHIPPED = replace(HeadConfig(), members=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A setting, and the one that it is compared with.

    Attributes:
        name: In the table.
        config: Its seed is replaced.
        reference: Name of the other row; empty for a row that others are compared with.
        choice: Mask whose features stand beside the tokens; of no effect on others than fused inputs.
        prototypes: Fit prototypes, without gradient training.
    """

    name: str
    config: HeadConfig
    reference: str = ""
    choice: MaskChoice = "best_iou"
    prototypes: bool = False


def rows_to_measure() -> list[Row]:
    """The paper's setting and then the shipped one, each followed by what differs from it in one thing."""
    first, second = "paper, five epochs", "shipped, one head"
    fused = replace(BASE, inputs="fused")
    paper: dict[str, HeadConfig] = {
        "MIL alone": replace(BASE, uncertainty_weight=0.0),
        "early stop, 30 epochs at most": PAPER,
        "dropout 0.5": replace(BASE, dropout=0.5),
        "dropout 0.1": replace(BASE, dropout=0.1),
        "torch's initial weights": replace(BASE, init="default"),
        "a = 4": replace(BASE, divisor=4),
        "a = 16": replace(BASE, divisor=16),
        "a = 100": replace(BASE, divisor=100),
        "mean over classes": replace(BASE, class_reduction="mean"),
        "entropy rule normalised": replace(BASE, entropy_rule="normalised"),
        "entropy rule quantile": replace(BASE, entropy_rule="quantile"),
        "background pictures to uniform": replace(BASE, background_weight=0.15),
        "explicit background": replace(BASE, background="explicit"),
        "a label a mask": replace(BASE, inputs="per_token"),
        "tokens and features": fused,
        "features": replace(BASE, inputs="features"),
        "scenes": replace(BASE, scenes=True),
        "rim rule": replace(BASE, rim=SHIPPED.rim),
    }
    shipped: dict[str, HeadConfig] = {
        "mean of four heads": HeadConfig(),
        "MIL alone": replace(SHIPPED, uncertainty_weight=0.0),
        "without scenes": replace(SHIPPED, scenes=False),
        "without rim rule": replace(SHIPPED, rim=PAPER.rim),
        "without background pictures": replace(SHIPPED, background_weight=0.0),
        "explicit background": replace(SHIPPED, background="explicit"),
        "tokens and features": replace(SHIPPED, inputs="fused"),
        "tokens alone": replace(SHIPPED, inputs="tokens"),
    }
    masks: tuple[MaskChoice, ...] = ("single", "whole", "stable")
    return [
        Row(name=first, config=BASE),
        *(Row(name=f"paper: {name}", config=config, reference=first) for name, config in paper.items()),
        *(Row(name=f"paper: features of mask {m}", config=fused, reference=first, choice=m) for m in masks),
        Row(name="prototypes", config=BASE, reference=first, prototypes=True),
        Row(name="prototypes on features", config=fused, reference=first, prototypes=True),
        Row(name=second, config=SHIPPED),
        *(Row(name=f"shipped: {name}", config=config, reference=second) for name, config in shipped.items()),
    ]


def chosen_rows(only: Sequence[str], *, quick: bool) -> list[Row]:
    """The rows asked for, and those that they are compared with.

    Raises:
        ValueError: There is no row of a name.
    """
    rows = rows_to_measure()
    if quick:
        only = only or ["paper, five epochs", "paper: MIL alone", "paper: tokens and features", "paper: scenes"]
    if unknown := set(only) - {row.name for row in rows}:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; there are: {'; '.join(row.name for row in rows)}")
    wanted = set(only) | {row.reference for row in rows if row.name in only}
    kept = [row for row in rows if not only or row.name in wanted]
    return [replace(row, config=replace(row.config, epochs=QUICK_EPOCHS)) for row in kept] if quick else kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keeps what was measured; without it, ablation/ beside the tokens")
    parser.add_argument("--quick", action="store_true", help=f"{len(QUICK_CLASSES)} classes, few rows, one seed")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these rows")
    parser.add_argument("--json", type=Path, help="write here instead of into benchmarks/results")
    options = parser.parse_args()
    if (options.quick or options.only) and not options.json:
        parser.error("--quick and --only make part of the table: say with --json where it goes")
    try:
        rows = chosen_rows(options.only, quick=options.quick)
    except ValueError as error:
        parser.error(str(error))
    with load_model(open_bundle("nano-voc20"), device="cpu") as model:
        cached = cache_pictures(model, options.pictures, announce=say_plan)
        segmenter = entry_name(describe_segmenter(model))
    if options.quick:
        cached = of_classes(cached, QUICK_CLASSES)

    @lru_cache(maxsize=1)  # and while the next ones are read, these: two choices are in memory
    def bags_of(choice: MaskChoice) -> Bags:
        return used_half(load_bags(cached, choice))

    seeds = SEEDS[:1] if options.quick else SEEDS
    work = options.work or default_cache() / "ablation"
    counts = measure_all(rows, seeds, bags_of, work, identity_of(cached, segmenter))
    write_result(
        "ablation",
        title="What each switch buys",
        question="What does each switch of the training buy, on example pictures that were held out?",
        columns=(
            "setting",
            "named alone %",
            "named in scenes %",
            "F1 %",
            "spread",
            "threshold",
            "F1 over its reference",
        ),
        rows=table(rows, counts),
        notes=notes(rows, counts, cached, seeds),
        path=options.json,
    )


def say_plan(plan: CachePlan) -> None:
    print(f"{plan.what}: tokens of {plan.cached} of {plan.pictures} are cached", flush=True)


def measure_all(
    rows: Sequence[Row], seeds: Sequence[int], bags_of: Callable[[MaskChoice], Bags], work: Path, identity: str
) -> dict[str, list[Counts]]:
    """Counts of every row, one for each seed; what is already in ``work`` is read.

    Args:
        rows: Of the table.
        seeds: Of hold-out and training.
        bags_of: All bags that may be used, with the features of a mask; asked for one choice after the other.
        work: Folder of what was measured.
        identity: Of the bags.
    """
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Counts]] = {}
    for row in sorted(rows, key=lambda row: row.choice):  # sorted is stable
        found[row.name] = []
        for seed in seeds:
            path = work / f"{cell_name(row, seed, identity)}.npz"
            if not path.exists():
                start = time.monotonic()
                put_file(path, measure(row, seed, bags_of(row.choice)).to_bytes())
                print(f"{row.name}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
            found[row.name].append(Counts.from_bytes(path.read_bytes()))
    return found


def measure(row: Row, seed: int, bags: Bags) -> Counts:
    """Fits on what the seed leaves, and counts on what it holds out."""
    rest, held = split_bags(bags, HELD, seed)
    config = replace(row.config, seed=seed)
    if row.prototypes:
        return count_units(fit_prototypes(rest, config).head, held, config)
    fitted = fit_head(rest, config)
    return count_units(fitted.head, held, config, fitted.epochs)


def cell_name(row: Row, seed: int, identity: str) -> str:
    """Hex digest of all that the counts of a row and a seed come from, the code apart."""
    choice = row.choice if row.config.inputs == "fused" else None
    about = [FORMAT, identity, asdict(replace(row.config, seed=seed)), row.prototypes, choice, HELD, THRESHOLDS]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def identity_of(cached: CachedPictures, segmenter: str) -> str:
    """Hex digest of the pictures, their labels, the scenes and what their tokens were made with."""
    pictures = [(example.sha256, example.label) for example in cached.examples]
    about = [USED_FOLDS, segmenter, cached.classes, pictures, [scene.sha256 for scene in cached.scenes]]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def used_half(bags: Bags) -> Bags:
    """The bags of the folds that are used."""
    return bags.take(bags.folds < USED_FOLDS, bags.scenes.folds < USED_FOLDS)


def of_classes(cached: CachedPictures, names: Sequence[str]) -> CachedPictures:
    """Pictures of some classes and of background, and the scenes that show nothing else; folds stay as they are."""
    label = {cached.classes.index(name): number for number, name in enumerate(names)} | {-1: -1}
    scenes = [scene for scene in cached.scenes if all(tile.example.label in label for tile in scene.tiles)]
    return replace(
        cached,
        classes=tuple(names),
        examples=tuple(replace(e, label=label[e.label]) for e in cached.examples if e.label in label),
        scenes=tuple(
            replace(
                s, tiles=tuple(replace(t, example=replace(t.example, label=label[t.example.label])) for t in s.tiles)
            )
            for s in scenes
        ),
    )


def table(rows: Sequence[Row], counts: Mapping[str, Sequence[Counts]]) -> list[tuple[Cell, ...]]:
    """The rows, in percent: means of the seeds."""
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        own = counts[row.name]
        at = best_threshold(own)
        scores = [100 * float(f1_scores(one)[at]) for one in own]
        named = [round(100 * float(np.mean([named_share(one, in_scene=s) for one in own])), 1) for s in (False, True)]
        better = ""
        if row.reference:
            difference, low, high = (100 * value for value in f1_difference(own, counts[row.reference]))
            better = f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"
        spread = f"{min(scores):.1f}-{max(scores):.1f}"
        lines.append((row.name, *named, round(float(np.mean(scores)), 1), spread, THRESHOLDS[at], better))
    return lines


def notes(
    rows: Sequence[Row], counts: Mapping[str, Sequence[Counts]], cached: CachedPictures, seeds: Sequence[int]
) -> list[str]:
    """What the numbers are."""
    units = [(int((~one.in_scene).sum()), int(one.in_scene.sum())) for one in counts[rows[0].name]]
    held = "; ".join(f"{alone} pictures and {scenes} scenes" for alone, scenes in units)
    said = [
        f"{USED_FOLDS} of {FOLDS} folds of the {len(cached.examples)} example pictures of {len(cached.classes)} "
        f"classes and background are used; each of {len(seeds)} seeds holds out one of these folds ({held}) and trains "
        "on the rest. No evaluation photo is read.",
        "*Named*: share of held-out class pictures whose bag answer (equation (2) of arXiv 2312.02420) is their "
        "folder's class, alone, and in scenes over the clicks on them. *F1*: harmonic mean of source precision (share "
        "of kept clicks, of kept masks where each has a label, that carry the class of the picture under them; on "
        "background all are wrong) and of the share of class pictures, alone and in scenes, with such a click on them; "
        f"before mask suppression, at the threshold of {THRESHOLDS[0]:.2f} to {THRESHOLDS[-1]:.2f} that is best for "
        "the row.",
        "Shares and F1 are means of the seeds, the spread is over them. *Over its reference*: difference to the first "
        f"row of the block, and 95 % of {DRAWS} paired draws of pictures and scenes within each seed's hold-out; "
        "what training again would change is in the spread alone.",
        "Each row differs from the first of its block in one thing; features of another mask, and prototypes on "
        "features, in two. MIL alone is the teacher, which meets no background pictures but those in scenes, as does "
        "the row without them. Prototypes are fitted without gradient and without scenes, so they stand in the paper's "
        "block; they always have prototypes of background.",
    ]
    for row in (row for row in rows if row.config.hold_out):
        epochs = ", ".join("+".join(str(count) for count in one.epochs) for one in counts[row.name])
        said.append(f"Epochs of teacher + student in *{row.name}*, by seed: {epochs}.")
    return said


if __name__ == "__main__":
    main()
