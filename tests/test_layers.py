"""Imports go one way: the order of the rooms is read from docs/architecture.md, the imports from the syntax trees."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "gransam_sdk"

CORE = {"numpy"}
TORCH = {"numpy", "PIL", "torch", "safetensors"}
LIBRARIES = {
    "runtime": CORE | {"PIL", "onnxruntime", "openvino", "supervision", "tensorrt", "cuda"},
    "annotate": CORE | {"PIL"},
    "evaluation": CORE | {"PIL", "pycocotools"},
    "proposals": CORE,
    "models": TORCH,
    "training": TORCH | {"diffusers", "huggingface_hub"},
    "export": TORCH | {"onnx", "onnxscript", "onnxruntime"},
    "commands": {"typer", "rich", "onnxruntime"},
    "cli": {"typer"},
}
"""Third-party packages by room; rooms that are not listed have ``CORE``."""

AT_THE_TOP = {"numpy", "typer"}
"""Left of ``models`` and in the command line, everything else is imported inside the function that needs it."""


def read_order(page: str) -> dict[str, tuple[int, int]]:
    """Each room's (place in the row, place in its group); the second is 0 for rooms in braces, which are strangers."""
    row = re.search(r"```\n(errors, .*?)```", page, re.DOTALL)
    if row is None:
        raise AssertionError("docs/architecture.md has lost its row of rooms")
    places = {}
    for place, group in enumerate(row[1].split("→")):
        braces = "{" in group
        for index, name in enumerate(group.strip(" {}\n").split(",")):
            places[name.strip()] = (place, 0 if braces else index)
    return places


def read_modules() -> dict[str, str]:
    """Source by dotted name, of the package and of ``export/``, which installs into it."""
    modules = {}
    for folder, name in ((ROOT / PACKAGE, PACKAGE), (ROOT / "export", f"{PACKAGE}.export")):
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            modules[".".join(parts)] = path.read_text(encoding="utf-8")
    return modules


def imports_of(module: str, source: str) -> Iterator[tuple[str, bool]]:
    """Every imported dotted name, and whether it is imported as soon as the module is."""
    package = module.removesuffix(".__init__") if module.endswith(".__init__") else module.rpartition(".")[0]
    tree = ast.parse(source)
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types_only(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *base.split(".")]).rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        yield from ((name, id(node) not in deferred) for name in names)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room_of(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def find_violations(modules: Mapping[str, str], order: Mapping[str, tuple[int, int]]) -> list[str]:
    found = []
    for module, source in modules.items():
        room = room_of(module)
        if room in ("__init__", "bundles"):  # the public names, tested on their own; package data
            continue
        if room not in order:
            found.append(f"{module}: the room is not in docs/architecture.md")
            continue
        for name, at_once in imports_of(module, source):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names:
                continue
            if top == PACKAGE:
                other = room_of(name)
                if other != room and not _is_left(order, other, room):
                    found.append(f"{module} imports {name}")
            elif top not in LIBRARIES.get(room, CORE):
                found.append(f"{module} imports {name}: not a library of that room")
            elif at_once and top not in AT_THE_TOP and not _is_left(order, "evaluation", room):
                found.append(f"{module} imports {name} at the top, which belongs inside a function")
            elif at_once and room in ("commands", "cli") and top != "typer":
                found.append(f"{module} imports {name} at the top, which `gransam --help` would pay for")
    return found


def _is_left(order: Mapping[str, tuple[int, int]], left: str, right: str) -> bool:
    if left not in order:
        return False
    (place, index), (own_place, own_index) = order[left], order[right]
    return place < own_place or (place == own_place and index < own_index)


def test_imports_go_left_only() -> None:
    order = read_order((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    found = find_violations(read_modules(), order)
    assert not found, "\n".join(found)


def test_the_rooms_of_the_row_are_the_rooms_of_the_house() -> None:
    order = read_order((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert set(order) == {room_of(module) for module in read_modules()} - {"__init__", "bundles"}


def test_the_row_is_read_as_it_is_written() -> None:
    order = read_order("```\nerrors, shapes → types → {evaluation, models}\n    → cli\n```")
    assert order == {
        "errors": (0, 0),
        "shapes": (0, 1),
        "types": (1, 0),
        "evaluation": (2, 0),
        "models": (2, 0),
        "cli": (3, 0),
    }


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gransam_sdk.rle", "from .runtime.result import Result"),
        ("gransam_sdk.rle", "def f():\n    from . import runtime"),
        ("gransam_sdk.errors", "from .types import Settings"),
        ("gransam_sdk.runtime.load", "from ..annotate import run"),
        ("gransam_sdk.runtime.__init__", "from ..annotate.run import annotate_folder"),
        ("gransam_sdk.runtime.load", "import gransam_sdk.export.nano"),
        ("gransam_sdk.annotate.run", "from ..commands.streams import narrate"),
        ("gransam_sdk.training.fit", "from ..export import write"),
        ("gransam_sdk.export.nano", "from gransam_sdk.training.fit import fit"),
        ("gransam_sdk.unheard_of", "import os"),
        ("gransam_sdk.rle", "import PIL"),
        ("gransam_sdk.runtime.load", "def f():\n    import torch"),
        ("gransam_sdk.runtime.load", "import onnxruntime"),
        ("gransam_sdk.annotate.run", "from scipy import ndimage"),
        ("gransam_sdk.commands.annotate", "from rich.progress import Progress"),
        ("gransam_sdk.commands.annotate", "from ..cli import app"),
        ("gransam_sdk.manifest", "from .bundle import Bundle"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    order = read_order((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(find_violations({module: source}, order)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gransam_sdk.rle", "import numpy as np\nfrom .types import Rle\nfrom .errors import InputError"),
        ("gransam_sdk.runtime.load", "def f():\n    import onnxruntime\n    from PIL import Image"),
        ("gransam_sdk.runtime.draw", "if TYPE_CHECKING:\n    from PIL import Image"),
        ("gransam_sdk.export.nano", "import torch\nfrom ..models.nano import Nano\nfrom .graphs import write"),
        ("gransam_sdk.cli", "import typer\nfrom .commands.annotate import annotate"),
        ("gransam_sdk.commands.train", "def train():\n    from ..training import fit\n    from ..export import nano"),
    ],
)
def test_a_right_import_is_left_alone(module: str, source: str) -> None:
    order = read_order((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert find_violations({module: source}, order) == []
