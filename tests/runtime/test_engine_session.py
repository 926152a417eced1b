"""A bundle on recorded TensorRT: the arithmetic is ONNX Runtime's, the memory and every call are checked."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_good
from recording_cuda import STREAM, World
from recording_tensorrt import install
from sample_photos import sample_pixels

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import BundleError, DeviceError, EnvironmentFault, InputError, OutOfMemoryError
from gransam_sdk.export.engine import build_plan
from gransam_sdk.export.fused import fuse
from gransam_sdk.runtime import tensorrt_session
from gransam_sdk.runtime.engine_cache import EngineCache
from gransam_sdk.runtime.engine_spec import EngineSpec, engine_specs
from gransam_sdk.runtime.load import load_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.tensorrt_engine import EngineSource, load_engines, load_fused_engine
from gransam_sdk.runtime.tensorrt_library import describe_machine
from gransam_sdk.runtime.tensorrt_session import EngineRefused, TensorRTSession
from gransam_sdk.types import Settings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_good(tmp_path_factory.mktemp("session") / "good"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch)


class Loader:
    """Loads a bundle, counting what is built."""

    def __init__(self, home: Path, bundle: Bundle) -> None:
        self.home, self.bundle = home, bundle
        self.built: list[str] = []
        self.lines: list[str] = []

    def build(self, spec: EngineSpec) -> bytes:
        self.built.append(spec.name)
        return build_plan(spec)

    def load(self, *, may_build: bool = True, **settings: Any) -> Model:
        build = self.build if may_build else None
        source = EngineSource(home=self.home, build=build, log=self.lines.append)
        return load_engines(self.bundle, source, **settings)


@pytest.fixture
def loader(tmp_path: Path, bundle: Bundle) -> Loader:
    return Loader(tmp_path / "home", bundle)


def answers(model: Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that a model says of two prompts."""
    frame = model.frame(pixels)
    hoisted = model.hoist(model.prepare(pixels, frame))
    points = np.array([[0.3, 0.4], [0.6, 0.5]], dtype=np.float32)
    prompts = next(model.prompt(hoisted, frame, points, 2))
    masks = model.masks(hoisted, prompts.state, np.array([1, 2]), 2)
    logits = model.classify(prompts.tokens, prompts.features[:, 1])
    return {"tokens": prompts.tokens, "iou": prompts.iou, "lattice": prompts.lattice, "masks": masks, "logits": logits}


def test_engines_answer_what_onnx_runtime_answers(loader: Loader, world: World) -> None:
    pixels = sample_pixels("chelsea.png")
    with loader.load() as engines, load_model(loader.bundle, device="cpu", threads=1) as graphs:
        assert (engines.provider, engines.threads) == ("TensorRT", 0)
        found, expected = answers(engines, pixels), answers(graphs, pixels)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    assert loader.built == ["image", "prompt", "mask", "head"]
    assert not world.memory  # all of it was given back
    assert len(world.named("cudaStreamCreate")) == len(world.named("cudaStreamDestroy")) == 4


def test_the_embedded_bundle_passes_its_canary_on_engines(tmp_path: Path, world: World) -> None:
    loader = Loader(tmp_path / "home", open_bundle("nano-voc20"))
    loader.load().close()
    assert len(loader.built) == 4 and len(world.named("execute_async_v3")) == 4


def test_the_fused_engine_is_compared_with_the_four_graphs(tmp_path: Path, world: World) -> None:
    loader = Loader(tmp_path / "home", open_bundle("nano-voc20"))
    bundle, settings = loader.bundle, Settings()
    classes = select_classes(bundle.classes, background=bundle.head is not None and bundle.head.background)
    fused: dict[str, Any] = {"classes": classes, "settings": settings, "kept": 100}
    onnx = fuse(bundle, **fused)
    source = EngineSource(home=loader.home, build=loader.build, log=loader.lines.append)
    pixels = sample_pixels("chelsea.png")
    graphs = load_model(bundle, device="cpu", threads=1)
    with load_fused_engine(graphs, onnx, source, **fused) as engine:
        answer = engine.answer(pixels)
        assert (engine.provider, answer.fell_back) == ("TensorRT", False)
    assert answer.result.names[0] == "cat" and loader.built == ["fused"]
    world.spoil = ("tokens",)
    EngineCache(loader.home / "engines").remove()
    with load_model(bundle, device="cpu", threads=1) as graphs, pytest.raises(BundleError, match="tokens within"):
        load_fused_engine(graphs, onnx, source, **fused)
    assert EngineCache(loader.home / "engines").held() == []


