"""Graphs of SAM-shaped models against segment-anything's own predictor, on random models with nothing at 0 or 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sam_random import NARROW_TINY, NARROW_VIT, random_sam
from sample_photos import sample_pixels
from torch import nn

from gransam_sdk.errors import InputError
from gransam_sdk.export.decoder_graphs import FORMS, Form, ImageGraph, decoder_modules, run_module
from gransam_sdk.export.decoder_parts import sam_parts
from gransam_sdk.export.graphs import LATTICE_OFFSET
from gransam_sdk.export.sam_graphs import deployed_sam, sam_graphs
from gransam_sdk.geometry import Frame
from gransam_sdk.manifest import Preprocess
from gransam_sdk.models.segment_anything import PIXEL_MEAN, PIXEL_STD, VitShape, import_package
from gransam_sdk.models.tiny_vit import TinyVitShape
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.onnx_rules import OPERATORS, check_rules
from gransam_sdk.runtime.preprocess import preprocess

SHAPES = {"vit": NARROW_VIT, "tiny": NARROW_TINY}
CLICKS = np.array([[0.13, 0.2], [0.5, 0.55], [0.91, 0.3], [0.4, 0.97], [0.0, 1.0]], dtype=np.float32)
"""XY in [0,1] of the photo."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Of ``CLICKS``: tokens (g,4,256), iou (g,4), logits of all four masks (g,4,l,l), embedding (256,e,e)."""

    tokens: np.ndarray
    iou: np.ndarray
    logits: np.ndarray
    embedding: np.ndarray


@cache
def model(name: str) -> nn.Module:
    return deployed_sam(random_sam(SHAPES[name], seed=3))


def expected(name: str, photo: str) -> Answers:
    """The package's predictor, from pixels and points in pixels; tokens are caught on their way to the MLPs."""
    predictor: Any = import_package().SamPredictor(model(name))
    pixels = sample_pixels(photo)
    height, width = pixels.shape[:2]
    predictor.set_image(pixels)
    at = predictor.transform.apply_coords(CLICKS * np.array([width, height]), (height, width))
    points = torch.from_numpy(at).float()[:, None]
    seen: list[torch.Tensor] = []
    hook = predictor.model.mask_decoder.transformer.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    parts = [
        predictor.predict_torch(points, torch.ones(len(CLICKS), 1), multimask_output=several, return_logits=True)
        for several in (False, True)
    ]
    hook.remove()
    return Answers(
        tokens=seen[0][:, 1:5].numpy(),
        iou=torch.cat([part[1] for part in parts], dim=1).numpy(),
        logits=torch.cat([part[2] for part in parts], dim=1).numpy(),
        embedding=predictor.features[0].numpy(),
    )


def inputs(name: str, photo: str) -> tuple[np.ndarray, np.ndarray]:
    """As the runtime makes them: (1,3,s,s) letterboxed, and points in [0,1] of the square."""
    pixels, side = sample_pixels(photo), SHAPES[name].side
    height, width = pixels.shape[:2]
    frame = Frame.fit(size=(height, width), side=side, resize="letterbox")
    how = Preprocess(resize="letterbox", interpolation="pillow-bilinear", mean=PIXEL_MEAN, std=PIXEL_STD)
    return preprocess(pixels, how, frame), frame.to_model(CLICKS)


def check(found: dict[str, np.ndarray], reference: Answers) -> None:
    for name in ("tokens", "iou"):
        np.testing.assert_allclose(found[name], getattr(reference, name), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["logits"], reference.logits, rtol=0, atol=1e-4)
    i = LATTICE_OFFSET
    np.testing.assert_allclose(found["lattice"], reference.logits[:, :, i::4, i::4], rtol=0, atol=1e-4)
    weight = 1.0 / (1.0 + np.exp(-reference.logits[:, :, i::4, i::4].astype(np.float64)))
    pooled = np.einsum("gmyx,cyx->gmc", weight, reference.embedding) / (weight.sum((2, 3))[..., None] + 1e-4)
    np.testing.assert_allclose(found["features"], pooled, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "photo"), [("vit", "coffee.png"), ("tiny", "chelsea.png")])
