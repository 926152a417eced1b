"""A process that has everything imported and forks a run on request: tests start and kill real processes in no time.

One JSON object a line: ``{"photos", "out", ...}`` starts a run and answers with its process id, ``{"wait": pid}``
answers with how it ended. The keys of a job are the arguments of ``run_job``.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stand_in import StandIn, annotate, make_photos

from gransam_sdk.annotate import disk
from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.errors import GranSAMError


class RunServer:
    """The test's end of the line; use it in a ``with`` block."""

    def __enter__(self) -> RunServer:
        root = Path(__file__).parent.parent.parent
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)

    def start(self, photos: Path, out: Path, **options: Any) -> int:
        """The process id of a run that has just begun."""
        return int(self._ask({"photos": str(photos), "out": str(out), **options}))

    def wait(self, pid: int) -> int:
        """Exit code of a run; minus the signal that ended it."""
        return int(self._ask({"wait": pid}))

    def _ask(self, question: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def run_job(
    photos: str,
    out: str,
    *,
    bundle: str | None = None,
    seconds: float = 0.0,
    kill_at: int | None = None,
    file_size: int | None = None,
    open_files: int | None = None,
    said: str | None = None,
) -> int:
    """One run in a process of its own.

    Args:
        photos: Input folder.
        out: Run folder.
        bundle: A real bundle; None takes the stand-in.
        seconds: The stand-in's time for one photo.
        kill_at: The file operation (from 0) at which the process kills itself.
        file_size: Limit of the system for one file, in bytes.
        open_files: Limit of the system for open files.
        said: Where to write the error and the time it took.

    Returns:
        Exit code.
    """
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    if kill_at is not None:
        disk._call = _killing(kill_at)
    try:
        if bundle:
            code = annotate_folder(photos, out, bundle=bundle, to=("coco", "voc"), report=False).exit_code
        else:
            code = annotate(Path(photos), Path(out), segmenter=StandIn(seconds=seconds)).exit_code
        error = ""
    except GranSAMError as trouble:
        code, error = trouble.exit_code, str(trouble)
    if said:
        Path(said).write_text(json.dumps({"error": error, "seconds": time.monotonic() - begun}))
    return code


def _killing(kill_at: int) -> Any:
    """File operations of which one is the last thing that the process does, before or after it has its effect."""
    numbers = itertools.count()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        doomed = next(numbers) == kill_at // 2
        if doomed and kill_at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = None if function is os.sync else function(*args, **kwargs)
        if doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def _fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = run_job(**job)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code)


def serve() -> None:
    """Answers until the line is closed."""
    with tempfile.TemporaryDirectory() as warm:  # so that what is imported on first use is not imported in every child
        annotate(make_photos(Path(warm, "photos"), 1, bad={}), Path(warm, "run"))
    while line := sys.stdin.readline():
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = _fork(question)
        print(answer, flush=True)


if __name__ == "__main__":
    serve()
