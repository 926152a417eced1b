"""The part of a bundle that its head brings: graph, classes, calibration, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

from gransam_sdk.bundle import Bundle, HeadInfo
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.parity_bars import FULL_PRECISIONS
from gransam_sdk.runtime.canary import canary_outputs
from gransam_sdk.runtime.model import Model
from gransam_sdk.types import ClassInfo

CARD = "model-card.md"
HEAD_MARK = b"\n## Head\n\n"
"""What follows in a card belongs to the head and is replaced with it."""
HEAD_SOURCE = "head: "
"""Begins the lines of training data that belong to the head and are replaced with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPart:
    """A head for the segmenter it was trained on.

    Attributes:
        graph: ONNX bytes.
        info: What its logits mean.
        classes: k classes, in the order of the logits.
        training_data: One line a source.
        card: Markdown that follows ``HEAD_MARK``.
    """

    graph: bytes
    info: HeadInfo
    classes: tuple[ClassInfo, ...]
    training_data: tuple[str, ...]
    card: bytes


def head_of(source: Bundle, manifest: Mapping[str, Any]) -> HeadPart:
    """The head of a bundle, for a segmenter of the same kind.

    Args:
        source: A bundle that was trained.
        manifest: Of the segmenter that shall have the head.

    Raises:
        InputError: The bundle has no head, or one for another segmenter's tokens.
    """
    if source.head is None:
        raise InputError(
            f"--head {source.path}",
            expected="a bundle with a trained head",
            found="graphs without a head",
            do=f"gransam train PICTURES --base {source.path} -o my-classes",
        )
    keys = ("architecture", "token_width", "feature_width")
    wanted = {key: manifest["model"][key] for key in keys}
    found = {key: getattr(source, key) for key in keys}
    if wanted != found:
        raise InputError(
            f"--head {source.path}",
            expected=f"a head trained on {_words(wanted)}",
            found=f"one trained on {_words(found)}",
            do="compile the checkpoint without a head, and train one with gransam train --base",
        )
    data = source.provenance["training_data"]
    return HeadPart(
        graph=source.graph_bytes("head"),
        info=source.head,
        classes=source.classes,
        training_data=tuple(line for line in data if line.startswith(HEAD_SOURCE)),
        card=source.contents.get(CARD, b"").partition(HEAD_MARK)[2],
    )


def put_head(
    part: HeadPart,
    manifest: MutableMapping[str, Any],
    files: MutableMapping[str, bytes],
    graphs: MutableMapping[str, bytes],
) -> None:
    """Puts a head where ``write_bundle`` will find it, in place; one that is there is replaced."""
    graphs["head"] = part.graph
    manifest["head"] = {
        "background": "explicit" if part.info.background else "implicit",
        "labels": part.info.labels,
        "calibration": asdict(part.info.calibration) if part.info.calibration else None,
    }
    manifest["classes"] = [asdict(info) for info in part.classes]
    provenance = manifest["provenance"]
    kept = [line for line in provenance["training_data"] if not line.startswith(HEAD_SOURCE)]
    manifest["provenance"] = {**provenance, "training_data": [*kept, *part.training_data]}
    files[CARD] = files.get(CARD, b"").partition(HEAD_MARK)[0] + HEAD_MARK + part.card


def check_same_segmenter(source: Bundle, model: Model) -> None:
    """Checks, by the source's canary, that a head was trained on the segmenter that it is given to.

    Widths cannot tell two checkpoints of one architecture apart, and labels would be noise.

    Args:
        source: Where the head comes from. One of reduced precision answers a little differently and is not checked.
        model: The segmenter in full precision.

    Raises:
        BundleError: The model answers otherwise for the canary picture.
    """
    if source.precision not in FULL_PRECISIONS:
        return
    found = canary_outputs(model, source.canary.points)
    for name, values in found.items():
        gap = abs(values - source.canary.expected[name]).max()
        if not gap <= source.canary.tolerance:
            raise BundleError(
                f"--head {source.path}",
                expected=f"a head trained on this checkpoint: {name} within {source.canary.tolerance:g} of its canary",
                found=f"off by {gap:.3g}, as another checkpoint's would be",
                do="give the bundle whose --base was compiled from this checkpoint, at the same side",
            )


def _words(values: Mapping[str, Any]) -> str:
    widths = f"tokens of width {values['token_width']}, features of width {values['feature_width']}"
    return f"{values['architecture']}: {widths}"
