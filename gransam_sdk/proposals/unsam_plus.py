"""Which found masks to add to given ones: UnSAM+'s rule (methods 2.4), and two for other purposes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from ..errors import InputError
from ..nms import mask_iou
from ..shapes import Bool, Int

MergeMode = Literal["iou", "dedup", "uncovered"]
"""When an extra mask is kept, see ``merge_unsam_plus``."""
TAU = {"iou": 0.02, "dedup": 0.7}
_HALF = 0.5


def merge_unsam_plus(base: Bool, extra: Bool, tau: float | None = None, mode: MergeMode = "iou") -> Int:
    """The extra masks that belong beside the base, all of which stays.

    ``iou``: those whose IoU with every base mask is at most ``tau`` (0.02: details and what was missed). ``dedup``:
    those whose IoU with every base mask, and every extra one kept before, is at most ``tau`` (0.7: all but near
    duplicates). ``uncovered``: those of which more than half lies outside the union of the base.

    Args:
        base: (m,h,w) bool masks of one photo, in any order.
        extra: (n,h,w) bool masks of the same photo; in ``dedup`` the better one of two comes first.
        tau: In [0,1], None for the mode's own; not of ``uncovered``.
        mode: The rule.

    Returns:
        (k,) int64 indices of the extra masks kept, ascending.

    Raises:
        InputError: Another mode, ``tau`` outside its range, or stacks that are not masks of one photo.
    """
    if mode not in get_args(MergeMode):
        raise InputError("mode", expected=" | ".join(get_args(MergeMode)), found=repr(mode))
    if tau is not None and (mode == "uncovered" or not 0.0 <= tau <= 1.0):
        raise InputError("tau", expected="a number in [0,1], in the modes iou and dedup", found=f"{tau} in {mode}")
    for masks in (base, extra):
        if masks.ndim != 3 or masks.dtype != np.bool_ or masks.shape[1:] != base.shape[1:]:
            raise InputError("masks", expected="(n,h,w) bool of one photo", found=f"{base.shape}, {extra.shape}")
    if mode == "uncovered":
        outside = np.count_nonzero(extra & ~base.any(axis=0), axis=(1, 2))
        return np.flatnonzero(outside > _HALF * np.count_nonzero(extra, axis=(1, 2)))
    most = np.float32(TAU[mode] if tau is None else tau)  # as IoU is given: equal ones stay equal
    fits = (mask_iou(extra, base) <= most).all(axis=1)
    if mode == "iou":
        return np.flatnonzero(fits)
    fits_beside = mask_iou(extra) <= most
    kept: list[int] = []
    for index in np.flatnonzero(fits).tolist():
        if fits_beside[index, kept].all():
            kept.append(index)
    return np.array(kept, dtype=np.int64)
