"""The paths of ``reference.py`` by name; each imports and loads only what it needs itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gransam_sdk.errors import DeviceError, InputError, MissingExtraError

if TYPE_CHECKING:
    from kept import Kept

    from gransam_sdk.bundle import Bundle
    from gransam_sdk.runtime.segmenter import Segmenter

REFERENCE = "reference"
ROWS = {
    REFERENCE: "PyTorch, the mask generator's order of work",
    "stock": "SamAutomaticMaskGenerator, defaults",
    "official": "official ONNX decoder, prompt by prompt",
    "hoist-free": "published graphs in batches, ONNX Runtime",
    "onnxruntime": "bundle, ONNX Runtime",
    "openvino": "bundle, OpenVINO",
}
OF_SAM_ONLY = ("stock", "official")
"""They name no classes either."""
QUICK = (REFERENCE, "onnxruntime", "openvino")

Run = Callable[[Path], "Kept"]


def open_paths(bundle: Bundle, checkpoint: Path, options: argparse.Namespace) -> dict[str, Run]:
    """The paths that were asked for and can run here, the reference first."""
    asked = options.rows or (QUICK if options.quick else ROWS)
    paths: dict[str, Run] = {}
    for name in ROWS:
        if (name != REFERENCE and name not in asked) or (options.arch == "nano" and name in OF_SAM_ONLY):
            continue
        try:
            paths[name] = build(name, bundle, checkpoint, options)
        except (InputError, DeviceError, MissingExtraError) as error:
            if name != "openvino":
                raise
            print(f"without OpenVINO: {error.what}: {error.found}", file=sys.stderr)
    return paths


def build(name: str, bundle: Bundle, checkpoint: Path, options: argparse.Namespace) -> Run:
    """One path, ready; only what it needs is imported and loaded."""
    if name in ("onnxruntime", "openvino"):
        return product(bundle, name, options.threads)
    import torch

    from gransam_sdk.export.reference import read_plain

    torch.set_num_threads(options.threads)
    plain = read_plain(checkpoint, options.arch, bundle.precision)
    if name == REFERENCE:
        from eager import EagerPath

        return EagerPath(plain, bundle)
    if name == "hoist-free":
        from hoist_free import hoist_free

        return through(hoist_free(plain, bundle, options.threads))
    from official import OfficialLoop, StockGenerator, export_decoder

    sam = plain.sam  # these rows are SAM's only
    if name == "stock":
        return StockGenerator(sam, bundle.points_per_side)
    decoder = export_decoder(sam, options.work / f"{options.arch}-decoder.onnx")
    return OfficialLoop(sam, decoder, bundle.points_per_side, options.threads)


def product(bundle: Bundle, backend: str, threads: int) -> Run:
    """The bundle as ``gransam_sdk.load`` opens it, with default settings."""
    from gransam_sdk.runtime.load import load

    return through(load(bundle, device="cpu", backend=backend, threads=threads))


def through(segmenter: Segmenter) -> Run:
    """A segmenter as a path."""
    from kept import Kept

    def run(photo: Path) -> Kept:
        result = segmenter(photo)[0]
        return Kept(masks=result.masks, names=result.names)

    return run
