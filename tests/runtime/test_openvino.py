"""OpenVINO behind the session protocol: ONNX Runtime's numbers, owned results, and nothing behind one's back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_good

from gransam_sdk.bundle import Bundle, Graph, Tensor, open_bundle
from gransam_sdk.commands.doctor import doctor
from gransam_sdk.errors import BundleError, DeviceError, EnvironmentFault, InputError, MissingExtraError
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.openvino_session import OpenVinoSession, check_device, describe_openvino, import_openvino

Feeds = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_good(tmp_path_factory.mktemp("bundle") / "good"))


def session(bundle: Bundle, name: str, **options: Any) -> OpenVinoSession:
    return OpenVinoSession(bundle.graph_bytes(name), bundle.graphs[name], **options)


def random_feeds(graph: Graph, size: int, seed: int = 0) -> Feeds:
    """Feeds whose free axis has a size."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for tensor in graph.inputs:
        shape = [size if isinstance(axis, str) else axis for axis in tensor.axes]
        feeds[tensor.name] = (
            rng.integers(0, 4, size=shape) if tensor.dtype == "int64" else rng.random(shape, dtype=np.float32)
        )
    return feeds


@pytest.mark.parametrize("name", ["image", "prompt", "mask", "head"])
def test_every_size_answers_as_onnxruntime_does(good: Bundle, name: str) -> None:
    reference = OrtSession(good.graph_bytes(name), good.graphs[name])
    opened = session(good, name, usual=3)
    for size in (3, 1, 7, 3):
        feeds = random_feeds(good.graphs[name], size, seed=size)
        expected, found = reference.run(feeds), opened.run(feeds)
        assert list(found) == list(expected)
        for key, values in expected.items():
            assert found[key].dtype == values.dtype and found[key].shape == values.shape
            np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-4)


def test_results_are_the_callers_and_feeds_stay_as_they_were(good: Bundle) -> None:
    """OpenVINO writes each answer into the same memory."""
    opened = session(good, "prompt", usual=4)
    for size in (4, 2):
        first, second = (random_feeds(good.graphs["prompt"], size, seed=seed) for seed in (1, 2))
        before = {name: value.copy() for name, value in first.items()}
        answers = opened.run(first)
        kept = {name: value.copy() for name, value in answers.items()}
        opened.run(second)
        for name, value in answers.items():
            np.testing.assert_array_equal(value, kept[name])
            value[...] = 0.0
        again = opened.run(first)
        for name, value in again.items():
            np.testing.assert_array_equal(value, kept[name])
        for name, value in first.items():
            np.testing.assert_array_equal(value, before[name])


def test_feeds_may_lie_in_memory_as_they_like(good: Bundle) -> None:
    opened = session(good, "head", usual=3)
    feeds = random_feeds(good.graphs["head"], 3)
    expected = opened.run(feeds)
    strided = {name: np.repeat(value, 2, axis=0)[::2] for name, value in feeds.items()}
    locked = {name: value.copy() for name, value in feeds.items()}
    for value in locked.values():
        value.setflags(write=False)
    for other in (strided, locked):
        np.testing.assert_array_equal(opened.run(other)["logits"], expected["logits"])


def test_feeds_are_compared_with_the_manifest_and_a_closed_session_is_closed(good: Bundle) -> None:
    opened = session(good, "image")
    image = np.zeros((1, 3, good.input_side, good.input_side), dtype=np.float32)
    assert opened.run({"image": image})
    for feeds in ({}, {"image": image, "more": image}, {"image": image.astype(np.float64)}, {"image": image[:, :2]}):
        with pytest.raises(InputError, match="input"):
            opened.run(feeds)
    opened.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        opened.run({"image": image})


def test_threads_that_share_a_session_get_their_own_answers() -> None:
    """A request of OpenVINO's refuses a second run while one is under way; the graph is one that takes a while."""
    nano = open_bundle("nano-voc20")
    opened = session(nano, "image", threads=1)
    asked = [random_feeds(nano.graphs["image"], 1, seed=seed) for seed in range(3)]
    expected = [opened.run(feeds) for feeds in asked]
    found: list[list[Mapping[str, Any] | Exception]] = [[] for _ in asked]
    start = threading.Barrier(len(asked))

    def work(index: int) -> None:
        start.wait()
        for _ in range(4):
            try:
                found[index].append(opened.run(asked[index]))
            except Exception as error:
                found[index].append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(asked))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for answers, right in zip(found, expected, strict=True):
        assert len(answers) == 4
        for answer in answers:
            assert not isinstance(answer, Exception), answer
            for name, value in right.items():
                np.testing.assert_array_equal(answer[name], value)


def executed_types(opened: OpenVinoSession) -> set[str]:
    """What the nodes of the compiled graphs compute in, from the graphs as they are executed."""
    graphs = [request.get_compiled_model().get_runtime_model() for request in opened._requests.values()]
    infos = [node.get_rt_info()["runtimePrecision"] for graph in graphs for node in graph.get_ordered_ops()]
    return {str(getattr(info, "value", info)) for info in infos}


