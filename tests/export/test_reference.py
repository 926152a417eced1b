"""The plain module behind the runtime's interface says what the plain module says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nano_random import random_nano
from safetensors.torch import save_file
from sam_random import NARROW_TINY, NARROW_VIT, random_sam
from sample_photos import sample_pixels

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import EnvironmentFault, InputError
from gransam_sdk.export.nano import PlainNano
from gransam_sdk.export.reference import PlainSegmenter, architectures, read_plain, reference_model
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.models.segment_anything import ARCHITECTURES, import_package
from gransam_sdk.runtime.load import load_model
from gransam_sdk.types import PointGrid

POINTS = PointGrid(per_side=3).points()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("nano-voc20")


def test_two_steps_are_one_forward_pass(bundle: Bundle) -> None:
    """Nano's own forward, which other tests compare with independent code, bit by bit."""
    nano = random_nano(3)
    plain: PlainSegmenter = PlainNano(nano)
    with reference_model(bundle, plain) as model:
        pixels = sample_pixels("chelsea.png")
        frame = model.frame(pixels)
        image = model.prepare(pixels, frame)
        hoisted = model.hoist(image)
        (prompts,) = list(model.prompt(hoisted, frame, POINTS, 9))
        masks = [model.masks(hoisted, prompts.state, np.full(9, mask), 4) for mask in range(4)]
    with torch.no_grad():
        tokens, iou, logits = (part.numpy() for part in nano(torch.from_numpy(image), torch.from_numpy(POINTS)))
        dense = nano.image_encoder(torch.from_numpy(image))[3][0].flatten(1).double().numpy()
    np.testing.assert_allclose(prompts.tokens, tokens, rtol=0, atol=1e-5)
    np.testing.assert_allclose(prompts.iou, iou, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.stack(masks, axis=1), logits, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(prompts.lattice, logits[:, :, 1::4, 1::4], rtol=1e-5, atol=1e-4)
    weight = 1 / (1 + np.exp(-logits[:, :, 1::4, 1::4].reshape(9, 4, -1).astype(np.float64)))
    expected = weight @ dense.T / (weight.sum(axis=2, keepdims=True) + 1e-4)
    np.testing.assert_allclose(prompts.features, expected, rtol=1e-4, atol=1e-4)


def test_the_head_is_the_bundles_own(bundle: Bundle) -> None:
    generator = np.random.default_rng(0)
    tokens = generator.normal(size=(5, 4, 256)).astype(np.float32)
    features = generator.normal(size=(5, 416)).astype(np.float32)
    with reference_model(bundle, PlainNano(random_nano(3))) as plain, load_model(bundle, device="cpu") as model:
        np.testing.assert_allclose(plain.classify(tokens, features), model.classify(tokens, features), atol=1e-5)


@pytest.mark.parametrize("shape", [NARROW_VIT, NARROW_TINY], ids=["vit", "tiny"])
def test_sam_in_two_steps_is_the_packages_predictor(shape: object) -> None:
    sam = random_sam(shape, seed=2)  # type: ignore[arg-type]
    predictor = import_package().SamPredictor(sam)
    pixels = sample_pixels("coffee.png")
    predictor.set_image(pixels)
    at = predictor.transform.apply_coords(POINTS * pixels.shape[1::-1], pixels.shape[:2])
    points = torch.from_numpy(at).float()[:, None]
    _, iou, logits = predictor.predict_torch(points, torch.ones(9, 1), multimask_output=True, return_logits=True)
    plain = PlainSam(sam)
    resized = torch.from_numpy(predictor.transform.apply_image(pixels)).permute(2, 0, 1)[None]
    with torch.no_grad():
        (maps,) = plain.encode(sam.preprocess(resized)).values()
        found = plain.decode({"h_embedding": maps[0]}, torch.from_numpy(at / sam.image_encoder.img_size).float())
    assert found[0].shape == (9, 4, 256)
    torch.testing.assert_close(found[1][:, 1:], iou, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[2][:, 1:], logits, rtol=1e-4, atol=1e-4)


def test_rounding_belongs_to_every_precision_but_fp32(tmp_path: Path) -> None:
    nano = random_nano(4)
    save_file(nano.state_dict(), tmp_path / "nano.safetensors")
    exact, rounded = (read_plain(tmp_path / "nano.safetensors", "nano", precision) for precision in ("fp32", "int8"))
    assert isinstance(exact, PlainNano) and isinstance(rounded, PlainNano)
    weight = "mask_decoder.mask_tokens.weight"
    assert torch.equal(exact.nano.get_parameter(weight), nano.get_parameter(weight))
    assert torch.equal(rounded.nano.get_parameter(weight), nano.get_parameter(weight).half().float())


def test_wrong_references_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    assert architectures() == ("nano", *ARCHITECTURES)
    pickled = tmp_path / "nano.pt"
    torch.save(random_nano(4).state_dict(), pickled)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(pickled.read_bytes()[:1000])
    for path, arch, says in (
        (pickled, "nano", "safetensors"),
        (cut, "nano", "safetensors"),
        (tmp_path / "none", "nano", "none"),
        (bundle.path, "nano", "a folder"),
        (pickled, "sam-vit-b", "sam-vit-b"),
        (pickled, "sam2", "--arch"),
    ):
        with pytest.raises(InputError, match=says) as refused:
            read_plain(path, arch, "fp32-w16")
        assert refused.value.expected and refused.value.found
    with pytest.raises(InputError, match="precision"):
        read_plain(pickled, "nano", "int4")


def test_a_closed_reference_does_not_run(bundle: Bundle) -> None:
    model = reference_model(bundle, PlainNano(random_nano(4)))
    model.close()
    pixels = sample_pixels("chelsea.png")
    with pytest.raises(EnvironmentFault, match="closed"):
        model.hoist(model.prepare(pixels, model.frame(pixels)))
    assert model.provider == "PyTorch"
