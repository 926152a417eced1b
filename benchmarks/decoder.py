"""What does a prompt cost in SAM's mask decoder, counted from the graph and timed, in each of its forms?

python benchmarks/decoder.py [--rounds N] [--chunk G] [--threads 1,2]

Random weights stand in for a checkpoint: a decoder's cost does not depend on them. The official decoder is
segment-anything's ``SamOnnxModel``, exported as its own script does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from official_decoder import IOU, LOW_RES, SIDE, TOKENS, cut, export_official, feeds
from result import Cell, write_result
from torch import nn

from gransam_sdk.export.decoder_form import open_graph, reads
from gransam_sdk.export.decoder_graphs import FORMS, DecoderGraphs
from gransam_sdk.export.graph_cost import graph_cost
from gransam_sdk.export.graphs import LATTICE_OFFSET
from gransam_sdk.export.sam_graphs import deployed_sam, sam_decoder_graphs
from gransam_sdk.models.segment_anything import VitShape
from gransam_sdk.models.stand_in import random_sam
from gransam_sdk.shapes import AnyArray, Float, Int

SWEEP = (1, 2, 4, 16, 25)
PROMPTS = 100
BEFORE_MASKS, ALL_MASKS = "before masks", "with low-res masks"
BEFORE, WITH_MASKS = f"official, in chunks: {BEFORE_MASKS}", f"official, in chunks: {ALL_MASKS}"


@dataclass(kw_only=True)
class Row:
    """One graph on one chunk of prompts: ``calls`` are its feeds, one after the other."""

    name: str
    data: bytes
    calls: Sequence[Mapping[str, AnyArray]]
    prompts: int
    sizes: Mapping[str, int]
    versus: str | None = None
    """The row that this one is compared with."""
    milliseconds: dict[int, list[float]] = field(default_factory=dict)

    def multiply_adds(self) -> float:
        """Millions a prompt."""
        once: int = graph_cost(self.data, self.sizes).multiply_adds
        return len(self.calls) * once / self.prompts / 1e6

    def answers(self) -> Mapping[str, AnyArray]:
        """Outputs by name of the first call."""
        answers: Mapping[str, AnyArray] = open_graph(self.data, self.name, 1).run(self.calls[0])
        return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--threads", default="1,2")
    options = parser.parse_args()
    threads = [int(count) for count in options.threads.split(",")]
    rows, differences = prepare(options.chunk)
    for count in threads:
        measure(rows, count, options.rounds)
    by_name = {row.name: row for row in rows}
    write_result(
        "decoder",
        title="Cost of a prompt in the mask decoder",
        question=f"SAM's decoder at N = 4,096 image tokens, {options.chunk} prompts at a time: how many multiply-adds, "
        "counted from the graphs, and how long in ONNX Runtime, against segment-anything's own ONNX decoder?",
        columns=(
            "decoder",
            "multiply-adds a prompt",
            "fewer",
            *(column for count in threads for column in (f"ms a prompt, threads: {count}", "faster")),
            "tokens max abs",
            "predicted IoU max abs",
            "logits max abs",
        ),
        rows=[cells(row, by_name, threads, differences.get(row.name, {})) for row in rows],
        notes=[
            "*Fewer* and *faster* compare a row with the official decoder's row of the same kind in the same chunks: "
            "before masks with before masks, with masks with masks. Millions of multiply-adds; the median of "
            f"{options.rounds} rounds in which all rows take turns, and the median of the rounds' ratios.",
            "Before masks: mask tokens and predicted IoU only. As shipped: with lattice and pooled features for every "
            "prompt, which the official decoder does not have; its low-res logits are all four masks of a prompt, ours "
            "those of one chosen mask.",
            "Hoisting runs once a photo; its rows show a hundredth of it, the share of a prompt of the default grid.",
            "Differences are to the official decoder's outputs, the lattice to its sub-sampled logits.",
        ],
    )


def prepare(chunk: int) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """All rows, and how far their outputs are from the official ones."""
    # Only the decoder matters: the encoder is as small as can be.
    sam = deployed_sam(random_sam(VitShape(side=SIDE, width=16, depth=1, heads=1, global_blocks=())))
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((1, 256, SIDE // 16, SIDE // 16), dtype=np.float32)
    points = rng.random((max(chunk, *SWEEP), 2), dtype=np.float32)
    rows = official_rows(sam, embedding, points[:chunk])
    truth = {**rows[BEFORE].answers(), **rows[WITH_MASKS].answers()}
    choice = np.arange(chunk) % 4
    reference = {
        "tokens": truth[TOKENS][:, 1:5],
        "iou": truth[IOU],
        "lattice": truth[LOW_RES][:, :, LATTICE_OFFSET::4, LATTICE_OFFSET::4],
        "logits": truth[LOW_RES][np.arange(chunk), choice],
    }
    differences = {}
    for form in FORMS:
        ours = form_rows(form, sam_decoder_graphs(sam, form), embedding, points, choice)
        for name, row in ours.items():
            if "time" not in name and "hoisting" not in name:
                differences[name] = distances(row.answers(), reference)
        rows |= ours
    return list(rows.values()), differences


def official_rows(sam: nn.Module, embedding: Float, points: Float) -> dict[str, Row]:
    """One prompt a call, as the export script's dynamic axes have it, and all in one call."""
    rows = {}
    for batched, how in ((False, "one prompt a call"), (True, "in chunks")):
        model = export_official(sam, batched)
        parts = [points] if batched else np.split(points, len(points))
        calls = [feeds(embedding, part) for part in parts]
        for what, outputs in ((BEFORE_MASKS, [IOU, TOKENS]), (ALL_MASKS, [IOU, LOW_RES])):
            data = cut(model, outputs)
            name = f"official, {how}: {what}"
            versus = f"official, in chunks: {what}"
            sizes = {"num_points": 2, "g": len(points)}
            reduced = [reads(data, call) for call in calls]
            rows[name] = Row(name=name, data=data, calls=reduced, prompts=len(points), sizes=sizes, versus=versus)
    return rows


