"""The public names: sorted, complete, loadable, and cheap until touched."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gransam_sdk as gs

ROOT = Path(__file__).parent.parent


def test_all_is_sorted_and_without_repeats() -> None:
    assert gs.__all__ == sorted(set(gs.__all__))


@pytest.mark.parametrize("name", gs.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    value = getattr(gs, name)
    assert value is not None
    if name != "__version__":
        assert value.__doc__, f"{name} has no docstring"
        assert value.__module__.startswith("gransam_sdk.")


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "gransam_sdk" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared | {"__version__"} == set(gs.__all__)


def test_dir_shows_names_before_they_are_loaded() -> None:
    code = "import gransam_sdk as gs; assert set(gs.__all__) <= set(dir(gs))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_error_tree_is_public() -> None:
    from gransam_sdk import errors

    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes <= set(gs.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="segment_everything"):
        gs.segment_everything  # noqa: B018


def test_the_version_is_the_changelogs_newest() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == gs.__version__
