"""SAM-shaped graphs on OpenVINO: the low-rank decoder, and a letterbox that pads, answer as on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from sam_random import NARROW_TINY, random_sam
from sample_photos import sample_pixels

from gransam_sdk.bundle import Graph
from gransam_sdk.export.sam_graphs import deployed_sam, sam_graphs
from gransam_sdk.geometry import Frame
from gransam_sdk.manifest import Preprocess
from gransam_sdk.models.segment_anything import PIXEL_MEAN, PIXEL_STD
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.openvino_session import OpenVinoSession
from gransam_sdk.runtime.preprocess import preprocess
from gransam_sdk.runtime.session import Session
from gransam_sdk.types import PointGrid


def narrow_graphs() -> dict[str, tuple[bytes, Graph]]:
    made = {}
    for graph, data in sam_graphs(deployed_sam(random_sam(NARROW_TINY, seed=5)), "low-rank").items():
        model = read_onnx(data, graph)
        made[graph] = (data, Graph(f"{graph}.onnx", "0" * 64, len(data), model.inputs, model.outputs))
    return made


def answers(sessions: dict[str, Session], image: np.ndarray, points: np.ndarray, chunk: int) -> dict[str, np.ndarray]:
    """Tokens, predicted IoU, lattice and the low-res logits of token 2 of every point."""
    hoisted = {key: value[0] for key, value in sessions["image"].run({"image": image}).items()}
    found: dict[str, list[np.ndarray]] = {"tokens": [], "iou": [], "lattice": [], "logits": []}
    for start in range(0, len(points), chunk):
        part = points[start : start + chunk]
        out = sessions["prompt"].run(feeds_of("prompt", {**hoisted, "points": part}, sessions))
        choice = np.full(len(part), 2, dtype=np.int64)
        out |= sessions["mask"].run(feeds_of("mask", {**hoisted, **out, "choice": choice}, sessions))
        for key, values in found.items():
            values.append(out[key])
    return {key: np.concatenate(values) for key, values in found.items()}


def feeds_of(graph: str, offered: dict[str, np.ndarray], sessions: dict[str, Session]) -> dict[str, np.ndarray]:
    return {tensor.name: offered[tensor.name] for tensor in sessions[graph]._graph.inputs}  # type: ignore[attr-defined]


@pytest.mark.slow
def test_sam_graphs_answer_as_on_onnxruntime() -> None:
    side, graphs = NARROW_TINY.side, narrow_graphs()
    mean, std = (tuple(float(value) for value in values) for values in (PIXEL_MEAN, PIXEL_STD))
    recipe = Preprocess(resize="letterbox", interpolation="pillow-bilinear", mean=mean, std=std)  # type: ignore[arg-type]
    pixels = sample_pixels("coffee.png")
    frame = Frame.fit(size=(pixels.shape[0], pixels.shape[1]), side=side, resize="letterbox")
    assert frame.resized[0] < side
    image, points = preprocess(pixels, recipe, frame), frame.to_model(PointGrid(per_side=7).points())
    chunk = 10
    expected, found = (
        answers({graph: make(*parts) for graph, parts in graphs.items()}, image, points, chunk)
        for make in (OrtSession, lambda data, graph: OpenVinoSession(data, graph, usual=chunk))
    )
    for key in ("tokens", "iou"):
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-3)
    a, b = found["logits"] > 0, expected["logits"] > 0
    large = b.sum(axis=(1, 2)) >= 20
    assert large.sum() >= 20
    assert ((a & b).sum(axis=(1, 2)) / (a | b).sum(axis=(1, 2)))[large].mean() >= 0.9995