def test_graphs_equal_the_packages_predictor(name: str, photo: str, form: Form) -> None:
    sam, reference = model(name), expected(name, photo)
    image, points = (torch.from_numpy(array) for array in inputs(name, photo))
    modules = decoder_modules(sam_parts(sam), form)
    with torch.no_grad():
        hoisted = ImageGraph(sam.get_submodule("image_encoder"), modules.hoist)(image)
        known = dict(zip(modules.hoist.outputs, (value[0] for value in hoisted), strict=True)) | {"points": points}
        found = run_module(modules.prompt, known)
        choices = [known | found | {"choice": torch.full((len(points),), i)} for i in range(4)]
        logits = [run_module(modules.mask, tensors)["logits"] for tensors in choices]
    check({**{key: value.numpy() for key, value in found.items()}, "logits": torch.stack(logits, 1).numpy()}, reference)
    assert reference.logits.std() > 0.05, "flat logits would make any comparison pass"
    assert np.abs(reference.tokens[0] - reference.tokens[1]).max() > 0.01, "the point matters"


@pytest.fixture(scope="module", params=[("vit", "low-rank"), ("tiny", "low-rank"), ("tiny", "absorbed")])
def exported(request: pytest.FixtureRequest) -> tuple[str, dict[str, bytes]]:
    name, form = request.param
    return name, sam_graphs(model(name), form)


@pytest.mark.slow
def test_exported_graphs_equal_the_packages_predictor(exported: tuple[str, dict[str, bytes]]) -> None:
    name, graphs = exported
    reference = expected(name, "coffee.png")
    image, points = inputs(name, "coffee.png")
    sessions = {
        key: onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]) for key, data in graphs.items()
    }

    def run(graph: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = sessions[graph]
        read = {one.name: feeds[one.name] for one in session.get_inputs()}
        return dict(zip((one.name for one in session.get_outputs()), session.run(None, read), strict=True))

    both = run("image", {"image": np.concatenate([image[:, :, ::-1], image])})
    hoisted = {key: value[1] for key, value in both.items()}
    found = run("prompt", {**hoisted, "points": points})
    masks = [run("mask", {**hoisted, **found, "choice": np.full(len(points), i)})["logits"] for i in range(4)]
    check({**found, "logits": np.stack(masks, axis=1)}, reference)
    one = run("prompt", {**hoisted, "points": points[:1]})
    np.testing.assert_allclose(one["tokens"], found["tokens"][:1], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_exported_graphs_keep_the_rules_of_bundles(exported: tuple[str, dict[str, bytes]]) -> None:
    for name, data in exported[1].items():
        graph = read_onnx(data, name)
        check_rules(graph, 20)
        assert {node.op for node in graph.nodes} <= OPERATORS
        if name != "image":  # positions times weights are the only numbers of 32 bits that are no vectors
            assert len(data) < 12e6


def test_rounding_folds_norms_first_and_refuses_what_overflows() -> None:
    sam = random_sam(NARROW_TINY, seed=4)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = sam.image_encoder(image)  # type: ignore[operator]
        after = deployed_sam(sam).image_encoder(image)  # type: ignore[operator]
    torch.testing.assert_close(after, before, rtol=0, atol=0.05)
    assert not torch.equal(after, before)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in sam.modules())
    for name, value in sam.named_parameters():
        assert torch.equal(value, value.half().float()), name
    broken = random_sam(NARROW_TINY)
    broken.get_parameter("mask_decoder.iou_token.weight")[0, 0] = 1e6
    with pytest.raises(InputError, match=r"iou_token\.weight"):
        deployed_sam(broken)


@pytest.mark.parametrize("shape", [NARROW_VIT, NARROW_TINY])
def test_half_a_pixel_and_the_padding_token(shape: VitShape | TinyVitShape) -> None:
    """Against the package's prompt encoder alone: a point of the square is a pixel, moved by a half."""
    sam = random_sam(shape, seed=5)
    points = torch.tensor([[0.0, 0.0], [0.25, 0.75], [1.0, 0.5]])
    with torch.no_grad():
        sparse, _ = sam.prompt_encoder(points=(points[:, None] * shape.side, torch.ones(3, 1)), boxes=None, masks=None)  # type: ignore[operator]
        tokens = sam_parts(sam).prompt_tokens(points)
    assert sparse.shape == (3, 2, 256)
    torch.testing.assert_close(tokens[:, 5:], sparse, rtol=0, atol=1e-4)
    assert torch.equal(tokens[0, 0], sam.get_parameter("mask_decoder.iou_token.weight")[0])
