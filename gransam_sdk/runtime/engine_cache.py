"""Engines that were built on this machine: a plain plan and a JSON sidecar each, found by key, verified before use.

    HOME/engines/<bundle>-<graph>-<key>.plan    what TensorRT built, nothing added: trtexec loads it as it is
    HOME/engines/<bundle>-<graph>-<key>.json    the facts that the key is made of, size and sha256 of the plan
    HOME/engines/<bundle>-<graph>-<key>.lock    held while a process builds or reads it

The sidecar is written last, so a plan without one is unfinished. No engine is taken from anywhere else: TensorRT itself
cannot tell a damaged or a hostile plan, and deserialising one is running it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BundleError, EnvironmentFault
from ..manifest import GRAPHS
from ..strict_json import parse_json
from .engine_folder import EngineFolder, Refused, open_engine_folder
from .engine_spec import FUSED, EngineSpec, Machine, describe_difference, engine_key

Build = Callable[[EngineSpec], bytes]
"""Builds a plan on this machine, or raises ``EnvironmentFault``."""
Log = Callable[[str], None]

SCHEMA = 1
_MAX_SIDECAR_BYTES = 1 << 20
_KEY_DIGITS = 16
_ENDINGS = ("json", "plan", "json.tmp", "plan.tmp", "lock")
_FILE = re.compile(
    rf"\.?(?P<stem>(?P<bundle>[a-z0-9._-]+)-(?:{'|'.join((*GRAPHS, FUSED))})-[0-9a-f]{{16}})\.(?:{'|'.join(_ENDINGS)})"
)
_WITHOUT = "gransam engine builds it: gransam engine {bundle}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A plan that may be deserialised.

    Attributes:
        plan: Its bytes, as they were hashed.
        path: Where it lies.
        built: Whether it was built just now.
    """

    plan: bytes = field(repr=False)
    path: Path
    built: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldEngine:
    """What a sidecar says of an engine; the plan itself was not read.

    Attributes:
        stem: File name without its ending.
        facts: What it was built of and on; empty if the sidecar cannot be read.
        bytes: Size of the plan.
        build_seconds: What building it took.
        built: ISO date of that.
    """

    stem: str
    facts: Mapping[str, Any]
    bytes: int
    build_seconds: float
    built: str


class EngineCache:
    """The engines in one folder.

    Args:
        folder: ``engines`` in the cache folder (``$GRANSAM_HOME``). It need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        """Touches nothing yet."""
        self._path = folder.absolute()

    def fetch(self, spec: EngineSpec, machine: Machine, build: Build | None, log: Log = lambda line: None) -> Engine:
        """The engine of a graph on this machine; built if there is none that passes every check.

        However many processes ask at once, one builds and the others wait for what it built.

        Args:
            spec: Which.
            machine: This machine.
            build: Builds it; None if nothing may be built.
            log: Told in one line why an engine is built, and that another process is waited for.

        Raises:
            EnvironmentFault: The folder is not safe, nothing may be built, or building failed.
            OutputError: The disk refused.
        """
        facts = dict(spec.facts(machine))
        stem = _stem(spec, machine)

        def waiting() -> None:
            log(f"engine for {spec.title}: another process is building it; waiting")

        with open_engine_folder(self._path) as folder, folder.locked(f"{stem}.lock", waiting):
            path = self._path / f"{stem}.plan"
            try:
                return Engine(plan=_read(folder, stem, facts), path=path, built=False)
            except FileNotFoundError:
                reason, minutes = _nearest(folder, spec, facts)
            except Refused as refused:
                reason, minutes = f"refused: {refused}", _minutes(_sidecar(folder, stem))
            if build is None:
                raise EnvironmentFault(
                    f"engine for {spec.title}",
                    expected=f"one that was built on this machine, {path}",
                    found=reason,
                    do=_WITHOUT.format(bundle=spec.bundle),
                )
            log(f"engine for {spec.title} {reason}: building, {minutes}")
            began = time.monotonic()
            plan = build(spec)
            self._keep(folder, stem, facts, plan, time.monotonic() - began)
            return Engine(plan=plan, path=path, built=True)

    def discard(self, spec: EngineSpec, machine: Machine) -> None:
        """Deletes an engine that computes something else than it should.

        Raises:
            EnvironmentFault: The folder is not safe.
            OutputError: The disk refused.
        """
        self._remove(_stem(spec, machine))

    def held(self) -> list[HeldEngine]:
        """What is there, of every machine and version, by name; reads sidecars only.

        Raises:
            EnvironmentFault: The folder is not safe.
            OutputError: The disk refused.
        """
        if not self._path.exists():
            return []
        with open_engine_folder(self._path) as folder:
            return [_held(stem, _sidecar(folder, stem)) for stem in _stems(folder, ".json")]

    def remove(self, bundle: str | None = None) -> int:
        """Deletes the engines of a bundle, or all; returns their bytes.

        Args:
            bundle: The bundle's name.

        Raises:
            EnvironmentFault: The folder is not safe.
            OutputError: The disk refused.
        """
        if not self._path.exists():
            return 0
        with open_engine_folder(self._path) as folder:
            chosen = _stems(folder, bundle=bundle)
        return sum(self._remove(stem) for stem in chosen)

    def _remove(self, stem: str) -> int:
        with open_engine_folder(self._path) as folder, folder.locked(f"{stem}.lock"):
            # The sidecar first: a plan without one is never used. The lock last, while it is held.
            names = [f"{dot}{stem}.{ending}" for ending in _ENDINGS for dot in ("", ".")]
            return sum(folder.remove(name) for name in names)

    def _keep(
        self, folder: EngineFolder, stem: str, facts: Mapping[str, Any], plan: bytes, build_seconds: float
    ) -> None:
        about = {
            "schema": SCHEMA,
            "key": engine_key(facts),
            "facts": facts,
            "plan": {"bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()},
            "build_seconds": round(build_seconds, 1),
            "built": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        folder.remove(f"{stem}.json")  # from here on the old engine is gone, whatever happens to the new one
        folder.write(f"{stem}.plan", plan)
        folder.write(f"{stem}.json", (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())


def _stem(spec: EngineSpec, machine: Machine) -> str:
    return f"{spec.title}-{engine_key(spec.facts(machine))[:_KEY_DIGITS]}"


def _stems(folder: EngineFolder, ending: str = "", *, bundle: str | None = None) -> list[str]:
    """Stems of the files that are an engine's, of one bundle or all; files of other names are left alone."""
    found = [match for name in folder.names() if name.endswith(ending) and (match := _FILE.fullmatch(name))]
    return sorted({match["stem"] for match in found if bundle in (None, match["bundle"])})


