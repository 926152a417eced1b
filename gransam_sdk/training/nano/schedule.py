"""How fast a phase learns, and how long: a warm-up, a cosine, and minutes turned into steps."""

from __future__ import annotations

import math

from .config import SegmenterConfig


def rate_at(step: int, steps: int, config: SegmenterConfig) -> float:
    """Share of the largest learning rate at a step counted from 0 (Loshchilov and Hutter 2017, without restarts)."""
    warm_up = max(1, min(config.warm_up, steps // 10))
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / warm_up) * (config.rate_floor + (1.0 - config.rate_floor) * cosine)


def steps_in(seconds: float, seconds_a_step: float) -> int:
    """Steps that fit, at least one."""
    return max(1, int(seconds / seconds_a_step))


def share_steps(steps: int, config: SegmenterConfig) -> tuple[int, int, int]:
    """So many steps over the three phases by their shares, at least one each.

    The last phase takes what is left.
    """
    first, second = (max(1, round(steps * share)) for share in config.shares[:2])
    return first, second, max(1, steps - first - second)
