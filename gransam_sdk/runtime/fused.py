"""A photo through the fused graph: one run on the device, then suppression and run lengths on the host.

What the graph answers is in docs/fused.md. Results are those of ``Segmenter``, which also answers where more prompts
are confident than the graph keeps.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from ..classes import ClassSet
from ..shapes import AnyArray, Int, Pixels
from ..types import Settings
from .bound_session import BoundSession
from .fused_answer import check_answer, found_in, fused_feeds, recorded_rows
from .fused_spec import KEPT, FusedSpec
from .model import Model
from .onnxruntime_session import OrtSession, resolve_device
from .overlap_nms import surviving_overlaps
from .result import Result
from .segmenter import Segmenter
from .session import Session
from .steps import Inferred, Prepared, StageClock


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedInferred(Inferred):
    """What the fused graph said of a photo.

    Attributes:
        common: (n,n) int64, pixels that two masks share.
        areas: (n,) int64.
    """

    common: Int
    areas: Int

    def suppress(self, among: Int, settings: Settings) -> Int:
        """As ``Inferred.suppress``, from the overlaps that the graph counted."""
        found, common = self.found.take(among), self.common[np.ix_(among, among)]
        return surviving_overlaps(common, self.areas[among], found.label, found.score, found.passed, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedAnswer:
    """One photo's result, and who gave it.

    Attributes:
        result: What ``Segmenter`` would give.
        confident: Prompts that were confident enough to be recorded.
        fell_back: Whether these were more than the graph keeps, so that the four graphs answered.
    """

    result: Result
    confident: int
    fell_back: bool


class FusedSegmenter(Segmenter):
    """A segmenter that runs one fused graph a photo, and the four graphs where that one does not suffice.

    Args:
        model: The bundle with its four sessions; closed with the segmenter.
        classes: The classes and groups to label, with the thresholds that were fused.
        settings: Grid, mask choice and record floor as they were fused; the rest is the host's.
        session: The fused graph's, declared by ``FusedSpec.graph``; closed with the segmenter.
        kept: n, as it was fused.
        chunk: As it was fused.

    Raises:
        BundleError: The bundle has no head.
        InputError: A mask choice that a fused graph cannot hold.
    """

    def __init__(
        self,
        model: Model,
        classes: ClassSet,
        settings: Settings,
        session: Session,
        *,
        kept: int = KEPT,
        chunk: int | None = None,
    ) -> None:
        super().__init__(model, classes, settings)
        self.spec = FusedSpec.of(model.bundle, classes, settings, kept=kept, chunk=chunk)
        self._session = session
        self._lock = threading.Lock()
        self._photos = self._fallbacks = 0

    @property
    def provider(self) -> str:
        """Where the fused graph runs, as the engine reports it."""
        return self._session.provider

    @property
    def threads(self) -> int:
        """Threads that one run may use."""
        return self._session.threads

    @property
    def fingerprint(self) -> dict[str, object]:
        """As ``Segmenter.fingerprint``, with n, the fused chunk, and where the four graphs run."""
        fused = {"kept": self.spec.kept, "chunk": self.spec.chunk, "fallback_provider": super().provider}
        return super().fingerprint | {"fused": fused}

    @property
    def four_graphs(self) -> Model:
        """What answers where the fused graph does not suffice."""
        return self._model

    @property
    def photos(self) -> int:
        """Photos answered so far."""
        return self._photos

    @property
    def fallbacks(self) -> int:
        """Those of them that the four graphs answered."""
        return self._fallbacks

    def prepare(self, pixels: Pixels, *, size: tuple[int, int] | None = None) -> Prepared:
        """See ``Segmenter.prepare``."""
        clock, frame = StageClock(), self._model.frame(pixels, size)
        with clock.stage("preprocess"):
            feeds = fused_feeds(pixels, frame)
        return Prepared(frame=frame, feeds=feeds, seconds=clock.seconds)

    def infer(self, prepared: Prepared) -> Inferred:
        """See ``Segmenter.infer``; ``FusedInferred`` unless the four graphs answered.

        Raises:
            BundleError: The graph was fused from another bundle, or with other classes or settings.
            ImageError: ``non-finite``: a graph gave NaN or infinity.
            EnvironmentFault: The engine failed, or its answer contradicts itself.
        """
        clock, frame = StageClock(prepared.seconds), prepared.frame
        with clock.stage("fused graph"):
            out = self._session.run(prepared.feeds)
            check_answer(out, self.spec)
        fell_back = int(out["confident"]) > self.spec.kept
        inferred: Inferred
        if fell_back:
            # What the fused graph took in vain is part of the price.
            inferred = super().infer(self._for_four_graphs(prepared, clock))
        else:
            rows = recorded_rows(out)
            inferred = FusedInferred(
                frame=frame,
                found=found_in(out, rows, self.grid.points()),
                logits=out["logits"][rows],
                common=out["intersection"][np.ix_(rows, rows)],
                areas=out["area"][rows],
                seconds=clock.seconds,
            )
        with self._lock:
            self._photos += 1
            self._fallbacks += fell_back
        return inferred

    def answer(self, pixels: Pixels, *, size: tuple[int, int] | None = None, keep_tokens: bool = False) -> FusedAnswer:
        """Labels one photo as ``segment`` does, and says which graphs did it.

        Args:
            pixels: (h,w,3) uint8, upright RGB.
            size: (h, w) of the whole photo where ``pixels`` were decoded to scale.
            keep_tokens: Also return the mask tokens behind each mask.

        Raises:
            BundleError, ImageError, EnvironmentFault: As of ``infer``.
        """
        inferred = self.infer(self.prepare(pixels, size=size))
        return FusedAnswer(
            result=self.finish(inferred, keep_tokens=keep_tokens),
            confident=len(inferred.logits),
            fell_back=not isinstance(inferred, FusedInferred),
        )

    def run_fused(self, pixels: Pixels) -> dict[str, AnyArray]:
        """The fused graph's own outputs for one photo (h,w,3) uint8, checked, with nothing done to them."""
        out = self._session.run(fused_feeds(pixels, self._model.frame(pixels)))
        check_answer(out, self.spec)
        return out

    def close(self) -> None:
        """Frees all sessions."""
        self._session.close()
        super().close()

    def _for_four_graphs(self, prepared: Prepared, clock: StageClock) -> Prepared:
        """The photo as the image graph is shown it."""
        height, width = prepared.frame.resized
        with clock.stage("preprocess"):
            image = self._model.normalise(prepared.feeds["photo"][:height, :width], prepared.frame)
        return Prepared(frame=prepared.frame, feeds={"image": image}, seconds=clock.seconds)


