"""TensorRT and the CUDA runtime, imported where they are needed and asked what this machine is."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from ..errors import DeviceError, EnvironmentFault, InputError, MissingExtraError
from .engine_spec import Machine
from .out_of_memory import is_out_of_memory, out_of_memory

OLDEST = 10
"""Major version: the first whose strongly typed networks, int64 tensors and API are those used here."""
_DRIVER = Path("/sys/module/nvidia/version")
_DO = 'pip install "gransam-sdk[tensorrt]" on the machine with the GPU; it needs NVIDIA\'s index or libraries'


def import_tensorrt() -> Any:
    """The ``tensorrt`` module.

    Raises:
        MissingExtraError: It is not installed, or its library is not.
        EnvironmentFault: It is too old.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorrt is not installed", do=_DO) from error
    except ImportError as error:  # the bindings are there, libnvinfer is not
        raise MissingExtraError("tensorrt", expected="its library beside it", found=str(error), do=_DO) from error
    version = str(tensorrt.__version__)
    if int(version.partition(".")[0]) < OLDEST:
        raise EnvironmentFault("tensorrt", expected=f"version {OLDEST} or newer", found=version, do=_DO)
    return tensorrt


def import_cuda() -> Any:
    """The ``cuda.bindings.runtime`` module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingExtraError("cuda-bindings is not installed", do=_DO) from error
    return runtime


def make_logger(trt: Any) -> Any:
    """A TensorRT logger that keeps warnings and errors in ``lines`` instead of printing them."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.lines.append(f"{severity.name}: {' '.join(msg.split())}"[:400])

    return Logger()


def construct(kind: Any, logger: Any) -> Any:
    """A ``Builder`` or ``Runtime``.

    Raises:
        EnvironmentFault: TensorRT gives none: no GPU, or a driver or library that does not fit.
    """
    try:
        return kind(logger)
    except TypeError as error:  # how the bindings say that the library returned a null pointer
        raise EnvironmentFault(
            f"TensorRT {kind.__name__}",
            expected="one for this machine's GPU",
            found=last_line(logger, str(error)),
            do="check the GPU and its driver with nvidia-smi; the TensorRT library must be made for that CUDA",
        ) from error


def last_line(logger: Any, otherwise: str) -> str:
    """What TensorRT complained of last, errors before warnings."""
    errors = [line for line in logger.lines if not line.startswith("WARNING")]
    return str((errors or logger.lines or [otherwise])[-1])


def memory_line(logger: Any) -> str | None:
    """A line that says that memory ran out, whatever was said after it."""
    return next((str(line) for line in logger.lines if is_out_of_memory(line)), None)


def device_index(device: str) -> int:
    """N of ``cuda:N``; ``cuda`` and ``auto`` are 0.

    Raises:
        InputError: Another word.
    """
    match = re.fullmatch(r"auto|cuda(?::([0-9]+))?", device)
    if match is None:
        raise InputError("device", expected="auto, cuda or cuda:N: TensorRT needs a GPU", found=repr(device))
    return int(match[1] or 0)


def check_cuda(answer: tuple[Any, ...], what: str) -> Any:
    """The value of a CUDA runtime call, which returns an error code first.

    Raises:
        OutOfMemoryError: The device has no memory for it.
        DeviceError: The code is not success.
    """
    code, *values = answer
    if int(code) != 0:
        if is_out_of_memory(found := f"{getattr(code, 'name', code)} ({int(code)})"):
            raise out_of_memory(what, found)
        raise DeviceError(
            what,
            expected="success",
            found=found,
            do="check the GPU and its driver with nvidia-smi; TensorRT needs both",
        )
    return values[0] if values else None


def describe_machine(device: str = "cuda") -> Machine:
    """What engines are bound to here; makes the device current for this thread.

    Args:
        device: ``auto``, ``cuda`` or ``cuda:N``.

    Raises:
        MissingExtraError: TensorRT or the CUDA bindings are not installed.
        DeviceError: There is no such GPU.
    """
    trt, cuda = import_tensorrt(), import_cuda()
    index = device_index(device)
    check_cuda(cuda.cudaSetDevice(index), f"device cuda:{index}")
    properties = check_cuda(cuda.cudaGetDeviceProperties(index), f"device cuda:{index}")
    runtime = check_cuda(cuda.cudaRuntimeGetVersion(), "CUDA runtime")
    supported = check_cuda(cuda.cudaDriverGetVersion(), "GPU driver")
    # The API knows only which CUDA a driver is made for; the kernel module has the driver's own version.
    driver = _DRIVER.read_text(encoding="ascii").strip() if _DRIVER.is_file() else f"for CUDA {_dotted(supported)}"
    return Machine(
        gpu=properties.name.partition(b"\0")[0].decode(),
        compute_capability=f"{properties.major}.{properties.minor}",
        tensorrt=str(trt.__version__),
        driver=driver,
        cuda=_dotted(runtime),
        system=f"{platform.system()} {platform.machine()}",
    )


def _dotted(version: int) -> str:
    """13050 is 13.5."""
    return f"{version // 1000}.{version % 1000 // 10}"
