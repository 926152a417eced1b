"""An engine cache with a builder that counts, on a machine that does not exist."""

from __future__ import annotations

from pathlib import Path

from engine_race import head_spec, machine

from gransam_sdk.runtime.engine_cache import Engine, EngineCache
from gransam_sdk.runtime.engine_spec import EngineSpec, Machine

HERE = machine()
PLAN = b"\0plan\xff" * 100


class Site:
    """A cache with a builder that counts."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "engines"
        self.built: list[str] = []
        self.lines: list[str] = []

    def build(self, spec: EngineSpec) -> bytes:
        self.built.append(spec.title)
        return PLAN + spec.onnx + b" %d" % len(self.built)

    def fetch(self, spec: EngineSpec | None = None, on: Machine = HERE, *, may_build: bool = True) -> Engine:
        build = self.build if may_build else None
        return EngineCache(self.folder).fetch(spec or head_spec(), on, build, self.lines.append)

    def file(self, ending: str) -> Path:
        (found,) = self.folder.glob(f"*.{ending}")
        return found