def _read(folder: EngineFolder, stem: str, facts: Mapping[str, Any]) -> bytes:
    """A plan whose sidecar is of exactly these facts, and whose bytes are the sidecar's.

    Raises:
        FileNotFoundError: There is no sidecar.
        Refused: Anything is not as it was written.
    """
    try:
        about = parse_json(folder.read(f"{stem}.json", _MAX_SIDECAR_BYTES), f"{stem}.json")
    except BundleError as error:
        raise Refused(f"{stem}.json is damaged: {error.found}") from error
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise Refused(f"{stem}.json is no sidecar of schema {SCHEMA}")
    if about.get("facts") != facts or about.get("key") != engine_key(facts):
        there = about.get("facts")
        difference = describe_difference(there, facts) if isinstance(there, dict) else ""
        raise Refused(f"it is of {difference or 'something else'}")
    expected = about.get("plan")
    try:
        plan = folder.read(f"{stem}.plan")
    except FileNotFoundError as error:
        raise Refused(f"{stem}.plan is not there") from error
    found = {"bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()}
    if found != expected:
        raise Refused(f"{stem}.plan is damaged ({found['bytes']:,} bytes, sha256 {str(found['sha256'])[:12]}...)")
    return plan


def _nearest(folder: EngineFolder, spec: EngineSpec, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Why there is no engine here, in view of others of the same graph, and how long building may take."""
    others = [
        about
        for stem in _stems(folder, ".json", bundle=spec.bundle)
        if isinstance((about := _sidecar(folder, stem)).get("facts"), dict)
        if (about["facts"].get("bundle_name"), about["facts"].get("graph")) == (spec.bundle, spec.name)
    ]
    if not others:
        return "is not there yet", _minutes({})
    nearest = max(others, key=lambda about: sum(about["facts"].get(fact) == value for fact, value in facts.items()))
    return f"is of {describe_difference(nearest['facts'], facts) or 'something else'}", _minutes(nearest)


def _sidecar(folder: EngineFolder, stem: str) -> dict[str, Any]:
    """What a sidecar says, for people only; empty if it cannot be read."""
    try:
        about = parse_json(folder.read(f"{stem}.json", _MAX_SIDECAR_BYTES), stem)
    except (FileNotFoundError, Refused, BundleError):
        return {}
    return about if isinstance(about, dict) else {}


def _minutes(about: Mapping[str, Any]) -> str:
    seconds = about.get("build_seconds")
    if not isinstance(seconds, int | float):
        return "which can take minutes"
    return f"about {max(1, round(seconds / 60))} min" if seconds >= 60 else f"about {max(1, round(seconds))} s"


def _held(stem: str, about: Mapping[str, Any]) -> HeldEngine:
    facts, plan, seconds = about.get("facts"), about.get("plan"), about.get("build_seconds")
    size = plan.get("bytes") if isinstance(plan, dict) else None
    return HeldEngine(
        stem=stem,
        facts=facts if isinstance(facts, dict) else {},
        bytes=size if isinstance(size, int) else 0,
        build_seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        built=str(about.get("built", "")),
    )
