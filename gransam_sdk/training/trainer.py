"""One stage of training, teacher or student: epochs over bags, an early stop, a checkpoint after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.head import Head
from .checkpoint import StageState, StageStore, optimizer_tensors, restore_optimizer
from .config import HeadConfig
from .instances import TrainingSet, spread
from .losses import (
    background_loss,
    bad_instances,
    bag_logits,
    least_uncertainty,
    mil_loss,
    uncertainty_loss,
    unsure_from,
)

PART = 64
"""Pictures in one pass where no gradient is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage's result: its head, in evaluation mode, the epochs trained, and its accuracy on the hold-out if any."""

    head: Head
    epochs: int
    held_out_accuracy: float | None


class Trainer:
    """Trains heads on one training set.

    Args:
        examples: What to train on.
        config: How.
        log: Told one line an epoch.
        store: Where each epoch is saved and a killed stage goes on from.
        member: Number of the head, from 0; decides its random numbers.
    """

    def __init__(
        self,
        examples: TrainingSet,
        config: HeadConfig,
        log: Callable[[str], None],
        store: StageStore | None,
        member: int = 0,
    ) -> None:
        self.examples, self.config, self.log, self.store, self.member = examples, config, log, store, member
        self.mean, self.deviation = spread(examples.instances)

    def run(self, stage: str, bad: Tensor | None) -> Stage:
        """Trains one head from a fresh start, or from where the store has it; seeds torch's random numbers.

        Args:
            stage: Its name.
            bad: (m,g) bool, the teacher's bad instances of all pictures; with them it is the student, whose random
                numbers, initial weights included, are others than the teacher's.
        """
        config = self.config
        torch.manual_seed(2 * (config.seed * config.members + self.member) + (bad is not None))
        if config.members > 1:
            stage += f"-{self.member + 1}"
        head = self._fresh_head()
        optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        state = self.store.load(stage) if self.store else None
        if state:
            head.load_state_dict(dict(state.head))
            restore_optimizer(optimizer, state.optimizer)
            torch.set_rng_state(state.rng)
            self.log(f"{stage} goes on after epoch {state.epoch}")
        state = state or StageState()
        epochs = max(
            config.epochs, math.ceil(config.least_steps / math.ceil(len(self.examples.instances) / config.batch))
        )
        while state.epoch < epochs and not (config.hold_out and state.stale >= config.patience):
            said = self._epoch(head, optimizer, bad)
            state.epoch += 1
            line = f"{stage} epoch {state.epoch}/{epochs} {said}"
            if config.hold_out:
                line += f" hold-out {self._judge(head, state):.1%}"
            if self.store:
                state.head, state.optimizer = head.state_dict(), optimizer_tensors(optimizer)
                state.rng = torch.get_rng_state()
                self.store.save(stage, state)
            self.log(line)
        if config.hold_out:
            head.load_state_dict(dict(state.best))
        accuracy = state.score if config.hold_out else None
        return Stage(head=head.eval().requires_grad_(False), epochs=state.epoch, held_out_accuracy=accuracy)

    def bad(self, teacher: Head) -> Tensor:
        """(m,g) bool: B of equation (4), the teacher's bad instances of all pictures."""
        with torch.no_grad():
            logits = torch.cat([teacher(part.float()) for part in self.examples.instances.split(PART)])
        threshold = unsure_from(self.config.entropy_rule, logits)
        return bad_instances(logits, self.examples.instance_labels(), threshold)

    def _fresh_head(self) -> Head:
        head = Head(self.mean.shape[0], self.examples.labels.shape[2], self.config.dropout)
        if self.config.init == "xavier":
            for layer in (head.fc, head.fc1, head.fc2, head.fc3):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        head.mean.copy_(self.mean)
        head.deviation.copy_(self.deviation)
        return head

    def _epoch(self, head: Head, optimizer: torch.optim.Optimizer, bad: Tensor | None) -> str:
        """One pass over the pictures in a new order; the mean losses in words."""
        head.train()
        losses = []
        for rows in torch.randperm(len(self.examples.instances)).split(self.config.batch):
            parts = self._losses(head, bad, rows)
            optimizer.zero_grad()
            torch.stack([weight * loss for weight, loss in parts.values()]).sum().backward()
            optimizer.step()
            losses.append({name: loss.item() for name, (_, loss) in parts.items()})
        mean = {name: sum(loss[name] for loss in losses) / len(losses) for name in losses[0]}
        return self._in_words(mean, bad)

    def _losses(self, head: Head, bad: Tensor | None, rows: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each loss on a batch."""
        config, labels = self.config, self.examples.labels[rows]
        logits = head(self.examples.instances[rows].float())
        which, part = labels.sum(dim=2).nonzero(as_tuple=True)
        inside = None
        if labels.shape[1] > 1:
            inside = self.examples.part_of[rows][which] == part[:, None]
            which, part, inside = (of_bag[inside.any(dim=1)] for of_bag in (which, part, inside))
        if len(which):
            evidence = mil_loss(logits[which], labels[which, part], config.divisor, inside)
        else:  # nothing but surroundings in this batch: no bag, and a mean of none would be no number
            evidence = 0.0 * logits.sum()
        losses = {"bags": (1.0, evidence)}
        if bad is None:
            return losses
        weight, reduction = config.student_weight(labels.shape[2]), config.class_reduction
        losses["bad"] = weight, uncertainty_loss(logits, bad[rows], reduction)
        background = self.examples.background
        if config.background_weight and len(background):
            drawn = torch.randint(len(background), (config.background_batch,))
            doubt = background_loss(head(background[drawn].float()), reduction)
            losses["background"] = config.background_weight, doubt
        return losses

    def _in_words(self, mean: dict[str, float], bad: Tensor | None) -> str:
        """Losses of an epoch; those towards uniform by how far off their least value, which would hide the rest."""
        line = f"loss {mean['bags']:.3f}"
        if bad is None:
            return line
        least = least_uncertainty(self.examples.labels.shape[2], self.config.class_reduction)
        off = mean["bad"] - least * self._shown(bad)
        line += f"; to be unsure of {bad.float().mean():.0%} of clicks: {off:.3f} off"
        if "background" in mean:
            line += f"; background: {mean['background'] - least:.3f} off"
        return line

    @staticmethod
    def _shown(bad: Tensor) -> float:
        """Share of the pictures with a bad instance: the others have no loss."""
        return float(bad.any(dim=1).float().mean())

    def _judge(self, head: Head, state: StageState) -> float:
        """Accuracy on the hold-out; the best epoch's weights are kept, of equally good ones the last."""
        examples = self.examples
        found = bag_accuracy(head.eval(), examples.held, examples.held_labels, examples.classes, self.config.divisor)
        state.stale = 0 if found > state.score else state.stale + 1
        if found >= state.score:
            state.score = found
            state.best = {name: value.clone() for name, value in head.state_dict().items()}
        return found


def accuracy_of(examples: TrainingSet, head: nn.Module, divisor: int) -> float:
    """Share of the training pictures of a class whose bag's most probable class is theirs."""
    labels = examples.labels[: examples.pictures, 0, : examples.classes]
    rows = labels.sum(dim=1).nonzero().flatten()
    return bag_accuracy(head, examples.instances[rows], labels[rows].argmax(dim=1), examples.classes, divisor)


def bag_accuracy(head: nn.Module, instances: Tensor, labels: Tensor, classes: int, divisor: int) -> float:
    """Share of bags (m,g,w) whose largest bag logit, explicit background's left out, is that of their label (m,)."""
    with torch.no_grad():
        parts = [bag_logits(head(part.float()), divisor)[:, :classes].argmax(1) for part in instances.split(PART)]
    return float((torch.cat(parts) == labels).float().mean())
