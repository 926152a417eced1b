"""Every kind of head as a graph: it computes what the rounded torch module computes, and a bundle may hold it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gransam_sdk.errors import InputError
from gransam_sdk.export.head import head_graph
from gransam_sdk.manifest import LabelUnit
from gransam_sdk.models.head import Head, PrototypeHead
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.onnx_rules import check_rules

D, F, C = 256, 416, 5


class Average(nn.Module):
    """Any module with a buffer ``mean`` is a head; this one averages the logits of several."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("mean", members[0].get_buffer("mean"))

    def forward(self, instances: Tensor) -> Tensor:
        return torch.stack([member(instances) for member in self.members]).mean(dim=0)


def perceptron(width: int) -> Head:
    head = Head(width, C, 0.9).eval()
    head.mean.normal_()
    head.deviation.uniform_(0.5, 2.0)
    return head


def prototypes(width: int) -> PrototypeHead:
    head = PrototypeHead(torch.randn(C, 8, width), torch.randn(width), torch.rand(width) + 0.5).eval()
    head.fold_temperature(0.3 * width)
    return head


def ensemble(width: int) -> Average:
    return Average([perceptron(width), prototypes(width), perceptron(width)]).eval()


@pytest.mark.parametrize("make", [perceptron, prototypes, ensemble])
@pytest.mark.parametrize(("labels", "width"), [("prompt", 4 * D), ("prompt", 4 * D + F), ("mask", D)])
def test_head_graph_equals_the_module(make: type[nn.Module], labels: LabelUnit, width: int) -> None:
    torch.manual_seed(1)
    head = make(width)
    tokens, features = torch.randn(9, 4, D), torch.randn(9, F)
    instances = torch.cat([tokens.flatten(1), features], dim=1)[:, :width] if labels == "prompt" else tokens[:, 1:]
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
    assert names == (["tokens", "features"] if width > 4 * D else ["tokens"])
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


@pytest.mark.parametrize(("labels", "width"), [("prompt", D), ("mask", 4 * D), ("prompt", 4 * D + 1)])
def test_a_head_of_another_width_is_refused(labels: LabelUnit, width: int) -> None:
    with pytest.raises(InputError, match=f"width {width}"):
        head_graph(perceptron(width), D, F, labels)
