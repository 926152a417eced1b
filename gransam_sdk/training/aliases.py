"""Names under which people know the classes of VOC and COCO."""

from __future__ import annotations

from ..evaluation.class_names import COCO_NAMES

_EVERYDAY = {
    "aeroplane": ("plane",),
    "bicycle": ("bike",),
    "diningtable": ("table",),
    "person": ("people", "human"),
    "pottedplant": ("plant",),
    "tvmonitor": ("monitor", "television"),
}
ALIASES = {
    name: (*((COCO_NAMES[name],) if name in COCO_NAMES else ()), *_EVERYDAY.get(name, ()))
    for name in sorted({*COCO_NAMES, *_EVERYDAY})
}
"""VOC's name to others; where VOC and COCO differ, COCO's comes first."""


def aliases_of(name: str, taken: tuple[str, ...]) -> tuple[str, ...]:
    """Other names of a class, without those that are classes themselves, upper and lower case alike."""
    classes = {other.casefold() for other in taken}
    return tuple(alias for alias in ALIASES.get(name, ()) if alias.casefold() not in classes)
