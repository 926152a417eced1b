"""The roof over a measured time: what the graphs have to compute and to move, at the rates that this machine reaches.

Both rates are measured, on as many threads as the graphs get: multiply-adds of one large matrix product in ONNX
Runtime, bytes of copies that no cache holds. Both amounts are counted from the graphs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.bundle import Bundle
from gransam_sdk.export.decoder_form import open_graph
from gransam_sdk.export.graph_cost import graph_cost

SIDE = 1024
"""Of the square matrices that are multiplied."""
COPIED = 1 << 27
"""Bytes that are read, and as many that are written, by one copy."""
ROUNDS = 40
_AXES = {"image": "b", "prompt": "g", "head": "g", "mask": "n"}
"""The free axis of each graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What something costs at least.

    Attributes:
        multiply_adds: Of matrix products and convolutions.
        bytes: Their operands and results, each node's by itself (see ``graph_cost.GraphCost.touched_bytes``).
    """

    multiply_adds: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        """One after the other."""
        return Work(multiply_adds=self.multiply_adds + other.multiply_adds, bytes=self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        """The same so many times."""
        return Work(multiply_adds=self.multiply_adds * times, bytes=self.bytes * times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What the machine reaches on some threads.

    Attributes:
        threads: Of the product and of the copies.
        multiply_adds: A second.
        bytes: A second, those read and those written together.
    """

    threads: int
    multiply_adds: float
    bytes: float

    def __str__(self) -> str:
        """The rates, for a note."""
        plural = "s" if self.threads > 1 else ""
        return f"{self.threads} thread{plural}: {self.multiply_adds / 1e9:.0f} GMAC/s, {self.bytes / 1e9:.1f} GB/s"

    def seconds(self, work: Work) -> tuple[float, float]:
        """Seconds that the multiply-adds alone and the bytes alone need."""
        return work.multiply_adds / self.multiply_adds, work.bytes / self.bytes


@lru_cache
def measure_roof(threads: int) -> Roof:
    """The best of ``ROUNDS`` for each rate: a roof is what can be reached, not what is usual."""
    return Roof(threads=threads, multiply_adds=_product_rate(threads), bytes=_copy_rate(threads))


def _product_rate(threads: int) -> float:
    """Multiply-adds a second of one product of square float32 matrices, the right one a stored weight."""
    rng = np.random.default_rng(0)
    left, weight = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in ("left", "out")]
    node = helper.make_node("MatMul", ["left", "weight"], ["out"])
    graph = helper.make_graph([node], "product", ports[:1], ports[1:], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = open_graph(model.SerializeToString(), "product", threads)
    return SIDE**3 / _least_seconds(lambda: session.run({"left": left}))


def _copy_rate(threads: int) -> float:
    """Bytes a second, read and written, each thread on a part of its own."""
    source = np.ones(COPIED // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # copying lets other threads of Python run
        return 2 * source.nbytes / _least_seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _least_seconds(work: Callable[[], object]) -> float:
    """Of ``ROUNDS`` after one that does not count."""
    seconds = []
    for _ in range(1 + ROUNDS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def photo_work(bundle: Bundle, *, prompts: int, masks: float, chunk: int) -> Work:
    """The graphs' work on one photo.

    Args:
        bundle: Its four graphs are counted.
        prompts: Of the grid.
        masks: That go through the mask graph; a mean may be broken.
        chunk: Prompts or masks of a run.
    """
    whole = run_work(bundle, "image", 1)
    for graph in ("prompt", "head"):
        whole += runs_work(bundle, graph, prompts, chunk)
    return whole + runs_work(bundle, "mask", masks, chunk)


def runs_work(bundle: Bundle, graph: str, rows: float, chunk: int) -> Work:
    """A graph's work on rows that it meets in chunks; the last chunk may be smaller."""
    full, rest = divmod(rows, chunk)
    work = run_work(bundle, graph, chunk) * full
    return work + run_work(bundle, graph, rest) if rest else work


def run_work(bundle: Bundle, graph: str, rows: float) -> Work:
    """One run of a graph: its weights once, and everything else for each row."""
    two, three = (_counted(bundle.graph_bytes(graph), _AXES[graph], count) for count in (2, 3))
    row = three + two * -1
    return two + row * (rows - 2)


@lru_cache(maxsize=16)
def _counted(data: bytes, axis: str, rows: int) -> Work:
    cost = graph_cost(data, {axis: rows})
    return Work(multiply_adds=cost.multiply_adds, bytes=cost.touched_bytes)
