"""What does the segmenter learn, and when? From the log that ``gransam train-segmenter`` leaves beside a checkpoint.

python benchmarks/segmenter_training.py --log nano.json [LOG ...]

Several logs are of trainings that went on from each other, in their order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plot import Axis, Line, Plot
from result import Cell, write_result

FEATURES = {"stride16": "stride 16", "stride32": "stride 32"}
MEANING = {"meaning": "divergence"}
MASKS = {"single": "mask 0", "predicted": "predicted best", "best_of_three": "best of three"}
"""Figures on held-out photos, and what the page calls them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, nargs="+", required=True)
    logs = [json.loads(path.read_text(encoding="utf-8")) for path in parser.parse_args().log]
    judged = judged_of(logs)
    write_result(
        "segmenter_training",
        title="Training the embedded segmenter",
        question="On photos that were never trained on: share of the teacher's features that the encoder explains; "
        "divergence of what the teacher's last layers make of the encoder's last map from what they make of its own, "
        "in nats a cell, where it was in the loss; mean IoU of low-res masks of one click a region, at the pixel "
        "that is farthest from its border.",
        columns=(
            "training",
            "phase",
            "steps",
            "minutes",
            *(f"explained, {name}" for name in FEATURES.values()),
            *MEANING.values(),
            *MASKS.values(),
        ),
        rows=[row_of(row) for row in judged],
        notes=[note for number, log in enumerate(logs, start=1) for note in notes(number, log)],
        plots=plots(judged),
    )


def judged_of(logs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was judged, with the number of its training, and the seconds of all trainings up to there."""
    found, before = [], 0.0
    for number, log in enumerate(logs, start=1):
        for row in log["history"]:
            if "held_out" in row:
                found.append({**row, "training": number, "seconds": before + row["seconds"]})
        before += log["seconds"]
    return found


def row_of(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    figures = (row["held_out"].get(name) for name in (*FEATURES, *MEANING, *MASKS))
    return (
        row["training"],
        row["phase"],
        row["step"],
        minutes(row),
        *(None if value is None else round(value, 3) for value in figures),
    )


def minutes(row: Mapping[str, Any]) -> float:
    return round(row["seconds"] / 60, 1)


def notes(number: int, log: Mapping[str, Any]) -> list[str]:
    config, data = log["config"], log["data"]
    sources = ", ".join(f"{count:,} of {name}" for name, count in data["photos"].items())
    steps = ", ".join(f"{count:,} of {phase}" for phase, count in log["steps"].items())
    start = "a random start" if log["init_sha256"] is None else f"a checkpoint ({log['init_sha256'][:12]})"
    machine = f"{log['device']} ({log['threads']} threads, torch {log['torch']})"
    return [
        f"Training {number}: from {start}, on {machine}: {steps} steps of {config['photos']} photos with "
        f"{config['clicks']} clicks each, at sides {config['sides']}, seed {config['seed']}. Masks are "
        "judged by the running mean of the weights, which is what is written.",
        f"Photos: {sources}; {data['held_out']} held out, at most 128 of them judged at the largest side.",
    ]


def plots(judged: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Plots of features, of their meaning and of masks, over time; none of what has fewer than two points."""
    drawn = [
        Plot(
            name="segmenter-features",
            title="The teacher's features on held-out photos",
            sentence="Share of the variance that the encoder explains, every channel counting the same.",
            x=Axis(label="minutes"),
            y=Axis(label="explained share"),
            lines=lines(judged, FEATURES),
        ),
        Plot(
            name="segmenter-meaning",
            title="What the teacher makes of the encoder's features on held-out photos",
            sentence="Kullback-Leibler divergence of what its last layers say of the encoder's last map, cell by cell, "
            "from what they say of its own. Each training is judged at its own largest side: where one begins, there "
            "may be a step.",
            x=Axis(label="minutes"),
            y=Axis(label="nats"),
            lines=lines(judged, MEANING),
        ),
        Plot(
            name="segmenter-masks",
            title="Masks of one click on held-out photos",
            sentence="Mean IoU of the mask for whole objects, of the one predicted best, and of the best of three.",
            x=Axis(label="minutes"),
            y=Axis(label="mean IoU"),
            lines=lines(judged, MASKS),
        ),
    ]
    return [plot for plot in drawn if plot.lines]


def lines(judged: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Line]:
    found = {
        label: [(minutes(row), row["held_out"][name]) for row in judged if row["held_out"].get(name, -1.0) >= 0.0]
        for name, label in names.items()
    }
    return [Line(label=label, points=points) for label, points in found.items() if len(points) > 1]


if __name__ == "__main__":
    main()
