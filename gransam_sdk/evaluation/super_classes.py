"""The paper's granularity test: VOC's 20 classes as five (GranSAM, arXiv 2312.02420v1)."""

from __future__ import annotations

import numpy as np

from ..shapes import Pixels
from .class_names import COCO_NAMES, VOC_VALUES
from .miou import IGNORE

SUPER_CLASSES = {
    "animals": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "furniture": ("chair", "diningtable", "sofa"),
    "household items": ("bottle", "pottedplant", "tvmonitor"),
    "person": ("person",),
    "transportation": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
}
"""Members by super-class; ``docs/granularity.toml`` is the same table as a classes file."""
SUPER_NAMES = ("background", *SUPER_CLASSES)
"""Pixel value = place in this tuple."""

SUPER_VALUES = {name: value for value, name in enumerate(SUPER_NAMES) if value}
SUPER_VALUES |= {member: SUPER_VALUES[name] for name, members in SUPER_CLASSES.items() for member in members}
SUPER_VALUES |= {coco: SUPER_VALUES[voc] for voc, coco in COCO_NAMES.items()}
"""Place in ``SUPER_NAMES`` by a super-class's own name, or by VOC's or COCO's name of a member."""


def super_map(labels: Pixels) -> Pixels:
    """A VOC label map in super-classes.

    Args:
        labels: (h,w) uint8, 0 to 20, or 255 where the pixel does not count.

    Returns:
        (h,w) uint8, 0 to 5 or 255.
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[0] = 0
    for name, value in VOC_VALUES.items():
        table[value] = SUPER_VALUES[name]
    mapped: Pixels = table[labels]
    return mapped
