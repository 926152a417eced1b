"""The paths of ``gpu.py`` by name: how each is opened, in the order in which they are taken.

What has the least to go wrong comes first. A path that cannot run here raises, and its row says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import torch
from eager import EagerPath, read_head
from gpu_module import FusedModule, How, TorchFusedSession, positions_on_the_device
from kept import Kept

from gransam_sdk.bundle import Bundle
from gransam_sdk.classes import ClassSet, select_classes
from gransam_sdk.export.engine import build_plan
from gransam_sdk.export.fused import fuse
from gransam_sdk.export.reference import PlainSegmenter, read_plain
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.runtime.bound_session import BoundSession
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.fused import FusedSegmenter
from gransam_sdk.runtime.fused_canary import check_fused_canary
from gransam_sdk.runtime.fused_spec import FusedSpec
from gransam_sdk.runtime.load import load_model, open_sessions
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession, resolve_device
from gransam_sdk.runtime.result import Result
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.session import Session
from gransam_sdk.runtime.tensorrt_engine import EngineSource, load_engines, load_fused_engine
from gransam_sdk.types import Settings

GRAPHS = ("image graph", "prompt graph", "head", "mask graph", "fused graph")
"""Stages of ``Result.timings`` that run on the device, copies to and from it included."""

Run = Callable[[Path], Kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a path tells besides its masks.

    Attributes:
        graph: Seconds in graphs on the device, copies included.
        fell_back: Whether the four graphs on the CPU answered.
    """

    graph: float
    fell_back: bool


class Bench:
    """What the paths share: bundle, weights, and the four graphs on the CPU that fused paths fall back on.

    Args:
        bundle: With a head.
        checkpoint: What it was made of.
        options: ``arch``, ``device``, ``kept``, ``memory_limit``, ``work``.
    """

    def __init__(self, bundle: Bundle, checkpoint: Path, options: argparse.Namespace) -> None:
        self.bundle, self.checkpoint, self.options = bundle, checkpoint, options
        self.device: str = options.device
        self.settings = Settings()
        background = bundle.head is not None and bundle.head.background
        self.classes: ClassSet = select_classes(bundle.classes, background=background)
        self.kept: int = options.kept or bundle.points_per_side**2
        self.spec = FusedSpec.of(bundle, self.classes, self.settings, kept=self.kept)

    def read(self) -> PlainSegmenter:
        """The published form, on the CPU."""
        return read_plain(self.checkpoint, self.options.arch, self.bundle.precision)

    @cached_property
    def fused_graph(self) -> bytes:
        """ONNX of the fused graph."""
        return fuse(self.bundle, classes=self.classes, settings=self.settings, kept=self.kept)

    @cached_property
    def four_graphs(self) -> Model:
        """On the CPU."""
        return open_sessions(self.bundle, "cpu", None)

    def fused_path(self, session: Session, *, exact: bool) -> Run:
        """A fused graph's session as a path, its canary checked where its arithmetic is the bundle's."""
        segmenter = FusedSegmenter(self.four_graphs, self.classes, self.settings, session, kept=self.kept)
        if exact:
            check_fused_canary(segmenter)

        return fused_run(segmenter)


def kept_of(result: Result, *, fell_back: bool = False) -> Kept:
    """A result of the runtime as a path hands it over."""
    graph = sum(result.timings.get(stage, 0.0) for stage in GRAPHS)
    return Kept(masks=result.masks, names=result.names, extra=Told(graph=graph, fell_back=fell_back))


def four_run(segmenter: Segmenter) -> Run:
    """Four graphs as a path."""
    return lambda photo: kept_of(segmenter(photo)[0])


def fused_run(segmenter: FusedSegmenter) -> Run:
    """A fused graph as a path."""

    def run(photo: Path) -> Kept:
        answer = segmenter.answer(as_pixels(photo))
        return kept_of(answer.result, fell_back=answer.fell_back)

    return run


@contextmanager
def arithmetic(tf32: bool) -> Iterator[None]:
    """PyTorch's products of float32 with 23 bits of mantissa or with 10; left to itself it takes 10 in convolutions."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def eager(bench: Bench, *, tf32: bool) -> Iterator[Run]:
    """Everything mode as in ``eager.py``."""
    plain = bench.read()
    (plain if isinstance(plain, torch.nn.Module) else cast("PlainSam", plain).sam).to(bench.device)
    path = EagerPath(plain, bench.bundle, bench.device)
    with arithmetic(tf32):
        yield lambda photo: replace(path(photo), extra=None)  # its low-res logits would fill the device


@contextmanager
def module(bench: Bench, *, how: How, tf32: bool = False, sixteen: bool = False) -> Iterator[Run]:
    """The graphs as one torch module; with ``sixteen`` the encoder's products in bfloat16, norms and softmax in 32."""
    kind = bench.device.partition(":")[0]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    if sixteen:
        context = partial(torch.autocast, kind, dtype=torch.bfloat16, cache_enabled=False)
    sam = bench.options.arch != "nano"
    with arithmetic(tf32), positions_on_the_device() if sam else nullcontext():
        # Made on the host, where it makes constants in 64 bits, and then moved.
        head = read_head(bench.bundle)
        fused = FusedModule(bench.read(), bench.bundle, head, bench.spec, context).to(bench.device)
        session = TorchFusedSession(fused, bench.spec.graph(bench.bundle, b""), bench.device, how)
        try:
            yield bench.fused_path(session, exact=not (tf32 or sixteen))
        finally:
            session.close()


