"""Streams: narration goes to stderr, results to stdout; a reader who left is no reason to stop."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def narrate(text: str) -> None:
    """Writes lines to stderr."""
    _print(text, sys.stderr)


def answer(result: object) -> None:
    """Writes one JSON object to stdout, ASCII only."""
    import json

    _print(json.dumps(result, indent=2, sort_keys=True), sys.stdout)


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:  # closed before we began
        return
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # What is left in the buffer must go somewhere, or Python complains on its way out.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
