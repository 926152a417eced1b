"""Sessions on ONNX Runtime: the device that was asked for, or an error."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..bundle import Graph
from ..errors import BundleError, DeviceError, EnvironmentFault, InputError, MissingExtraError
from ..shapes import AnyArray
from .out_of_memory import is_out_of_memory, out_of_memory
from .session import check_feeds

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def resolve_device(device: str) -> str:
    """What ``auto`` means on this machine: ``cuda`` where ONNX Runtime offers it, otherwise ``cpu``.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: Another word.
        DeviceError: The device is not offered by the installed ONNX Runtime.
    """
    offered = _import().get_available_providers()
    if device == "auto":
        return "cuda" if _PROVIDERS["cuda"] in offered else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise InputError("device", expected="auto, cpu, cuda or cuda:N", found=repr(device))
    kind = device.partition(":")[0]
    if _PROVIDERS[kind] not in offered:
        raise DeviceError(
            f"device {device}",
            expected=_PROVIDERS[kind],
            found=f"this ONNX Runtime offers {', '.join(offered)}",
            do='pip install "gransam-sdk[cuda]" in a clean environment, or use --device cpu',
        )
    return device


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OrtSession:
    """One graph on ONNX Runtime.

    Args:
        data: The ONNX bytes whose hash was checked.
        graph: Its declared inputs and outputs.
        device: ``cpu``, ``cuda`` or ``cuda:N`` (see ``resolve_device``).
        threads: Threads for one run; None takes the cores this process may use.
        memory_limit: Bytes of the device's memory for this graph's weights and values; None sets no limit. CUDA only.

    Raises:
        InputError: A limit below one byte, or one on another device than CUDA.
        DeviceError: The provider that was asked for is not the one that runs.
        OutOfMemoryError: The device has no memory for the graph's weights.
        BundleError: ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        data: bytes,
        graph: Graph,
        *,
        device: str = "cpu",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        ort = _import()
        check_memory_limit(memory_limit, device)
        self.threads = threads or available_cores()
        kind = device.partition(":")[0]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # fatal only: errors are raised
        # Each graph has its own threads. Left spinning after a run they would take the cores from the next graph,
        # which follows at once: a photo took 2.4 times as long on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted: Any = _PROVIDERS[kind]
        if kind == "cuda":
            wanted = (wanted, cuda_options(device, memory_limit))
        try:
            session = ort.InferenceSession(data, options, providers=[wanted])
        except Exception as error:  # damaged graphs raise more kinds than ONNX Runtime's own
            if is_out_of_memory(str(error)):
                raise out_of_memory(f"weights of {graph.file}", first_line(error)) from error
            raise BundleError(
                graph.file,
                expected="a graph that ONNX Runtime can load",
                found=first_line(error),
                do="build the bundle again, or install a newer onnxruntime",
            ) from error
        self.provider = session.get_providers()[0]
        if self.provider != _PROVIDERS[kind]:
            raise DeviceError(
                f"device {device}",
                expected=_PROVIDERS[kind],
                found=self.provider,
                do="check the GPU driver with `gransam doctor`, or use --device cpu",
            )
        self._session: onnxruntime.InferenceSession | None = session
        self._graph = graph
        self._outputs = [tensor.name for tensor in graph.outputs]

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the graph once (see ``Session.run``)."""
        check_feeds(self._graph, feeds)
        if self._session is None:
            raise EnvironmentFault(self._graph.file, expected="an open session", found="a closed one")
        try:
            values = self._session.run(self._outputs, dict(feeds))
        except Exception as error:
            raise self._failed(error) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Frees the graph and its memory arena."""
        self._session = None

    def _failed(self, error: Exception) -> EnvironmentFault:
        if is_out_of_memory(str(error)):
            return out_of_memory(f"a run of {self._graph.file}", first_line(error))
        return EnvironmentFault(self._graph.file, expected="a run", found=first_line(error))


def check_memory_limit(limit: int | None, device: str) -> None:
    """Refuses a limit that could not be kept.

    Args:
        limit: Bytes, or None.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: See above.
    """
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError("memory limit", expected="a whole number of bytes from 1", found=repr(limit))
    if not device.startswith("cuda"):
        raise InputError("memory limit", expected="a CUDA device: no other memory can be limited", found=device)


def cuda_options(device: str, memory_limit: int | None) -> dict[str, str]:
    """What the CUDA provider is told.

    Args:
        device: ``cuda`` or ``cuda:N``.
        memory_limit: Bytes, or None.
    """
    options = {
        "device_id": device.partition(":")[2] or "0",
        # Left to itself the provider multiplies in TF32, 10 bits of mantissa; a bundle's fp32 is 23.
        "use_tf32": "0",
        # And its arena grows by doubling, beyond what any run needs.
        "arena_extend_strategy": "kSameAsRequested",
    }
    return options if memory_limit is None else options | {"gpu_mem_limit": str(memory_limit)}


def first_line(error: Exception) -> str:
    """Kind and first line of an engine's error, cut to 400 characters."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:400]


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime is not installed", do='pip install "gransam-sdk[cpu]"') from error
    return onnxruntime
