"""One of several processes that ask for the same engine at once.

    python engine_race.py FOLDER LOG SECONDS

Waits for LOG.go, fetches, and prints whether it built and the sha256 of what it got. Building appends a line to LOG,
takes SECONDS, and gives bytes that differ from process to process, as TensorRT's do.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

from gransam_sdk.bundle import Graph, Tensor
from gransam_sdk.runtime.engine_cache import EngineCache
from gransam_sdk.runtime.engine_spec import AxisRange, EngineSpec, Machine


def head_spec(weights: bytes = b"head A", **changes: object) -> EngineSpec:
    """A head's engine; the graph is not looked at."""
    graph = Graph(
        "head.onnx",
        hashlib.sha256(weights).hexdigest(),
        len(weights),
        (Tensor("tokens", "float32", ("g", 4, 8)),),
        (Tensor("logits", "float32", ("g", 3)),),
    )
    values: dict[str, object] = {
        "bundle": "pets",
        "digest": "d" * 64,
        "name": "head",
        "graph": graph,
        "onnx": weights,
        "precision": "fp32",
        "ranges": {"g": AxisRange(least=1, best=10, most=16)},
    }
    return EngineSpec(**{**values, **changes})  # type: ignore[arg-type]


def machine(**changes: str) -> Machine:
    """A machine that does not exist."""
    values = {
        "gpu": "Fake GPU A",
        "compute_capability": "9.0",
        "tensorrt": "11.4.0.106",
        "driver": "580.65",
        "cuda": "13.0",
        "system": "Linux x86_64",
    }
    return Machine(**{**values, **changes})


def main() -> None:
    folder, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def build(spec: EngineSpec) -> bytes:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(seconds)
        return b"plan of process %d" % os.getpid()

    print("ready", flush=True)
    while not log.with_suffix(".go").exists():
        time.sleep(0.01)
    engine = EngineCache(folder).fetch(head_spec(), machine(), build)
    print(engine.built, hashlib.sha256(engine.plan).hexdigest())


if __name__ == "__main__":
    main()