def fused_on_onnxruntime(
    data: bytes,
    model: Model,
    classes: ClassSet,
    settings: Settings,
    *,
    device: str = "auto",
    threads: int | None = None,
    kept: int = KEPT,
    chunk: int | None = None,
    memory_limit: int | None = None,
) -> FusedSegmenter:
    """A fused graph on ONNX Runtime, its canary not yet checked.

    On a GPU its inputs and outputs are bound (``BoundSession``). On the CPU that would only copy them once more.

    Args:
        data: What ``export.fused.fuse`` gave for the same bundle, classes, settings, ``kept`` and ``chunk``.
        model: The bundle with its four sessions; closed with the segmenter.
        classes: The classes and groups to label.
        settings: What else changes a result.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads for one run; None takes the cores this process may use.
        kept: n.
        chunk: Prompts decoded at a time.
        memory_limit: Bytes of the GPU's memory for the fused graph; those of ``model`` have their own.

    Raises:
        BundleError: The bundle has no head, or ONNX Runtime refuses the graph.
        DeviceError: The device cannot be had, or has no memory for the graph.
        InputError: A mask choice that a fused graph cannot hold, or a limit on the CPU.
    """
    spec = FusedSpec.of(model.bundle, classes, settings, kept=kept, chunk=chunk)
    place = resolve_device(device)
    kind = OrtSession if place == "cpu" else BoundSession
    session = kind(data, spec.graph(model.bundle, data), device=place, threads=threads, memory_limit=memory_limit)
    return FusedSegmenter(model, classes, settings, session, kept=kept, chunk=chunk)