def form_rows(form: str, graphs: DecoderGraphs, embedding: Float, points: Float, choice: Int) -> dict[str, Row]:
    """One of our forms: its graphs as shipped, the prompt graph cut before masks, and that in chunks of other sizes."""
    chunk = len(choice)
    hoisted = open_graph(graphs.hoist, "hoist", 1).run({"embedding": embedding})
    known = {name: value[0] for name, value in hoisted.items()} | {"points": points[:chunk], "choice": choice}
    known |= open_graph(graphs.prompt, "prompt", 1).run(reads(graphs.prompt, known))
    before = cut(onnx.load_from_string(graphs.prompt), ["tokens", "iou"])
    shipped = {
        f"{form}: before masks": (before, known, chunk, BEFORE),
        f"{form}: prompt graph as shipped": (graphs.prompt, known, chunk, WITH_MASKS),
        f"{form}: mask graph, one mask": (graphs.mask, known, chunk, None),
        f"{form}: hoisting, a hundredth of a photo's": (graphs.hoist, {"embedding": embedding}, PROMPTS, None),
    }
    for size in SWEEP if form == "low-rank" else ():
        name = f"{form}: before masks, {size} at a time"
        shipped[name] = (before, {**known, "points": points[:size]}, size, BEFORE)
    return {
        name: Row(
            name=name,
            data=data,
            calls=[reads(data, tensors)],
            prompts=prompts,
            sizes={"g": prompts, "n": prompts, "b": 1},
            versus=versus,
        )
        for name, (data, tensors, prompts, versus) in shipped.items()
    }


def distances(found: Mapping[str, AnyArray], reference: Mapping[str, AnyArray]) -> dict[str, float]:
    """Largest difference of each output that has a reference."""
    return {name: float(np.abs(found[name] - reference[name]).max()) for name in found.keys() & reference.keys()}


def measure(rows: Sequence[Row], threads: int, rounds: int) -> None:
    """Times all rows in turn, so that what else the machine does meets them alike."""
    sessions = [open_graph(row.data, row.name, threads) for row in rows]
    for round_ in range(rounds + 1):  # the first one warms up
        for row, session in zip(rows, sessions, strict=True):
            start = time.perf_counter()
            for call in row.calls:
                session.run(call)
            if round_:
                row.milliseconds.setdefault(threads, []).append(1e3 * (time.perf_counter() - start) / row.prompts)


def cells(row: Row, by_name: Mapping[str, Row], threads: Sequence[int], off: Mapping[str, float]) -> list[Cell]:
    """One row of the table."""
    versus = by_name[row.versus] if row.versus else None
    count = row.multiply_adds()
    out: list[Cell] = [row.name, f"{count:,.1f} M", f"{versus.multiply_adds() / count:.2f}×" if versus else None]
    for number in threads:
        own = row.milliseconds[number]
        out.append(f"{statistics.median(own):.2f}")
        ratios = [a / b for a, b in zip(versus.milliseconds[number], own, strict=True)] if versus else []
        out.append(f"{statistics.median(ratios):.2f}×" if ratios else None)
    logits = off.get("logits", off.get("lattice"))
    return [*out, *(None if value is None else f"{value:.1e}" for value in (off.get("tokens"), off.get("iou"), logits))]


if __name__ == "__main__":
    main()