def test_engines_are_loaded_a_second_time_without_building(loader: Loader, world: World) -> None:
    loader.load().close()
    loader.load(may_build=False).close()
    assert len(loader.built) == 4 and len(loader.lines) == 4
    assert {args[0] for args in world.named("deserialize_cuda_engine")} == {False}  # no host code


def test_a_run_calls_in_this_order(bundle: Bundle, world: World) -> None:
    session, feeds = head_session(bundle)
    world.calls.clear()
    session.run(feeds)
    assert world.order == [
        "cudaSetDevice",
        "cudaMalloc",
        "cudaMemcpyAsync",
        "set_input_shape",
        "set_tensor_address",
        "cudaMalloc",
        "set_tensor_address",
        "execute_async_v3",
        "cudaMemcpyAsync",
        "cudaStreamSynchronize",
    ]
    assert world.named("execute_async_v3") == [(STREAM,)]
    assert world.named("cudaMemcpyAsync") == [("cudaMemcpyHostToDevice", 2 * 4 * 8 * 4), ("cudaMemcpyDeviceToHost", 24)]
    world.calls.clear()
    session.run(feeds)
    assert not world.named("cudaMalloc")  # memory is kept
    session.run({"tokens": np.zeros((8, 4, 8), dtype=np.float32)})
    assert [name for name in world.order if name in ("cudaMalloc", "cudaFree")] == ["cudaFree", "cudaMalloc"] * 2


def head_session(bundle: Bundle) -> tuple[TensorRTSession, dict[str, np.ndarray]]:
    spec = engine_specs(bundle)[3]
    feeds = {"tokens": np.arange(64, dtype=np.float32).reshape(2, 4, 8)}
    return TensorRTSession(build_plan(spec), spec), feeds


def test_arrays_that_are_not_contiguous_are_right_too(bundle: Bundle, world: World) -> None:
    session, feeds = head_session(bundle)
    expected = session.run(feeds)["logits"]
    scattered = np.asfortranarray(feeds["tokens"])
    np.testing.assert_array_equal(session.run({"tokens": scattered})["logits"], expected)
    assert len(np.unique(expected)) > 1


def test_wrong_feeds_are_refused(bundle: Bundle, world: World) -> None:
    session, _ = head_session(bundle)
    cases: list[Mapping[str, np.ndarray]] = [{}, {"tokens": np.zeros((2, 4, 8))}]
    for feeds in cases:
        with pytest.raises(InputError):
            session.run(feeds)
    with pytest.raises(InputError, match="1 to 8 along g") as caught:
        session.run({"tokens": np.zeros((9, 4, 8), dtype=np.float32)})
    assert caught.value.found == "9" and "--chunk" in caught.value.do
    assert not world.named("execute_async_v3")


def test_a_closed_session_refuses(bundle: Bundle, world: World) -> None:
    session, feeds = head_session(bundle)
    session.close()
    session.close()
    with pytest.raises(EnvironmentFault, match="an open session"):
        session.run(feeds)


def test_a_full_gpu_is_a_device_error(bundle: Bundle, world: World) -> None:
    session, feeds = head_session(bundle)
    world.out_of_memory = True
    with pytest.raises(DeviceError, match="256 bytes of GPU memory for tokens") as caught:
        session.run(feeds)
    assert caught.value.found == "cudaErrorMemoryAllocation (2)"


FULL = "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)"


