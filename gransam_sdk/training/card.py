"""What a bundle's model card says of its head."""

from __future__ import annotations

from .bags import Bags
from .calibrate import Calibration, lowest_threshold
from .config import HeadConfig
from .lessons import lesson_rows
from .rehearse import Rehearsed


def head_card(bags: Bags, config: HeadConfig, rehearsed: Rehearsed) -> str:
    """Markdown: setting, example pictures, what the confidences mean, and a table by class."""
    fitted = rehearsed.fitted
    rows = lesson_rows(rehearsed.lessons)
    table = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    table.insert(1, f"|{'---|' * len(rows[0])}")
    background = int((bags.labels < 0).sum())
    return f"""\
Labels {len(bags.classes)} classes, learned from image-level labels alone (arXiv 2312.02420: multiple-instance learning,
then uncertainty distillation).

- **Example pictures**: {len(bags.labels) - background} of the classes, {background} of background, and
  {len(bags.scenes.folds) if config.scenes else 0} scenes composed of them.
- **Setting**: {_heads(config)}, inputs {config.inputs}, background {config.background}, {_rim(config)},
  dropout {config.dropout}, a = {config.divisor}, {" + ".join(map(str, fitted.epochs))} epochs, weight of uncertainty
  {config.uncertainty_weight}, of background {config.background_weight}, seed {config.seed}.
- **On the example pictures themselves**: {fitted.bag_accuracy:.1%} of the pictures get their folder's class; the
  teacher was unsure or wrong about {fitted.bad_share:.0%} of their prompts.
{_calibration(rehearsed.calibration, config, lowest_threshold(config.outputs(len(bags.classes))))}
- One label a click: a click between two things, or on a part that looks like another class, is labelled wrongly. What
  is often beside a class (rails, sky, grass) may be taken for it.

{chr(10).join(table)}
"""


def _heads(config: HeadConfig) -> str:
    return f"{config.members} heads averaged" if config.members > 1 else "one head"


def _rim(config: HeadConfig) -> str:
    return f"surroundings from {config.rim:.0%} of the rim" if config.rim <= 1 else "no rim rule"


def _calibration(calibration: Calibration | None, config: HeadConfig, lowest: float) -> str:
    if calibration is None:
        return f"- **Threshold** {config.threshold} for every class; there were too few pictures to calibrate with."
    facts = calibration.facts
    held = f"{facts.pictures} pictures and {facts.background_pictures} of background"
    return f"""\
- **Calibrated** by a rehearsal that did not see {held}: temperature
  {facts.temperature:.2f}, and for each class the smallest threshold from {lowest:.2f} on with a source precision of
  {facts.target:.0%}: of what is kept on these pictures, alone and in scenes, the share that carries its folder's
  class. *Found* counts held-out pictures with something kept of their class."""
