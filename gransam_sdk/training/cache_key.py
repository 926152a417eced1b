"""What names an entry of the token cache: everything that changes a token, and nothing else."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from ..runtime.model import Model

CACHE_FORMAT = 2
"""To be raised when decoding or the contents of a shard change."""
WHAT = "tokens of example pictures"
"""What an entry's ``run.json`` says that it holds."""


def describe_segmenter(model: Model) -> bytes:
    """What an entry's ``run.json`` says of the segmenter whose tokens it holds; JSON."""
    bundle = model.bundle
    about = {
        "what": WHAT,
        "format": CACHE_FORMAT,
        "image": bundle.graphs["image"].sha256,
        "prompt": bundle.graphs["prompt"].sha256,
        "input_side": bundle.input_side,
        "preprocess": asdict(bundle.preprocess),
        "points_per_side": bundle.points_per_side,
        "chunk": bundle.prompt_chunk,
        "provider": model.provider,
        "engine": _engines(),
    }
    return json.dumps(about, indent=2, sort_keys=True).encode() + b"\n"


def entry_name(about: bytes) -> str:
    """The folder of the entry whose ``run.json`` is ``about``."""
    return hashlib.sha256(about).hexdigest()[:32]


def _engines() -> dict[str, str]:
    """Versions of the engines that are installed: another one may round differently."""
    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
