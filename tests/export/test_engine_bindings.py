"""The recorded TensorRT has the names, parameters and enumerations of the vendor's bindings, where those are installed.

The bindings' wheel (``tensorrt-cu13-bindings``) holds no library. Only their signatures are read here, so the libraries
that they are linked to are stood in for by empty ones.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recording_cuda import World, cuda_runtime
from recording_tensorrt import tensorrt

STUBS = {
    "nvinfer": "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "getBuilderPluginRegistry getPluginRegistry initLibNvInferPlugins",
    "nvonnxparser": "createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getNvOnnxParserVersion",
    "nvinfer_plugin": "",
}
ENUMS = ("BuilderFlag", "MemoryPoolType", "HardwareCompatibilityLevel", "TensorIOMode", "DataType")
DUMP = """
import json, sys
import tensorrt_bindings as trt
found = {}
for name, members in json.load(sys.stdin).items():
    kind = getattr(trt, name)
    found[name] = {member: getattr(kind, member).__doc__ or "" for member in members if hasattr(kind, member)}
    if hasattr(kind, "__members__"):
        found[name] = {member: int(value) for member, value in kind.__members__.items()}
print(json.dumps(found))
"""


def recorded() -> dict[str, dict[str, Any]]:
    """By class, its public methods and attributes of the recording."""
    module = tensorrt(World())
    own = {
        "IBuilderConfig": ["hardware_compatibility_level", "builder_optimization_level"],
        "ITensor": ["name", "shape"],
    }
    own["Runtime"] = ["engine_host_code_allowed"]
    skipped = {"log", "numpy_type"}
    table: dict[str, dict[str, Any]] = {}
    for name, kind in vars(module).items():
        if inspect.isclass(kind):
            members = {
                key: value for key, value in vars(kind).items() if not key.startswith("_") and key not in skipped
            }
            table[name] = members | dict.fromkeys(own.get(name, ()))
    return table


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By class, docstrings of the real ones' members, or values of an enumeration's."""
    spec, compiler = importlib.util.find_spec("tensorrt_bindings"), shutil.which("gcc")
    if spec is None or spec.origin is None or compiler is None:
        pytest.skip("needs the bindings' wheel and gcc")
    folder = tmp_path_factory.mktemp("stubs")
    version = re.search(r'__version__ = "(\d+)', Path(spec.origin).read_text())
    assert version is not None
    for name, symbols in STUBS.items():
        source = folder / f"{name}.c"
        source.write_text(
            "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols.split()) or "int x;\n"
        )
        library = folder / f"lib{name}.so.{version[1]}"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    names = {name: list(members) for name, members in recorded().items()}
    answer = subprocess.run(
        [sys.executable, "-c", DUMP],
        input=json.dumps(names),
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(Path(spec.origin).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)
    return found


def parameters(docstring: str) -> list[str]:
    """Names of a pybind11 method's parameters, of its first overload: ``f(self: T, a: int, b: int = 0) -> None``."""
    line = next(line for line in docstring.splitlines() if re.match(r"(1\. )?\w+\(self", line))
    inside = re.sub(r"\[[^]]*\]", "", line.partition("(")[2].rpartition(") ->")[0])
    return [part.partition(":")[0].strip() for part in inside.split(", ") if ":" in part]


def test_every_member_of_the_recording_is_in_the_bindings(bindings: dict[str, dict[str, Any]]) -> None:
    for name, members in recorded().items():
        if name not in (*ENUMS, "NetworkDefinitionCreationFlag", "ILogger"):
            assert not members.keys() - bindings[name].keys(), name


def test_parameters_are_those_of_the_bindings(bindings: dict[str, dict[str, Any]]) -> None:
    compared = 0
    for name, members in recorded().items():
        for member, value in members.items():
            if inspect.isfunction(value) and name not in ENUMS:
                assert list(inspect.signature(value).parameters) == parameters(bindings[name][member]), (
                    f"{name}.{member}"
                )
                compared += 1
    assert compared > 20


def test_enumerations_have_the_names_that_are_used(bindings: dict[str, dict[str, Any]]) -> None:
    module = tensorrt(World())
    for name in ENUMS:
        assert {member.name for member in getattr(module, name)} <= bindings[name].keys(), name
    assert "STRONGLY_TYPED" in bindings["NetworkDefinitionCreationFlag"]
    assert {"ERROR", "WARNING", "INTERNAL_ERROR"} <= set(recorded()["ILogger"])


def test_cuda_functions_have_the_parameters_of_the_bindings() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    for name, function in vars(cuda_runtime(World())).items():
        if inspect.isfunction(function):
            line = (getattr(runtime, name).__doc__ or "").splitlines()[0]
            found = [
                part.partition(":")[0].split()[-1] for part in line.partition("(")[2].rstrip(")").split(", ") if part
            ]
            assert list(inspect.signature(function).parameters) == found, name


def test_parameters_are_read_from_a_docstring() -> None:
    text = "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: a.B, x: Sequence[typing.Any], y: int = 0) -> None\n"
    assert parameters(text) == ["self", "x", "y"]
