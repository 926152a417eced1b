"""Kills trainings at random moments, resumes them, and compares what is left with an unbroken one.

Run by ``test_fit_resume.py``, and with a word by ``test_rehearse.py`` and ``test_ensemble.py``; prints JSON. Trainings
are forked from this process, which has imported all there is and has one thread, so that each begins at once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from bags_by_hand import noisy_bags, noisy_scenes, one_head
from safetensors.torch import save

from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.rehearse import fit_calibrated

CONFIG = one_head(epochs=6, hold_out=0.2, patience=4, dropout=0.3)
BAGS = noisy_bags(count=60)
REHEARSED = replace(noisy_bags(count=100), scenes=noisy_scenes(count=20))

Fit = Callable[[Path | None], bytes]
"""A training: where its checkpoint is, to the bytes of all that comes out."""


def fit_once(checkpoint: Path | None) -> bytes:
    return save(fit_head(BAGS, CONFIG, checkpoint=checkpoint).head.state_dict())


def fit_several(checkpoint: Path | None) -> bytes:
    return save(fit_head(BAGS, one_head(members=2, epochs=4), checkpoint=checkpoint).head.state_dict())


def fit_twice(checkpoint: Path | None) -> bytes:
    found = fit_calibrated(REHEARSED, one_head(epochs=3), checkpoint=checkpoint)
    if found.calibration is None:
        raise RuntimeError("there was no rehearsal")
    return save(found.fitted.head.state_dict()) + repr((found.calibration, found.lessons)).encode()


FITS: dict[str, Fit] = {"": fit_once, "rehearsal": fit_twice, "ensemble": fit_several}


def start(fit: Fit, out: Path, checkpoint: Path) -> int:
    """Begins a training in a process of its own, which writes what comes out to ``out``; its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        out.write_bytes(fit(checkpoint))
        code = 0
    finally:
        os._exit(code)


def progress(checkpoint: Path) -> str:
    """What the checkpoint holds: stage files and their times."""
    return " ".join(
        f"{path.relative_to(checkpoint)}:{path.stat().st_mtime_ns}"
        for path in sorted(checkpoint.rglob("*.safetensors"))
    )


def main(work: Path, kills: int, fit: Fit) -> None:
    rng = random.Random(0)
    torch.set_num_threads(1)
    expected = fit(work / "whole")
    begun = time.monotonic()
    if expected != fit(None):
        raise RuntimeError("the checkpoint changes the head")
    duration = time.monotonic() - begun
    same, partial, moments, swept = [], 0, set(), 0
    for trial in range(10 * kills):
        if partial >= kills:
            break
        checkpoint, out = work / f"checkpoint-{trial}", work / f"head-{trial}"
        while True:
            pid = start(fit, out, checkpoint)
            time.sleep(rng.uniform(0, duration))
            os.kill(pid, signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
            if killed and checkpoint.is_dir() and (there := progress(checkpoint)) and not out.exists():
                partial += 1
                moments.add(there)
            if not killed or rng.random() < 0.6:
                break
        if os.waitpid(start(fit, out, checkpoint), 0)[1]:
            raise RuntimeError("a resumed training failed")
        same.append(out.read_bytes() == expected)
        swept += len(list(checkpoint.rglob(".gransam-*")))
        shutil.rmtree(checkpoint)
    print(json.dumps({"partial": partial, "moments": len(moments), "same": same, "left": swept}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), FITS[sys.argv[3] if sys.argv[3:] else ""])
