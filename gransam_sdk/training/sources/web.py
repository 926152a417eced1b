"""Openly licensed example pictures from the web, with their attribution."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...annotate.disk import operate
from ...errors import ImageError, InputError
from ...runtime.decode import Photo, decode_photo
from .attribution import write_attribution
from .download import Fetcher, Manners
from .fetch_fault import FetchFault
from .openverse import Offer, Openverse
from .perceptual_hash import HashIndex, difference_hash
from .source import (
    ClassReport,
    Progress,
    SourceReport,
    check_count,
    folder_names,
    made_pictures,
    open_class_folder,
    put_picture,
    taken_numbers,
)

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_BYTES_OF_ANY_KIND = ("", "application/octet-stream", "binary/octet-stream")
_ATTRIBUTION_EVERY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """What is fetched.

    Attributes:
        catalogue: Where is searched, and for which licences and sizes.
        min_side: Shortest side in pixels that a picture may have.
        max_bytes: Longest file that is fetched.
        interval: Seconds between two downloads from one host.
        manners: How servers are treated.
        allow_private: Whether pictures may lie on this machine or in private networks; the catalogue, which the user
            names, may in any case.
    """

    catalogue: Openverse = field(default_factory=Openverse)
    min_side: int = 128
    max_bytes: int = 32 << 20
    interval: float = 0.5
    manners: Manners = field(default_factory=Manners)
    allow_private: bool = False

    def __post_init__(self) -> None:
        """Reject limits that nothing can meet."""
        for name in ("min_side", "max_bytes"):
            if getattr(self, name) < 1:
                raise InputError(name, expected="from 1", found=repr(getattr(self, name)))


class WebSource:
    """Searches a catalogue for each class's name and fetches what it finds, best results first.

    A picture is taken if it decodes, is large enough, and neither it nor one that looks like it is there already, in
    whichever class. Of a cut run, what is there stays, and the next one goes on: the same answers give the same files.
    """

    name = "web"

    def __init__(self, config: WebConfig | None = None) -> None:
        """Nothing is fetched yet."""
        self._config = config or WebConfig()

    def collect(
        self, classes: Sequence[str], out: Path, *, per_class: int, progress: Progress | None = None
    ) -> SourceReport:
        """Fetches pictures until each class has its number, or the results have run out.

        Args:
            classes: Class names; each is the query of its own search.
            out: Folder to fill; gets ``attribution.jsonl`` too.
            per_class: Pictures wanted of each.
            progress: See ``Progress``.

        Raises:
            InputError: See ``Source.collect``.
            EnvironmentFault: The catalogue cannot be reached, or refuses; what was fetched stays.
            OutputError: The disk refused; what was fetched stays.
        """
        folders = folder_names(classes)
        check_count(per_class)
        operate(out, out.mkdir, parents=True, exist_ok=True)
        collection = _Collection(self._config, out)
        try:
            reports = [collection.fill(name, folders[name], per_class, progress) for name in classes]
        finally:
            write_attribution(out, self.name)
        return SourceReport(out=out, classes=tuple(reports))


class _Collection:
    """All pictures in a folder: what is there, what looks like it, and what comes."""

    def __init__(self, config: WebConfig, out: Path) -> None:
        self._config = config
        self._out = out
        self._fetcher = Fetcher(config.manners, allow_private=config.allow_private)
        self._ids: dict[str, str] = {}
        self._looks = HashIndex()
        for folder in sorted(path for path in operate(out, list, out.iterdir()) if path.is_dir()):
            for path, provenance in made_pictures(folder).values():
                if provenance.get("source") == WebSource.name:
                    self._remember(provenance, f"{folder.name}/{path.name}")

    def fill(self, name: str, folder: str, wanted: int, progress: Progress | None) -> ClassReport:
        """Brings one class to its number of pictures, as far as the results go."""
        path = open_class_folder(self._out, folder)
        kept = sum(where.startswith(f"{folder}/") for where in self._ids.values())
        made = 0
        skipped: list[tuple[str, str]] = []
        for offer in self._untried(name) if kept < wanted else ():
            if progress:
                progress(name, kept + made, wanted)
            if offer is None:
                skipped.append(("a search result", "unusable"))
            elif self._ids.get(offer.id, "").startswith(f"{folder}/"):
                continue  # there from an earlier run
            elif reason := self._take(offer, path, name):
                skipped.append((offer.url or offer.id, reason))
            else:
                made += 1
                if made % _ATTRIBUTION_EVERY == 0:
                    write_attribution(self._out, WebSource.name)
            if kept + made >= wanted:
                break
        if progress:
            progress(name, kept + made, wanted)
        return ClassReport(name=name, wanted=wanted, made=made, kept=kept, skipped=tuple(skipped))

    def _untried(self, query: str) -> Iterator[Offer | None]:
        """Search results, each once: pages overlap when the catalogue changes meanwhile."""
        tried = set()
        for offer in self._config.catalogue.search(self._fetcher, query):
            if offer is None or offer.id not in tried:
                yield offer
            if offer is not None:
                tried.add(offer.id)

    def _take(self, offer: Offer, folder: Path, query: str) -> str:
        """Fetches a picture and puts it into its folder; returns why not, empty if it did."""
        if offer.id in self._ids:
            return "duplicate"
        if not offer.is_decoded:
            return "format"
        limits = self._config
        try:
            data = self._fetcher.get(
                offer.url, max_bytes=limits.max_bytes, interval=limits.interval, accept=_may_be_picture
            ).data
            photo = decode_photo(data, name=offer.url)
        except (FetchFault, ImageError) as error:
            return error.reason
        if min(photo.pixels.shape[:2]) < limits.min_side:
            return "small"
        looks = difference_hash(photo.pixels)
        if self._looks.find(looks) is not None:
            return "duplicate"
        provenance = _provenance(offer, query, limits.catalogue.base, data, photo, looks)
        number = max(taken_numbers(folder), default=-1) + 1
        put_picture(folder, number, data, _SUFFIXES[photo.format], provenance)
        self._remember(provenance, f"{folder.name}/{number:04d}")
        return ""

    def _remember(self, provenance: dict[str, Any], where: str) -> None:
        name, looks = provenance.get("id"), provenance.get("dhash")
        if isinstance(name, str):
            self._ids[name] = where
        if isinstance(looks, str) and re.fullmatch(r"[0-9a-f]{16}", looks):
            self._looks.add(int(looks, 16), where)


def _may_be_picture(content_type: str) -> bool:
    """Whether a body of that type is worth reading; its content decides later."""
    return content_type.startswith("image/") or content_type in _BYTES_OF_ANY_KIND


def _provenance(offer: Offer, query: str, catalogue: str, data: bytes, photo: Photo, looks: int) -> dict[str, Any]:
    height, width = photo.pixels.shape[:2]
    stated = {key: value for key, value in asdict(offer).items() if key != "filetype"}
    return stated | {
        "source": WebSource.name,
        "catalogue": catalogue,
        "query": query,
        "sha256": hashlib.sha256(data).hexdigest(),
        "dhash": f"{looks:016x}",
        "width": width,
        "height": height,
    }
