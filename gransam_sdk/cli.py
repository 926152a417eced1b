"""The command line: one file a command in ``commands/``, put together here with exit codes, signals and errors.

Nothing heavy is imported before a command runs: ``gransam --help`` costs typer and no numpy.

    exit code   meaning
    0           done
    1           internal error
    2           usage: an argument, an option, a class name, no photos
    3           finished, but some photos failed, or example pictures are missing
    4           stopped by --max-failures
    5           environment, device or bundle
    6           output folder unusable, locked or of another run
    130, 143    stopped by Ctrl-C, by SIGTERM; what was done is saved
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from .commands.annotate import annotate
from .commands.bench import bench
from .commands.compile import compile_
from .commands.crawl import crawl
from .commands.doctor import doctor
from .commands.engine import engine
from .commands.evaluate import evaluate
from .commands.models import models
from .commands.parity import parity
from .commands.streams import narrate
from .commands.synth import synth
from .commands.train import train
from .commands.train_segmenter import train_segmenter
from .errors import GranSAMError
from .version import __version__

DEBUG_VARIABLE = "GRANSAM_DEBUG"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich would cost more than the rest of the start
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gransam-sdk {__version__}")
        raise typer.Exit


@app.callback()
def gransam(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Pixel labels for your own classes, offline."""


app.command()(annotate)
app.command("eval")(evaluate)
app.command()(train)
app.command()(synth)
app.command()(crawl)
app.command("train-segmenter")(train_segmenter)
app.command("compile")(compile_)
app.command()(parity)
app.command()(engine)
app.command()(bench)
app.add_typer(models, name="models")
app.command()(doctor)


def main() -> None:
    """Entry point of ``gransam``: the process-wide manners that a library must not set, and the exit code.

    Typer itself reports wrong arguments (2) and Ctrl-C (130).
    """
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `gransam ... | head` ends as any Unix filter does
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None when closed
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="gransam")
    except GranSAMError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        _fail(
            f"internal error: {type(error).__name__}: {' '.join(str(error).split())}\n"
            f"  do this:  run it again with {DEBUG_VARIABLE}=1 and report the traceback with `gransam doctor`",
            1,
        )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the program where it stands, through every ``finally``, as Ctrl-C does."""
    raise SystemExit(128 + signum)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        narrate(traceback.format_exc())
    narrate(f"error: {message}")
    raise SystemExit(code)
