"""``gransam doctor``: what a bug report needs to know about this machine."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import GranSAMError, MissingExtraError
from ..version import __version__
from .streams import narrate

if TYPE_CHECKING:
    from ..bundle import HeadInfo

NEEDED = ("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "typer", "rich")
OPTIONAL = ("openvino", "torch", "onnx", "onnxscript", "safetensors", "pycocotools", "supervision")


def doctor(
    bundles: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE", help="Bundles to verify; the embedded ones by default.")
    ] = None,
) -> None:
    """Print versions, providers and verified bundles: the first lines of a bug report."""
    import os
    import platform

    print(f"gransam-sdk {__version__}")
    print(f"python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"CPU threads: {len(os.sched_getaffinity(0))} of {os.cpu_count()}")
    print(f"packages: {_versions(NEEDED)}")
    print(f"optional packages: {_versions(OPTIONAL)}")
    print(f"providers: {', '.join(_providers())}")
    print(f"openvino: {_openvino()}")
    faults = [error for name in bundles or _embedded() if (error := _verify(name))]
    if faults:
        for error in faults:
            narrate(f"error: {error}")
        raise typer.Exit(max(error.exit_code for error in faults))


def _versions(names: tuple[str, ...]) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found) or "none"


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime is not installed", do='pip install "gransam-sdk[cpu]"') from error
    return [str(name) for name in onnxruntime.get_available_providers()]


def _openvino() -> str:
    from ..runtime.openvino_session import describe_openvino

    try:
        return describe_openvino()
    except MissingExtraError as error:
        return f"not installed; {error.do}"


def _embedded() -> tuple[str, ...]:
    from ..bundle import BUNDLED

    return BUNDLED


def _verify(name: str) -> GranSAMError | None:
    """Checks every byte of a bundle, and loads it, which runs its canary."""
    from ..bundle import open_bundle
    from ..runtime.load import load_model

    try:
        bundle = open_bundle(name)
        load_model(bundle).close()
    except GranSAMError as error:
        print(f"bundle {name}: refused")
        return error
    head = f"{len(bundle.classes)} classes" if bundle.has_head else "no head"
    print(f"bundle {name}: verified, {bundle.architecture}, {bundle.precision}, {head}, sha256 {bundle.digest}")
    if bundle.head is not None:
        print(f"bundle {name}: {_head_facts(bundle.head)}")
    return None


def _head_facts(head: HeadInfo) -> str:
    facts = f"{'explicit' if head.background else 'implicit'} background, one label a {head.labels}"
    found = head.calibration
    if found is None:
        return f"{facts}, not calibrated"
    shown = f"{found.pictures} held-out pictures and {found.background_pictures} of background"
    return f"{facts}, calibrated for {found.target:.0%} precision on {shown}, temperature {found.temperature:.3g}"
