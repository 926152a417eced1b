"""A stage of training on disk, so that a killed run goes on to the same bytes.

One safetensors file a stage, replaced whole after every epoch: weights, best weights, optimizer, random numbers; the
rest is JSON in its header. Random numbers are drawn within an epoch only, so the state between two epochs is all.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..annotate.disk import open_folder, operate, put_file
from ..annotate.outputs import take_lock
from ..errors import OutputError
from .bags import Bags
from .config import HeadConfig
from .writer_words import said_of

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


class StageStore:
    """The folder of one training, locked for this process until it is closed; nothing else may be in it.

    Args:
        folder: Made if need be. What a kill left half-written is swept.
        identity: Of the training, see ``training_identity``.

    Raises:
        OutputError: The folder cannot be made or written to, or another process trains into it.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        with _checkpoint_words():
            operate(folder, os.makedirs, folder, exist_ok=True)
            # Not a method: a store that nobody closed gives its lock back when it goes.
            self._unlock = weakref.finalize(self, os.close, take_lock(folder))
            open_folder(folder)  # sweeps; not before the lock, or another's unfinished file would go

    def close(self) -> None:
        """Unlocks the folder."""
        self._unlock()

    def __enter__(self) -> StageStore:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlocks the folder."""
        self.close()

    def save(self, stage: str, state: StageState) -> None:
        """Replaces the stage's file.

        Raises:
            OutputError: The disk refused; the file of the epoch before is still there.
        """
        tensors = {f"{part}.{name}": value for part, name, value in _parts(state)} | {"rng": state.rng}
        header: dict[str, Any] = {"schema": SCHEMA, "identity": self.identity, "stage": stage}
        header |= {"epoch": state.epoch, "score": state.score, "stale": state.stale}
        header["sha256"] = _digest(header, tensors)
        with _checkpoint_words():
            put_file(self._path(stage), save(tensors, {"gransam": json.dumps(header, sort_keys=True)}))

    def load(self, stage: str) -> StageState | None:
        """The stage's last state, or none where it has not ended an epoch.

        Raises:
            OutputError: The file is damaged, or belongs to another setting or other pictures.
        """
        path = self._path(stage)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["gransam"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            schema, proof = header["schema"], header.pop("sha256", None)
            origin = header["identity"], header["stage"]
            epoch, score, stale = header["epoch"], header["score"], header["stale"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _unusable(path, "a whole file", f"a damaged one ({error})") from error
        if schema != SCHEMA:
            raise _unusable(path, f"format {SCHEMA}, this version's", f"format {schema!r}")
        if proof != _digest(header, tensors):
            raise _unusable(path, "a whole file", "a damaged one (its bytes are not those that were written)")
        if origin != (self.identity, stage):
            raise _unusable(path, "the same setting and the same pictures", "another training")
        rng = tensors.pop("rng")
        parts: dict[str, dict[str, Tensor]] = {"head": {}, "best": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        return StageState(epoch=epoch, score=score, stale=stale, rng=rng, **parts)

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"


def _parts(state: StageState) -> Iterator[tuple[str, str, Tensor]]:
    for part in ("head", "best", "optimizer"):
        yield from ((part, name, value) for name, value in getattr(state, part).items())


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over what the header says, and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checkpoint_words() -> AbstractContextManager[None]:
    return said_of("checkpoint", kept="the epoch before is kept")


def _unusable(path: Path, expected: str, found: str) -> OutputError:
    return OutputError(
        f"checkpoint {path}",
        expected=expected,
        found=found,
        do="delete its folder to train from the start, or name another",
    )


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
