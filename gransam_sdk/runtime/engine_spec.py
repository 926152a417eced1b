"""What a TensorRT engine is of: a graph, the sizes of its free axes, how it is built; and with a machine, its key.

An engine runs only where it was built: on the same model of GPU, with the same TensorRT. Its key is a hash of all that
it depends on, weights included, so that two heads of one structure never share an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..bundle import Bundle, Graph, Tensor
from ..errors import InputError
from ..manifest import GRAPHS
from ..onnx_model import read_onnx

FORMAT = 1
"""Of the facts below; another number means another key, and engines are built again."""
FUSED = "fused"
"""Name of the one graph with static shapes that all graphs of a bundle can be fused into."""
MOST_MASKS = 64
"""Masks that one run of the mask graph takes at least."""

Facts = Mapping[str, Any]
"""What a key is made of, as it is written beside an engine."""

_DIFFERENCES = {
    "gpu": "another GPU",
    "compute_capability": "another compute capability",
    "tensorrt": "another TensorRT",
    "driver": "another driver",
    "cuda": "another CUDA",
    "system": "another system",
    "bundle": "another version of the bundle",
    "graph_sha256": "another graph",
    "precision": "another precision",
    "shapes": "other shapes",
    "options": "other build options",
    "format": "another format of this cache",
}
"""By fact, the one that says most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What an engine is bound to. Two GPUs of one model are one machine.

    Attributes:
        gpu: The GPU's name, ``NVIDIA H100 80GB HBM3``.
        compute_capability: ``9.0``.
        tensorrt: Version of the library.
        driver: Version of the GPU driver.
        cuda: Version of the CUDA runtime, ``13.0``.
        system: ``Linux x86_64``.
    """

    gpu: str
    compute_capability: str
    tensorrt: str
    driver: str
    cuda: str
    system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisRange:
    """Sizes that a free axis may take, and the one that kernels are chosen for.

    Raises:
        InputError: Not ``1 <= least <= best <= most``.
    """

    least: int
    best: int
    most: int

    def __post_init__(self) -> None:
        """Checks the order."""
        if not 1 <= self.least <= self.best <= self.most:
            raise InputError("axis range", expected="1 <= least <= best <= most", found=str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How engines are built; precision is no option, it is in the graph.

    Attributes:
        workspace_bytes: Device memory that one kernel may use as scratch, from 1 MiB.
        optimization_level: TensorRT's builder optimisation level, 0 to 5.

    Raises:
        InputError: A value out of range.
    """

    workspace_bytes: int = 4 << 30
    optimization_level: int = 3

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.workspace_bytes < 1 << 20:
            raise InputError("workspace_bytes", expected="at least 1 MiB", found=str(self.workspace_bytes))
        if not 0 <= self.optimization_level <= 5:
            raise InputError("optimization_level", expected="0 to 5", found=str(self.optimization_level))


