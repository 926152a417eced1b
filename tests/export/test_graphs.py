"""Hoisted, absorbed and sub-sampled forms against the plain module, in torch and in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from nano_random import random_nano
from sample_photos import CHECKPOINT, SHARED, sample_path

from gransam_sdk.bundle import open_bundle
from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.parity import measure_parity
from gransam_sdk.export import absorbed
from gransam_sdk.export.nano import PlainNano, deployed
from gransam_sdk.export.nano_graphs import nano_graphs
from gransam_sdk.export.reference import reference_model
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.models.two_way import TwoWayTransformer
from gransam_sdk.parity_bars import broken_bars
from gransam_sdk.runtime.load import load_model

PHOTOS = SHARED / "data" / "voc2012_dev" / "JPEGImages"


def test_absorbed_transformer_equals_plain_in_float64() -> None:
    """An identity, not an approximation: in float64 nothing but rounding is left."""
    torch.manual_seed(1)
    plain = TwoWayTransformer(width=64, heads=4, hidden=96).double().eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    keys, pe, tokens = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 30, 64), (1, 30, 64), (5, 7, 64)))
    with torch.no_grad():
        expected = plain(keys.expand(5, -1, -1), pe, tokens)
        hoisted = tuple(part[0] for part in absorbed.hoist(plain, keys, pe))
        found = absorbed.decode(plain, keys[0], pe[0], hoisted, tokens)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-11)


def test_deployment_changes_little_and_rounds_everything() -> None:
    plain, rounded = random_nano(4), deployed(random_nano(4))
    for tensor in rounded.state_dict().values():
        assert torch.equal(tensor, tensor.half().to(tensor.dtype))
    image, points = torch.from_numpy(_photo(96)), torch.rand(4, 2)
    with torch.no_grad():
        torch.testing.assert_close(rounded(image, points)[0], plain(image, points)[0], rtol=0, atol=0.2)


def test_weights_are_stored_in_half_and_any_batch_fits() -> None:
    import onnxruntime

    graphs = nano_graphs(deployed(random_nano(5)), 64, "low-rank")
    for name, data in graphs.items():
        model = onnx.load_from_string(data)
        wide = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and np.prod(i.dims) > 5000]
        # What is computed of positions, which come from sines, is no weight; it stays in 32 bits.
        assert all("pe" in i.name or "position" in i.name for i in wide), (name, [i.name for i in wide])
        assert not any(i.external_data for i in model.graph.initializer)
    session = onnxruntime.InferenceSession(graphs["image"], providers=["CPUExecutionProvider"])
    one = _photo(64)
    both = session.run(None, {"image": np.concatenate([one, one[:, :, ::-1]])})
    for batched, single in zip(both, session.run(None, {"image": np.ascontiguousarray(one)}), strict=True):
        assert batched.shape[0] == 2
        np.testing.assert_allclose(batched[0], single[0], atol=1e-4)


def test_bad_side_and_bad_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        nano_graphs(random_nano(), 100, "low-rank")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.shared
def test_embedded_bundle_equals_its_checkpoint_on_real_photos() -> None:
    """The committed graphs against the plain module with the same rounded weights."""
    nano = deployed(read_checkpoint(CHECKPOINT))
    photos = [*sorted(PHOTOS.iterdir())[:4], sample_path("chelsea.png"), sample_path("motorcycle_left.png")]
    bundle = open_bundle("nano-voc20")
    with load_model(bundle, device="cpu") as model, reference_model(bundle, PlainNano(nano)) as reference:
        parity = measure_parity(model, reference, photos)
    assert parity.masks > 1000 and parity.kept and parity.confident and parity.confident > 100
    assert broken_bars("fp32-w16", parity.figures()) == [], parity


def _photo(side: int) -> np.ndarray:
    from PIL import Image

    with Image.open(sample_path("chelsea.png")) as image:
        pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.ascontiguousarray((pixels.transpose(2, 0, 1)[None] - 127.5) / 127.5)
