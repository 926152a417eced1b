"""A store and a server of weights on this machine; tests that ask for neither are not touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_weights import BODY, HASTY
from weights_server import WeightsServer

from gransam_sdk.commands import weights_fetch
from gransam_sdk.models.store import Store


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    monkeypatch.setattr(weights_fetch, "patience", lambda: HASTY)
    server = WeightsServer(BODY)
    yield server
    server.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")
