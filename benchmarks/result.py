"""The one shape of a result file: what was asked, with which command, when, on what, and the table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from plot import Plot

RESULTS = Path(__file__).parent / "results"
Cell = str | float | int | None


def write_result(
    name: str,
    *,
    title: str,
    question: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    notes: Sequence[str] = (),
    plots: Sequence[Plot] = (),
    path: Path | None = None,
) -> None:
    """Prints the table and writes ``benchmarks/results/<name>.json``, from which docs/benchmarks.md is made.

    Plots lie in it as numbers and are drawn with the page. With a ``path``, that file is written instead.
    """
    result: dict[str, Any] = {
        "title": title,
        "question": question,
        "command": f"python {' '.join([_relative(sys.argv[0]), *sys.argv[1:]])}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "platform": describe_platform(),
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "notes": list(notes),
    }
    if plots:
        result["plots"] = [asdict(plot) for plot in plots]
    target = path or RESULTS / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    widths = [max(len(show(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        print("  ".join(show(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show(cell: Cell) -> str:
    """A cell as text: floats are rounded by whoever wrote them."""
    return "" if cell is None else str(cell)


def describe_platform() -> dict[str, Cell]:
    """The machine and the packages that matter."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cpu_threads": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "pillow", "onnxruntime")},
    }


def _version(package: str) -> str:
    """Of the package or of its build for a GPU, which has another name."""
    for name in (package, f"{package}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "absent"


def _relative(script: str) -> str:
    return Path(script).resolve().relative_to(Path(__file__).resolve().parents[1]).as_posix()
