"""Which form of the decoder a bundle gets: the cheaper one of a photo, by count and by clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gransam_sdk.errors import InputError
from gransam_sdk.manifest import Graph
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.shapes import AnyArray, Float

from .decoder_graphs import DecoderGraphs, Form
from .graph_cost import graph_cost

PROMPTS, CHOSEN = 100, 30
"""A photo: the default grid's points, and about how many of them are confident enough to get a mask."""
CLEAR = 0.10
"""Where count and clock disagree, the clock decides if it differs by more than this share; less is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormCost:
    """A photo's decoder in one form: hoisting, ``PROMPTS`` prompts and ``CHOSEN`` masks.

    Attributes:
        multiply_adds: Counted from the graphs.
        milliseconds: One thread, ONNX Runtime on the CPU.
    """

    multiply_adds: int
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The cheaper form, and what it was chosen by.

    Attributes:
        form: The one that a bundle gets.
        costs: Of every form that was given.
    """

    form: Form
    costs: Mapping[Form, FormCost]

    def __str__(self) -> str:
        """One line for a log."""
        figures = (
            f"{form} {cost.multiply_adds / 1e9:.2f} billion multiply-adds and {cost.milliseconds:.0f} ms a photo"
            for form, cost in self.costs.items()
        )
        return f"decoder: {self.form} ({', '.join(figures)})"


def choose_form(
    candidates: Mapping[Form, DecoderGraphs], maps: Mapping[str, Float], *, chunk: int = 10, rounds: int = 5
) -> Choice:
    """Counts and times the decoder of a photo in each form, and takes the cheaper.

    Args:
        candidates: Graphs of at least two forms of one decoder.
        maps: Example of what the encoder makes of one photo, with a first axis of 1.
        chunk: Prompts, and masks, of one run.
        rounds: Runs of each graph; the forms take turns and the median counts.

    Raises:
        InputError: Fewer than two forms.
    """
    if len(candidates) < 2:
        raise InputError("forms of the decoder", expected="two or more", found=", ".join(candidates) or "none")
    counts = {form: count_photo(graphs) for form, graphs in candidates.items()}
    times = _time_photos({form: _open(graphs, maps, chunk) for form, graphs in candidates.items()}, chunk, rounds)
    costs = {form: FormCost(multiply_adds=counts[form], milliseconds=times[form]) for form in candidates}
    return Choice(form=cheaper(costs), costs=costs)


def cheaper(costs: Mapping[Form, FormCost]) -> Form:
    """The form that count and clock agree on; else the clock's, if it is clearly faster; else the count's."""
    by_count = min(costs, key=lambda form: costs[form].multiply_adds)
    by_clock = min(costs, key=lambda form: costs[form].milliseconds)
    ratio = costs[by_count].milliseconds / costs[by_clock].milliseconds
    return by_clock if ratio > 1.0 + CLEAR else by_count


def count_photo(graphs: DecoderGraphs) -> int:
    """Multiply-adds of a photo with ``PROMPTS`` prompts and ``CHOSEN`` masks."""
    hoist = graph_cost(graphs.hoist, {"b": 1}).multiply_adds
    prompts = graph_cost(graphs.prompt, {"g": PROMPTS}).multiply_adds
    return hoist + prompts + graph_cost(graphs.mask, {"n": CHOSEN}).multiply_adds


class _Run(NamedTuple):
    """A graph, ready to run once more."""

    session: OrtSession
    feeds: Mapping[str, AnyArray]


def open_graph(data: bytes, name: str, threads: int) -> OrtSession:
    """A graph in a session of the runtime's own, as a bundle's graphs are run.

    Args:
        data: ONNX bytes.
        name: For messages.
        threads: Of one run.
    """
    read = read_onnx(data, name)
    graph = Graph(file=name, sha256="", bytes=len(data), inputs=tuple(read.inputs), outputs=tuple(read.outputs))
    return OrtSession(data, graph, threads=threads)


def reads(data: bytes, known: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Those of the known tensors that a graph reads."""
    return {tensor.name: known[tensor.name] for tensor in read_onnx(data, "graph").inputs}


def _open(graphs: DecoderGraphs, maps: Mapping[str, Float], chunk: int) -> dict[str, _Run]:
    """Each graph with what it reads: maps, what is hoisted of them, answers to random points."""
    points = np.random.default_rng(0).random((chunk, 2), dtype=np.float32)
    known: dict[str, AnyArray] = {**maps, "points": points, "choice": np.arange(chunk) % 4}
    runs = {}
    for name, data in (("hoist", graphs.hoist), ("prompt", graphs.prompt), ("mask", graphs.mask)):
        # One thread: two would wait for each other where something else runs.
        runs[name] = _Run(open_graph(data, name, threads=1), reads(data, known))
        found = runs[name].session.run(runs[name].feeds)
        known |= {key: value[0] for key, value in found.items()} if name == "hoist" else found
    return runs


def _time_photos(runs: Mapping[Form, Mapping[str, _Run]], chunk: int, rounds: int) -> dict[Form, float]:
    """Milliseconds of a photo in each form."""
    samples: dict[tuple[Form, str], list[float]] = {}
    for _ in range(rounds):
        for form, graphs in runs.items():
            for name, run in graphs.items():
                start = time.perf_counter()
                run.session.run(run.feeds)
                samples.setdefault((form, name), []).append(1e3 * (time.perf_counter() - start))
    shares = {"hoist": 1.0, "prompt": PROMPTS / chunk, "mask": CHOSEN / chunk}
    return {
        form: sum(share * statistics.median(samples[form, name]) for name, share in shares.items()) for form in runs
    }
