"""Sessions on OpenVINO's CPU plugin: the precision that was asked for, or an error."""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, Literal

from ..bundle import Graph
from ..errors import BundleError, DeviceError, EnvironmentFault, InputError, MissingExtraError
from ..shapes import AnyArray
from .onnxruntime_session import available_cores
from .session import check_feeds

Arithmetic = Literal["f32", "bf16"]
"""What OpenVINO multiplies in: its own names of the types."""

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """The ``openvino`` package, imported without its telemetry.

    Importing it with ``openvino_telemetry`` beside it forks the process, reports the import to an analytics service and
    writes an identifier into the user's home. Where that package is absent OpenVINO uses a stub of its own, so it is
    hidden for as long as the import takes. A program that has imported OpenVINO itself has made its own choice.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    shown = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # None is what makes an import fail
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino is not installed", do='pip install "gransam-sdk[openvino]"') from error
    finally:
        del sys.modules[_TELEMETRY]
        if shown is not None:
            sys.modules[_TELEMETRY] = shown
    return openvino


def check_device(device: str) -> None:
    """Checks that a device is one that this back end runs on.

    Args:
        device: ``auto`` or ``cpu``.

    Raises:
        DeviceError: Another device.
        InputError: No device at all.
    """
    if device in ("auto", "cpu"):
        return
    if re.fullmatch(r"cuda(:[0-9]+)?", device):
        raise DeviceError(
            f"device {device}",
            expected="cpu: the OpenVINO back end runs there only",
            found=device,
            do="use --backend onnxruntime, or --device cpu",
        )
    raise InputError("device", expected="auto or cpu", found=repr(device))


def describe_openvino() -> str:
    """Version and processor of the installed OpenVINO: ``2026.4.1, CPU (BF16, FP32, INT8)``.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    ov = import_openvino()
    offered = set(_core_of(ov).get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return (
        f"{ov.get_version().partition('-')[0]}, CPU ({', '.join(sorted(offered & {'FP32', 'BF16', 'FP16', 'INT8'}))})"
    )


@functools.cache
def _core_of(openvino: Any) -> Any:
    """The one core of the library in this process, never freed.

    The CPU plugin of each core gives the thread a signal stack, and restores the one before when it is freed. Of two
    cores the second restores the first one's, which may be gone: the next signal, such as Ctrl-C, would end the process
    with a segmentation fault.
    """
    return openvino.Core()


class OpenVinoSession:
    """One graph on OpenVINO's CPU plugin.

    The size that nearly every run has is compiled with static shapes, which run 6 to 25 % faster; other sizes share one
    compilation with free axes. Which of them answers depends on the size alone, so that equal feeds give equal bits.

    Args:
        data: The ONNX bytes whose hash was checked.
        graph: Its declared inputs and outputs.
        usual: Size of the free axis in nearly every run: 1 photo, or a whole chunk of prompts.
        arithmetic: What to multiply in. Left to itself OpenVINO takes bf16 where the processor has it.
        threads: Threads for one run; None takes the cores this process may use.

    Raises:
        DeviceError: OpenVINO would compute in something else.
        BundleError: OpenVINO refuses the graph.
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(
        self,
        data: bytes,
        graph: Graph,
        *,
        usual: int = 1,
        arithmetic: Arithmetic = "f32",
        threads: int | None = None,
    ) -> None:
        self._core = _core_of(import_openvino())
        self._data: bytes | None = data
        self._graph = graph
        self._usual = usual
        self._arithmetic = arithmetic
        self._options = _options(arithmetic, threads or available_cores())
        self._lock = threading.Lock()  # a request takes one run at a time
        self._requests: dict[int | None, Any] = {}
        compiled = self._compile(usual)
        self.provider = f"OpenVINO {' '.join(compiled.get_property('EXECUTION_DEVICES'))} {_arithmetic_of(compiled)}"
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the graph once (see ``Session.run``); runs of several threads take turns."""
        check_feeds(self._graph, feeds)
        with self._lock:
            if self._data is None:
                raise EnvironmentFault(self._graph.file, expected="an open session", found="a closed one")
            size = self._size(feeds)
            if size not in self._requests:
                self._compile(size)
            try:
                # Without sharing, inputs are copied in and outputs out: OpenVINO uses its own buffers again.
                values = self._requests[size].infer(dict(feeds), share_inputs=False, share_outputs=False)
            except Exception as error:
                raise EnvironmentFault(self._graph.file, expected="a run", found=_reason(error)) from error
            return {tensor.name: values[tensor.name] for tensor in self._graph.outputs}

    def close(self) -> None:
        """Frees the compiled graphs and their memory."""
        with self._lock:
            self._data = None
            self._requests.clear()

    def _size(self, feeds: Mapping[str, AnyArray]) -> int | None:
        """The usual size, or None for any other."""
        for tensor in self._graph.inputs:
            for axis, length in zip(tensor.axes, feeds[tensor.name].shape, strict=True):
                if isinstance(axis, str) and length != self._usual:
                    return None
        return self._usual

    def _compile(self, size: int | None) -> Any:
        """Compiles the graph with its free axis fixed, or with None left free, and keeps a request of it."""
        try:
            model = self._core.read_model(self._data, b"")
            if size is not None:
                model.reshape(
                    {
                        tensor.name: [size if isinstance(axis, str) else axis for axis in tensor.axes]
                        for tensor in self._graph.inputs
                    }
                )
            compiled = self._core.compile_model(model, "CPU", self._options)
            self._requests[size] = compiled.create_infer_request()
        except Exception as error:
            raise BundleError(
                self._graph.file,
                expected="a graph that OpenVINO can load",
                found=_reason(error),
                do="use --backend onnxruntime, or a newer openvino",
            ) from error
        self._check_arithmetic(compiled)
        return compiled

    def _check_arithmetic(self, compiled: Any) -> None:
        found = _arithmetic_of(compiled)
        if found != self._arithmetic:
            raise DeviceError(
                f"OpenVINO in {self._arithmetic}",
                expected=self._arithmetic,
                found=f"this processor would compute {self._graph.file} in {found}",
                do="use --backend openvino, which computes in f32, or --backend onnxruntime",
            )


def _options(arithmetic: Arithmetic, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": arithmetic,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_HYPER_THREADING": True,  # else half of the threads that were asked for
        # Pinned threads of two processes, or of two graphs, would share a core while others idle.
        "ENABLE_CPU_PINNING": False,
        "CACHE_DIR": "",
    }


def _arithmetic_of(compiled: Any) -> str:
    """``f32`` or ``bf16``, as the compiled graph says."""
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def _reason(error: Exception) -> str:
    """The first line that says something: OpenVINO's messages begin with places in its source."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from ")]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
