"""Writes docs/benchmarks.md from the committed result files.

python benchmarks/write_docs.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from result import RESULTS, show

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ORDER = ("heads", "classes", "ablation", "evaluate", "training", "annotate", "parity", "import_time")
HEAD = """\
# Benchmarks

Made by `make docs` from `benchmarks/results/*.json`. Each table stands under the command that produced it. Times are
of a shared machine and noisy; compare rows of one table, not tables. `../shared` is development data that is not part
of the product.
"""


def page() -> str:
    """The whole page."""
    names = [path.stem for path in RESULTS.glob("*.json")]
    if unknown := set(names) ^ set(ORDER):
        raise SystemExit(f"result files and write_docs.ORDER differ: {', '.join(sorted(unknown))}")
    return "\n".join([HEAD, *(section(json.loads((RESULTS / f"{name}.json").read_text())) for name in ORDER)])


def section(result: dict[str, Any]) -> str:
    """One result file as Markdown."""
    lines = [f"## {result['title']}", "", result["question"], "", "```", result["command"], "```", ""]
    lines += [f"| {' | '.join(result['columns'])} |", f"|{'---|' * len(result['columns'])}"]
    lines += [f"| {' | '.join(show(cell) for cell in row)} |" for row in result["rows"]]
    for note in result["notes"]:
        lines += ["", note]
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result["platform"].items())
    return "\n".join([*lines, "", f"*{result['date']}; {machine}*", ""])


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page() and "docs/benchmarks.md is stale: run make docs")
    PAGE.write_text(page(), encoding="utf-8")
