"""Fits a head: a teacher by multiple-instance learning, then a student that also learns what to be unsure of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..models.head import Head
from .losses import background_loss, bad_instances, bag_logits, entropy_threshold, mil_loss, uncertainty_loss
from .tokens import Bags


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """How a head is trained; the defaults are those of the embedded bundle.

    Attributes:
        inputs: ``tokens`` (the paper) or ``fused``: tokens and pooled dense features.
        dropout: Before the last layer; the paper's is 0.9.
        divisor: a of equation (1); the constant of W-TALC, whose MIL formula the paper reuses.
        uncertainty_weight: lambda 2 of the student's loss (0.15 in the paper); 0 ships the teacher.
        background_weight: Weight of ``_background`` pictures' cross-entropy with uniform; 0 (the paper) ignores them.
        background_batch: Background pictures a step.
        epochs: Passes over the pictures, for the teacher and again for the student.
        batch: Photos a step.
        learning_rate: Of Adam.
        threshold: Confidence from which the bundle's user may trust a mask.
        seed: Of initialisation, order and dropout.
    """

    inputs: Literal["tokens", "fused"] = "fused"
    dropout: float = 0.5
    divisor: int = 8
    uncertainty_weight: float = 0.15
    background_weight: float = 0.15
    background_batch: int = 16
    epochs: int = 5
    batch: int = 64
    learning_rate: float = 1e-3
    threshold: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values outside their range."""
        if self.inputs not in ("tokens", "fused"):
            raise InputError("inputs", expected="tokens or fused", found=repr(self.inputs))
        checks = {
            "dropout": 0.0 <= self.dropout < 1.0,
            "threshold": 0.0 < self.threshold <= 1.0,
            "uncertainty_weight": self.uncertainty_weight >= 0.0,
            "background_weight": self.background_weight >= 0.0,
            "learning_rate": self.learning_rate > 0.0,
        }
        checks |= {name: getattr(self, name) >= 1 for name in ("divisor", "background_batch", "epochs", "batch")}
        for name, fine in checks.items():
            if not fine:
                raise InputError(name, expected="a value in its range", found=repr(getattr(self, name)))


PAPER = HeadConfig(inputs="tokens", dropout=0.9, background_weight=0.0, epochs=30, threshold=0.7)
"""The paper's setting; it gives no number of epochs, 30 is this project's reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained head.

    Attributes:
        head: The student (or the teacher, where ``uncertainty_weight`` is 0), in evaluation mode.
        bag_accuracy: Share of training pictures whose bag's most probable class is their folder's.
        bad_share: Share of instances that the teacher was unsure or wrong about.
    """

    head: Head
    bag_accuracy: float
    bad_share: float


def fit_head(bags: Bags, config: HeadConfig, *, log: Callable[[str], None] | None = None) -> Fitted:
    """Trains teacher and student.

    Args:
        bags: Instances of the example pictures.
        config: How.
        log: Told one line an epoch.

    Returns:
        The student. The same bags, config and thread count give the same head.
    """
    instances, background, labels = _tensors(bags, config)
    trainer = _Trainer(instances, background, labels, config, log or (lambda line: None))
    with torch.random.fork_rng(devices=[]):  # seeding is for this head, not for the caller's own draws
        teacher = trainer.run("teacher", teacher=None)
        student = trainer.run("student", teacher=teacher) if config.uncertainty_weight else teacher
    bad = trainer.bad(teacher)
    with torch.no_grad():
        predicted = torch.cat([bag_logits(student(part), config.divisor).argmax(1) for part in instances.split(64)])
    accuracy = float((predicted == labels.argmax(1)).float().mean())
    return Fitted(head=student, bag_accuracy=accuracy, bad_share=float(bad.float().mean()))


def _tensors(bags: Bags, config: HeadConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Class instances (m,g,width), background instances and multi-hot labels (m,k), all float32."""
    width = bags.token_width if config.inputs == "tokens" else bags.instances.shape[2]
    of_class = bags.labels >= 0
    instances = torch.from_numpy(bags.instances[of_class, :, :width].astype(np.float32))
    background = torch.from_numpy(bags.instances[~of_class, :, :width].astype(np.float32))
    labels = torch.nn.functional.one_hot(torch.from_numpy(bags.labels[of_class]), len(bags.classes)).float()
    return instances, background, labels


class _Trainer:
    def __init__(
        self, instances: Tensor, background: Tensor, labels: Tensor, config: HeadConfig, log: Callable[[str], None]
    ) -> None:
        self.instances, self.background, self.labels = instances, background, labels
        self.config, self.log = config, log
        self.threshold = entropy_threshold(labels.shape[1])
        flat = instances.flatten(0, 1)
        self.mean, self.deviation = flat.mean(0), flat.std(0) + 1e-3

    def run(self, name: str, teacher: Head | None) -> Head:
        """Trains one head from a fresh start; with a teacher it is the student."""
        config = self.config
        torch.manual_seed(config.seed)
        head = Head(self.instances.shape[2], self.labels.shape[1], config.dropout)
        head.mean.copy_(self.mean)
        head.deviation.copy_(self.deviation)
        optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate)
        for epoch in range(config.epochs):
            losses = []
            for rows in torch.randperm(len(self.instances)).split(config.batch):
                loss = self._loss(head.train(), teacher, rows)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            self.log(f"{name} epoch {epoch + 1}/{config.epochs} loss {sum(losses) / len(losses):.4f}")
        return head.eval().requires_grad_(False)

    def bad(self, teacher: Head) -> Tensor:
        """(m,g) bool: the teacher's bad instances of all pictures."""
        with torch.no_grad():
            parts = zip(self.instances.split(64), self.labels.split(64), strict=True)
            return torch.cat([bad_instances(teacher(x), y, self.threshold) for x, y in parts])

    def _loss(self, head: Head, teacher: Head | None, rows: Tensor) -> Tensor:
        config, x, y = self.config, self.instances[rows], self.labels[rows]
        logits = head(x)
        loss = mil_loss(logits, y, config.divisor)
        if teacher is None:
            return loss
        with torch.no_grad():
            bad = bad_instances(teacher(x), y, self.threshold)
        loss = loss + config.uncertainty_weight * uncertainty_loss(logits, bad)
        if config.background_weight and len(self.background):
            drawn = torch.randint(len(self.background), (config.background_batch,))
            loss = loss + config.background_weight * background_loss(head(self.background[drawn]))
        return loss
