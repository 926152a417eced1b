"""The token cache: one pass of the image and prompt graphs over example pictures, kept on disk.

    CACHE/tokens/<entry>/run.json              what the entry's tokens come from; its hash names the entry
    CACHE/tokens/<entry>/shards/<sha256>.safetensors

An entry belongs to a segmenter, not to a folder of pictures: pictures are known by the hash of their bytes, so one that
was moved, or is used for other classes, is never run again. The head is not in the entry's hash. Shards are written
whole or not at all, so a pass goes on where it was stopped or killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..annotate.disk import operate
from ..annotate.outputs import RUN_NAME, OutputFolder
from ..annotate.pipeline import read_ahead
from ..errors import EnvironmentFault, ImageError, OutputError
from ..runtime.decode import decode_photo
from ..runtime.model import Model
from ..runtime.photo_file import read_bytes
from ..shapes import Pixels
from ..types import PointGrid
from .examples import Example
from .extra import require
from .token_shard import SHARD_NAME, PictureTokens, TokenShape, is_whole, pack_shard, shard_pictures

CACHE_FORMAT = 1
"""To be raised when decoding or the contents of a shard change."""
SHARD_PICTURES = 64
SHARD_SECONDS = 30.0
"""A shard is written when it has its pictures, or this long after the last one: what a kill can cost."""
_SHARDS = "shards"

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """What a pass is going to do, known before it starts.

    Attributes:
        folder: The cache entry.
        pictures: Different pictures in all.
        cached: Those whose tokens are there.
        bytes: What the others will take on the disk.
        free: Bytes that are free there.
    """

    folder: Path
    pictures: int
    cached: int
    bytes: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a picture's tokens are: a shard's file and a row in it."""

    shard: Path
    row: int


def default_cache() -> Path:
    """``$GRANSAM_HOME``, or ``~/.cache/gransam``.

    Raises:
        EnvironmentFault: There is no home folder either.
    """
    if home := os.environ.get("GRANSAM_HOME"):
        return Path(home).absolute()
    try:
        return Path.home() / ".cache" / "gransam"
    except RuntimeError as error:
        raise EnvironmentFault(
            "cache folder",
            expected="a home folder",
            found=str(error),
            do="name a folder with --cache, or in the environment variable GRANSAM_HOME",
        ) from error


class TokenCache:
    """The tokens that one segmenter gives.

    Args:
        model: Its open sessions; it needs no head.
        root: Folder that holds the entries of all segmenters; None takes ``default_cache``.

    Attributes:
        folder: This segmenter's entry. It need not exist yet.
        shape: Sizes of one picture's arrays.

    Raises:
        MissingExtraError: safetensors is not installed.
    """

    def __init__(self, model: Model, root: Path | None = None) -> None:
        require("train", "safetensors")
        self._model = model
        self._about = _describe(model)
        entry = hashlib.sha256(self._about).hexdigest()[:32]
        self._root = default_cache() if root is None else root.absolute()
        self.folder = self._root / "tokens" / entry
        self.shape = TokenShape.of(model.bundle)

    def fill(
        self,
        examples: Sequence[Example],
        *,
        announce: Callable[[CachePlan], None] | None = None,
        progress: Progress | None = None,
    ) -> tuple[dict[str, Place], list[tuple[str, str]]]:
        """Runs the graphs over the pictures whose tokens are not there yet.

        Args:
            examples: Pictures, no two with the same bytes.
            announce: Told the plan before anything is written.
            progress: Told after every picture.

        Returns:
            Where each picture's tokens are, by its sha256, and (path, reason) of the pictures that have none.

        Raises:
            OutputError: The folder cannot be used, another process writes to it, or the disk has or leaves too little
                room; the shards that were written stay.
        """
        with _cache_words():
            places, damaged = self._find({example.sha256 for example in examples})
            missing = [example for example in examples if example.sha256 not in places]
            plan = CachePlan(
                folder=self.folder,
                pictures=len(examples),
                cached=len(places),
                bytes=len(missing) * self.shape.picture_bytes,
                free=_free_bytes(self.folder),
            )
            if announce:
                announce(plan)
            _check_room(plan)
            if progress:
                progress(plan.cached, plan.pictures)
            if not missing:
                return places, []
            _make_private(self._root)
            with OutputFolder.open(self.folder) as out:
                if out.read(RUN_NAME) != self._about:
                    out.put(RUN_NAME, self._about)
                for name in damaged:
                    out.remove(f"{_SHARDS}/{name}")
                work = _Pass(self._model, out)
                with read_ahead(_decode(missing)) as photos:
                    for number, (example, pixels) in enumerate(photos, start=1):
                        work.add(example, pixels)
                        if progress:
                            progress(plan.cached + number, plan.pictures)
                work.write()
            return places | work.places, work.skipped

    def _find(self, wanted: set[str]) -> tuple[dict[str, Place], list[str]]:
        """Where wanted pictures are, and the names of shards that are not whole. Writes nothing."""
        places: dict[str, Place] = {}
        damaged = []
        for path in sorted((self.folder / _SHARDS).glob("*")):
            if not SHARD_NAME.fullmatch(path.name):
                continue
            pictures = shard_pictures(path)
            if pictures is not None and wanted.isdisjoint(pictures):
                continue
            if pictures is None or not is_whole(path):
                damaged.append(path.name)
                continue
            rows = {sha256: Place(shard=path, row=row) for row, sha256 in enumerate(pictures)}
            places |= {sha256: place for sha256, place in rows.items() if sha256 in wanted}
        return places, damaged


