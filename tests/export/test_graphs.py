"""Hoisted, absorbed and sub-sampled forms against the plain module, in torch and in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from nano_random import random_nano
from sample_photos import SHARED, sample_path

from gransam_sdk.bundle import open_bundle
from gransam_sdk.errors import InputError
from gransam_sdk.export import absorbed
from gransam_sdk.export.graphs import LATTICE_OFFSET, PROMPT_INPUTS, ImageGraph, MaskGraph, PromptGraph
from gransam_sdk.export.nano import deployed, nano_graphs, read_checkpoint
from gransam_sdk.export.parity import measure_parity, run_torch, summarise
from gransam_sdk.models.two_way import TwoWayTransformer
from gransam_sdk.runtime.load import load_model

SEED = SHARED / "models" / "nano-seed.safetensors"
PHOTOS = SHARED / "data" / "voc2012_dev" / "JPEGImages"
needs_shared = pytest.mark.skipif(not SEED.exists(), reason="needs ../shared/models and ../shared/data")


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


def test_four_graphs_equal_the_plain_module() -> None:
    nano = deployed(random_nano())
    side, points = 96, torch.rand(6, 2, generator=torch.Generator().manual_seed(2))
    image = torch.from_numpy(_photo(side))
    with torch.no_grad():
        tokens, iou, logits = nano(image, points)
        hoisted = {name: value[0] for name, value in ImageGraph(nano, side)(image)._asdict().items()}
        found = PromptGraph(nano, side)(*[hoisted[name] for name in PROMPT_INPUTS], points)
        masks = MaskGraph(nano)(hoisted["h_skip8"], hoisted["h_skip4"], found[4], found[5], torch.arange(6) % 4)
    torch.testing.assert_close(found[0], tokens, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1], iou, rtol=0, atol=1e-4)
    lattice = logits[:, :, LATTICE_OFFSET::4, LATTICE_OFFSET::4]
    torch.testing.assert_close(found[2], lattice, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(masks, logits[torch.arange(6), torch.arange(6) % 4], rtol=1e-4, atol=1e-3)
    assert logits.std() > 0.1, "flat logits would make any comparison pass"


def test_pooled_features_are_the_lattice_weighted_mean() -> None:
    nano, side = random_nano(3), 64
    image, points = torch.from_numpy(_photo(side)), torch.tensor([[0.3, 0.4]])
    with torch.no_grad():
        hoisted = {name: value[0] for name, value in ImageGraph(nano, side)(image)._asdict().items()}
        _, _, lattice, features, _, _ = PromptGraph(nano, side)(*[hoisted[name] for name in PROMPT_INPUTS], points)
        dense = nano.image_encoder(image)[3][0].flatten(1).double().numpy()  # (416,e·e)
    weight = 1.0 / (1.0 + np.exp(-lattice[0].flatten(1).double().numpy()))  # (4,e·e)
    expected = weight @ dense.T / (weight.sum(axis=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(features[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_deployment_changes_little_and_rounds_everything() -> None:
    plain, rounded = random_nano(4), deployed(random_nano(4))
    for tensor in rounded.state_dict().values():
        assert torch.equal(tensor, tensor.half().to(tensor.dtype))
    image, points = torch.from_numpy(_photo(96)), torch.rand(4, 2)
    with torch.no_grad():
        torch.testing.assert_close(rounded(image, points)[0], plain(image, points)[0], rtol=0, atol=0.2)


def test_weights_are_stored_in_half_and_any_batch_fits() -> None:
    import onnxruntime

    graphs = nano_graphs(deployed(random_nano(5)), 64)
    for name, data in graphs.items():
        model = onnx.load_from_string(data)
        wide = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and np.prod(i.dims) > 5000]
        # Positional encodings come from sines and are not weights; they stay in 32 bits.
        assert all("pe" in i.name for i in wide), (name, [i.name for i in wide])
        assert not any(i.external_data for i in model.graph.initializer)
    session = onnxruntime.InferenceSession(graphs["image"], providers=["CPUExecutionProvider"])
    one = _photo(64)
    both = session.run(None, {"image": np.concatenate([one, one[:, :, ::-1]])})
    for batched, single in zip(both, session.run(None, {"image": np.ascontiguousarray(one)}), strict=True):
        assert batched.shape[0] == 2
        np.testing.assert_allclose(batched[0], single[0], atol=1e-4)


def test_bad_side_and_bad_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        nano_graphs(random_nano(), 100)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_parity_sees_a_difference() -> None:
    """The measure itself: equal outputs pass, one wrong mask of many does not."""
    nano = random_nano(6)
    outputs = run_torch(nano, _photo(128), np.random.default_rng(0).random((6, 2), dtype=np.float32))
    same = summarise([("a.jpg", outputs, outputs)])
    assert same.passes and same.mask_iou_min == 1.0 and same.masks > 0
    logits = outputs[2].copy()
    largest = np.unravel_index((logits > 0).sum(axis=(2, 3)).argmax(), logits.shape[:2])
    logits[largest] = -logits[largest]
    broken = summarise([("a.jpg", outputs, outputs), ("b.jpg", (*outputs[:2], logits), outputs)])
    assert not broken.passes and broken.worst_photo == "b.jpg"


@pytest.mark.shared
@needs_shared
def test_embedded_bundle_equals_the_seed_on_real_photos() -> None:
    """The committed graphs against the plain module with the same rounded weights."""
    nano = deployed(read_checkpoint(SEED))
    photos = [*sorted(PHOTOS.iterdir())[:4], sample_path("chelsea.png"), sample_path("motorcycle_left.png")]
    with load_model(open_bundle("nano-voc20"), device="cpu") as model:
        parity = measure_parity(model, nano, photos)
    assert parity.masks > 1000
    assert parity.passes, parity


def _photo(side: int) -> np.ndarray:
    from PIL import Image

    with Image.open(sample_path("chelsea.png")) as image:
        pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.ascontiguousarray((pixels.transpose(2, 0, 1)[None] - 127.5) / 127.5)
