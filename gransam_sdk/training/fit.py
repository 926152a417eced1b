"""Fits a head: a teacher by multiple-instance learning, then a student that also learns what to be unsure of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..models.head import Head, HeadEnsemble
from .bags import Bags
from .checkpoint import StageStore, training_identity
from .config import PAPER, HeadConfig
from .instances import training_set
from .trainer import Stage, Trainer, accuracy_of

__all__ = ["PAPER", "Fitted", "HeadConfig", "fit_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained head.

    Attributes:
        head: The student (or the teacher, where ``uncertainty_weight`` is 0), in evaluation mode; of several members,
            their mean.
        background: Whether the last logit is background's: a mask whose largest logit it is must be dropped.
        epochs: Epochs trained, of the first member's teacher, and of its student if there is one.
        bag_accuracy: Share of training pictures whose bag's most probable class is their folder's.
        held_out_accuracy: The same share of the hold-out, mean of the members; none without one.
        bad_share: Share of instances that the teacher was unsure or wrong about, mean of the members.
    """

    head: Head | HeadEnsemble
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
    said = log or (lambda line: None)
    with store or nullcontext(), torch.random.fork_rng(devices=[]):  # the seeds are not for the caller's own draws
        members = [_fit_member(Trainer(examples, config, said, store, member)) for member in range(config.members)]
    heads = [member.student.head for member in members]
    head = heads[0] if len(heads) == 1 else HeadEnsemble(heads).eval()
    held = [member.student.held_out_accuracy for member in members if member.student.held_out_accuracy is not None]
    return Fitted(
        head=head,
        background=config.background == "explicit",
        epochs=members[0].epochs,
        bag_accuracy=accuracy_of(examples, head, config.divisor),
        held_out_accuracy=sum(held) / len(held) if held else None,
        bad_share=sum(member.bad_share for member in members) / len(members),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One head of the ensemble, and what its training was."""

    student: Stage
    epochs: tuple[int, ...]
    bad_share: float


def _fit_member(trainer: Trainer) -> _Member:
    teacher = trainer.run("teacher", bad=None)
    bad = trainer.bad(teacher.head)
    share = float(bad.float().mean())
    if not trainer.config.uncertainty_weight:
        return _Member(student=teacher, epochs=(teacher.epochs,), bad_share=share)
    student = trainer.run("student", bad=bad)
    return _Member(student=student, epochs=(teacher.epochs, student.epochs), bad_share=share)
