"""Names under which people know the classes of VOC and COCO."""

from __future__ import annotations

ALIASES = {
    "aeroplane": ("airplane", "plane"),
    "bicycle": ("bike",),
    "diningtable": ("dining table", "table"),
    "motorbike": ("motorcycle",),
    "person": ("people", "human"),
    "pottedplant": ("potted plant", "plant"),
    "sofa": ("couch",),
    "tvmonitor": ("tv", "monitor", "television"),
}
"""VOC's name to others; where VOC and COCO differ, COCO's comes first."""


def aliases_of(name: str, taken: tuple[str, ...]) -> tuple[str, ...]:
    """Other names of a class, without those that are classes themselves, upper and lower case alike."""
    classes = {other.casefold() for other in taken}
    return tuple(alias for alias in ALIASES.get(name, ()) if alias.casefold() not in classes)
