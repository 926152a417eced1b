"""A folder of photos becomes a folder of records: the loop, and what is saved however it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import GranSAMError, InputError, OutputError, TooManyFailures
from ..runtime.load import load
from ..runtime.segmenter import Segmenter
from ..runtime.steps import Inferred
from ..types import RECORD_FLOOR, Settings
from .disk import OutputStream
from .exporters import class_entries
from .failures import NAME as FAILURES
from .failures import Failure, dump_failure
from .fingerprint import check_fingerprint, describe_run
from .outputs import RUN_NAME, OutputFolder
from .photo_source import PhotoSource
from .pipeline import Done, InWork, Step, infer_photos, photo_failure, read_ahead, read_photos
from .progress import NullProgress, PhotoStatus, Progress
from .publish import Products, check_products, publish
from .record import dump_record, make_record, record_path
from .tally import RunReport, Tally

__all__ = ["RunOptions", "RunReport", "annotate_folder", "run_photos", "with_record_floor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run goes about it; nothing here changes a record but ``scale16``.

    Attributes:
        products: Exports and report.
        max_failures: Stop when more photos than this have failed; None never stops.
        scale16: Scale 16-bit photos to 8 bits instead of refusing them.
    """

    products: Products = field(default_factory=Products)
    max_failures: int | None = None
    scale16: bool = False

    def __post_init__(self) -> None:
        """Reject a limit that cannot be kept."""
        if self.max_failures is not None and self.max_failures < 0:
            raise InputError("max failures", expected="a whole number from 0", found=repr(self.max_failures))


def annotate_folder(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    bundle: str | Path = "nano-voc20",
    classes: Sequence[str] | Path | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    backend: str = "auto",
    to: Sequence[str] = ("coco",),
    overlays: bool = False,
    report: bool = True,
    limit: int | None = None,
    max_failures: int | None = None,
    follow: bool = False,
    scale16: bool = False,
    threads: int | None = None,
    at_once: int | None = None,
    progress: Progress | None = None,
    stdin: BinaryIO | None = None,
) -> RunReport:
    """Annotates photos into a run folder; one that was interrupted goes on where it stopped.

    No signal handler is installed: Ctrl-C, and whatever a caller's own handler raises, saves the state and passes on.

    Args:
        inputs: Photos, folders (searched through), globs, list files, or ``-`` for ``stdin``; one or several.
        out: The run folder: missing, empty, or of an earlier run with the same settings.
        bundle: Name or folder of the model bundle.
        classes: Which classes to label and how to group them, a classes file, or None for all of the bundle.
        settings: Thresholds, grid, NMS. Without a record floor, masks down to 0.30 are recorded.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``auto`` (ONNX Runtime), ``onnxruntime``, ``openvino`` or ``openvino-bf16``.
        to: Export formats: ``coco``, ``voc``.
        overlays: Also paint the masks over the photos.
        report: Write ``report.html``.
        limit: Only the first so many photos, already recorded ones included.
        max_failures: Stop when more photos than this have failed.
        follow: Follow links that leave an input folder.
        scale16: Scale 16-bit photos to 8 bits instead of refusing them.
        threads: Threads for the model; None takes the cores this process may use.
        at_once: Photos in the model at a time, which share the threads; None takes one where the model is large.
        progress: Told about every photo.
        stdin: Where the input ``-`` reads its list from.

    Returns:
        Counts, timings and the exit code.

    Raises:
        InputError: An argument, an input or a class is not usable.
        OutputError: The folder is unusable, locked, or of another run; or the disk refused.
        EnvironmentFault: The bundle or the device cannot be had.
        TooManyFailures: ``max_failures`` was passed; everything up to there is saved.
    """
    products = Products(formats=tuple(to), overlays=overlays, report=report)
    options = RunOptions(products=products, max_failures=max_failures, scale16=scale16)
    with closing(PhotoSource(inputs, exclude=Path(out), follow=follow, limit=limit, stdin=stdin)) as photos:
        total = photos.count()
        with (
            OutputFolder.open(out) as folder,
            load(
                bundle,
                device=device,
                backend=backend,
                classes=classes,
                settings=with_record_floor(settings),
                threads=threads,
                at_once=at_once,
            ) as segmenter,
        ):
            return run_photos(segmenter, photos, folder, options, total=total, progress=progress)


