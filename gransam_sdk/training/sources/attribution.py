"""Who made the pictures and under which licence: one file that names them all, made from what lies beside them."""

from __future__ import annotations

import json
from pathlib import Path

from ...annotate.disk import operate, put_file
from .source import made_pictures

ATTRIBUTION_NAME = "attribution.jsonl"
_KEYS = ("title", "creator", "licence", "licence_version", "licence_url", "landing_page", "provider", "attribution")


def write_attribution(out: Path, source: str) -> None:
    """Writes one line of JSON for each picture that a source made, sorted by path; no file if there never was one.

    Args:
        out: The folder with the class folders.
        source: The source's name, as it stands in the provenance.

    Raises:
        OutputError: The disk refused.
    """
    lines = []
    for folder in sorted(path for path in operate(out, list, out.iterdir()) if path.is_dir()):
        for path, provenance in made_pictures(folder).values():
            if provenance.get("source") == source:
                row = {"file": f"{folder.name}/{path.name}"} | {key: provenance.get(key, "") for key in _KEYS}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    target = out / ATTRIBUTION_NAME
    is_there = operate(target, target.exists)
    if lines or is_there:
        put_file(target, "".join(lines).encode())
