"""``gransam`` with the fake model in place of a bundle's: ``python fake_gransam.py ARGUMENTS``.

FAKE_SECONDS is how long it takes over a photo; with FAKE_FAULT it raises a KeyError instead.
"""

from __future__ import annotations

import os
import time
from typing import Any

import gransam_sdk.annotate.plan
import gransam_sdk.annotate.run
from gransam_sdk.classes import select_classes
from gransam_sdk.cli import main
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.steps import Inferred, Prepared
from gransam_sdk.types import Settings


class SlowSegmenter(Segmenter):
    def infer(self, prepared: Prepared) -> Inferred:
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        if "FAKE_FAULT" in os.environ:
            raise KeyError("on\npurpose")
        return super().infer(prepared)


def load(
    bundle: str,
    *,
    settings: Settings,
    classes: Any,
    device: str,
    backend: str,
    threads: int | None,
    at_once: int | None = 1,
) -> Segmenter:
    opened = fake_bundle()
    listed, file = (None, classes) if hasattr(classes, "suffix") else (classes, None)
    chosen = select_classes(opened.classes, listed, file=file, conf=settings.conf, class_conf=settings.class_conf)
    return SlowSegmenter(fake_model(opened), chosen, settings)


if __name__ == "__main__":
    gransam_sdk.annotate.run.load = load  # type: ignore[assignment]
    gransam_sdk.annotate.plan.load = load  # type: ignore[assignment]
    main()
