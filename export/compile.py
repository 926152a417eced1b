"""A segmenter's checkpoint to a bundle, with the head of another bundle if one is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gransam_sdk.bundle import Bundle
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.parity_bars import FULL_PRECISIONS, UNVERIFIED
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.model import Model
from gransam_sdk.shapes import Float

from .bundle import check_target, write_bundle
from .head_part import CARD, check_same_segmenter, head_of, put_head
from .nano import PlainNano, nano_manifest
from .nano_graphs import nano_graphs
from .proof import prove, recorded_canary, scratch_bundle, scratch_model
from .reference import PlainSegmenter, read_plain
from .rounding import rounded_bundle
from .sam import PlainSam, sam_manifest
from .sam_graphs import sam_graphs
from .segmenter_card import segmenter_card
from .segmenter_graphs import AUTO

NANO_SIDE = 320


def compile_bundle(
    checkpoint: Path,
    out: Path,
    *,
    arch: str,
    name: str,
    photos: Sequence[Path],
    card: Path | None = None,
    side: int | None = None,
    precision: str = "fp32-w16",
    decoder: str = AUTO,
    calibration: Sequence[Path] = (),
    head: Bundle | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Makes a bundle from a checkpoint; it is written only if its graphs compute what the torch module computes.

    Args:
        checkpoint: Safetensors for nano, else the official file or one with the same keys.
        out: Folder to write.
        arch: A name in ``reference.architectures``.
        name: The bundle's name.
        photos: Real photos to measure parity on.
        card: Model card in Markdown; without one, what the manifest says in words.
        side: s of nano, a multiple of 32; none for the others, whose side is fixed.
        precision: One of ``parity_bars.PRECISIONS``.
        decoder: One of ``segmenter_graphs.DECODERS``; ``auto`` takes the form that is cheaper on this machine.
        calibration: Real photos that ``fp16`` and ``int8`` are made by; not those of ``photos``.
        head: A bundle whose head was trained on this checkpoint's tokens; its head, classes and calibration are taken.
        overwrite: Replace a bundle that is already there.
        log: Told what is being done.

    Raises:
        InputError: The checkpoint is of another kind, the folder is taken, or the head is another segmenter's.
        BundleError: The graphs do not compute what the torch module computes, or the head was trained on others.
    """
    check_target(out, overwrite=overwrite)
    plain = read_plain(checkpoint, arch, precision)
    manifest = _manifest(plain, name, arch, side, checkpoint) | {"precision": precision}
    files = {CARD: card.read_bytes() if card else segmenter_card(manifest).encode()}
    part = None if head is None else head_of(head, manifest)
    log("exporting the image, prompt and mask graphs")
    graphs = _graphs(plain, side, decoder, log)
    if part is not None:
        put_head(part, manifest, files, graphs)
    unmeasured: dict[str, Any] = {}
    if head is not None or precision not in FULL_PRECISIONS:
        with scratch_model(manifest | {"precision": "fp32-w16"}, files, graphs) as full:
            if head is not None:
                check_same_segmenter(head, full)
            if precision not in FULL_PRECISIONS:
                log(f"reducing them to {precision}")
                unmeasured = {"canary": recorded_canary(full), "parity": {"reference": "none", "verdict": UNVERIFIED}}
                graphs = _reduced(graphs, precision, full, calibration, log)
    manifest |= _proof(plain, graphs, manifest, files, photos, log) or unmeasured
    return write_bundle(out, manifest, files, graphs, overwrite=overwrite)


def _manifest(plain: PlainSegmenter, name: str, arch: str, side: int | None, checkpoint: Path) -> dict[str, Any]:
    if isinstance(plain, PlainSam):
        return sam_manifest(name, arch, plain.sam, checkpoint)
    return nano_manifest(name, side or NANO_SIDE, checkpoint)


def _graphs(plain: PlainSegmenter, side: int | None, decoder: str, log: Callable[[str], None]) -> dict[str, bytes]:
    if isinstance(plain, PlainSam):
        return sam_graphs(plain.sam, decoder, log)
    if isinstance(plain, PlainNano):
        return nano_graphs(plain.nano, side or NANO_SIDE, decoder, log)
    raise InputError("segmenter", expected="nano or SAM", found=type(plain).__name__)


def _reduced(
    graphs: Mapping[str, bytes], precision: str, full: Model, photos: Sequence[Path], log: Callable[[str], None]
) -> dict[str, bytes]:
    from .precision import to_precision

    return to_precision(graphs, precision, _images(full, photos), log=log)


def _images(model: Model, photos: Sequence[Path]) -> Iterator[Float]:
    """(1,3,s,s) float32 each, as the runtime prepares it."""
    for photo in photos:
        pixels = as_pixels(photo)
        yield model.prepare(pixels, model.frame(pixels))


def _proof(
    plain: PlainSegmenter,
    graphs: Mapping[str, bytes],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    photos: Sequence[Path],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Canary and parity of the manifest; none where ONNX Runtime has no kernels for bf16 on this machine."""
    bundle = scratch_bundle(manifest, files, graphs)
    try:
        opened = open_sessions(bundle, "cpu", None)
    except BundleError as error:
        if bundle.precision != "bf16":
            raise
        log(f"bf16 cannot run here ({error.found}): the bundle is marked unverified, and is refused by the runtime")
        return {}
    with opened as model:
        canary = recorded_canary(model)
    with open_sessions(rounded_bundle(bundle), "cpu", None) as judged:
        return {"parity": prove(judged, plain, photos, log), "canary": canary}
