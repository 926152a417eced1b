"""Writes docs/benchmarks.md and the plots that it shows from the committed result files.

python benchmarks/write_docs.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from plot import draw, plot_of
from result import RESULTS, show

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PLOTS = PAGE.parent / "plots"
ORDER = (
    *("heads", "classes", "ablation", "evaluate", "training"),
    *("segmenter", "trades", "sides", "segmenter_training", "probe", "proposals"),
    *("annotate", "overlap", "folder", "growth", "profile", "post", "decode_scale"),
    *("reference_nano", "reference_mobile_sam", "reference_sam_vit_b"),
    *("backends", "decoder", "rounding", "parity", "parity_mobile_sam", "parity_sam_vit_b"),
    "parity_sam_vit_h",
    *("precisions", "precisions_mobile_sam", "precisions_sam_vit_b"),
    "import_time",
)
HEAD = """\
# Benchmarks

Made by `make docs` from `benchmarks/results/*.json`. Each table stands under the command that produced it. Times are
of a shared machine and noisy; compare rows of one table, not tables. `../shared` is development data that is not part
of the product. On 2026-11-22 the embedded segmenter was trained four times: what is dated before is of the seed's
weights, *Input side* and *What the encoder knows* are of those after the first training, and all of these are of an
encoder without context and detail. *What each part of the embedded segmenter is worth* is of those after the second
training. *Quality of the segmenter*, *Other data, other granularity* and *Annotating a folder* are of the embedded
ones.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(section, results())])


def results() -> list[dict[str, Any]]:
    """The result files in the page's order."""
    names = [path.stem for path in RESULTS.glob("*.json")]
    if unknown := set(names) ^ set(ORDER):
        raise SystemExit(f"result files and write_docs.ORDER differ: {', '.join(sorted(unknown))}")
    return [json.loads((RESULTS / f"{name}.json").read_text()) for name in ORDER]


def section(result: dict[str, Any]) -> str:
    """One result file as Markdown."""
    lines = [f"## {result['title']}", "", result["question"], "", "```", result["command"], "```", ""]
    lines += [f"| {' | '.join(result['columns'])} |", f"|{'---|' * len(result['columns'])}"]
    lines += [f"| {' | '.join(show(cell) for cell in row)} |" for row in result["rows"]]
    for plot in result.get("plots", []):
        lines += ["", f"![{plot['title']}]({PLOTS.name}/{plot['name']}.svg)", "", plot["sentence"]]
    for note in result["notes"]:
        lines += ["", note]
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result["platform"].items())
    return "\n".join([*lines, "", f"*{result['date']}; {machine}*", ""])


def plots() -> dict[str, str]:
    """The plots of all result files by file name, as SVG text."""
    drawn: dict[str, str] = {}
    for value in (value for result in results() for value in result.get("plots", [])):
        name = f"{value['name']}.svg"
        if name in drawn:
            raise SystemExit(f"two plots are called {name}")
        drawn[name] = draw(plot_of(value))
    return drawn


def stale() -> str:
    """What is not as the result files say; empty if all is."""
    found = {path.name: path.read_text(encoding="utf-8") for path in PLOTS.glob("*")}
    made = plots()
    old = [f"docs/plots/{name}" for name in sorted(found.keys() | made.keys()) if found.get(name) != made.get(name)]
    if PAGE.read_text(encoding="utf-8") != page():
        old.insert(0, "docs/benchmarks.md")
    return f"run make docs: stale are {', '.join(old)}" if old else ""


def write() -> None:
    """Makes the page and its plots anew, and takes plots away that no result file has."""
    PAGE.write_text(page(), encoding="utf-8")
    made = plots()
    for old in PLOTS.glob("*.svg"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        PLOTS.mkdir(exist_ok=True)
        (PLOTS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(stale() or 0)
    write()
