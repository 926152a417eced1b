"""What ``gpu.py`` measured, as a result file and a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import torch
from gpu_sections import REFERENCE, SECTIONS, Told
from reference_report import compare, version, void
from result import Cell, write_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpu import Measured

COLUMNS = (
    *("path", "state", "photos", "ms a photo", "p95", "graphs, ms", "times as fast", "masks a photo", "kept, matched"),
    *("IoU mean", "IoU p1", "IoU min", "same label", "fell back", "set up, s", "device MiB"),
)


def report(options: argparse.Namespace, measured: Mapping[str, Measured]) -> None:
    """Writes and prints the table of what there is so far."""
    reference = measured.get(REFERENCE)
    write_result(
        f"gpu_{options.arch.replace('-', '_')}",
        title=f"On a GPU: {options.arch}",
        question="How many times as fast as everything mode in PyTorch on the same GPU is the bundle, photo file to "
        "run-length codes, and are the kept masks the same?",
        columns=COLUMNS,
        rows=[row(name, found, reference) for name, found in measured.items()],
        notes=notes(options, reference),
        path=options.json,
    )


def row(name: str, found: Measured, reference: Measured | None) -> list[Cell]:
    """One section; of one that measured nothing only the reason."""
    title, count = SECTIONS[name].title, len(found.seconds)
    if not count:
        return [title, f"did not run: {found.reason}", 0, *[None] * (len(COLUMNS) - 3)]
    common = 0 if reference is None else min(count, len(reference.seconds))
    ratios = np.array(reference.seconds[:common]) / np.array(found.seconds[:common]) if reference else np.zeros(0)
    told = [kept.extra for kept in found.kept if isinstance(kept.extra, Told)]
    agreement: list[Cell] = [None] * 5
    if reference is not None and name != REFERENCE and common:
        agreement = compare(found.kept[:common], reference.kept[:common])
    return [
        title,
        f"stopped: {found.reason}" if found.reason else "measured",
        count,
        milliseconds(found.seconds, 50),
        milliseconds(found.seconds, 95),
        milliseconds([each.graph for each in told], 50) if told else None,
        round(float(np.median(ratios)), 2) if common else None,
        round(float(np.mean([len(kept.masks) for kept in found.kept])), 1),
        *agreement,
        sum(each.fell_back for each in told) if told else None,
        None if found.setup is None else round(found.setup, 1),
        None if found.memory is None else round(found.memory / 2**20),
    ]


def milliseconds(seconds: list[float], percent: float) -> float:
    """A percentile, linear between samples."""
    return round(float(np.percentile(seconds, percent)) * 1000, 2)


def notes(options: argparse.Namespace, reference: Measured | None) -> list[str]:
    """What was measured on, and how."""
    counts = [] if reference is None else [len(kept.masks) for kept in reference.kept]
    packages = [f"{name} {version(name)}" for name in ("torch", "onnxruntime-gpu", "tensorrt", "pycocotools")]
    said = [
        f"{machine(options.device)}; {', '.join(packages)}.",
        f"{len(options.measured)} photos, each path alone after one photo that does not count. `ms a photo` is a "
        "median from the photo's file to run-length codes; `graphs` what of it is spent in graphs on the device, "
        "copies to and from it included. Decoding, resizing, suppression and run lengths are the host's. `times as "
        "fast` is the median of the ratios to the first row on the same photos.",
        "`kept, matched`: masks kept by the first row / by this one, and how many pair one to one with an IoU of 0.5 "
        "or more at the photo's size. `fell back`: photos with more confident prompts than the fused graph keeps; the "
        "four graphs answer these on the CPU. `set up`: opening, building, compiling, and the photo that does not "
        "count. `device MiB`: what the GPU has less than before the path was opened.",
        "Float32 with all its bits unless a row says TF32 or bfloat16. A path of the bundle's own arithmetic has "
        "passed its canary.",
    ]
    if options.arch != "nano":
        said.append("Random weights in the exact architecture, with a head trained on their tokens.")
    return [*said, *void(counts)]


def machine(device: str) -> str:
    """The GPU's name, memory and CUDA."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return f"Device {device}: this says nothing about a GPU"
    found = torch.cuda.get_device_properties(torch.device(device))
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