def run_photos(
    segmenter: Segmenter,
    photos: PhotoSource,
    out: OutputFolder,
    options: RunOptions,
    *,
    total: int | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """The run itself, with everything opened and checked.

    Args:
        segmenter: Labels one photo at a time.
        photos: The walk.
        out: The run folder, locked.
        options: How to go about it.
        total: Photos to come, for the progress.
        progress: Told about every photo.

    Returns:
        Counts, timings and the exit code.

    Raises:
        InputError: An export cannot hold the run's classes.
        OutputError: The folder holds another run, or the disk refused.
        EnvironmentFault: The engine failed.
        TooManyFailures: More than ``options.max_failures`` photos failed.
    """
    run = describe_run(segmenter, inputs=photos.inputs, limit=photos.limit, scale16=options.scale16)
    check_fingerprint(out.root, run["fingerprint"])
    check_products(options.products, class_entries(run["classes"]))
    tally = Tally()
    _save(out, run, "running", tally)
    try:
        with tally.clock():
            _annotate(segmenter, photos, out, options, tally, progress or NullProgress(), total)
        with tally.stage("export"):
            publish(options.products, {**run, "status": "finished", **tally.to_json()}, photos, out, options.scale16)
        out.sync()  # nothing is called finished before it is on the disk
        _save(out, run, "finished", tally)
    except BaseException as error:
        # What went wrong first is what the caller hears of, even if the disk refuses this too.
        with suppress(OutputError):
            _save(out, run, "stopped" if isinstance(error, Exception) else "interrupted", tally)
        raise
    return tally.report(out.root)


def _annotate(
    segmenter: Segmenter,
    photos: PhotoSource,
    out: OutputFolder,
    options: RunOptions,
    tally: Tally,
    progress: Progress,
    total: int | None,
) -> None:
    """The loop. However it ends, ``failures.jsonl`` holds what failed up to there."""
    trouble: BaseException | None = None
    stopped = threading.Event()
    with out.open_stream(FAILURES) as failures:
        progress.start(total)
        try:
            with (
                read_ahead(read_photos(photos, out, segmenter, scale16=options.scale16), stopped=stopped) as read,
                # A segmenter is not closed while it runs, so its thread is waited for, as a run on this one would be.
                read_ahead(
                    infer_photos(read, segmenter), name="gransam-engine", stopped=stopped, patience=None
                ) as steps,
            ):
                for step in steps:
                    status = _take_step(step, segmenter, out, failures, tally)
                    progress.advance(step.key, status)
                    _check_failures(tally, options)
        except BaseException as error:  # raised again as soon as the failures are in place
            trouble = error
        finally:
            progress.finish()
    if trouble is not None:
        raise trouble


def _take_step(
    step: Step, segmenter: Segmenter, out: OutputFolder, failures: OutputStream, tally: Tally
) -> PhotoStatus:
    """Brings one photo to its end: a record, or a line among the failures."""
    status: PhotoStatus = "done"
    if isinstance(step, InWork):
        outcome = _finish(step, segmenter, out, tally)
        status = "redone" if step.redo else "new"
    else:
        outcome = step
    if isinstance(outcome, Failure):
        status = "failed"
        out.remove(record_path(outcome.key))  # one from before the photo went bad
        failures.write(dump_failure(outcome))
    tally.count(status)
    return status


def _finish(photo: InWork[Inferred], segmenter: Segmenter, out: OutputFolder, tally: Tally) -> Done | Failure:
    """Makes a photo's masks and writes its record."""
    tally.add(photo.seconds)
    try:
        result = segmenter.finish(photo.work)
        record = make_record(result, key=photo.key, sha256=photo.sha256, orientation=photo.orientation)
    except GranSAMError as error:
        return photo_failure(photo.key, error)
    tally.add(result.timings)
    tally.reduced_chunks = segmenter.reduced_chunks
    with tally.stage("write"):
        out.put(record_path(photo.key), dump_record(record))
    tally.masks += len(result)
    return Done(key=photo.key)


def _check_failures(tally: Tally, options: RunOptions) -> None:
    if options.max_failures is not None and tally.failed > options.max_failures:
        raise TooManyFailures(
            "too many photos failed",
            expected=f"at most {options.max_failures} (--max-failures)",
            found=f"{tally.failed} of {tally.new + tally.redone + tally.done + tally.failed} so far",
            do=f"see {FAILURES} in the run folder; with a higher limit the run goes on from here",
        )


def with_record_floor(settings: Settings | None) -> Settings:
    """Settings that record masks below their threshold too, unless the caller says from where."""
    settings = settings or Settings()
    return settings if settings.record_floor is not None else replace(settings, record_floor=RECORD_FLOOR)


def _save(out: OutputFolder, run: Mapping[str, Any], status: str, tally: Tally) -> None:
    """Writes ``run.json`` and brings it to the disk with everything before it."""
    text = json.dumps({**run, "status": status, **tally.to_json()}, indent=1, allow_nan=False)
    out.put(RUN_NAME, text.encode() + b"\n")
    out.sync()
