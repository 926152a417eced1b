"""The token cache: one pass of the image and prompt graphs over example pictures, kept on disk.

    CACHE/tokens/<entry>/run.json              what the entry's tokens come from; its hash names the entry
    CACHE/tokens/<entry>/shards/<sha256>.safetensors

An entry belongs to a segmenter, not to a folder of pictures: pictures are known by the hash of their bytes, so one that
was moved, or is used for other classes, is never run again. The head is not in the entry's hash. Shards are written
whole or not at all, so a pass goes on where it was stopped or killed.

Nothing is thrown away below 10 GiB. Above, a pass that has something to write first deletes the entries of other
segmenters that were not used for 30 days (``stale_entries``).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..annotate.disk import operate
from ..annotate.outputs import RUN_NAME, OutputFolder
from ..annotate.pipeline import read_ahead
from ..errors import EnvironmentFault, ImageError, OutputError
from ..geometry import Frame
from ..runtime.model import Model
from ..shapes import Float, Int, Pixels
from ..types import PointGrid
from .cache_key import describe_segmenter, entry_name
from .extra import require
from .stale_entries import CAP_BYTES, SHARDS, free_stale, mark_used
from .token_shard import SHARD_NAME, PictureTokens, TokenShape, is_whole, pack_shard, shard_pictures
from .writer_words import said_of

SHARD_PICTURES = 64
SHARD_SECONDS = 30.0
"""A shard is written when it has its pictures, or this long after the last one: what a kill can cost."""

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """What a pass is going to do, known before it starts.

    Attributes:
        what: Pictures, or scenes of them.
        folder: The cache entry.
        pictures: How many different ones in all.
        cached: Those whose tokens are there.
        bytes: What the others will take on the disk.
        free: Bytes that are free there.
        freed: Bytes of other entries that were deleted for it.
    """

    what: str
    folder: Path
    pictures: int
    cached: int
    bytes: int
    free: int
    freed: int = 0


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


class Picture(Protocol):
    """What has pixels that are known by a hash: an example picture, or a scene of several."""

    @property
    def sha256(self) -> str:
        """Hex digest of all that its pixels come from."""

    @property
    def name(self) -> str:
        """For messages."""

    def pixels(self) -> Pixels:
        """(h,w,3) uint8 upright RGB; ``ImageError`` where it cannot be had."""

    def areas(self, points: Float) -> Float:
        """(g,4) XYXY in [0,1]: the example picture that each of points (g,2) in [0,1] is on."""


class TokenCache:
    """The tokens that one segmenter gives.

    Args:
        model: Its open sessions; it needs no head.
        root: Folder that holds the entries of all segmenters; None takes ``default_cache``.
        cap: Bytes that all of them may take before those go that were not used for 30 days.

    Attributes:
        folder: This segmenter's entry. It need not exist yet.
        shape: Sizes of one picture's arrays.

    Raises:
        MissingExtraError: safetensors is not installed.
    """

    def __init__(self, model: Model, root: Path | None = None, *, cap: int = CAP_BYTES) -> None:
        require("train", "safetensors")
        self._model = model
        self._about = describe_segmenter(model)
        self._root = default_cache() if root is None else root.absolute()
        self._cap = cap
        self.folder = self._root / "tokens" / entry_name(self._about)
        self.shape = TokenShape.of(model.bundle)

    def fill(
        self,
        pictures: Sequence[Picture],
        *,
        what: str = "pictures",
        announce: Callable[[CachePlan], None] | None = None,
        progress: Progress | None = None,
    ) -> tuple[dict[str, Place], list[tuple[str, str]]]:
        """Runs the graphs over the pictures whose tokens are not there yet.

        Args:
            pictures: No two with the same sha256.
            what: They are, for the plan.
            announce: Told the plan before anything is written; what goes to make room is gone by then.
            progress: Told after every picture.

        Returns:
            Where each picture's tokens are, by its sha256, and (path, reason) of the pictures that have none.

        Raises:
            OutputError: The folder cannot be used, another process writes to it, or the disk has or leaves too little
                room; the shards that were written stay.
        """
        with said_of("token cache", kept="the tokens that were written are kept"):
            mark_used(self.folder)
            places, damaged = self._find({picture.sha256 for picture in pictures})
            missing = [picture for picture in pictures if picture.sha256 not in places]
            plan = self._plan(what, len(pictures), len(missing))
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
                    out.remove(f"{SHARDS}/{name}")
                work = _Pass(self._model, out)
                with read_ahead(_decode(missing)) as photos:
                    for number, (picture, pixels) in enumerate(photos, start=1):
                        work.add(picture, pixels)
                        if progress:
                            progress(plan.cached + number, plan.pictures)
                work.write()
            return places | work.places, work.skipped

    def _plan(self, what: str, pictures: int, missing: int) -> CachePlan:
        """What the pass is going to do; if it is going to write, room is made for it first."""
        coming = missing * self.shape.picture_bytes
        freed = free_stale(self.folder.parent, self.folder, cap=self._cap, coming=coming) if missing else 0
        return CachePlan(
            what=what,
            folder=self.folder,
            pictures=pictures,
            cached=pictures - missing,
            bytes=coming,
            free=_free_bytes(self.folder),
            freed=freed,
        )

    def _find(self, wanted: set[str]) -> tuple[dict[str, Place], list[str]]:
        """Where wanted pictures are, and the names of shards that are not whole. Writes nothing."""
        places: dict[str, Place] = {}
        damaged = []
        for path in sorted((self.folder / SHARDS).glob("*")):
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

    def add(self, picture: Picture, pixels: Pixels | ImageError) -> None:
        """Runs the graphs over a picture, or notes why not; now and then a shard is written."""
        try:
            if isinstance(pixels, ImageError):
                raise pixels
            self._waiting[picture.sha256] = self._run(pixels, picture.areas(self._points))
        except ImageError as error:
            self.skipped.append((picture.name, error.reason))
        if len(self._waiting) >= SHARD_PICTURES or time.monotonic() - self._begun >= SHARD_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what waits as one shard; nothing if nothing does."""
        if self._waiting:
            name, data = pack_shard(self._waiting)
            self._out.put(f"{SHARDS}/{name}", data)
            path = self._out.root / SHARDS / name
            self.places |= {sha256: Place(shard=path, row=row) for row, sha256 in enumerate(self._waiting)}
        self._waiting, self._begun = {}, time.monotonic()

    def _run(self, pixels: Pixels, areas: Float) -> PictureTokens:
        frame = self._model.frame(pixels)
        hoisted = self._model.hoist(self._model.prepare(pixels, frame))
        prompts = self._model.prompt(hoisted, frame, self._points, self._model.bundle.prompt_chunk)
        return PictureTokens.of(prompts, self._cells(areas, frame))

    def _cells(self, areas: Float, frame: Frame) -> Int:
        """Areas (g,4) in [0,1] of a photo, in cells of the lattice; each has at least one."""
        rows, cols = frame.valid(self._model.bundle.embedding_side)
        cells: Int = np.rint(areas * np.array([cols, rows, cols, rows])).astype(np.int64)
        cells[:, :2] = np.minimum(cells[:, :2], np.array([cols, rows]) - 1)
        cells[:, 2:] = np.maximum(cells[:, 2:], cells[:, :2] + 1)
        return cells


def _decode(pictures: Sequence[Picture]) -> Generator[tuple[Picture, Pixels | ImageError]]:
    for picture in pictures:
        try:
            yield picture, picture.pixels()
        except ImageError as error:
            yield picture, error


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
            expected=f"{plan.bytes / 1e6:,.0f} MB free for the tokens of {plan.pictures - plan.cached} {plan.what}",
            found=f"{plan.free / 1e6:,.0f} MB free",
            do="free some space, or choose a folder on another disk with --cache",
        )
