"""``gransam engine`` as a user meets it, on recorded TensorRT: results on stdout, narration on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from bundles import write_good
from recording_cuda import World
from recording_tensorrt import MAGIC, install
from triton_schema import parse_config
from typer.testing import CliRunner, Result

from gransam_sdk.commands.engine import engine
from gransam_sdk.errors import InputError, MissingExtraError

Gransam = Callable[..., Result]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_good(tmp_path_factory.mktemp("command") / "test-bundle")


@pytest.fixture
def gransam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gransam:
    """Runs ``gransam engine``; its errors are raised."""
    monkeypatch.setenv("GRANSAM_HOME", str(tmp_path / "home"))
    app = typer.Typer()
    app.command()(engine)

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch)


def test_engines_are_built_verified_listed_and_removed(
    gransam: Gransam, bundle: Path, world: World, tmp_path: Path
) -> None:
    first = gransam(bundle)
    paths = [Path(line) for line in first.stdout.splitlines()]
    assert [path.name.rpartition("-")[0] for path in paths] == [
        f"test-bundle-{name}" for name in ("image", "prompt", "mask", "head")
    ]
    assert all(path.parent == tmp_path / "home" / "engines" for path in paths)
    assert all(path.read_bytes().startswith(MAGIC) for path in paths)
    assert first.stderr.count("is not there yet: building") == 4 and "the canary passes" in first.stderr
    again = gransam(bundle)
    assert again.stdout == first.stdout and "building" not in again.stderr

    listed = gransam("--list").stdout.splitlines()
    assert len(listed) == 4 and "Fake GPU A  TensorRT 11.4.0.106  fp32-w16" in listed[0]
    facts = json.loads(gransam(bundle, "--list", "--json").stdout)["engines"]
    assert {entry["facts"]["graph"] for entry in facts} == {"image", "prompt", "mask", "head"}
    assert json.loads(gransam("nano-voc20", "--list", "--json").stdout) == {"engines": []}

    assert "no engines were here" in gransam("nano-voc20", "--rm").stderr
    assert "MB deleted" in gransam(bundle, "--rm").stderr
    assert gransam("--list").stdout == ""


def test_chunk_is_passed_on(gransam: Gransam, bundle: Path, world: World) -> None:
    gransam(bundle, "--chunk", 40)
    assert ("points", (1, 2), (40, 2), (40, 2)) in world.named("set_shape")


def test_triton_with_onnx_needs_no_tensorrt(
    gransam: Gransam, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    result = gransam(bundle, "--triton", tmp_path / "repository")
    models = [Path(line) for line in result.stdout.splitlines()]
    assert len(models) == 4 and all((model / "1" / "model.onnx").is_file() for model in models)
    with pytest.raises(MissingExtraError, match="tensorrt is not installed"):
        gransam(bundle, "--triton", tmp_path / "other", "--platform", "tensorrt")
    assert not (tmp_path / "other").exists()


def test_triton_with_engines(gransam: Gransam, bundle: Path, world: World, tmp_path: Path) -> None:
    result = gransam(bundle, "--triton", tmp_path / "repository", "--platform", "tensorrt")
    for model in map(Path, result.stdout.splitlines()):
        assert (model / "1" / "model.plan").read_bytes().startswith(MAGIC)
        assert parse_config((model / "config.pbtxt").read_text()).platform == "tensorrt_plan"


def test_the_fused_graph_as_one_model(gransam: Gransam, bundle: Path, world: World, tmp_path: Path) -> None:
    (model,) = map(Path, gransam(bundle, "--fused", "--kept", 5, "--triton", tmp_path / "r").stdout.splitlines())
    config = parse_config((model / "config.pbtxt").read_text())
    assert model.name == "test-bundle-fused"
    assert {output.name: list(output.dims) for output in config.output}["logits"] == [5, 4, 4]
    built = gransam(bundle, "--fused", "--kept", 5)
    assert "test-bundle-fused-" in built.stdout and "the canary passes" in built.stderr
    assert not world.named("create_optimization_profile")


def test_without_tensorrt_the_extra_is_named(gransam: Gransam, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "cuda.bindings"):
        install(monkeypatch)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError) as caught:
            gransam(bundle)
        assert "gransam-sdk[tensorrt]" in caught.value.do


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nano-voc20", "--platform", "openvino"],
        ["nano-voc20", "--list", "--rm"],
        ["nano-voc20", "--rm", "--triton", "x"],
        ["nano-voc20", "--fused", "--chunk", "3", "--triton", "x"],
    ],
)
def test_usage_errors(gransam: Gransam, arguments: list[str]) -> None:
    with pytest.raises(InputError):
        gransam(*arguments)


def test_a_bundle_that_is_somewhere_else_is_said(gransam: Gransam, world: World, tmp_path: Path) -> None:
    from gransam_sdk.errors import BundleError

    with pytest.raises(BundleError, match="nowhere"):
        gransam(tmp_path / "nowhere")
