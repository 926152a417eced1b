"""An engine's words for a device whose memory is full, and the one error that they become.

No engine has a code for it that reaches Python. The phrases are narrow: an error that is none of memory must not be
answered with smaller runs.
"""

from __future__ import annotations

from ..errors import OutOfMemoryError

PHRASES = (
    "Failed to allocate memory for requested buffer of size",  # ONNX Runtime's arena: the device has no more
    "is smaller than requested bytes of",  # its arena under a limit
    "CUDA failure 2: out of memory",  # its CUDA calls outside the arena
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cudaErrorMemoryAllocation",  # the CUDA runtime's name for it
    "Error Code 2: OutOfMemory",  # TensorRT's own
    "(out of memory)",  # TensorRT's, of a CUDA call
)


def is_out_of_memory(message: str) -> bool:
    """Whether an engine's whole message says that memory ran out."""
    return any(phrase in message for phrase in PHRASES)


def out_of_memory(what: str, found: str) -> OutOfMemoryError:
    """The error of a graph or tensor for which there is no memory.

    Args:
        what: It.
        found: What the engine said, cut to a line.
    """
    return OutOfMemoryError(
        what,
        expected="memory for it on the device",
        found=found,
        do="end what else uses the device, decode fewer prompts at a time (chunk), raise the memory limit if one is "
        "set, or use --device cpu",
    )
