"""``gransam models``: official weights, fetched once, verified, and kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GranSAMError
from .streams import answer, narrate

if TYPE_CHECKING:
    from ..models.catalogue import Weights
    from ..models.store import Holding, Store, Verified

_AGAINST = {
    "published": "the sha256 that is known of it",
    "recorded": "the sha256 that was recorded at the first pull",
    "new": "nothing: no sha256 is known of it, so this one was recorded",
}

Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Keeps weights; $GRANSAM_HOME, else ~/.cache/gransam."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Weights, as gransam models list calls them.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Weights, as gransam models list calls them.")]

models = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Fetch, verify and remove official model weights."
)


@models.command("list")
def list_(cache: Cache = None, as_json: Json = False) -> None:
    """Print the weights that can be fetched, and which are here."""
    from ..models.catalogue import CATALOGUE

    store = _store(cache)
    held = [(weights, store.look(weights)) for weights in CATALOGUE]
    if as_json:
        answer({"models": [_facts(weights, holding) for weights, holding in held]})
        return
    width = max(len(weights.name) for weights in CATALOGUE)
    for weights, holding in held:
        print(f"{weights.name:{width}}  {_megabytes(weights.bytes):>10}  {weights.licence}  {_state(weights, holding)}")


@models.command()
def pull(
    names: Names,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror",
            metavar="URL",
            envvar="GRANSAM_MIRROR",
            help="Folder to fetch from instead of the maker's; or $GRANSAM_MIRROR.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            envvar="GRANSAM_OFFLINE",
            help="Fetch nothing, and say what to place where by hand; or $GRANSAM_OFFLINE.",
        ),
    ] = False,
    cache: Cache = None,
) -> None:
    """Fetch weights, or go on with an unfinished download; every byte is verified. Prints where they are."""
    from ..models.catalogue import find_weights
    from ..training.writer_words import said_of
    from .weights_fetch import complete, download_progress

    store = _store(cache)
    chosen = [find_weights(name) for name in names]
    addresses = [weights.address(mirror) for weights in chosen]
    fetch = None if offline else partial(complete, named_by_user=mirror is not None)
    for weights, url in zip(chosen, addresses, strict=True):
        if fetch is not None and store.look(weights).state in ("absent", "unfinished"):
            narrate(f"{weights.name}: {_megabytes(weights.bytes)} from {url}, licence {weights.licence}")
        with said_of("weights", kept="what was downloaded is kept"), download_progress(weights.name) as shown:
            found = store.pull(weights, fetch, url=url, progress=shown.advance)
        narrate(_praise(weights, found))
        print(found.path)


@models.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Weights; all that are here by default.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Read every byte of weights that are here, and compare their sha256."""
    from ..models.catalogue import CATALOGUE, find_weights

    store = _store(cache)
    here = [weights for weights in CATALOGUE if store.look(weights).state in ("here", "damaged")]
    faults: list[GranSAMError] = []
    for weights in [find_weights(name) for name in names] if names else here:
        try:
            print(_praise(weights, store.verify(weights)))
        except GranSAMError as error:
            print(f"{weights.name}: refused")
            faults.append(error)
    if not names and not here:
        narrate("no weights are here; gransam models list shows what can be pulled")
    for fault in faults:
        narrate(f"error: {fault}")
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))


@models.command()
def info(name: Name, cache: Cache = None, as_json: Json = False) -> None:
    """Print what is known of weights: origin, licence, size, sha256, and where they are."""
    from ..models.catalogue import find_weights

    weights = find_weights(name)
    facts = _facts(weights, _store(cache).look(weights))
    if as_json:
        answer(facts)
        return
    for word, fact in facts.items():
        print(f"{word:12}{fact}")


@models.command()
def rm(name: Name, cache: Cache = None) -> None:
    """Delete weights, and an unfinished download of them."""
    from ..models.catalogue import find_weights
    from ..training.writer_words import said_of

    weights = find_weights(name)
    with said_of("weights", kept="the rest is kept"):
        freed = _store(cache).remove(weights)
    narrate(f"{name}: {_megabytes(freed)} deleted" if freed else f"{name}: nothing was here")


def _store(cache: Path | None) -> Store:
    from ..models.store import Store
    from ..training.token_cache import default_cache

    return Store(cache or default_cache())


def _facts(weights: Weights, holding: Holding) -> dict[str, Any]:
    return {
        "name": weights.name,
        "about": weights.about,
        "licence": weights.licence,
        "project": weights.project,
        "url": weights.address(),
        "bytes": weights.bytes,
        "sha256": weights.sha256 or holding.recorded or "not known; recorded at the first pull",
        "path": str(holding.path),
        "state": _state(weights, holding),
    }


def _state(weights: Weights, holding: Holding) -> str:
    if holding.state == "unfinished":
        return f"unfinished, {_megabytes(holding.bytes)} here"
    if holding.state == "damaged":
        return f"damaged, {holding.bytes:,} bytes"
    if holding.state == "here" and holding.recorded != (weights.sha256 or holding.recorded or "-"):
        return "here, not verified"
    return holding.state


def _praise(weights: Weights, found: Verified) -> str:
    how = "pulled and verified" if found.fetched else "verified"
    return f"{weights.name}: {how}, sha256 {found.sha256}, compared with {_AGAINST[found.against]}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
