"""Every kind of head as a graph: it computes what the rounded torch module computes, and a bundle may hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bundles
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import gransam_sdk as gs
from gransam_sdk.bundle import open_bundle
from gransam_sdk.errors import InputError
from gransam_sdk.export.head import head_graph
from gransam_sdk.manifest import LabelUnit
from gransam_sdk.models.head import Head, HeadEnsemble, PrototypeHead
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.onnx_rules import check_rules
from gransam_sdk.types import PointGrid, Settings

D, F, C = 256, 416, 5


def perceptron(width: int, classes: int = C) -> Head:
    head = Head(width, classes, 0.9).eval()
    head.mean.normal_()
    head.deviation.uniform_(0.5, 2.0)
    return head


def prototypes(width: int) -> PrototypeHead:
    head = PrototypeHead(torch.randn(C, 8, width), torch.randn(width), torch.rand(width) + 0.5).eval()
    head.fold_temperature(0.3 * width)
    return head


def ensemble(width: int, classes: int = C) -> HeadEnsemble:
    return HeadEnsemble([perceptron(width, classes) for _ in range(3)]).eval()


def read_by(width: int, d: int, f: int) -> list[str]:
    """The inputs of a head that labels prompts."""
    return {4 * d: ["tokens"], f: ["features"], 4 * d + f: ["tokens", "features"]}[width]


def instances_of(tokens: Tensor, features: Tensor, names: list[str]) -> Tensor:
    """What such a head was trained on: tokens (g,4,d) and features (g,f) to (g,w)."""
    given = {"tokens": tokens.flatten(1), "features": features}
    return torch.cat([given[name] for name in names], dim=1)


@pytest.mark.parametrize("make", [perceptron, prototypes, ensemble])
@pytest.mark.parametrize(("labels", "width"), [("prompt", 4 * D), ("prompt", F), ("prompt", 4 * D + F), ("mask", D)])
def test_head_graph_equals_the_module(make: type[nn.Module], labels: LabelUnit, width: int) -> None:
    torch.manual_seed(1)
    head = make(width)
    tokens, features = torch.randn(9, 4, D), torch.randn(9, F)
    reads = read_by(width, D, F) if labels == "prompt" else ["tokens"]
    instances = instances_of(tokens, features, reads) if labels == "prompt" else tokens[:, 1:]
    with torch.no_grad():
        trained = head(instances)
    data = head_graph(head, D, F, labels)
    with torch.no_grad():
        expected = head(instances)
    assert 1e-6 < float((expected - trained).abs().max()) < 0.05, "rounded in place, and by no more than 16 bits do"
    check_rules(read_onnx(data, "head"), 20)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feeds = {"tokens": tokens.numpy(), "features": features.numpy()}
    names = [item.name for item in session.get_inputs()]
    assert names == reads
    found = session.run(None, {name: feeds[name] for name in names})[0]
    assert found.shape == ((9, C) if labels == "prompt" else (9, 3, C))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)
    assert len(data) < 1.2 * sum(2 * tensor.numel() for tensor in [*head.parameters(), *head.buffers()]) + 20_000


def test_the_temperature_of_prototypes_survives_rounding() -> None:
    """Their scale is one small number: 16 bits hold it to a thousandth."""
    head = prototypes(4 * D)
    before = float(head.scale)
    head_graph(head, D, F, "prompt")
    assert float(head.scale) == pytest.approx(before, rel=1e-3) and float(head.scale) != before


TINY = 4 * bundles.D
"""Width of the tiny bundle's tokens."""


@pytest.mark.parametrize("make", [perceptron, ensemble])
@pytest.mark.parametrize("width", [TINY, bundles.F, TINY + bundles.F])
def test_a_bundle_runs_what_was_exported(
    make: Callable[[int, int], Head | HeadEnsemble], width: int, tmp_path: Path
) -> None:
    """The contract lets it in, and each click gets the label that the module gives, from its chosen mask's features."""
    torch.manual_seed(2)
    head, seed = make(width, bundles.K), 32  # clicks differ in which of their masks is best
    with torch.no_grad():
        head.fold_temperature(0.1)
    parts, weights = bundles.good_parts(seed=seed), bundles.make_weights(seed)
    parts.graphs["head"] = head_graph(head, bundles.D, bundles.F, "prompt")
    names = read_by(width, bundles.D, bundles.F)
    axes = {"tokens": ("g", 4, bundles.D), "features": ("g", bundles.F)}
    parts.manifest["graphs"]["head"]["inputs"] = [bundles.tensor(name, *axes[name]) for name in names]

    def answers(pixels: np.ndarray, points: np.ndarray, masks: np.ndarray | int) -> np.ndarray:
        """Logits (g,k) with the features of these masks."""
        _, tokens = bundles.tokens_of(weights, pixels, points)
        features = (points @ weights["feature"]).reshape(-1, 4, bundles.F)[np.arange(len(points)), masks]
        with torch.no_grad():
            return head(instances_of(torch.tensor(tokens).float(), torch.tensor(features).float(), names)).numpy()

    canary = answers(bundles.canary_picture(bundles.S), np.array(bundles.CANARY_POINTS), 1)
    parts.manifest["canary"]["expected"]["head"] = canary.tolist()
    folder = parts.write(tmp_path / "bundle")
    assert [port.name for port in open_bundle(folder).graphs["head"].inputs] == names
    pixels = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    points = PointGrid(per_side=4).points()
    best = 1 + bundles.tokens_of(weights, pixels, points)[1].mean(axis=2)[:, 1:].argmax(axis=1)
    chances = torch.tensor(answers(pixels, points, best)).softmax(1).numpy()
    if "features" in names:
        others = torch.tensor(answers(pixels, points, 1)).softmax(1).numpy()
        assert np.abs(others - chances).max() > 1e-3, "or it would not show whose features were read"
    with gs.load(folder, device="cpu", settings=Settings(conf=1e-6, nms_iou=1.0, containment=1.0)) as segmenter:
        found = segmenter.segment(pixels)
    clicks = [tuple(point) for point in (points * 16).tolist()]
    rows = [clicks.index(tuple(point)) for point in found.points.tolist()]
    assert len(rows) > 3, "masks without a pixel are no masks, so not all that is expected"
    assert list(found.names) == [bundles.NAMES[int(chances[row].argmax())] for row in rows]
    np.testing.assert_allclose(found.confidence, chances[rows].max(axis=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("labels", "width"), [("prompt", D), ("mask", 4 * D), ("mask", F), ("prompt", 4 * D + 1)])
def test_a_head_of_another_width_is_refused(labels: LabelUnit, width: int) -> None:
    with pytest.raises(InputError, match=f"width {width}"):
        head_graph(perceptron(width), D, F, labels)
