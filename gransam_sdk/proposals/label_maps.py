"""Label maps of a few granularities, in which every pixel belongs to one region: what training draws clicks from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .divide_conquer import Proposal

LabelMap: TypeAlias = NDArray[np.uint16]
"""(h,w) uint16: 0 where there is no region, 1 upwards the regions."""


def label_maps(proposals: Sequence[Proposal]) -> list[LabelMap]:
    """One map a level, from fine to coarse.

    At a level those regions are shown that are there at this level or a finer one and lie in no other such region:
    what a coarser merge swallowed gives way, what nothing has swallowed yet stays. Where regions of several roots
    overlap, the smaller one is on top.

    Args:
        proposals: Of one photo, as ``propose`` gives them.

    Returns:
        Maps that differ from each other; regions are numbered by falling area.

    Raises:
        InputError: More regions than 16 bits can number.
    """
    maps: list[LabelMap] = []
    for level in sorted({proposal.level for proposal in proposals}):
        drawn = _paint(proposals, _outermost(proposals, level))
        if not maps or not np.array_equal(drawn, maps[-1]):
            maps.append(drawn)
    return maps


def _outermost(proposals: Sequence[Proposal], level: int) -> list[int]:
    """Ids of the regions up to a level that were not merged into another one up to that level."""
    return [
        number
        for number, proposal in enumerate(proposals)
        # What a region was merged into is of a coarser level, and so is all above it.
        if proposal.level <= level and (proposal.parent_id is None or proposals[proposal.parent_id].level > level)
    ]


def _paint(proposals: Sequence[Proposal], chosen: Sequence[int]) -> LabelMap:
    """Regions over each other, the smallest last."""
    if len(chosen) > np.iinfo(np.uint16).max:
        raise InputError("proposals", expected="at most 65535 regions a level", found=str(len(chosen)))
    order = sorted(chosen, key=lambda number: (-int(proposals[number].mask.sum()), number))
    drawn = np.zeros(proposals[0].mask.shape, dtype=np.uint16)
    for value, number in enumerate(order, start=1):
        drawn[proposals[number].mask] = value
    return drawn
