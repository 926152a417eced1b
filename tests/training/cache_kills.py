"""Kills passes of the token cache, resumes them, and compares the bags with those of an unbroken pass.

A process of its own, which forks: it imports everything once and never holds a thread while it does so. Prints JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pictures import make_pictures

from gransam_sdk.annotate import disk
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.training import token_cache
from gransam_sdk.training.tokens import extract_bags

RANDOM_KILLS = 8


def extract(pictures: Path, cache: Path) -> bytes:
    bags = extract_bags(fake_model(fake_bundle()), pictures, scenes=False, cache=cache)
    return bags.instances.tobytes() + bags.rim.tobytes() + bags.labels.tobytes()


def fork(pictures: Path, cache: Path, kill_at: int | None = None) -> int:
    """The process id of a pass that has just begun; with ``kill_at`` it ends itself there (see below)."""
    pid = os.fork()
    if pid == 0:
        try:
            if kill_at is not None:
                disk._call = killing(kill_at)
            extract(pictures, cache)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def killing(kill_at: int) -> Any:
    """File operations of which one is the last, before it has its effect (even numbers) or after (odd ones)."""
    numbers = itertools.count()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        doomed = next(numbers) == kill_at // 2
        if doomed and kill_at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def main() -> None:
    token_cache.SHARD_PICTURES = 2
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pictures = make_pictures(work / "pictures", 2)
        begun = time.monotonic()
        whole = extract(pictures, work / "whole")
        seconds = time.monotonic() - begun
        trial: dict[str, Any] = {"same": [], "shards": [], "torn": 0, "left": 0}

        def resume(cache: Path) -> None:
            trial["torn"] += len(list(cache.rglob(".gransam-*")))
            trial["shards"].append(len(list(cache.rglob("*.safetensors"))))
            trial["same"].append(extract(pictures, cache) == whole)
            trial["left"] += len(list(cache.rglob(".gransam-*")))

        for kill_at in itertools.count():
            cache = work / f"operation-{kill_at}"
            status = os.waitpid(fork(pictures, cache, kill_at), 0)[1]
            if not os.WIFSIGNALED(status):
                break
            resume(cache)
        trial |= {"operations": kill_at, "ended": os.waitstatus_to_exitcode(status)}
        rng = random.Random(0)
        for number in range(RANDOM_KILLS):
            cache = work / f"random-{number}"
            pid = fork(pictures, cache)
            time.sleep(rng.uniform(0, 2 * seconds))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            resume(cache)
    json.dump(trial, sys.stdout)


if __name__ == "__main__":
    main()
