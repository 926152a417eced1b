"""From a bundle's name or folder to a segmenter that is ready and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bundle import Bundle, open_bundle
from ..classes import select_classes
from ..errors import BundleError, InputError
from ..parity_bars import check_parity
from ..types import Settings
from .backends import session_maker, usual_at_once
from .canary import check_canary
from .model import Model
from .onnxruntime_session import available_cores
from .segmenter import Segmenter
from .select import check_choice


def load(
    bundle: str | Path | Bundle,
    *,
    device: str = "auto",
    backend: str = "auto",
    classes: Sequence[str] | Path | None = None,
    settings: Settings | None = None,
    threads: int | None = None,
    at_once: int | None = 1,
    memory_limit: int | None = None,
) -> Segmenter:
    """Opens a bundle, checks it, and makes a segmenter of it.

    Args:
        bundle: Name of an embedded bundle (``nano-voc20``), a bundle's folder, or an opened bundle.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; what is named is what runs, or an error.
        backend: ``auto`` (ONNX Runtime), ``onnxruntime``, ``openvino`` or ``openvino-bf16``.
        classes: Which classes to label and how to group them: a list such as ``["cat", "vehicles=bus,car"]``, the path
            of a classes file, or None for all classes of the bundle.
        settings: Thresholds, grid, NMS; None takes the defaults.
        threads: Threads that it may use; None takes the cores this process may use.
        at_once: Photos that callers will have in the graphs at a time, which share the threads; None says what suits
            a folder of photos (``usual_at_once``). With 1 a single photo is fastest.
        memory_limit: Bytes of a GPU's memory for each of the bundle's graphs; None sets no limit.

    Returns:
        A segmenter; use it in a ``with`` block or close it.

    Raises:
        BundleError: The bundle is missing, damaged, without a head, further from its reference than its precision
            may be (``parity_bars``), or fails its canary.
        DeviceError: The device, or the back end's arithmetic for this bundle, cannot be had.
        InputError: An argument or class is unknown, or the bundle has no labels for the masks of the mask choice.
    """
    settings = settings or Settings()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    listed, file = (None, classes) if isinstance(classes, Path) else (classes, None)
    if opened.head is None:
        raise BundleError(
            f"bundle {opened.name}",
            expected="a bundle with a trained head",
            found="graphs without a head: it can segment, but knows no classes",
            do=f"gransam train PICTURES --base {opened.path} -o my-classes",
        )
    chosen = select_classes(
        opened.classes,
        listed,
        file=file,
        conf=settings.conf,
        class_conf=settings.class_conf,
        background=opened.head.background,
    )
    check_choice(settings.mask_choice, opened.head)  # before sessions are opened
    check_count("threads", threads)
    check_count("photos at once", at_once)
    if at_once is None:
        at_once = usual_at_once(opened, backend=backend, device=device, threads=threads or available_cores())
    each = threads if at_once == 1 else max(1, (threads or available_cores()) // at_once)
    model = load_model(opened, device=device, backend=backend, threads=each, memory_limit=memory_limit)
    return Segmenter(model, chosen, settings, at_once=at_once)


def load_model(
    bundle: Bundle,
    *,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    memory_limit: int | None = None,
) -> Model:
    """Opens a bundle's sessions and checks its canary; the bundle may be without a head.

    Args and errors are those of ``load``. A bundle whose parity breaks the bars of its precision is refused before any
    engine sees it.
    """
    check_count("threads", threads)
    check_parity(f"bundle {bundle.name}", bundle.precision, bundle.parity)
    model = open_sessions(bundle, device, threads, backend, memory_limit)
    check_canary(model)
    return model


def open_sessions(
    bundle: Bundle, device: str, threads: int | None, backend: str = "auto", memory_limit: int | None = None
) -> Model:
    """A bundle's sessions on a device, see ``backends.session_maker``; neither parity nor canary are checked."""
    make = session_maker(bundle, backend=backend, device=device, threads=threads, memory_limit=memory_limit)
    return Model(bundle, {name: make(name) for name in bundle.graphs})


def check_count(name: str, count: int | None) -> None:
    """Rejects a count that is given and below 1."""
    if count is not None and count < 1:
        raise InputError(name, expected="a whole number from 1", found=str(count))
