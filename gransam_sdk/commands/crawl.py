"""``gransam crawl``: class names in, folders of openly licensed example pictures out, fetched from the web."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .streams import answer, narrate

_EVERY_SECONDS = 5.0


def crawl(
    classes: Annotated[
        list[str], typer.Option("--class", "-c", metavar="NAME", help="A class, in words to search for; repeat it.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="PICTURES", help="Folder to fill; what is there is not fetched again."),
    ],
    per_class: Annotated[int, typer.Option("--per-class", metavar="N", min=1, help="Pictures of each class.")] = 45,
    licence: Annotated[
        str,
        typer.Option(
            "--licence",
            metavar="LIST",
            help="Licences, comma-separated: cc0, pdm, by, by-sa, by-nc, by-nc-sa, by-nd, by-nc-nd.",
        ),
    ] = "cc0,pdm,by,by-sa",
    size: Annotated[
        str, typer.Option("--size", metavar="LIST", help="Sizes, comma-separated: small, medium, large.")
    ] = "medium,large",
    api: Annotated[
        str, typer.Option("--api", metavar="URL", help="Address of the Openverse API that is searched.")
    ] = "https://api.openverse.org/v1/",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Fetch openly licensed example pictures of classes from the web, with their attribution, for `gransam train`."""
    from ..training.sources.openverse import Openverse
    from ..training.sources.web import WebConfig, WebSource

    catalogue = Openverse(base=api, licences=_words(licence), sizes=_words(size))
    try:
        report = WebSource(WebConfig(catalogue=catalogue)).collect(
            classes, out, per_class=per_class, progress=_Heartbeat().advance
        )
    except (KeyboardInterrupt, SystemExit):  # the second is SIGTERM
        narrate("stopped; what was fetched is saved, and the same command goes on from there")
        raise
    for line in report.lines():
        narrate(line)
    if report.missing:
        narrate("where pictures are missing, the results have run out: add your own, other words, or more licences")
    if as_json:
        answer(report.to_json())
    if report.missing:
        raise typer.Exit(3)


class _Heartbeat:
    """A line every few seconds, and one when a class has all of its pictures."""

    def __init__(self) -> None:
        self._spoken = time.monotonic()

    def advance(self, name: str, there: int, wanted: int) -> None:
        """Says how far a class is, if it is time."""
        if there == wanted or time.monotonic() - self._spoken >= _EVERY_SECONDS:
            self._spoken = time.monotonic()
            narrate(f"{name}: {there} of {wanted} pictures")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())