def test_no_node_computes_in_fewer_bits() -> None:
    """Left to itself OpenVINO takes bf16 where the processor has it, which the session's word alone would not show."""
    nano = open_bundle("nano-voc20")
    opened = session(nano, "image", threads=1)
    assert opened.provider == "OpenVINO CPU f32" and opened.threads == 1
    assert "f32" in executed_types(opened)
    assert not executed_types(opened) & {"bf16", "f16"}


def test_the_look_at_the_nodes_can_fail() -> None:
    if "BF16" not in describe_openvino():
        pytest.skip("the processor has no bf16")
    opened = session(open_bundle("nano-voc20"), "image", arithmetic="bf16")
    assert opened.provider == "OpenVINO CPU bf16"
    assert "bf16" in executed_types(opened)


def test_an_engine_that_takes_another_arithmetic_is_an_error(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bf16 answers a wish for it with f32."""
    openvino = import_openvino()

    class Stubborn(openvino.Core):  # type: ignore[misc, name-defined]
        def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
            return super().compile_model(model, device, {**options, "INFERENCE_PRECISION_HINT": "f32"})

    core = Stubborn()
    monkeypatch.setattr("gransam_sdk.runtime.openvino_session._core_of", lambda library: core)
    assert session(good, "head").provider == "OpenVINO CPU f32"
    with pytest.raises(DeviceError, match="in f32"):
        session(good, "head", arithmetic="bf16")


def test_signals_are_handled_after_sessions_are_gone() -> None:
    """OpenVINO gives the main thread a signal stack; a signal on one that was freed is a segmentation fault."""
    code = (
        "import gc, os, signal, numpy, gransam_sdk\n"
        "with gransam_sdk.load('nano-voc20', backend='openvino') as segmenter:\n"
        "    segmenter(numpy.zeros((64, 64, 3), numpy.uint8))\n"
        "del segmenter\n"
        "gc.collect()\n"
        "signal.signal(signal.SIGUSR1, lambda number, frame: print('handled'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_threads_are_as_the_engine_reports_them(good: Bundle) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert session(good, "head", threads=1).threads == 1
    assert session(good, "head").threads == cores


def test_refused_graphs_and_failed_runs_have_a_reason(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    data, graph = good.graph_bytes("head"), good.graphs["head"]
    wider = Graph(graph.file, graph.sha256, graph.bytes, (Tensor("tokens", "float32", ("g", 4, 99)),), graph.outputs)
    for bad, declared in ((b"", graph), (data[: len(data) // 2], graph), (data, wider)):
        with pytest.raises(BundleError, match="OpenVINO can load") as caught:
            OpenVinoSession(bad, declared)
        assert len(caught.value.found) > 20 and "Exception from" not in caught.value.found

    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("Exception from src/somewhere.cpp:1:\n\nout of memory\nmore\n")

    opened = session(good, "head")
    monkeypatch.setattr(import_openvino().InferRequest, "infer", fail)
    with pytest.raises(EnvironmentFault) as failed:
        opened.run(random_feeds(graph, 1))
    assert failed.value.found == "RuntimeError: out of memory"


def test_devices(good: Bundle) -> None:
    check_device("auto")
    check_device("cpu")
    with pytest.raises(DeviceError, match="--backend onnxruntime"):
        check_device("cuda:1")
    for word in ("gpu", "cuda:x", ""):
        with pytest.raises(InputError, match="device"):
            check_device(word)


def test_a_missing_library_names_the_extra(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import_openvino()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"gransam-sdk\[openvino\]"):
        session(good, "head")
    assert "openvino_telemetry" not in sys.modules


def test_opening_sessions_changes_nothing_in_the_process(good: Bundle) -> None:
    environment, threads = dict(os.environ), threading.active_count()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    opened = session(good, "image")
    opened.run(random_feeds(good.graphs["image"], 1))
    assert dict(os.environ) == environment and threading.active_count() == threads
    assert cores is None or os.sched_getaffinity(0) == cores


def test_files_of_the_bundle_are_not_read_again(tmp_path: Path) -> None:
    """What runs is what was hashed."""
    bundle = open_bundle(write_good(tmp_path / "bundle"))
    for file in (tmp_path / "bundle").iterdir():
        file.unlink()
    feeds = random_feeds(bundle.graphs["head"], 2)
    expected = OrtSession(bundle.graph_bytes("head"), bundle.graphs["head"]).run(feeds)
    np.testing.assert_allclose(session(bundle, "head").run(feeds)["logits"], expected["logits"], atol=1e-4)


def test_doctor_says_what_openvino_can_do(
    good: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor([str(good.path)])
    assert re.search(r"^openvino: 20\d\d\.\d+\.\d+, CPU \(.*FP32.*\)$", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setitem(sys.modules, "openvino", None)
    doctor([str(good.path)])
    assert 'openvino: not installed; pip install "gransam-sdk[openvino]"' in capsys.readouterr().out