DEFAULT_OPTIONS = BuildOptions()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineSpec:
    """One engine to build or load.

    Attributes:
        bundle: The bundle's name.
        digest: The bundle's sha256.
        name: ``image``, ``prompt``, ``mask``, ``head`` or ``fused``.
        graph: Declared inputs and outputs, and the sha256 of ``onnx``.
        onnx: The graph's bytes, whose hash was checked when the bundle was opened.
        precision: The bundle's.
        ranges: By letter, what each free axis of the inputs may be.
        options: How it is built.

    Raises:
        InputError: A free axis has no range.
    """

    bundle: str
    digest: str
    name: str
    graph: Graph
    onnx: bytes = field(repr=False)
    precision: str
    ranges: Mapping[str, AxisRange]
    options: BuildOptions = DEFAULT_OPTIONS

    def __post_init__(self) -> None:
        """Checks that every free axis has a range."""
        letters = {axis for tensor in self.graph.inputs for axis in tensor.axes if isinstance(axis, str)}
        if missing := sorted(letters - self.ranges.keys()):
            raise InputError(f"engine {self.title}", expected="a range of every free axis", found=f"none of {missing}")

    @property
    def title(self) -> str:
        """As written in messages and file names: ``nano-voc20-image``."""
        return f"{self.bundle}-{self.name}"

    def shapes(self, tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Least, best and most sizes of an input."""
        ranges = [
            self.ranges[axis] if isinstance(axis, str) else AxisRange(least=axis, best=axis, most=axis)
            for axis in tensor.axes
        ]
        return (
            tuple(axis.least for axis in ranges),
            tuple(axis.best for axis in ranges),
            tuple(axis.most for axis in ranges),
        )

    def facts(self, machine: Machine) -> Facts:
        """Everything that the engine depends on, as JSON holds it."""
        shapes = {tensor.name: [list(sizes) for sizes in self.shapes(tensor)] for tensor in self.graph.inputs}
        fixed = {"tf32": False, "strongly_typed": True, "strict_nans": True, "hardware_compatibility": "none"}
        return {
            "format": FORMAT,
            "bundle_name": self.bundle,
            "bundle": self.digest,
            "graph": self.name,
            "graph_sha256": self.graph.sha256,
            "precision": self.precision,
            "shapes": shapes,
            "options": {**asdict(self.options), **fixed},
            **asdict(machine),
        }


def engine_key(facts: Facts) -> str:
    """Hex sha256 of the facts in canonical JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def describe_difference(there: Facts, here: Facts) -> str:
    """What sets an engine apart from the one that is needed, ``another GPU (A, here B)``; empty for nothing known."""
    for fact, words in _DIFFERENCES.items():
        if there.get(fact) != here.get(fact):
            shown = [_short(facts.get(fact)) for facts in (there, here)]
            return f"{words} ({shown[0]}, here {shown[1]})" if all(shown) else words
    return ""


def _short(fact: object) -> str:
    """Numbers and words as they are, hashes shortened, tables not at all."""
    if not isinstance(fact, str | int):
        return ""
    return f"{str(fact)[:12]}..." if len(str(fact)) == 64 else str(fact)


def engine_specs(
    bundle: Bundle, *, chunk: int | None = None, options: BuildOptions = DEFAULT_OPTIONS
) -> tuple[EngineSpec, ...]:
    """The engines of a bundle's graphs, in the order in which they run first.

    Args:
        bundle: An opened bundle.
        chunk: Prompts that one run takes at most; None takes the bundle's. The canary must fit too.
        options: How they are built.

    Raises:
        InputError: A chunk below 1.
    """
    best = bundle.prompt_chunk if chunk is None else chunk
    most = max(best, len(bundle.canary.points))
    ranges = {
        "b": AxisRange(least=1, best=1, most=1),
        "g": AxisRange(least=1, best=best, most=most),
        "n": AxisRange(least=1, best=best, most=max(most, MOST_MASKS)),
    }
    return tuple(
        EngineSpec(
            bundle=bundle.name,
            digest=bundle.digest,
            name=name,
            graph=bundle.graphs[name],
            onnx=bundle.graph_bytes(name),
            precision=bundle.precision,
            ranges=ranges,
            options=options,
        )
        for name in GRAPHS
        if name in bundle.graphs
    )


def fused_engine_spec(bundle: Bundle, onnx: bytes, *, options: BuildOptions = DEFAULT_OPTIONS) -> EngineSpec:
    """The engine of a bundle's graphs fused into one with static shapes.

    Args:
        bundle: The bundle that was fused.
        onnx: The fused graph, made of the bundle by this process; never a file from elsewhere.
        options: How it is built.

    Raises:
        BundleError: Not a self-contained ONNX graph.
        InputError: An axis is free.
    """
    model = read_onnx(onnx, f"{FUSED} graph of {bundle.name}")
    graph = Graph(f"{FUSED}.onnx", hashlib.sha256(onnx).hexdigest(), len(onnx), model.inputs, model.outputs)
    return EngineSpec(
        bundle=bundle.name,
        digest=bundle.digest,
        name=FUSED,
        graph=graph,
        onnx=onnx,
        precision=bundle.precision,
        ranges={},
        options=options,
    )
