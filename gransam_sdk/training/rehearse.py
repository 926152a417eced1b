"""Training with a rehearsal: a head on four fifths of the pictures shows on the rest what can be trusted.

The final head is trained on all pictures in the same way, so the temperature and the thresholds of the rehearsal are,
if anything, too careful for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .bags import Bags
from .calibrate import LEAST_PICTURES, TARGET, Calibration, calibrate, check_precision
from .config import HeadConfig
from .fit import Fitted, fit_head
from .lessons import Lesson, draw_lessons, unjudged_lessons
from .split import split_bags

HELD_OUT = 0.2
"""Share of the pictures that the rehearsal does not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """A final head and what its rehearsal showed.

    Attributes:
        fitted: Trained on all pictures; the temperature is folded into its last layer.
        calibration: None where there are too few pictures to hold some out.
        lessons: By class; without a calibration nothing is known but the number of pictures.
    """

    fitted: Fitted
    calibration: Calibration | None
    lessons: tuple[Lesson, ...]


def fit_calibrated(
    bags: Bags,
    config: HeadConfig,
    *,
    target: float = TARGET,
    log: Callable[[str], None] = lambda line: None,
    checkpoint: Path | None = None,
) -> Rehearsed:
    """Trains twice: a rehearsal on four fifths of the pictures to calibrate with, then the head on all of them.

    Args:
        bags: Instances of the example pictures.
        config: How both are trained.
        target: See ``calibrate``.
        log: Told one line an epoch.
        checkpoint: See ``fit_head``; both trainings keep their state in it.

    Raises:
        InputError, OutputError: See ``fit_head`` and ``calibrate``.
    """
    check_precision(target)
    rest, held = split_bags(bags, HELD_OUT, config.seed)
    calibration, lessons = None, unjudged_lessons(bags, config.threshold)
    if max(int((held.labels == index).sum()) for index in range(len(bags.classes))) >= LEAST_PICTURES:
        log(f"rehearsal, to calibrate with: {len(held.labels)} of {len(bags.labels)} pictures are held out")
        folder = checkpoint / "rehearsal" if checkpoint else None
        rehearsal = fit_head(rest, config, log=lambda line: log(f"  {line}"), checkpoint=folder)
        calibration = calibrate(rehearsal.head, held, config, target=target)
        lessons = draw_lessons(bags, held, config, rehearsal.head, calibration)
        log(f"final training, on all {len(bags.labels)} pictures")
    fitted = fit_head(bags, config, log=lambda line: log(f"  {line}"), checkpoint=checkpoint and checkpoint / "final")
    if calibration:
        fitted.head.fold_temperature(calibration.facts.temperature)
    return Rehearsed(fitted=fitted, calibration=calibration, lessons=lessons)
