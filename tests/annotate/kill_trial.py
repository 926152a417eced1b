"""Kills runs at random moments, resumes them, and compares what is left with an unbroken run.

Run by ``test_kill.py`` with a stand-in for the model; with a real one:

    python tests/annotate/kill_trial.py --bundle nano-voc20 --photos DIR --kills 20
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from run_server import RunServer
from stand_in import record_names, tree


@dataclass
class KillTrial:
    """What happened.

    Attributes:
        total: Records of an unbroken run.
        partial: Records that were there after each kill that counts: one at least, but not all.
        late: Kills that came after the last record.
        same: Whether each resumed run left the same records, failures and exports, byte for byte.
    """

    total: int
    partial: list[int] = field(default_factory=list)
    late: int = 0
    same: list[bool] = field(default_factory=list)


def try_kills(
    server: RunServer, photos: Path, work: Path, *, kills: int, seed: int = 0, bundle: str | None = None
) -> KillTrial:
    """Interrupts runs until ``kills`` of them had really begun and had really not ended."""
    rng = random.Random(seed)
    job = {"bundle": bundle} if bundle else {"seconds": 0.004}
    begun = time.monotonic()
    if server.wait(server.start(photos, work / "whole", **job)) not in (0, 3):
        raise RuntimeError("the unbroken run failed")
    expected = tree(work / "whole")
    trial = KillTrial(total=len(record_names(work / "whole")))
    one_photo = (time.monotonic() - begun) / trial.total
    while len(trial.partial) < kills and trial.late < 2 * kills:
        out = work / f"run-{len(trial.same)}"
        there = 0
        while there < trial.total - 1:  # some runs are killed several times
            pid = server.start(photos, out, **job)
            _await_records(out, rng.randint(there + 1, trial.total - 1))
            time.sleep(rng.uniform(0, one_photo))
            os.kill(pid, signal.SIGKILL)
            ended = server.wait(pid)
            there = len(record_names(out))
            if ended == -signal.SIGKILL and 0 < there < trial.total:
                trial.partial.append(there)
            else:
                trial.late += 1
            if len(trial.partial) == kills or rng.random() < 0.6:
                break
        if server.wait(server.start(photos, out, **job)) not in (0, 3):
            raise RuntimeError("a resumed run failed")
        trial.same.append(tree(out) == expected)
    return trial


def _await_records(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(record_names(out)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} records in {out}")
        time.sleep(0.001)


def main() -> None:
    """Prints the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--bundle", default="nano-voc20")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with RunServer() as server, tempfile.TemporaryDirectory() as work:
        trial = try_kills(
            server, options.photos, Path(work), kills=options.kills, seed=options.seed, bundle=options.bundle
        )
    print(f"{len(trial.partial)} kills, records at each of {trial.total}: {trial.partial}")
    print(f"{trial.late} more kills came too late to count")
    print(f"{sum(trial.same)} of {len(trial.same)} resumed runs byte-identical to the unbroken one")
    raise SystemExit(0 if all(trial.same) and len(trial.partial) >= options.kills else 1)


if __name__ == "__main__":
    main()
