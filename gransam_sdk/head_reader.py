"""Reads the parts of ``gransam.json`` that a head brings: what its logits mean, and its classes."""

from __future__ import annotations

from typing import cast, get_args

from .manifest import HeadCalibration, HeadInfo, LabelUnit
from .strict_json import Field
from .types import Basis, ClassInfo, Evidence

BACKGROUNDS = ("implicit", "explicit")
"""explicit: the head's last logit is background's."""
MAX_CLASSES = 4096
MAX_COUNT = 1 << 31
_CLASS = (r"[^=,]+", "a name without '=' and ',', which separate names in -c")


def read_head(field: Field, *, has_graph: bool) -> HeadInfo | None:
    """Reads ``head``: an object exactly where there is a head graph.

    Raises:
        BundleError: The first thing in it that breaks the format, with the path to it.
    """
    if not has_graph:
        if field.value is not None:
            raise field.wrong("null, as there is no head graph")
        return None
    keys = field.keys(("background", "labels", "calibration"))
    return HeadInfo(
        background=keys["background"].one_of(BACKGROUNDS) == "explicit",
        labels=cast("LabelUnit", keys["labels"].one_of(get_args(LabelUnit))),
        calibration=_calibration(keys["calibration"]),
    )


def _calibration(field: Field) -> HeadCalibration | None:
    if field.value is None:
        return None
    keys = field.keys(("temperature", "target", "pictures", "background_pictures"))
    return HeadCalibration(
        temperature=keys["temperature"].number(0, 1e30, above=True),
        target=keys["target"].number(0, 1, above=True),
        pictures=keys["pictures"].whole(1, MAX_COUNT),
        background_pictures=keys["background_pictures"].whole(0, MAX_COUNT),
    )


def read_classes(field: Field, head: HeadInfo | None) -> tuple[ClassInfo, ...]:
    """Reads ``classes``: none without a head, and each with its evidence exactly where the head is calibrated.

    Raises:
        BundleError: The first thing in it that breaks the format, with the path to it.
    """
    # With a single logit, softmax would answer 1 for every mask; so one class needs background's beside it.
    low, high = (1 if head.background else 2, MAX_CLASSES) if head else (0, 0)
    calibrated = head is not None and head.calibration is not None
    entries = field.items(low, high)
    classes = tuple(_class_info(entry, i + 1, calibrated=calibrated) for i, entry in enumerate(entries))
    seen: set[str] = set()
    for info in classes:
        for name in (info.name, *info.aliases):
            if name.casefold() in seen:
                raise field.wrong("every class name and alias once, upper and lower case alike", f"{name!r} twice")
            seen.add(name.casefold())
    return classes


def _class_info(field: Field, number: int, *, calibrated: bool) -> ClassInfo:
    keys = field.keys(("id", "name", "aliases", "color", "threshold", "evidence"))
    color = [value.whole(0, 255) for value in keys["color"].items(3, 3)]
    return ClassInfo(
        id=keys["id"].whole(number, number),
        name=keys["name"].text(100, *_CLASS),
        aliases=tuple(alias.text(100, *_CLASS) for alias in keys["aliases"].items(0, 32)),
        color=(color[0], color[1], color[2]),
        threshold=keys["threshold"].number(0, 1, above=True),
        evidence=_evidence(keys["evidence"], calibrated=calibrated),
    )


def _evidence(field: Field, *, calibrated: bool) -> Evidence | None:
    if (field.value is not None) != calibrated:
        raise field.wrong("an object, as head.calibration is one" if calibrated else "null, as head.calibration is")
    if field.value is None:
        return None
    keys = field.keys(("precision", "kept", "pictures", "basis"))
    return Evidence(
        precision=None if keys["precision"].value is None else keys["precision"].number(0, 1),
        kept=keys["kept"].whole(0, MAX_COUNT),
        pictures=keys["pictures"].whole(0, MAX_COUNT),
        basis=cast("Basis", keys["basis"].one_of(get_args(Basis))),
    )
