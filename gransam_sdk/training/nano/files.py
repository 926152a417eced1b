"""The files of a training: the checkpoint that it starts from, the one that it leaves, and the log beside that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save

from ...errors import GranSAMError
from ...models.nano import Nano
from .config import SegmenterConfig
from .data import TrainingData
from .fit import Budget, Trained

LOG_SCHEMA = 1


def machine_facts(device: str) -> dict[str, str | int]:
    """What the log says of where a training ran."""
    name = device if device == "cpu" else torch.cuda.get_device_name(torch.device(device))
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def checkpoint_bytes(nano: Nano) -> bytes:
    """A safetensors file with the module's own keys, in 16 bits.

    Raises:
        GranSAMError: A weight is no number, or too large for 16 bits.
    """
    tensors = {}
    for name, value in nano.state_dict().items():
        tensors[name] = value.half() if value.is_floating_point() else value
        if not bool(torch.isfinite(tensors[name]).all()):
            raise GranSAMError(
                f"weight {name}",
                expected="finite numbers that 16 bits hold",
                found=f"up to {float(value.abs().max()):g}",
                do="train with another seed, or with a smaller learning rate",
            )
    data: bytes = save(tensors, {"format": "pt"})
    return data


def training_log(
    trained: Trained, data: TrainingData, config: SegmenterConfig, budget: Budget, facts: Mapping[str, Any]
) -> bytes:
    """The log: setting, data, steps, time and history; ``facts`` are the caller's, such as files and device."""
    log = {
        "schema": LOG_SCHEMA,
        **facts,
        "config": asdict(config),
        "budget": asdict(budget),
        "data": {"photos": data.sources(), "held_out": len(data.held), "sha256": data.digest()},
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "history": trained.history,
    }
    return (json.dumps(log, indent=1) + "\n").encode()
