"""A stage of training on disk, so that a killed run goes on to the same bytes.

One file a stage, see ``state_file``, replaced after every epoch: weights, best weights, optimizer, random numbers.
Random numbers are drawn within an epoch only, so the state between two epochs is all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from .bags import Bags
from .config import HeadConfig
from .state_file import StateFolder, split_parts

SCHEMA = 2


@dataclass(kw_only=True)
class StageState:
    """Where a stage is between two epochs.

    Attributes:
        epoch: Epochs done.
        score: Best bag accuracy on the hold-out.
        stale: Epochs since it was reached first.
        best: Weights of the epoch that would be shipped; empty without a hold-out.
        head: Weights.
        optimizer: Adam's tensors, ``INDEX.NAME`` of a parameter's.
        rng: State of torch's random numbers, uint8.
    """

    epoch: int = 0
    score: float = -1.0
    stale: int = 0
    best: Mapping[str, Tensor] = field(default_factory=dict)
    head: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    rng: Tensor = field(default_factory=torch.get_rng_state)


class StageStore(StateFolder):
    """The folder of one head's training: a file a stage. See ``training_identity`` for its identity."""

    def save(self, stage: str, state: StageState) -> None:
        """Replaces the stage's file.

        Raises:
            OutputError: The disk refused; the file of the epoch before is still there.
        """
        tensors = {f"{part}.{name}": value for part, name, value in _parts(state)} | {"rng": state.rng}
        self.put(stage, SCHEMA, {"epoch": state.epoch, "score": state.score, "stale": state.stale}, tensors)

    def load(self, stage: str) -> StageState | None:
        """The stage's last state, or none where it has not ended an epoch.

        Raises:
            OutputError: The file is damaged, or belongs to another setting or other pictures.
        """
        taken = self.take(stage, SCHEMA)
        if taken is None:
            return None
        facts, tensors = taken
        rng = tensors.pop("rng")
        parts = split_parts(tensors, ("head", "best", "optimizer"))
        return StageState(epoch=facts["epoch"], score=facts["score"], stale=facts["stale"], rng=rng, **parts)


def _parts(state: StageState) -> Iterator[tuple[str, str, Tensor]]:
    for part in ("head", "best", "optimizer"):
        yield from ((part, name, value) for name, value in getattr(state, part).items())


def training_identity(bags: Bags, config: HeadConfig) -> str:
    """sha256 over the setting and all that training reads of the bags."""
    scenes = bags.scenes
    known = {"schema": SCHEMA, "config": asdict(config), "classes": bags.classes, "token_width": bags.token_width}
    shapes = [bags.instances.shape, scenes.instances.shape, scenes.parts.shape]
    digest = hashlib.sha256(json.dumps([known, shapes], sort_keys=True).encode())
    for numbers in (bags.labels, bags.rim, bags.folds, scenes.parts, scenes.part_of, scenes.rim, scenes.folds):
        digest.update(numbers.tobytes())
    for instances in (bags.instances, scenes.instances):
        for picture in instances:
            digest.update(picture.tobytes())
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's tensors by ``INDEX.NAME``."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives a fresh optimizer the tensors that ``optimizer_tensors`` took."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
