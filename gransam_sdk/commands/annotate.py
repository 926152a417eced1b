"""``gransam annotate``: photos in, a run folder out."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from ..errors import EnvironmentFault, InputError
from . import annotate_options as given
from .conf import Conf, parse_conf
from .streams import answer, narrate

if TYPE_CHECKING:
    from ..types import MaskChoice


def annotate(
    inputs: given.Inputs,
    out: given.Out,
    bundle: given.Bundle = "nano-voc20",
    classes: given.Classes = None,
    classes_file: given.ClassesFile = None,
    conf: Conf = None,
    to: given.Formats = "coco",
    overlays: given.Overlays = False,
    report: given.Report = True,
    points_per_side: given.PointsPerSide = None,
    mask_choice: given.Choice = "best_iou",
    pred_iou_thresh: given.PredIouThresh = 0.0,
    stability_score_thresh: given.StabilityScoreThresh = 0.6,
    nms_iou: given.NmsIou = 0.5,
    containment: given.Containment = 0.8,
    join_fragments: given.JoinFragments = False,
    decode_to_scale: given.DecodeToScale = False,
    limit: given.Limit = None,
    dry_run: given.DryRun = False,
    device: given.Device = "auto",
    backend: given.Backend = "auto",
    threads: given.Threads = None,
    at_once: given.AtOnce = None,
    max_failures: given.MaxFailures = None,
    follow: given.Follow = False,
    scale16: given.Scale16 = False,
    as_json: given.AsJson = False,
    quiet: given.Quiet = False,
    progress: given.Progress = "auto",
) -> None:
    """Find, cut out and name the objects in photos; a run that was stopped goes on where it was."""
    check_encoding()
    conf_all, conf_by_class = parse_conf(conf)
    chosen = choose_classes(classes, classes_file)
    formats = tuple(name.strip() for name in to.split(",") if name.strip())

    from ..annotate.plan import plan_run
    from ..annotate.run import annotate_folder
    from ..types import Settings
    from .progress import choose_progress
    from .summary import plan_lines, report_lines, report_to_json

    settings = Settings(
        points_per_side=points_per_side,
        mask_choice=cast("MaskChoice", mask_choice),  # checked there
        conf=conf_all,
        class_conf=conf_by_class,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        nms_iou=nms_iou,
        containment=containment,
        join_fragments=join_fragments,
        decode_to_scale=decode_to_scale,
    )
    shown = choose_progress("none" if quiet else progress)
    stdin = sys.stdin.buffer if sys.stdin is not None else None
    if dry_run:
        plan = plan_run(
            inputs, out, bundle=bundle, classes=chosen, settings=settings, device=device, backend=backend, to=formats,
            limit=limit, follow=follow, scale16=scale16, threads=threads, stdin=stdin,
        )  # fmt: skip
        say(plan_lines(plan), quiet)
        if as_json:
            answer(asdict(plan))
        return
    # A run outlives whoever reads its output; writing to them is what may fail.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        done = annotate_folder(
            inputs, out, bundle=bundle, classes=chosen, settings=settings, device=device, backend=backend, to=formats,
            overlays=overlays, report=report, limit=limit, max_failures=max_failures, follow=follow, scale16=scale16,
            threads=threads, at_once=at_once, progress=shown, stdin=stdin,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):  # the second is SIGTERM
        narrate("stopped; what was done is saved, and the same command goes on from there")
        raise
    say(report_lines(done, out), quiet)
    if as_json:
        answer(report_to_json(done))
    raise typer.Exit(done.exit_code)


def check_encoding() -> None:
    """A photo's name in the records is its path in UTF-8; Python must see the file system the same way.

    Raises:
        EnvironmentFault: It does not.
    """
    found = sys.getfilesystemencoding()
    if found != "utf-8":
        raise EnvironmentFault(
            "file names", expected="UTF-8", found=found, do="set PYTHONUTF8=1, or LC_ALL to a UTF-8 locale"
        )


def choose_classes(specs: list[str] | None, file: str | None) -> list[str] | Path | None:
    """What ``-c`` and ``--classes-file`` mean together.

    Args:
        specs: Values of ``-c``: classes, groups, or one classes file (``*.toml``).
        file: Value of ``--classes-file``.

    Raises:
        InputError: Two classes files, or a file beside classes.
    """
    files = [spec for spec in specs or () if "=" not in spec and spec.lower().endswith(".toml")]
    if file is not None:
        files.append(file)
    if not files:
        return specs
    if len(files) > 1 or len(files) < len(specs or ()) + (file is not None):
        raise InputError(
            "classes",
            expected="one classes file, or classes named with -c",
            found=", ".join([*(specs or ()), *([file] if file is not None else [])]),
            do="list all of them in one file",
        )
    return Path(files[0])


def say(lines: list[str], quiet: bool) -> None:
    """Narrates unless told not to."""
    if not quiet:
        narrate("\n".join(lines))
