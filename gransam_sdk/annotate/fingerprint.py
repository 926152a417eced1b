"""What makes two runs the same run: everything that changes a record, and nothing else."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..errors import OutputError
from ..runtime.segmenter import Segmenter
from ..version import __version__
from .model_card import NAME as CARD
from .model_card import card_limits
from .outputs import RUN_NAME
from .record import SCHEMA

RUN_SCHEMA = 1
"""Version of ``run.json``."""
_SHOWN = 8
"""Differences listed at most."""


def run_fingerprint(segmenter: Segmenter, *, scale16: bool) -> dict[str, Any]:
    """The fingerprint of a run, in the types that JSON gives back.

    Classes stand in it by name, and without their colours: these are painted, never recorded.

    Args:
        segmenter: Gives its own: bundle, provider, precision, chunk, grid, thresholds, NMS, classes.
        scale16: How 16-bit photos are decoded.
    """
    classes = {
        str(row["name"]): {key: row[key] for key in ("id", "members", "threshold")}
        for row in segmenter.classes.to_json()
    }
    whole = {**segmenter.fingerprint, "classes": classes, "decode": {"scale16": scale16}, "record_schema": SCHEMA}
    return dict(json.loads(json.dumps(whole, allow_nan=False)))


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What ``run.json`` says about the model, with the limits that its model card names."""
    card = bundle.contents.get(CARD, b"").decode(errors="replace")
    return {
        "name": bundle.name,
        "version": bundle.version,
        "description": bundle.description,
        "precision": bundle.precision,
        "digest": bundle.digest,
        "licence": dict(bundle.licence),
        "provenance": dict(bundle.provenance),
        "limits": card_limits(card),
    }


def describe_run(segmenter: Segmenter, *, inputs: Sequence[str], limit: int | None, scale16: bool) -> dict[str, Any]:
    """The part of ``run.json`` that is known before the first photo.

    Args:
        segmenter: What labels the photos.
        inputs: As the user gave them.
        limit: Photos at most, None for all.
        scale16: How 16-bit photos are decoded.
    """
    settings = asdict(replace(segmenter.settings, class_conf=dict(segmenter.settings.class_conf)))
    return {
        "schema": RUN_SCHEMA,
        "sdk_version": __version__,
        "fingerprint": run_fingerprint(segmenter, scale16=scale16),
        "bundle": describe_bundle(segmenter.bundle),
        "classes": segmenter.classes.to_json(),
        "settings": {**settings, "scale16": scale16},
        "inputs": list(inputs),
        "limit": limit,
        "environment": {
            "provider": segmenter.provider,
            "threads": segmenter.threads,
            "photos_at_once": segmenter.at_once,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }


def check_fingerprint(root: Path, fingerprint: Mapping[str, Any]) -> None:
    """Refuses a folder that holds another run; an empty one is welcome.

    Args:
        root: The run folder.
        fingerprint: That of the run about to start.

    Raises:
        OutputError: The folder's ``run.json`` is not ours, or has another fingerprint; the message lists what differs.
    """
    if not (root / RUN_NAME).is_file():
        return
    old = read_run(root)["fingerprint"]
    lines = list(differences(old, fingerprint))
    if lines:
        more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise OutputError(
            f"output {root} holds another run",
            expected="the same bundle, classes and settings as before",
            found="\n            ".join([*lines[:_SHOWN], *more]),
            do="choose another folder with -o, or delete this one",
        )


def read_run(root: Path) -> dict[str, Any]:
    """The contents of a run folder's ``run.json``.

    Raises:
        OutputError: It cannot be read, or is not one of ours.
    """
    try:
        run = json.loads((root / RUN_NAME).read_bytes())
        if isinstance(run, dict) and run.get("schema") == RUN_SCHEMA and isinstance(run.get("fingerprint"), dict):
            return run
        found = "another kind of file"
    except (OSError, ValueError, RecursionError) as error:
        found = str(error)
    raise OutputError(
        f"output {root / RUN_NAME}",
        expected="the description of a run that this version wrote",
        found=found,
        do="choose another folder with -o, or delete this one",
    )


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """What changed between two JSON values, one line each, those with parts last: ``nms_iou: 0.5 → 0.6``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=lambda key: (isinstance(new.get(key), dict), key)):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"{where}: {_short(old)} → {_short(new)}"


def _short(value: object) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