def test_a_run_for_which_there_is_no_memory(bundle: Bundle, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is logged after it; and an error of another run is not taken for it."""
    session, feeds = head_session(bundle)

    def fails(*lines: str) -> None:
        def execute(stream_handle: int) -> bool:
            for line in lines:
                session._logger.log(sys.modules["tensorrt"].ILogger.ERROR, line)
            return False

        monkeypatch.setattr(session._context, "execute_async_v3", execute)

    fails(FULL, "IExecutionContext::enqueueV3: Error Code 1: Myelin")
    with pytest.raises(OutOfMemoryError, match="OutOfMemory"):
        session.run(feeds)
    fails("Error Code 1: Myelin")
    with pytest.raises(EnvironmentFault, match="Myelin") as caught:
        session.run(feeds)
    assert not isinstance(caught.value, OutOfMemoryError)


def test_an_engine_for_which_there_is_no_memory_is_not_built_again(
    loader: Loader, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.load().close()
    kept: list[Any] = []

    def no_context(engine: Any, strategy: Any = None) -> None:
        kept[-1].lines.append(f"ERROR: {FULL}")

    real = tensorrt_session.make_logger

    def make_logger(trt: Any) -> Any:
        kept.append(real(trt))
        return kept[-1]

    monkeypatch.setattr(tensorrt_session, "make_logger", make_logger)
    monkeypatch.setattr(sys.modules["tensorrt"].ICudaEngine, "create_execution_context", no_context)
    with pytest.raises(OutOfMemoryError, match="OutOfMemory"):
        loader.load()
    assert len(loader.built) == 4 and len(EngineCache(loader.home / "engines").held()) == 4
    assert not world.memory


def test_a_plan_that_tensorrt_does_not_read(bundle: Bundle, world: World) -> None:
    with pytest.raises(EngineRefused, match="magicTag"):
        TensorRTSession(b"something", engine_specs(bundle)[3])
    assert not world.memory and len(world.named("cudaStreamDestroy")) == 1


def test_a_plan_of_another_graph_is_refused(bundle: Bundle, world: World) -> None:
    specs = engine_specs(bundle)
    with pytest.raises(EngineRefused, match="points"):
        TensorRTSession(build_plan(specs[1]), specs[3])


def spoil_plan(home: Path, name: str) -> None:
    """A plan that passes every check of the cache and is none, as after an update that the key does not know."""
    (plan,) = (home / "engines").glob(f"*-{name}-*.plan")
    sidecar = plan.with_suffix(".json")
    plan.write_bytes(b"not a plan")
    about = json.loads(sidecar.read_text())
    about["plan"] = {"bytes": 10, "sha256": hashlib.sha256(b"not a plan").hexdigest()}
    sidecar.write_text(json.dumps(about))


def test_an_engine_that_is_refused_is_built_again_alone(loader: Loader, world: World) -> None:
    loader.load().close()
    spoil_plan(loader.home, "prompt")
    loader.load().close()
    assert loader.built[4:] == ["prompt"]
    assert loader.lines[4].endswith("building test-bundle-prompt again, once")
    loader.load(may_build=False).close()


def test_engines_that_fail_the_canary_are_built_again_once(loader: Loader, world: World) -> None:
    world.spoil = ("iou",)
    with pytest.raises(BundleError, match=r"iou within 0\.01"):
        loader.load()
    assert loader.built == ["image", "prompt", "mask", "head"]  # just built: no second try
    assert EngineCache(loader.home / "engines").held() == []
    world.spoil = ()
    loader.load().close()
    assert len(loader.built) == 8


def test_old_engines_that_fail_the_canary_are_built_again(loader: Loader, world: World) -> None:
    loader.load().close()
    world.spoil = ("logits",)
    # As if the head's engine had been built wrong and nobody had looked.
    spec = engine_specs(loader.bundle)[3]
    cache, here = EngineCache(loader.home / "engines"), describe_machine()
    cache.discard(spec, here)
    cache.fetch(spec, here, build_plan)
    world.spoil = ()
    loader.load().close()
    assert loader.built[4:] == ["image", "prompt", "mask", "head"]
    assert "canary of bundle test-bundle is wrong" in loader.lines[4]
    assert not world.memory


def test_without_a_builder_what_is_wrong_is_an_error(loader: Loader, world: World) -> None:
    with pytest.raises(EnvironmentFault, match="is not there yet"):
        loader.load(may_build=False)
    loader.load().close()
    spoil_plan(loader.home, "mask")
    with pytest.raises(EngineRefused, match="gransam engine test-bundle"):
        loader.load(may_build=False)
    assert not world.memory


def test_another_gpu_has_engines_of_its_own(loader: Loader, world: World) -> None:
    loader.load().close()
    world.gpu = b"Fake GPU B"
    loader.load().close()
    assert len(loader.built) == 8
    assert "is of another GPU (Fake GPU A, here Fake GPU B): building" in loader.lines[4]


def test_what_this_machine_is(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gransam_sdk.runtime import tensorrt_library

    world.gpu = b"Fake GPU A\0\0\0"
    monkeypatch.setattr(tensorrt_library, "_DRIVER", tmp_path / "version")
    found = describe_machine("cuda:0")
    assert (found.gpu, found.compute_capability, found.tensorrt) == ("Fake GPU A", "9.0", "11.4.0.106")
    assert (found.cuda, found.driver) == ("13.0", "for CUDA 13.5")
    (tmp_path / "version").write_text("580.65.06\n")
    assert describe_machine().driver == "580.65.06"


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:x", "gpu"])
def test_devices_that_are_none(world: World, device: str) -> None:
    with pytest.raises(InputError, match="cuda:N"):
        describe_machine(device)


def test_a_gpu_that_is_not_there(world: World) -> None:
    with pytest.raises(DeviceError, match="cuda:1") as caught:
        describe_machine("cuda:1")
    assert caught.value.found == "cudaErrorInvalidDevice (101)"
