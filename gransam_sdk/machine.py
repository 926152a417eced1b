"""The machine that figures were measured on, as JSON values: without it a time says nothing."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("gransam-sdk", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
CPU_FACTS, STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")


def describe_machine() -> dict[str, object]:
    """Processor, cores that this process may use, system, Python, and the installed packages that matter."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    if STATUS.exists():  # getrusage also counts what the parent held when it started this process
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def _cpu() -> str:
    if CPU_FACTS.exists():
        for line in CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
