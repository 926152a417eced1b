"""docs/benchmarks.md and its plots are what the committed result files say, and each names a script that exists."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import write_docs
from plot import Axis, Line, Plot
from result import write_result

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def check(page: str) -> int:
    """Exit code of the freshness check with this page in place of the committed one."""
    code = f"import write_docs, pathlib; write_docs.PAGE = pathlib.Path({page!r}); " + (
        "raise SystemExit(write_docs.stale() or 0)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", check=False, stderr=subprocess.DEVNULL
    ).returncode


def test_page_is_current_and_the_check_can_fail(tmp_path: Path) -> None:
    page = ROOT / "docs" / "benchmarks.md"
    assert check(str(page)) == 0, "run make docs"
    changed = tmp_path / "page.md"
    changed.write_text(page.read_text(encoding="utf-8").replace("mIoU21", "mIoU22", 1), encoding="utf-8")
    assert check(str(changed)) == 1


@pytest.fixture
def plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Docs of one result file with a plot, written."""
    drawing = Plot(
        name="speed",
        title="Speed by size",
        sentence="It does not change.",
        x=Axis(label="size"),
        y=Axis(label="speed"),
        lines=[Line(label="all", points=[(0, 1), (1, 1)])],
    )
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "growth.py"), "--photos", "p"])
    monkeypatch.setattr(write_docs, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(write_docs, "ORDER", ("one",))
    monkeypatch.setattr(write_docs, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(write_docs, "PLOTS", tmp_path / "plots")
    write_result(
        "one",
        title="T",
        question="Q",
        columns=["c"],
        rows=[[1]],
        plots=[drawing],
        path=tmp_path / "results" / "one.json",
    )
    write_docs.write()
    yield tmp_path


def test_a_plot_stands_under_its_table_with_its_sentence(plotted: Path) -> None:
    page = (plotted / "page.md").read_text(encoding="utf-8")
    assert "| 1 |\n\n![Speed by size](plots/speed.svg)\n\nIt does not change.\n" in page
    assert "Speed by size" in (plotted / "plots" / "speed.svg").read_text(encoding="utf-8")
    assert write_docs.stale() == ""


@pytest.mark.parametrize("fault", ["changed", "missing", "left over", "other numbers"])
def test_the_check_finds_plots_that_are_not_as_the_results_say(plotted: Path, fault: str) -> None:
    drawn = plotted / "plots" / "speed.svg"
    if fault == "changed":
        drawn.write_text(drawn.read_text(encoding="utf-8").replace("Speed", "Spead"), encoding="utf-8")
    elif fault == "missing":
        drawn.unlink()
    elif fault == "left over":
        drawn.with_name("gone.svg").write_text("<svg/>", encoding="utf-8")
    else:
        file = plotted / "results" / "one.json"
        value = json.loads(file.read_text(encoding="utf-8"))
        value["plots"][0]["lines"][0]["points"][0] = [0, 2]
        file.write_text(json.dumps(value), encoding="utf-8")
    assert ("gone.svg" if fault == "left over" else "speed.svg") in write_docs.stale()
    write_docs.write()
    assert write_docs.stale() == ""


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_names_its_command_date_and_machine(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    script = result["command"].split()[1]
    assert (ROOT / script).is_file()
    assert result["date"] and result["platform"]["cpu"] and result["rows"]
    assert all(len(row) == len(result["columns"]) for row in result["rows"])
