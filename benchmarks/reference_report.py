"""What ``reference.py`` measured, as a result file and a table."""

from __future__ import annotations

import argparse
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from reference_paths import OF_SAM_ONLY, REFERENCE, ROWS
from result import Cell, write_result

from gransam_sdk.evaluation.agreement import AgreementTally

if TYPE_CHECKING:
    from kept import Kept

ENOUGH = 1000
"""Kept masks below which parity is void."""

Clocked = dict[str, list[float]]
Found = dict[str, list["Kept"]]


def report(options: argparse.Namespace, seconds: Clocked, kept: Found, memory: dict[str, int]) -> None:
    rows: list[list[Cell]] = []
    base = np.array(seconds[REFERENCE])
    for name, clocked in seconds.items():
        ratios = base / np.array(clocked)
        compared = name not in (REFERENCE, *OF_SAM_ONLY)
        rows.append(
            [
                ROWS[name],
                round(float(np.median(clocked)), 3),
                round(float(np.median(ratios)), 2),
                f"{ratios.min():.2f} to {ratios.max():.2f}",
                round(float(np.mean([len(found.masks) for found in kept[name]])), 1),
                *(compare(kept[name], kept[REFERENCE]) if compared else [None] * 5),
                round(memory[name] / 2**20) if name in memory else None,
            ]
        )
    arch = options.arch
    write_result(
        f"reference_{arch.replace('-', '_')}",
        title=f"Everything mode in PyTorch and the bundle: {arch}",
        question="How many times as fast as PyTorch is the bundle, photo file to run-length codes, and are the kept "
        "masks the same?",
        columns=(
            *("path", "s a photo", "times as fast", "range", "masks a photo", "kept, matched", "IoU mean", "IoU p1"),
            *("IoU min", "same label", "peak MiB"),
        ),
        rows=rows,
        notes=notes(options, kept[REFERENCE]),
        path=options.json,
    )


def compare(found: list[Kept], expected: list[Kept]) -> list[Cell]:
    """Masks kept by either, matched one to one; IoU mean, 1st percentile and minimum; same label."""
    tally = AgreementTally()
    for ours, theirs in zip(found, expected, strict=True):
        tally.add_masks(ours.masks, ours.names, theirs.masks, theirs.names)
    total = tally.sum()
    counts = f"{total.kept} / {total.found}, {total.matched}"
    if not total.matched:
        return [counts, None, None, None, None]
    iou = (total.iou_mean, total.iou_p1, total.iou_min)
    return [counts, *(f"{value:.5f}" for value in iou), f"{total.same_label:.2%}"]


def notes(options: argparse.Namespace, kept: list[Kept]) -> list[str]:
    counts = [len(found.masks) for found in kept]
    threads = f"{options.threads} threads" if options.threads > 1 else "1 thread"
    packages = [f"{name} {version(name)}" for name in ("torch", "pycocotools", "openvino")]
    said = [
        f"{len(options.measured)} photos, {options.rounds} rounds, one process, paths in turn, {threads} for PyTorch "
        f"and the runtimes alike; each path takes one photo before. `s a photo` is a median, `times as fast` one "
        f"of the ratios to the first row on the same photo of the same round. {', '.join(packages)}.",
        f"The first row keeps {min(counts)} to {max(counts)} masks a photo. `kept, matched`: masks kept by the first "
        "row / by this one, and how many pair one to one with an IoU of 0.5 or more at the photo's size.",
    ]
    if options.arch == "nano":
        return said + void(counts)
    from eager import compare_resizing

    iou = np.concatenate([compare_resizing(*found.extra) for found in kept])
    said.append(
        "Random weights in the exact architecture, with a head trained on their tokens. The mask generator and the "
        "official decoder name no classes and resize in two steps; they are timed only."
    )
    if len(iou):
        said.append(
            f"SAM's resize in two steps instead of one, same low-res masks: IoU mean {iou.mean():.4f}, min "
            f"{iou.min():.4f}. Masks of random weights are noisier than any object."
        )
    return said + void(counts)


def void(counts: list[int]) -> list[str]:
    if sum(counts) >= ENOUGH:
        return []
    return [f"**{sum(counts)} kept masks: fewer than {ENOUGH:,}, so this says nothing about parity.**"]


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
