"""Fits a head: a teacher by multiple-instance learning, then a student that also learns what to be unsure of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..models.head import Head
from .bags import Bags
from .checkpoint import StageStore, training_identity
from .config import PAPER, HeadConfig
from .instances import training_set
from .trainer import Trainer

__all__ = ["PAPER", "Fitted", "HeadConfig", "fit_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained head.

    Attributes:
        head: The student (or the teacher, where ``uncertainty_weight`` is 0), in evaluation mode.
        background: Whether the last logit is background's: a mask whose largest logit it is must be dropped.
        epochs: Epochs trained, of the teacher, and of the student if there is one.
        bag_accuracy: Share of training pictures whose bag's most probable class is their folder's.
        held_out_accuracy: The same share of the hold-out; none without one.
        bad_share: Share of instances that the teacher was unsure or wrong about.
    """

    head: Head
    background: bool
    epochs: tuple[int, ...]
    bag_accuracy: float
    held_out_accuracy: float | None
    bad_share: float


def fit_head(
    bags: Bags, config: HeadConfig, *, log: Callable[[str], None] | None = None, checkpoint: Path | None = None
) -> Fitted:
    """Trains teacher and student; the student starts anew, from the same seed, never from the teacher's weights.

    Args:
        bags: Instances of the example pictures.
        config: How.
        log: Told one line an epoch.
        checkpoint: A folder of this training's own, missing or empty at first, into which every epoch is saved. The
            same call goes on after the last one saved. It stays when training ends; whoever has no more use for it
            deletes it.

    Returns:
        The student. The same bags, config, thread count and torch give the same head, however often it was killed.

    Raises:
        InputError: The bags do not allow this training: see ``training_set``.
        OutputError: The checkpoint is of another training, damaged, or cannot be written.
    """
    examples = training_set(bags, config)
    store = StageStore(checkpoint, training_identity(bags, config)) if checkpoint else None
    trainer = Trainer(examples, config, log or (lambda line: None), store)
    with store or nullcontext(), torch.random.fork_rng(devices=[]):  # the seed is not for the caller's own draws
        teacher = trainer.run("teacher", bad=None)
        bad = trainer.bad(teacher.head)
        student = trainer.run("student", bad=bad) if config.uncertainty_weight else teacher
    return Fitted(
        head=student.head,
        background=config.background == "explicit",
        epochs=(teacher.epochs, student.epochs) if config.uncertainty_weight else (teacher.epochs,),
        bag_accuracy=trainer.accuracy(student.head),
        held_out_accuracy=student.held_out_accuracy,
        bad_share=float(bad.float().mean()),
    )
