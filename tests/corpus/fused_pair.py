"""A bundle twice on ONNX Runtime: its four graphs, and the same fused; and what it means that they answer alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pycocotools import mask as coco

from gransam_sdk.bundle import Bundle
from gransam_sdk.classes import ClassSet, select_classes
from gransam_sdk.export.fused import fuse
from gransam_sdk.runtime.fused import FusedSegmenter, fused_on_onnxruntime
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.result import Result
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

THREADS = 1


def classes_of(bundle: Bundle, settings: Settings, specs: list[str] | None = None) -> ClassSet:
    assert bundle.head is not None
    return select_classes(
        bundle.classes,
        specs,
        conf=settings.conf,
        class_conf=dict(settings.class_conf),
        background=bundle.head.background,
    )


@contextmanager
def fused_pair(
    bundle: Bundle,
    settings: Settings,
    specs: list[str] | None = None,
    *,
    kept: int = 64,
    chunk: int | None = None,
) -> Iterator[tuple[Segmenter, FusedSegmenter]]:
    """The four graphs, and a segmenter that has the same ones behind the fused."""
    classes = classes_of(bundle, settings, specs)
    data = fuse(bundle, classes=classes, settings=settings, kept=kept, chunk=chunk)
    model = open_sessions(bundle, "cpu", THREADS)
    fused = fused_on_onnxruntime(data, model, classes, settings, device="cpu", threads=THREADS, kept=kept, chunk=chunk)
    with fused:
        yield Segmenter(model, classes, settings), fused


LEAST_IOU = 0.999
"""Most masks have the same run lengths. But the fused graph decodes all prompts at once and the four a chunk at a time,
so products are summed in another order, and a photo pixel whose logit is within rounding of 0 may turn."""


def assert_alike(fused: Result, plain: Result) -> None:
    """The same masks in the same order, everything said of them within rounding."""
    assert fused.names == plain.names
    assert fused.size == plain.size
    np.testing.assert_array_equal(fused.class_ids, plain.class_ids)
    np.testing.assert_array_equal(fused.passed, plain.passed)
    np.testing.assert_array_equal(fused.points, plain.points)
    for name in ("confidence", "predicted_iou", "scores"):
        np.testing.assert_allclose(getattr(fused, name), getattr(plain, name), rtol=0, atol=5e-5, err_msg=name)
    for ours, theirs in zip(fused.runner_up, plain.runner_up, strict=True):
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        np.testing.assert_allclose([p for _, p in ours], [p for _, p in theirs], rtol=0, atol=5e-5)
    pairs = list(zip(fused.masks, plain.masks, strict=True))
    assert all(coco.iou([one], [other], [0])[0, 0] >= LEAST_IOU for one, other in pairs)
    same = sum(one == other for one, other in pairs)
    assert same >= 0.75 * len(plain)