class _Pass:
    """The graphs over one picture after another; what they say collects until it is a shard."""

    def __init__(self, model: Model, out: OutputFolder) -> None:
        self.places: dict[str, Place] = {}
        self.skipped: list[tuple[str, str]] = []
        self._model, self._out = model, out
        self._points = PointGrid(per_side=model.bundle.points_per_side).points()
        self._waiting: dict[str, PictureTokens] = {}
        self._begun = time.monotonic()

    def add(self, example: Example, pixels: Pixels | ImageError) -> None:
        """Runs the graphs over a picture, or notes why not; now and then a shard is written."""
        try:
            if isinstance(pixels, ImageError):
                raise pixels
            self._waiting[example.sha256] = self._run(pixels)
        except ImageError as error:
            self.skipped.append((str(example.path), error.reason))
        if len(self._waiting) >= SHARD_PICTURES or time.monotonic() - self._begun >= SHARD_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what waits as one shard; nothing if nothing does."""
        if self._waiting:
            name, data = pack_shard(self._waiting)
            self._out.put(f"{_SHARDS}/{name}", data)
            path = self._out.root / _SHARDS / name
            self.places |= {sha256: Place(shard=path, row=row) for row, sha256 in enumerate(self._waiting)}
        self._waiting, self._begun = {}, time.monotonic()

    def _run(self, pixels: Pixels) -> PictureTokens:
        frame = self._model.frame(pixels)
        hoisted = self._model.hoist(self._model.prepare(pixels, frame))
        return PictureTokens.of(self._model.prompt(hoisted, frame, self._points, self._model.bundle.prompt_chunk))


def _describe(model: Model) -> bytes:
    """Everything that changes a token, and nothing else; JSON."""
    bundle = model.bundle
    about = {
        "what": "tokens of example pictures",
        "format": CACHE_FORMAT,
        "image": bundle.graphs["image"].sha256,
        "prompt": bundle.graphs["prompt"].sha256,
        "input_side": bundle.input_side,
        "preprocess": asdict(bundle.preprocess),
        "points_per_side": bundle.points_per_side,
        "chunk": bundle.prompt_chunk,
        "provider": model.provider,
    }
    return json.dumps(about, indent=2, sort_keys=True).encode() + b"\n"


def _decode(examples: Sequence[Example]) -> Iterator[tuple[Example, Pixels | ImageError]]:
    """Pixels of pictures that still have the bytes that were hashed."""
    for example in examples:
        try:
            data = read_bytes(example.path)
            if hashlib.sha256(data).hexdigest() != example.sha256:
                raise ImageError("changed", str(example.path), found="other bytes than when this run began")
            yield example, decode_photo(data, name=str(example.path)).pixels
        except ImageError as error:
            yield example, error


def _free_bytes(folder: Path) -> int:
    """Bytes that this user may still write where a folder is, or will be made."""
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - never raises
    return operate(there, shutil.disk_usage, there).free


def _make_private(root: Path) -> None:
    """Makes the cache folder for this user alone: tokens tell something of the pictures. One that is there stays."""
    if root.exists() and not root.is_dir():
        raise OutputError(f"output {root}", expected="a folder", found="a file", do="choose another folder with -o")
    operate(root, os.makedirs, root, mode=0o700, exist_ok=True)


def _check_room(plan: CachePlan) -> None:
    if plan.bytes > plan.free:
        raise OutputError(
            f"token cache {plan.folder}",
            expected=f"{plan.bytes / 1e6:,.0f} MB free for the tokens of {plan.pictures - plan.cached} pictures",
            found=f"{plan.free / 1e6:,.0f} MB free",
            do="free some space, or choose a folder on another disk with --cache",
        )


@contextmanager
def _cache_words() -> Iterator[None]:
    """The writer's errors, said of the cache instead of a run folder."""
    try:
        yield
    except OutputError as error:
        what = f"token cache {error.what.removeprefix('output ')}" if error.what.startswith("output ") else error.what
        do = error.do.replace("with -o", "with --cache")
        raise OutputError(what, expected=error.expected, found=error.found, do=do) from error
