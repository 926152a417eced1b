"""One phase of a training: steps over batches, a word now and then, and a state that can be saved between them."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import GranSAMError
from ...models.nano import Nano
from ..checkpoint import optimizer_tensors, restore_optimizer
from .batches import Batch, Batches, read_batches
from .config import SegmenterConfig
from .data import TrainingPhoto
from .ema import Average
from .held_out import HeldOut
from .phase import Losses, Phase
from .schedule import rate_at
from .state import SegmenterState

TRIAL, TIMED = 16, 12
"""Steps that show how long one takes, and how many of them, the last, are timed; other sides take turns evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a training says something.

    Attributes:
        tell: Steps between two lines of the log. States are saved there only, so that a mean is never torn.
        judge: Steps between two looks at the held-out photos, a multiple of ``tell``; the end of a phase is one more.
        save_seconds: Least time between two saved states; the end of a phase is always saved.
    """

    tell: int = 50
    judge: int = 600
    save_seconds: float = 120.0


class Loop:
    """What runs phases on one segmenter.

    Args:
        nano: On the device.
        photos: To train on.
        held: Where progress is judged; None without held-out photos.
        config: How.
        state: Where training is: read at the start of a phase, kept up to date at every word.
        device: That trains.
        workers: Processes that make batches.
        pace: When to say something.
        log: Told a line at every word.
        save: Called when the state is to be saved.
    """

    def __init__(
        self,
        nano: Nano,
        photos: Sequence[TrainingPhoto],
        held: HeldOut | None,
        config: SegmenterConfig,
        state: SegmenterState,
        *,
        device: torch.device,
        workers: int,
        pace: Pace,
        log: Callable[[str], None],
        save: Callable[[], None],
    ) -> None:
        self.nano, self.photos, self.held, self.config, self.state = nano, photos, held, config, state
        self.device, self.workers, self.pace, self.log, self.save = device, workers, pace, log, save
        self._clock = self._saved = time.monotonic()

    def run(self, phase: Phase, steps: int) -> None:
        """Runs what is left of a phase; afterwards the model's weights are the phase's.

        Raises:
            GranSAMError: The loss is no number any more.
        """
        state, config = self.state, self.config
        optimizer = self._optimizer(phase)
        rates = [float(part["lr"]) for part in optimizer.param_groups]
        average = Average(self.nano, config.average) if phase.clicks else None
        if state.step:
            restore_optimizer(optimizer, state.optimizer)
            if average:
                average.restore(state.average, state.averaged)
            self.log(f"{phase.name} goes on after step {state.step} of {steps}")
        elif phase.clicks and self.held:
            start = {"phase": phase.name, "step": 0, "seconds": round(self.spent(), 1)}
            state.history.append(start | {"held_out": self.judge(phase.clicks, None)})
        told: list[Losses] = []
        for batch in self._batches(phase, range(state.step, steps)):
            share = rate_at(state.step, steps, config)
            for part, rate in zip(optimizer.param_groups, rates, strict=True):
                part["lr"] = share * rate
            told.append(self._step(phase, optimizer, batch))
            if average:
                average.update(self.nano)
            state.step += 1
            if state.step % self.pace.tell == 0 or state.step == steps:
                self._tell(phase, told, steps, share, average)
                told = []
                self._keep(optimizer, average, last=state.step == steps)
        if average:
            self.nano.load_state_dict(average.state)

    def seconds_a_step(self, phase: Phase) -> float:
        """How long a step takes, from some that are taken back afterwards."""
        before = copy.deepcopy(self.nano.state_dict())
        optimizer = self._optimizer(phase)
        begun = 0.0
        for step, batch in enumerate(self._batches(phase, range(TRIAL))):
            if step == TRIAL - TIMED:
                self._wait()
                begun = time.monotonic()
            self._step(phase, optimizer, batch)
        self._wait()
        taken = time.monotonic() - begun
        self.nano.load_state_dict(before)
        return taken / TIMED

    def spent(self) -> float:
        """Seconds of this training so far, those before it was stopped included; kept in the state."""
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now
        return self.state.seconds

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        return torch.optim.AdamW(phase.groups(self.nano, self.config), betas=(0.9, 0.98))

    def _batches(self, phase: Phase, steps: range) -> Iterator[Batch]:
        batches = Batches(self.photos, self.config, stream=phase.stream, clicks=phase.clicks)
        return read_batches(batches, steps, workers=self.workers, pinned=self.device.type == "cuda")

    def _step(self, phase: Phase, optimizer: torch.optim.Optimizer, batch: Batch) -> Losses:
        self.nano.train()
        losses = phase.losses(self.nano, batch.to(self.device), self.config)
        optimizer.zero_grad()
        losses["total"].backward()
        parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, phase.clip)
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def _tell(self, phase: Phase, told: list[Losses], steps: int, share: float, average: Average | None) -> None:
        """Mean losses since the last word, and at times what they are worth, into the history and the log."""
        state = self.state
        if not torch.stack([losses["total"] for losses in told]).isfinite().all():
            raise GranSAMError(
                f"{phase.name} step {state.step}",
                expected="a finite loss",
                found="nan or infinity",
                do="train with another seed, or with a smaller learning rate",
            )
        row: dict[str, Any] = {"phase": phase.name, "step": state.step, "seconds": round(self.spent(), 1)}
        known = {name: float(torch.stack([losses[name] for losses in told]).nanmean()) for name in told[0]}
        known = {name: round(value, 5) for name, value in known.items() if not math.isnan(value)}
        row |= {"rate": round(share, 5), **known}
        words = " ".join(f"{name} {value:.3f}" for name, value in known.items())
        if self.held and (state.step % self.pace.judge == 0 or state.step == steps):
            row["held_out"] = self.judge(phase.clicks, average)
            words += " | held out: " + " ".join(f"{name} {value:.3f}" for name, value in row["held_out"].items())
        state.history.append(row)
        self.log(f"{phase.name} {state.step}/{steps} {words}")

    def judge(self, clicks: bool, average: Average | None) -> dict[str, float]:
        """Figures of the running mean, else of the weights, on the held-out photos."""
        if self.held is None:
            return {}
        judged = copy.deepcopy(self.nano)
        if average:
            judged.load_state_dict(average.state)
        judged.eval()
        found = self.held.explained(judged) | (self.held.masks(judged) if clicks else {})
        return {name: round(value, 4) for name, value in found.items()}

    def _keep(self, optimizer: torch.optim.Optimizer, average: Average | None, *, last: bool) -> None:
        """Brings the state up to date and has it saved, if it is time."""
        if not last and time.monotonic() - self._saved < self.pace.save_seconds:
            return
        self.spent()
        state = self.state
        state.model, state.optimizer = self.nano.state_dict(), optimizer_tensors(optimizer)
        state.average, state.averaged = (average.state, average.steps) if average else ({}, 0)
        self.save()
        self._saved = time.monotonic()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
