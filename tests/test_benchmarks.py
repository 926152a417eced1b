"""docs/benchmarks.md is what the committed result files say, and each names a script that exists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def check(page: str) -> int:
    """Exit code of the freshness check with this page in place of the committed one."""
    code = f"import write_docs, pathlib; write_docs.PAGE = pathlib.Path({page!r}); " + (
        "raise SystemExit(write_docs.PAGE.read_text(encoding='utf-8') != write_docs.page())"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", check=False).returncode


def test_page_is_current_and_the_check_can_fail(tmp_path: Path) -> None:
    page = ROOT / "docs" / "benchmarks.md"
    assert check(str(page)) == 0, "run make docs"
    changed = tmp_path / "page.md"
    changed.write_text(page.read_text(encoding="utf-8").replace("mIoU21", "mIoU22", 1), encoding="utf-8")
    assert check(str(changed)) == 1


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_names_its_command_date_and_machine(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    script = result["command"].split()[1]
    assert (ROOT / script).is_file()
    assert result["date"] and result["platform"]["cpu"] and result["rows"]
    assert all(len(row) == len(result["columns"]) for row in result["rows"])
