"""Building a plan: what TensorRT is told, in which order, and what its complaints become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import write_good
from recording_cuda import World
from recording_tensorrt import MAGIC, install

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import EnvironmentFault, InputError, MissingExtraError
from gransam_sdk.export.engine import build_plan
from gransam_sdk.runtime.engine_spec import BuildOptions, EngineSpec, engine_specs, fused_engine_spec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_good(tmp_path_factory.mktemp("engine") / "good"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch)


def spec_of(bundle: Bundle, name: str, **settings: object) -> EngineSpec:
    return next(spec for spec in engine_specs(bundle, **settings) if spec.name == name)  # type: ignore[arg-type]


def told(plan: bytes) -> dict[str, object]:
    """What the recorded builder was told."""
    facts: dict[str, object] = json.loads(plan.removeprefix(MAGIC).partition(b"\n")[0])
    return facts


def test_calls_and_their_order(bundle: Bundle, world: World) -> None:
    spec = spec_of(bundle, "prompt")
    plan = build_plan(spec)
    assert world.order == [
        "Builder",
        "create_network",
        "OnnxParser",
        "parse",
        "create_builder_config",
        "clear_flag",
        "set_flag",
        "set_memory_pool_limit",
        "create_optimization_profile",
        "set_shape",
        "add_optimization_profile",
        "build_serialized_network",
    ]
    assert world.named("parse") == [(len(bundle.graph_bytes("prompt")), None)]  # from memory, without a folder
    assert plan.endswith(bundle.graph_bytes("prompt"))


def test_what_the_builder_is_told(bundle: Bundle, world: World) -> None:
    options = BuildOptions(workspace_bytes=123 << 20, optimization_level=4)
    plan = build_plan(spec_of(bundle, "mask", chunk=12, options=options))
    assert told(plan) == {
        "flags": 1,
        "tf32": False,
        "strict_nans": True,
        "hardware": 0,
        "level": 4,
        "workspace": 123 << 20,
        "shapes": {"m_state": [[1, 4, 6], [12, 4, 6], [64, 4, 6]], "choice": [[1], [12], [64]]},
        "gpu": "Fake GPU A",
        "spoil": [],
    }


@pytest.mark.parametrize(("value", "flags"), [(0, 1), (1, 2), (None, 0)])
def test_strong_typing_is_asked_for_where_it_is_a_flag(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, value: int | None, flags: int
) -> None:
    world = install(monkeypatch, strongly_typed=value)
    build_plan(spec_of(bundle, "head"))
    assert world.named("create_network") == [(flags,)]


def test_no_precision_flag_is_ever_set(bundle: Bundle, world: World) -> None:
    for spec in engine_specs(bundle):
        build_plan(spec)
    assert {str(args[0].name) for args in world.named("set_flag")} == {"STRICT_NANS"}
    assert {str(args[0].name) for args in world.named("clear_flag")} == {"TF32"}
    assert len(world.named("clear_flag")) == 4


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("image", {"image": ((1, 3, 16, 16), (1, 3, 16, 16), (1, 3, 16, 16))}),
        ("prompt", {"points": ((1, 2), (8, 2), (8, 2))}),
        ("head", {"tokens": ((1, 4, 8), (8, 4, 8), (8, 4, 8))}),
    ],
)
def test_profiles_of_free_axes(bundle: Bundle, world: World, name: str, shapes: dict[str, object]) -> None:
    build_plan(spec_of(bundle, name))
    assert {args[0]: args[1:] for args in world.named("set_shape")} == shapes


def test_a_chunk_below_the_canary_still_takes_the_canary(bundle: Bundle, world: World) -> None:
    build_plan(spec_of(bundle, "prompt", chunk=1))
    assert world.named("set_shape") == [("points", (1, 2), (1, 2), (2, 2))]


def test_a_static_graph_needs_no_profile(bundle: Bundle, world: World) -> None:
    import onnx

    model = onnx.load_from_string(bundle.graph_bytes("image"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    spec = fused_engine_spec(bundle, model.SerializeToString())
    assert (spec.name, spec.title, spec.ranges) == ("fused", "test-bundle-fused", {})
    build_plan(spec)
    assert not world.named("create_optimization_profile") and world.named("build_serialized_network")


def test_a_fused_graph_with_a_free_axis_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="range of every free axis"):
        fused_engine_spec(bundle, bundle.graph_bytes("image"))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"parse_errors": ("In node 3: no importer for Foo", "In node 4: bad")}, "no importer for Foo; In node 4: bad"),
        ({"no_builder": True}, "nullptr"),
        ({"no_plan": True}, "ERROR: Network has dynamic"),
        ({"bad_profile": True}, "'g': AxisRange(least=1"),
    ],
)
def test_what_tensorrt_complains_of_is_passed_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], found: str
) -> None:
    install(monkeypatch, **settings)
    with pytest.raises(EnvironmentFault) as caught:
        build_plan(spec_of(bundle, "prompt"))
    assert found in caught.value.found


def test_a_network_of_other_inputs_is_refused(bundle: Bundle, world: World) -> None:
    from dataclasses import replace

    spec = spec_of(bundle, "head")
    with pytest.raises(EnvironmentFault, match=r"points \[-1, 2\]"):
        build_plan(replace(spec, onnx=bundle.graph_bytes("prompt")))


def test_tensorrt_that_is_missing_or_too_old(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, version="8.6.1")
    with pytest.raises(EnvironmentFault, match=r"8\.6\.1"):
        build_plan(spec_of(bundle, "head"))
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError) as caught:
        build_plan(spec_of(bundle, "head"))
    assert "gransam-sdk[tensorrt]" in caught.value.do


def test_bindings_without_their_library(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')\n")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"libnvinfer\.so\.11"):
        build_plan(spec_of(bundle, "head"))
