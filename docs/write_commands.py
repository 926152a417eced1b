"""Writes the option tables of docs/commands.md from the commands themselves: ``python docs/write_commands.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from gransam_sdk.cli import app

PAGE = Path(__file__).parent / "commands.md"


def table_of(command: Any) -> str:
    """Arguments and options of one command as a Markdown table."""
    rows = ["| | |", "|---|---|"]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar}{'...' if parameter.nargs == -1 else ''}`"
        else:
            spelled = ", ".join(parameter.opts) + "".join(f" / {option}" for option in parameter.secondary_opts)
            name = f"`{spelled} {parameter.metavar or ''}".rstrip() + "`"
        rows.append("| " + f"{name}\n{describe(parameter)}".replace("|", r"\|").replace("\n", " | ") + " |")
    return "\n".join(rows)


def describe(parameter: Any) -> str:
    """The help text, with what holds if the option is not given."""
    if parameter.required:
        return f"{parameter.help} **Required.**"
    if parameter.default is None or (isinstance(parameter.default, bool) and not parameter.secondary_opts):
        return str(parameter.help)
    default = parameter.default
    if isinstance(default, bool):
        default = (parameter.opts if default else parameter.secondary_opts)[0]
    return f"{parameter.help} Default: `{default}`."


def commands_of(group: Any, before: str = "") -> dict[str, Any]:
    """Every command by its name, those of a group too: ``models pull``."""
    found = {}
    for name, command in group.commands.items():
        found[f"{before}{name}"] = command
        if hasattr(command, "commands"):
            found |= commands_of(command, f"{before}{name} ")
    return found


def fill(page: str) -> str:
    """The page with every block between ``<!-- options: NAME -->`` and ``<!-- end -->`` written anew."""
    commands = commands_of(typer.main.get_command(app))
    return re.sub(
        r"(<!-- options: ([^\n]+) -->\n).*?(<!-- end -->)",
        lambda block: f"{block[1]}{table_of(commands[block[2]])}\n{block[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
