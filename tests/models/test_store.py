"""What the store keeps: whole files under their names, their hashes, and whatever a refusing disk leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_weights import BODY, SHA256, UNKNOWN, WEIGHTS, left, names, pull, ranges, refusal
from weights_server import WeightsServer, breaking

from gransam_sdk.annotate import disk
from gransam_sdk.annotate.outputs import take_lock
from gransam_sdk.errors import EnvironmentFault, OutputError
from gransam_sdk.models.catalogue import Weights
from gransam_sdk.models.store import Store, Verified


def test_a_pull_gives_the_bytes_and_notes_where_from(store: Store, server: WeightsServer) -> None:
    steps: list[tuple[int, int]] = []
    found = pull(store, server, progress=lambda done, total: steps.append((done, total)))
    assert found == Verified(path=store.path(WEIGHTS), sha256=SHA256, against="published", fetched=True)
    assert found.path.read_bytes() == BODY and names(store) == {"toy.pth", "toy.pth.json", ".lock"}
    record = json.loads(found.path.with_name("toy.pth.json").read_text())
    assert record == {"schema": 1, "bytes": len(BODY), "sha256": SHA256, "url": f"{server.root}/toy.pth"}
    assert steps[-1] == (len(BODY), len(BODY)) and steps == sorted(steps)
    assert server.asked[0].agent.startswith("gransam-sdk/") and "weights" in server.asked[0].agent
    assert not pull(store, server).fetched and len(server.asked) == 1, "what is here is not fetched again"


def failing_at(number: int, error: int) -> Callable[..., Any]:
    """The one place where files are touched, which refuses the n-th operation."""
    calls = iter(range(1, 10**6))

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise OSError(error, os.strerror(error))
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_whichever_file_operation_fails_the_next_pull_completes(
    tmp_path: Path, server: WeightsServer, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    refused = 0
    for number in range(1, 200):
        store = Store(tmp_path / str(number))
        server.replies = [breaking(90_000), breaking(90_000)]
        with monkeypatch.context() as patch:
            patch.setattr(disk, "_call", failing_at(number, error))
            try:
                pull(store, server)
                break
            except OutputError as fault:
                assert errno.errorcode[error] in fault.found
                refused += 1
        path = store.path(WEIGHTS)
        assert not path.exists() or path.read_bytes() == BODY, number
        server.replies = []
        assert pull(store, server).path.read_bytes() == BODY, number
    assert 20 < refused < 190, "every operation was made to fail once, and then none was left"


def test_a_full_disk_keeps_what_came(store: Store, server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if function is os.write and len(args[1]) and left(store)[100_000:]:
            raise OSError(errno.ENOSPC, "No space left on device")
        if function is os.write:
            return os.write(args[0], args[1][:30_000])  # less than it was given, as a disk may
        return function(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_call", call)
        with pytest.raises(OutputError, match="ENOSPC") as caught:
            pull(store, server)
    kept = left(store)
    assert 100_000 < len(kept) < len(BODY) and kept == BODY[: len(kept)] and "free some space" in caught.value.do
    assert pull(store, server).path.read_bytes() == BODY and ranges(server)[-1] == f"bytes={len(kept)}-"


def test_too_little_room_is_said_before_anything_is_fetched(
    store: Store, server: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(BODY) - 1))
    with pytest.raises(OutputError, match=r"0\.3 MB free for toy"):
        pull(store, server)
    assert server.asked == []


def test_two_processes_do_not_fetch_the_same(store: Store, server: WeightsServer) -> None:
    folder = store.path(WEIGHTS).parent
    folder.mkdir(parents=True)
    lock = take_lock(folder)
    for action in (lambda: pull(store, server), lambda: store.remove(WEIGHTS)):
        with pytest.raises(OutputError, match="lock held by another process"):
            action()
    assert server.asked == []
    os.close(lock)
    assert pull(store, server).fetched


def test_the_cache_is_made_for_this_user_alone(store: Store, server: WeightsServer) -> None:
    pull(store, server)
    assert store.path(WEIGHTS).parents[2].stat().st_mode & 0o777 == 0o700


def test_an_unknown_hash_is_recorded_at_the_first_pull(store: Store, server: WeightsServer) -> None:
    found = pull(store, server, UNKNOWN)
    assert (found.against, found.sha256, store.look(UNKNOWN).recorded) == ("new", SHA256, SHA256)
    assert store.verify(UNKNOWN).against == "recorded"
    found.path.write_bytes(bytes(len(BODY)))
    with pytest.raises(EnvironmentFault, match=SHA256):
        store.verify(UNKNOWN)
    found.path.unlink()
    server.body = bytes(len(BODY))
    assert "gransam models rm" in refusal(store, server, UNKNOWN).do
    assert store.remove(UNKNOWN) > 0
    assert pull(store, server, UNKNOWN).against == "new", "rm forgets"


def test_a_file_that_was_placed_by_hand(store: Store) -> None:
    path = store.path(WEIGHTS)
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert (store.look(WEIGHTS).state, store.look(WEIGHTS).recorded) == ("here", "")
    assert store.pull(WEIGHTS, None, url="https://weights.example/toy.pth").against == "published"
    assert store.look(WEIGHTS).recorded == SHA256
    for weights in (WEIGHTS, UNKNOWN):
        path.with_name("toy.pth.json").unlink(missing_ok=True)
        path.write_bytes(BODY[:-1])
        assert store.look(weights).state == "damaged"
        with pytest.raises(EnvironmentFault, match="299,999 bytes"):
            store.verify(weights)
        assert store.look(weights).recorded == ""


def test_offline_names_the_file_to_place(store: Store) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        store.pull(WEIGHTS, None, url="https://weights.example/toy.pth")
    said = str(caught.value)
    assert all(
        word in said for word in (str(store.path(WEIGHTS)), "https://weights.example/toy.pth", SHA256, "300,000")
    )
    assert not store.path(WEIGHTS).parents[2].exists(), "nothing is written"


def test_remove_takes_all_of_it_and_nothing_else(store: Store, server: WeightsServer) -> None:
    assert store.remove(WEIGHTS) == 0
    folder = pull(store, server).path.parent
    (folder / "notes.txt").write_text("mine")
    assert store.remove(WEIGHTS) > len(BODY)
    assert names(store) == {"notes.txt"}
    (folder / "notes.txt").unlink()
    server.replies = [breaking(90_000)] + [breaking(0)] * 50
    refusal(store, server)
    assert store.remove(WEIGHTS) > 90_000 and not folder.exists()
    with pytest.raises(EnvironmentFault, match="gransam models pull toy"):
        store.verify(WEIGHTS)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256": 7}', '{"sha256": "../x"}', "[" * 100_000])
def test_a_damaged_record_is_no_record(store: Store, server: WeightsServer, text: str) -> None:
    path = pull(store, server).path
    path.with_name("toy.pth.json").write_text(text)
    assert store.look(WEIGHTS).recorded == ""
    path.rename(path.with_name("toy.pth.part"))
    path.with_name("toy.pth.part.json").write_text(text)
    os.truncate(path.with_name("toy.pth.part"), 5000)
    server.asked = []
    assert pull(store, server).fetched and ranges(server) == [None], "nor is a damaged note of the version one"


def test_nothing_is_unpickled(store: Store, server: WeightsServer, tmp_path: Path) -> None:
    trap = tmp_path / "opened"
    body = b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    weights = Weights(
        **{name: getattr(WEIGHTS, name) for name in WEIGHTS.__slots__}
        | {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    )
    server.body = body
    pull(store, server, weights)
    store.verify(weights)
    store.look(weights)
    assert not trap.exists()
    code = "import gransam_sdk.models.store, gransam_sdk.commands.weights_fetch, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
