"""Trains the segmenter: the encoder by blocks, the encoder as a whole, then masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import InputError
from ...models.imagenet_teacher import Teacher
from ...models.nano import Nano
from .config import SegmenterConfig
from .data import TrainingData
from .distill import BlockPhase, EncoderPhase
from .held_out import HeldOut
from .loop import Loop, Pace
from .mask_phase import MaskPhase
from .phase import Phase
from .schedule import share_steps, steps_in
from .state import SCHEMA, SegmenterState, SegmenterStore

PHASES = (BlockPhase.name, EncoderPhase.name, MaskPhase.name)
"""In the order of ``SegmenterConfig.shares``."""

RESERVE = 0.03
"""Share of the minutes that is kept for looks at held-out photos and for saving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to train; one of the two.

    Attributes:
        minutes: Turned into steps of each phase by timing some when it begins; the number is kept with the checkpoint.
        steps: Of all phases together.
    """

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Reject none, both, and what is not above 0."""
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if len(given) != 1 or not 0 < given[0] < float("inf"):
            found = f"minutes {self.minutes}, steps {self.steps}"
            raise InputError("training budget", expected="minutes or steps, above 0, not both", found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained segmenter.

    Attributes:
        nano: On the CPU, in evaluation mode; the running mean of its weights.
        steps: Of each phase.
        seconds: Spent on all of it.
        history: A row now and then: phase, step, seconds, rate, losses, and at times ``held_out``.
    """

    nano: Nano
    steps: dict[str, int]
    seconds: float
    history: list[dict[str, Any]]


def train_segmenter(
    data: TrainingData,
    teacher: Teacher,
    config: SegmenterConfig,
    budget: Budget,
    *,
    init: Nano | None = None,
    device: str = "cpu",
    workers: int = 0,
    checkpoint: Path | None = None,
    pace: Pace | None = None,
    log: Callable[[str], None] | None = None,
) -> Trained:
    """Trains from a random start, or from a checkpoint, which skips distillation.

    Args:
        data: What to train on.
        teacher: Whose features the encoder learns.
        config: How.
        budget: How long.
        init: Where to start.
        device: A torch device that is there.
        workers: Processes that make batches; they change nothing but the time.
        checkpoint: A folder of this training's own, missing or empty at first. The same call goes on from there.
        pace: When to log, to judge and to save.
        log: Told a line now and then.

    Returns:
        The same data, config, steps, thread count and torch give the same weights on a CPU, however often it was
        killed. GPUs add up in any order.

    Raises:
        InputError: The data cannot be trained on.
        OutputError: The checkpoint is of another training, damaged, or cannot be written.
        GranSAMError: The loss is no number any more.
    """
    chosen, said = torch.device(device), log or (lambda line: None)
    store = SegmenterStore(checkpoint, segmenter_identity(data, teacher, config, budget, init)) if checkpoint else None
    with store or nullcontext(), torch.random.fork_rng(devices=[]):  # the seed is not for the caller's own draws
        torch.manual_seed(config.seed)
        nano = Nano()
        if init is not None:
            nano.load_state_dict(init.state_dict())
        state = (store.load() if store else None) or SegmenterState()
        if state.phase:
            nano.load_state_dict(dict(state.model))
        teacher = teacher.to(chosen).eval()
        nano.to(chosen)
        held = HeldOut(data.held, teacher, config, chosen)
        loop = Loop(
            nano,
            data.photos,
            held if held.shown else None,
            config,
            state,
            device=chosen,
            workers=workers,
            pace=pace or Pace(),
            log=said,
            save=(lambda: store.save(state)) if store else (lambda: None),
        )
        phases: list[Phase] = [BlockPhase(teacher), EncoderPhase(teacher), MaskPhase(teacher)]
        _run_phases(loop, phases if init is None else phases[2:], budget, said)
    nano.to("cpu").eval().requires_grad_(False)
    return Trained(nano=nano, steps=state.steps, seconds=state.seconds, history=state.history)


def _run_phases(loop: Loop, phases: list[Phase], budget: Budget, said: Callable[[str], None]) -> None:
    """Runs what is left of the phases; a saved state is within a phase or at its end."""
    state, names = loop.state, [phase.name for phase in phases]
    begin = names.index(state.phase) if state.phase else 0
    for phase in phases[begin:]:
        if phase.name != state.phase:
            state.phase, state.step = phase.name, 0
            state.steps[phase.name] = _steps_of(phase, names, loop, budget)
            said(f"{phase.name}: {state.steps[phase.name]} steps")
        loop.run(phase, state.steps[phase.name])


def _steps_of(phase: Phase, names: list[str], loop: Loop, budget: Budget) -> int:
    """Steps of a phase: by the shares of the budget, or in the last all that is left."""
    shares = dict(zip(PHASES, loop.config.shares, strict=True))
    if budget.steps is not None:
        steps = dict(zip(PHASES, share_steps(budget.steps, loop.config), strict=True))
        return steps[phase.name] if len(names) > 1 else budget.steps
    if budget.minutes is None:
        raise InputError("training budget", expected="minutes or steps", found="neither")
    each = loop.seconds_a_step(phase)
    seconds = 60.0 * budget.minutes * (1.0 - RESERVE)
    seconds = seconds - loop.spent() if phase.name == names[-1] else seconds * shares[phase.name]
    return steps_in(seconds, each)


def segmenter_identity(
    data: TrainingData, teacher: Teacher, config: SegmenterConfig, budget: Budget, init: Nano | None
) -> str:
    """sha256 over the setting and all that training reads."""
    known = {"schema": SCHEMA, "config": asdict(config), "budget": asdict(budget), "data": data.digest()}
    known |= {"teacher": weights_digest(teacher), "init": None if init is None else weights_digest(init)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """Hex sha256 over a module's state."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
