"""Weights of a few bytes, and what tests do with them and a loopback server."""

from __future__ import annotations

import hashlib
import math
import random
from functools import partial
from typing import Any

import pytest
from weights_server import WeightsServer

from gransam_sdk.commands.weights_fetch import complete
from gransam_sdk.errors import EnvironmentFault
from gransam_sdk.models.catalogue import Weights
from gransam_sdk.models.store import Store, Verified
from gransam_sdk.training.sources.download import Manners

BODY = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
WEIGHTS = Weights(
    name="toy",
    about="Toy",
    file="toy.pth",
    base="https://weights.example/",
    bytes=len(BODY),
    sha256=SHA256,
    licence="Apache-2.0",
    project="https://weights.example/toy",
)
UNKNOWN = Weights(**{name: getattr(WEIGHTS, name) for name in WEIGHTS.__slots__} | {"sha256": ""})
HASTY = Manners(timeout=0.3, deadline=math.inf, attempts=3, backoff=0.001)


def pull(store: Store, server: WeightsServer, weights: Weights = WEIGHTS, **settings: Any) -> Verified:
    url = weights.address(server.root)
    return store.pull(weights, partial(complete, named_by_user=True), url=url, **settings)


def refusal(store: Store, server: WeightsServer, weights: Weights = WEIGHTS) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        pull(store, server, weights)
    assert not store.path(weights).exists(), "nothing wrong gets the name"
    return caught.value


def left(store: Store) -> bytes:
    """What an unfinished download has."""
    path = store.path(WEIGHTS)
    unfinished = path.with_name(path.name + ".part")
    return unfinished.read_bytes() if unfinished.exists() else b""


def names(store: Store) -> set[str]:
    return {path.name for path in store.path(WEIGHTS).parent.iterdir()}


def ranges(server: WeightsServer) -> list[str | None]:
    return [asked.range for asked in server.asked]
