"""Tests of training keep their token caches to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openverse_server import OpenverseServer

from gransam_sdk.training.sources.web import WebSource


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is when no folder is named."""
    home = tmp_path_factory.mktemp("home") / "gransam"
    monkeypatch.setenv("GRANSAM_HOME", str(home))
    return home


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenverseServer]:
    """A catalogue of pictures on this machine, empty at first; no proxy stands between."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    server = OpenverseServer()
    yield server
    server.close()


@pytest.fixture
def source(server: OpenverseServer) -> WebSource:
    """The web source that searches there."""
    return server.source()
