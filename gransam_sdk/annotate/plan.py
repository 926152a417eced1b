"""What a run would do (``--dry-run``): everything is checked and counted as the run would, and nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ImageError
from ..runtime.load import load
from ..runtime.photo_file import read_bytes
from ..runtime.photo_header import photo_format
from ..runtime.segmenter import Segmenter
from ..types import Settings
from .exporters import class_entries
from .fingerprint import check_fingerprint, describe_run
from .outputs import check_output
from .photo_source import PhotoSource
from .pipeline import record_holds
from .publish import Products, check_products
from .record import record_path
from .run import with_record_floor
from .walk import Item, Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run would do.

    Attributes:
        photos: Photos it would go through.
        done: Of these, photos that the run folder has a good record of.
        unreadable: Of these, photos whose file cannot be read or is of no known format; damage that only decoding
            shows is not counted.
        bytes: Size of the readable ones together.
        run: What ``run.json`` would say: ``bundle``, ``classes``, ``settings``, ``inputs``, ``environment``, ...
    """

    photos: int
    done: int
    unreadable: int
    bytes: int
    run: dict[str, Any]


def plan_run(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    bundle: str | Path = "nano-voc20",
    classes: Sequence[str] | Path | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    backend: str = "auto",
    to: Sequence[str] = ("coco",),
    limit: int | None = None,
    follow: bool = False,
    scale16: bool = False,
    threads: int | None = None,
    stdin: BinaryIO | None = None,
) -> RunPlan:
    """Says what ``annotate_folder`` would do with the same arguments, and fails where it would fail.

    Photos are read, because only their bytes tell whether a record is still theirs, but not decoded. Nothing is
    written: no folder is made and no lock taken.

    Args and errors are those of ``annotate_folder``.
    """
    products = Products(formats=tuple(to))
    with closing(PhotoSource(inputs, exclude=Path(out), follow=follow, limit=limit, stdin=stdin)) as photos:
        photos.count()
        root, _ = check_output(out)
        with load(
            bundle,
            device=device,
            backend=backend,
            classes=classes,
            settings=with_record_floor(settings),
            threads=threads,
        ) as segmenter:
            return plan_photos(segmenter, photos, root, products, scale16=scale16)


def plan_photos(
    segmenter: Segmenter, photos: PhotoSource, root: Path, products: Products, *, scale16: bool = False
) -> RunPlan:
    """The plan itself, with everything opened and checked.

    Args:
        segmenter: What the run would use.
        photos: The walk.
        root: The run folder, which need not be there.
        products: Exports and report.
        scale16: Scale 16-bit photos to 8 bits instead of refusing them.

    Raises:
        InputError: An export cannot hold the run's classes.
        OutputError: The folder holds another run.
    """
    run = describe_run(segmenter, inputs=photos.inputs, limit=photos.limit, scale16=scale16)
    check_fingerprint(root, run["fingerprint"])
    check_products(products, class_entries(run["classes"]))
    seen = done = unreadable = size = 0
    for entry in photos:
        seen += 1
        data = _read(entry)
        if data is None or photo_format(data) is None:
            unreadable += 1
            continue
        size += len(data)
        done += _is_done(entry.key, data, root)
    return RunPlan(photos=seen, done=done, unreadable=unreadable, bytes=size, run=run)


def _read(entry: Item | Skip) -> bytes | None:
    if isinstance(entry, Skip):
        return None
    try:
        return read_bytes(entry.path)
    except ImageError:
        return None


def _is_done(key: str, data: bytes, root: Path) -> bool:
    record = root / record_path(key)
    return record.is_file() and record_holds(record.read_bytes(), key, hashlib.sha256(data).hexdigest())
