"""Pages and commands cannot drift apart; links between pages lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from gransam_sdk import ClassInfo, cli, errors
from gransam_sdk.classes import select_classes

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "gransam_sdk").rglob("*.md")])
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_commands", ROOT / "docs" / "write_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_as_the_commands_are(writer: ModuleType) -> None:
    assert writer.fill(PAGE) == PAGE, "run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_and_has_help(name: str, writer: ModuleType) -> None:
    assert f"## gransam {name}\n" in PAGE
    assert COMMANDS[name].help
    block = PAGE.partition(f"<!-- options: {name} -->")[2].partition("<!-- end -->")[0]
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name} has no help"
        for option in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
            assert option in block, f"{option} of {name} is not in docs/commands.md"


def test_an_undocumented_option_is_found(writer: ModuleType) -> None:
    row = next(line for line in PAGE.splitlines(keepends=True) if "`--limit N`" in line)
    assert writer.fill(PAGE.replace(row, "")) == PAGE
    assert PAGE.replace(row, "") != PAGE


def test_exit_codes_of_the_error_tree_are_on_the_page() -> None:
    codes = {value.exit_code for value in vars(errors).values() if isinstance(value, type)}
    for code in codes:
        assert re.search(rf"^\| {code} \|", PAGE, re.MULTILINE), code


def test_the_classes_file_of_the_page_works(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    file = tmp_path / "classes.toml"
    file.write_text(example[1], encoding="utf-8")
    chosen = select_classes([ClassInfo(id=1, name="cat"), ClassInfo(id=2, name="dog")], file=file)
    assert [(label.name, label.members, label.threshold) for label in chosen.labels] == [("pets", (0, 1), 0.4)]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{target} in {page.name}"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in [*PAGES, ROOT / ".ci" / "run"]:
        for target in re.findall(
            r"(?:^|`)(?:exec )?make (?:--[a-z-]+ )*([a-z]+)", path.read_text(encoding="utf-8"), re.M
        ):
            assert re.search(rf"^{target}:", makefile, re.M), f"make {target} in {path.name}"


def test_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sources = [*PAGES, ROOT / "Makefile", *(ROOT / "gransam_sdk").rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    for path in sources:
        for named in re.findall(r"(?:gransam-sdk|'\.)\[([a-z0-9,]+)\]", path.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= set(project["optional-dependencies"]), f"[{named}] in {path.name}"
