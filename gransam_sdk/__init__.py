"""GranSAM SDK: pixel labels for your own classes, offline.

    >>> import gransam_sdk as gs
    >>> with gs.load("nano-voc20") as segmenter:      # doctest: +SKIP
    ...     result = segmenter("photo.jpg")[0]
    ...     print(result.names, result.scores)

Names are loaded on first touch (PEP 562), so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .annotate.run import RunReport, annotate_folder
    from .bundle import Bundle
    from .errors import (
        BundleError,
        DeviceError,
        EnvironmentFault,
        GranSAMError,
        ImageError,
        InputError,
        MissingExtraError,
        OutOfMemoryError,
        OutputError,
        TooManyFailures,
    )
    from .nms import mask_iou, mask_nms
    from .rle import rle_decode, rle_encode
    from .runtime.load import load
    from .runtime.result import Result
    from .runtime.segmenter import Segmenter
    from .types import ClassInfo, PointGrid, Settings

_HOMES = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "ClassInfo": "types",
    "DeviceError": "errors",
    "EnvironmentFault": "errors",
    "GranSAMError": "errors",
    "ImageError": "errors",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "OutOfMemoryError": "errors",
    "OutputError": "errors",
    "PointGrid": "types",
    "Result": "runtime.result",
    "RunReport": "annotate.run",
    "Segmenter": "runtime.segmenter",
    "Settings": "types",
    "TooManyFailures": "errors",
    "annotate_folder": "annotate.run",
    "load": "runtime.load",
    "mask_iou": "nms",
    "mask_nms": "nms",
    "rle_decode": "rle",
    "rle_encode": "rle",
}
_ROOMS = ("export", "training")

__all__ = [
    "Bundle",
    "BundleError",
    "ClassInfo",
    "DeviceError",
    "EnvironmentFault",
    "GranSAMError",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "OutOfMemoryError",
    "OutputError",
    "PointGrid",
    "Result",
    "RunReport",
    "Segmenter",
    "Settings",
    "TooManyFailures",
    "__version__",
    "annotate_folder",
    "load",
    "mask_iou",
    "mask_nms",
    "rle_decode",
    "rle_encode",
]


def __getattr__(name: str) -> object:
    """Loads a public name from its room on first touch."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*__all__, *globals()})
