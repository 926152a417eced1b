"""A bundle on TensorRT: engines from the cache, verified by a canary, built again once if they are not right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..bundle import Bundle
from ..classes import ClassSet
from ..errors import BundleError
from ..parity_bars import check_parity
from ..types import Settings
from .canary import check_canary
from .engine_cache import Build, EngineCache, Log
from .engine_spec import DEFAULT_OPTIONS, FUSED, BuildOptions, EngineSpec, engine_specs, fused_engine_spec
from .fused import FusedSegmenter
from .fused_canary import check_fused_canary
from .fused_spec import KEPT
from .model import Model
from .session import Session
from .tensorrt_library import describe_machine
from .tensorrt_session import EngineRefused, TensorRTSession

ENGINES = "engines"
"""Folder of the cache folder (``$GRANSAM_HOME``)."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSource:
    """Where engines come from.

    Attributes:
        home: The cache folder; engines are in ``engines`` there.
        device: ``auto``, ``cuda`` or ``cuda:N``.
        options: How they are built.
        build: Builds a plan; None if nothing may be built.
        log: Told in one line what is built and why.
    """

    home: Path
    device: str = "cuda"
    options: BuildOptions = DEFAULT_OPTIONS
    build: Build | None = None
    log: Log = lambda line: None

    def open(self, specs: Sequence[EngineSpec], check: Callable[[Mapping[str, Session]], _T]) -> _T:
        """Opens sessions and returns what ``check`` makes of them.

        An engine that is missing, damaged, of another machine, refused by TensorRT or by ``check`` is built again,
        once a call; what is wrong after that is an error.

        Args:
            specs: The engines.
            check: Takes sessions by graph name; raises ``BundleError`` if they compute something else than they should.

        Raises:
            MissingExtraError: TensorRT or the CUDA bindings are not installed.
            DeviceError: The GPU cannot be had.
            BundleError: Engines that were just built fail the check.
            EnvironmentFault: The engine folder is not safe, an engine cannot be built, or may not.
        """
        machine, cache = describe_machine(self.device), EngineCache(self.home / ENGINES)
        again = False
        while True:
            built: dict[str, bool] = {}
            sessions: dict[str, Session] = {}
            try:
                for spec in specs:
                    engine = cache.fetch(spec, machine, self.build, self.log)
                    built[spec.name] = engine.built
                    sessions[spec.name] = TensorRTSession(engine.plan, spec, device=self.device)
                return check(sessions)
            except BaseException as error:
                for session in sessions.values():
                    session.close()
                if not isinstance(error, EngineRefused | BundleError):
                    raise
                # Which engine TensorRT refused is known; what fails the check may be any of them.
                checked = len(sessions) == len(specs)
                wrong = [spec for spec in specs if spec.name in built and (checked or spec.name not in sessions)]
                for spec in wrong:
                    cache.discard(spec, machine)
                if again or self.build is None or all(built[spec.name] for spec in wrong):
                    raise
                titles = ", ".join(spec.title for spec in wrong)
                self.log(f"{error.what} is wrong ({error.found}): building {titles} again, once")
                again = True


def load_engines(bundle: Bundle, source: EngineSource, *, chunk: int | None = None) -> Model:
    """Opens a bundle's graphs on TensorRT, its canary checked.

    Args:
        bundle: An opened bundle.
        source: Where engines come from.
        chunk: Prompts that one run takes at most; None takes the bundle's.

    Raises:
        BundleError: The bundle is further from its reference than its precision may be, or engines that were just
            built fail its canary.
        EnvironmentFault: See ``EngineSource.open``.
    """
    check_parity(f"bundle {bundle.name}", bundle.precision, bundle.parity)

    def check(sessions: Mapping[str, Session]) -> Model:
        model = Model(bundle, sessions)
        check_canary(model)
        return model

    return source.open(engine_specs(bundle, chunk=chunk, options=source.options), check)


def load_fused_engine(
    model: Model,
    onnx: bytes,
    source: EngineSource,
    *,
    classes: ClassSet,
    settings: Settings,
    kept: int = KEPT,
    chunk: int | None = None,
) -> FusedSegmenter:
    """Opens a bundle's fused graph on TensorRT, compared with what the four graphs say of the canary picture.

    Args:
        model: The bundle's four graphs, on any engine; they also answer where the fused graph does not suffice. Closed
            with the segmenter.
        onnx: The graph, fused from ``model.bundle`` by this process with the arguments below.
        source: Where engines come from.
        classes: As fused.
        settings: As fused.
        kept: As fused.
        chunk: As fused.

    Raises:
        BundleError: An engine that was just built computes something else than the four graphs.
        EnvironmentFault: See ``EngineSource.open``.
    """

    def check(sessions: Mapping[str, Session]) -> FusedSegmenter:
        segmenter = FusedSegmenter(model, classes, settings, sessions[FUSED], kept=kept, chunk=chunk)
        check_fused_canary(segmenter)
        return segmenter

    return source.open([fused_engine_spec(model.bundle, onnx, options=source.options)], check)
