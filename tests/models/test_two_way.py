"""The plain transformer against the segment-anything package's."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

from gransam_sdk.models.segment_anything import import_package
from gransam_sdk.models.two_way import TwoWayTransformer, grid_positions


@pytest.fixture(scope="module")
def sam_transformer() -> ModuleType:
    """The package's own."""
    import_package()
    return importlib.import_module("segment_anything.modeling.transformer")


def test_equals_segment_anything(sam_transformer: ModuleType) -> None:
    torch.manual_seed(0)
    reference = sam_transformer.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=1024, num_heads=8).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = TwoWayTransformer(depth=2, width=256, heads=8, hidden=1024).eval()
    ours.load_state_dict(reference.state_dict())
    image, image_pe, tokens = torch.randn(3, 256, 5, 5), torch.randn(3, 256, 5, 5), torch.randn(3, 7, 256)
    with torch.no_grad():
        expected = reference(image, image_pe, tokens)
        found = ours(image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens)
    for ours_out, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_out, theirs, rtol=1e-5, atol=1e-5)


def test_grid_positions_are_cell_centres() -> None:
    assert grid_positions(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
