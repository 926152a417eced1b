"""Back ends by name: the one place that knows which engine runs a bundle's graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..bundle import Bundle
from ..errors import DeviceError, InputError
from ..parity_bars import broken_bars
from .onnxruntime_session import OrtSession, check_memory_limit, resolve_device
from .openvino_session import Arithmetic, OpenVinoSession, check_device
from .session import Session

SMALL_SIDE, MOST_AT_ONCE = 512, 8
"""Side of the model square up to which photos run beside each other, and how many at most."""

SessionMaker = Callable[[str], Session]
"""Opens the session of a graph: ``image``, ``prompt``, ``mask`` or ``head``."""

BF16_FIGURES = "openvino_bf16_"
"""What the names of a bundle's parity figures begin with that were measured on OpenVINO in bf16."""


def session_maker(
    bundle: Bundle, *, backend: str, device: str, threads: int | None, memory_limit: int | None = None
) -> SessionMaker:
    """How to open a bundle's sessions, after every check that needs no session.

    Args:
        bundle: An opened bundle.
        backend: One of ``BACKENDS``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; what is named is what runs, or an error.
        threads: Threads for one run; None takes the cores this process may use.
        memory_limit: Bytes of a GPU's memory for each graph; None sets no limit.

    Raises:
        InputError: No such back end or device, or a memory limit where none can be kept.
        DeviceError: The back end does not run on that device, or this bundle not in that arithmetic.
        MissingExtraError: The engine is not installed.
    """
    if backend not in BACKENDS:
        raise InputError("backend", expected=" or ".join(", ".join(BACKENDS).rsplit(", ", 1)), found=repr(backend))
    return BACKENDS[backend](bundle, device, threads, memory_limit)


def usual_at_once(bundle: Bundle, *, backend: str, device: str, threads: int) -> int:
    """Photos in the graphs at a time where there are many to do.

    A small model's operators are too short to be shared among threads well: a photo a thread is faster
    (docs/benchmarks.md, *Reading, graphs and masks beside each other*). A large model's are shared well, and it would
    need its memory several times. OpenVINO's runs take turns, and so do a GPU's.

    Args:
        bundle: An opened bundle.
        backend: One of ``BACKENDS``.
        device: As for ``session_maker``.
        threads: That there are.
    """
    beside = BACKENDS.get(backend) is _onnxruntime and resolve_device(device) == "cpu"
    return min(threads, MOST_AT_ONCE) if beside and bundle.input_side <= SMALL_SIDE else 1


def _onnxruntime(bundle: Bundle, device: str, threads: int | None, memory_limit: int | None) -> SessionMaker:
    resolved = resolve_device(device)
    check_memory_limit(memory_limit, resolved)

    def make(name: str) -> Session:
        graph = bundle.graphs[name]
        return OrtSession(bundle.graph_bytes(name), graph, device=resolved, threads=threads, memory_limit=memory_limit)

    return make


def _openvino(
    bundle: Bundle,
    device: str,
    threads: int | None,
    memory_limit: int | None,
    arithmetic: Arithmetic = "f32",
) -> SessionMaker:
    check_device(device)
    check_memory_limit(memory_limit, "cpu")

    def make(name: str) -> Session:
        return OpenVinoSession(
            bundle.graph_bytes(name),
            bundle.graphs[name],
            usual=1 if name == "image" else bundle.prompt_chunk,
            arithmetic=arithmetic,
            threads=threads,
        )

    return make


def _openvino_bf16(bundle: Bundle, device: str, threads: int | None, memory_limit: int | None) -> SessionMaker:
    check_figures(bundle, "bf16", BF16_FIGURES)
    return _openvino(bundle, device, threads, memory_limit, "bf16")


BACKENDS: Mapping[str, Callable[[Bundle, str, int | None, int | None], SessionMaker]] = {
    "auto": _onnxruntime,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino-bf16": _openvino_bf16,
}
"""Each back end's opening, of a bundle, a device, threads and a memory limit.

``auto`` never computes in less than the bundle says.
"""


def check_figures(bundle: Bundle, precision: str, prefix: str) -> None:
    """Refuses an engine's own arithmetic to a bundle that carries no passing parity for it.

    Args:
        bundle: Its ``parity`` may hold figures of the engine beside the bundle's own.
        precision: Whose bars of ``parity_bars`` judge them.
        prefix: What their names begin with.

    Raises:
        DeviceError: A bar is broken, or a figure that it requires is missing.
    """
    figures = {name.removeprefix(prefix): value for name, value in bundle.parity.items() if name.startswith(prefix)}
    if broken := broken_bars(precision, figures):
        bars = ", ".join(f"{prefix}{fault.bar.figure} {fault.bar}" for fault in broken)
        raise DeviceError(
            f"bundle {bundle.name} in {precision}",
            expected=f"parity measured in it, within the bars of {precision}: {bars}",
            found=", ".join(map(str, broken)) if figures else "a bundle that was never measured in it",
            do="use --backend openvino, which computes in f32",
        )