@contextmanager
def four_onnxruntime(bench: Bench, *, whole: bool) -> Iterator[Run]:
    """The bundle as ``gransam_sdk.load`` opens it; with ``whole`` all prompts in one run."""
    limit = bench.options.memory_limit if bench.device != "cpu" else None
    with load_model(bench.bundle, device=bench.device, backend="onnxruntime", memory_limit=limit) as model:
        chunk = bench.spec.prompts if whole else None
        yield four_run(Segmenter(model, bench.classes, replace(bench.settings, chunk=chunk)))


@contextmanager
def fused_onnxruntime(bench: Bench, *, bound: bool) -> Iterator[Run]:
    """The fused graph, its inputs and outputs bound or not."""
    place = resolve_device(bench.device)
    graph = bench.spec.graph(bench.bundle, bench.fused_graph)
    limit = bench.options.memory_limit if place != "cpu" else None
    session = (BoundSession if bound else OrtSession)(bench.fused_graph, graph, device=place, memory_limit=limit)
    try:
        yield bench.fused_path(session, exact=True)
    finally:
        session.close()


def engines(bench: Bench) -> EngineSource:
    """Where TensorRT's engines come from: built here, kept beside the stand-in."""
    device = bench.device if bench.device != "cpu" else "cuda"
    home = bench.options.work / "engines"
    return EngineSource(home=home, device=device, build=build_plan, log=lambda line: print(line, file=sys.stderr))


@contextmanager
def four_tensorrt(bench: Bench) -> Iterator[Run]:
    """Engines of the four graphs, all prompts in one run."""
    chunk = bench.spec.prompts
    with load_engines(bench.bundle, engines(bench), chunk=chunk) as model:
        yield four_run(Segmenter(model, bench.classes, replace(bench.settings, chunk=chunk)))


@contextmanager
def fused_tensorrt(bench: Bench) -> Iterator[Run]:
    """The engine of the fused graph."""
    four = open_sessions(bench.bundle, "cpu", None)  # closed with the segmenter
    with load_fused_engine(
        four,
        bench.fused_graph,
        engines(bench),
        classes=bench.classes,
        settings=bench.settings,
        kept=bench.kept,
    ) as segmenter:
        yield fused_run(segmenter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One row.

    Attributes:
        title: What the table calls it.
        open: Opens the path; raises where it cannot run.
        share: Of the whole budget, at most, opening included.
    """

    title: str
    open: Callable[[Bench], AbstractContextManager[Run]]
    share: float


REFERENCE = "eager"
CAPTURED = How(captured=True)
COMPILED = How(compiled=True, captured=True)
SECTIONS = {
    REFERENCE: Section(title="PyTorch, the mask generator's order of work", open=partial(eager, tf32=False), share=0.2),
    "eager-tf32": Section(
        title="PyTorch, the mask generator's order of work, TF32", open=partial(eager, tf32=True), share=0.1
    ),
    "module": Section(title="graphs in PyTorch", open=partial(module, how=How()), share=0.1),
    "captured": Section(title="graphs in PyTorch, a CUDA graph", open=partial(module, how=CAPTURED), share=0.1),
    "captured-tf32": Section(
        title="graphs in PyTorch, a CUDA graph, TF32", open=partial(module, how=CAPTURED, tf32=True), share=0.1
    ),
    "captured-bf16": Section(
        title="graphs in PyTorch, a CUDA graph, TF32, encoder in bfloat16",
        open=partial(module, how=CAPTURED, tf32=True, sixteen=True),
        share=0.1,
    ),
    "four": Section(title="bundle, ONNX Runtime", open=partial(four_onnxruntime, whole=False), share=0.15),
    "whole": Section(
        title="bundle, ONNX Runtime, all prompts in a run", open=partial(four_onnxruntime, whole=True), share=0.15
    ),
    "fused": Section(title="fused graph, ONNX Runtime", open=partial(fused_onnxruntime, bound=False), share=0.15),
    "bound": Section(title="fused graph, ONNX Runtime, bound", open=partial(fused_onnxruntime, bound=True), share=0.15),
    "compiled": Section(
        title="graphs in PyTorch, compiled, a CUDA graph", open=partial(module, how=COMPILED), share=0.3
    ),
    "compiled-bf16": Section(
        title="graphs in PyTorch, compiled, a CUDA graph, TF32, encoder in bfloat16",
        open=partial(module, how=COMPILED, tf32=True, sixteen=True),
        share=0.3,
    ),
    "tensorrt-fused": Section(title="fused graph, TensorRT", open=fused_tensorrt, share=0.4),
    "tensorrt": Section(title="bundle, TensorRT", open=four_tensorrt, share=0.4),
}
"""By the name that ``--rows`` takes."""
