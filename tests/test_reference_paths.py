"""The path that the product is compared with: equal to the product's arithmetic and to segment-anything's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nano_random import random_nano
from PIL import Image
from sam_random import NARROW_TINY, random_sam
from sample_photos import sample_path, sample_pixels
from torch import nn

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.export.nano import PlainNano
from gransam_sdk.export.reference import reference_model
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.geometry import Frame, full_size_mask
from gransam_sdk.models.segment_anything import import_package
from gransam_sdk.nms import mask_iou
from gransam_sdk.rle import rle_area, rle_decode, rle_encode
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.preprocess import preprocess
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.select import surviving
from gransam_sdk.types import PointGrid, Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import eager
import official
from eager import EagerPath, compare_resizing, read_head, resize_masks, two_step
from hoist_free import _TraceableSam, hoist_free
from kept import Kept, as_rle, encode, suppress
from official import OfficialLoop, StockGenerator, export_decoder
from reference_report import compare

PER_SIDE = 4
WIDE_TINY = replace(NARROW_TINY, side=1024)
"""Narrow, but with the official side, which the exported decoder has in it."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The embedded one with few prompts, all of whose masks are confident enough."""
    opened = open_bundle("nano-voc20")
    classes = tuple(replace(info, threshold=0.001) for info in opened.classes)
    return replace(opened, points_per_side=PER_SIDE, prompt_chunk=8, classes=classes)


@pytest.fixture(scope="module")
def plain(bundle: Bundle) -> PlainNano:
    """Random, but what all clicks have in common is taken out of its masks: otherwise one of them would survive.

    Its logits are ten times as steep: otherwise few masks would be stable.
    """
    plain = PlainNano(random_nano())
    decoder = plain.nano.mask_decoder
    pixels = sample_pixels("coffee.png")
    frame = Frame.fit(size=pixels.shape[:2], side=bundle.input_side, resize="stretch")
    maps = plain.encode(torch.from_numpy(preprocess(pixels, bundle.preprocess, frame)))
    points = torch.from_numpy(PointGrid(per_side=PER_SIDE).points())
    tokens, iou, _ = plain.decode({name: value[0] for name, value in maps.items()}, points)
    for mask, network in enumerate(decoder.hypernetworks):
        last = network.layers[-1]  # type: ignore[union-attr,index]
        last.bias -= network(tokens[:, mask]).mean(dim=0)  # type: ignore[operator]
        last.weight *= 10.0
        last.bias *= 10.0
    decoder.iou_head.layers[-1].bias += 0.7 - iou.mean(dim=0)
    return plain


def through_the_runtime(model: Any) -> Segmenter:
    return Segmenter(model, select_classes(model.bundle.classes), Settings())


def test_the_path_keeps_what_the_runtime_keeps_of_the_same_network(bundle: Bundle, plain: PlainNano) -> None:
    """Torch and pycocotools against the segmenter's numpy, over the same module: two writings of one rule."""
    photo = sample_path("coffee.png")
    found = EagerPath(plain, bundle)(photo)
    result = through_the_runtime(reference_model(bundle, plain))(photo)[0]
    assert found.names == result.names and len(found.names) > 1
    assert [dict(mask) for mask in found.masks] == [dict(mask) for mask in result.masks]


@pytest.mark.slow
def test_published_graphs_in_the_runtime_are_the_same_network(bundle: Bundle, plain: PlainNano) -> None:
    photo = sample_path("coffee.png")
    expected = EagerPath(plain, bundle)(photo)
    segmenter = hoist_free(plain, bundle, threads=1)
    result = segmenter(photo)[0]
    assert compare([Kept(masks=result.masks, names=result.names)], [expected])[-1] == "100.00%"
    assert len(result) == len(expected.masks) and segmenter.provider == "CPUExecutionProvider"


def test_the_exported_form_of_sams_decoder_is_the_plain_one() -> None:
    plain = PlainSam(random_sam(NARROW_TINY))
    maps = {"h_embedding": torch.randn(256, 8, 8, generator=torch.Generator().manual_seed(1))}
    points = torch.from_numpy(PointGrid(per_side=2).points())
    for found, expected in zip(_TraceableSam(plain).decode(maps, points), plain.decode(maps, points), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_mask_below_a_pixel_of_the_photo_is_none(
    bundle: Bundle, plain: PlainNano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low-res cells are smaller than the pixels of a tiny photo; one positive cell then shows nowhere."""
    photo = tmp_path / "tiny.png"
    Image.fromarray(sample_pixels("coffee.png")[::40, ::40].copy()).save(photo)
    low = torch.full((PER_SIDE**2, 4, bundle.low_res_side, bundle.low_res_side), -30.0)
    low[0, :, 2, 2] = 1.0
    low[5:, :, 20:60, 20:60] = 30.0
    decoded = plain.decode
    given = iter(low.split([8, 8]))
    monkeypatch.setattr(plain, "decode", lambda maps, points: (*decoded(maps, points)[:2], next(given)))
    result = through_the_runtime(reference_model(bundle, plain))(photo)[0]
    given = iter([low])
    found = EagerPath(plain, bundle)(photo)
    assert len(found.masks) == len(result) > 0
    assert min(rle_area(mask) for mask in found.masks) > 0


def test_a_higher_threshold_keeps_fewer(bundle: Bundle, plain: PlainNano) -> None:
    strict = replace(bundle, classes=tuple(replace(info, threshold=0.9999) for info in bundle.classes))
    assert EagerPath(plain, strict)(sample_path("coffee.png")).masks == ()


@pytest.mark.parametrize("size", [(480, 640), (375, 500), (333, 500), (7, 100), (61, 13), (1, 50)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_masks_at_photo_size_are_the_products(size: tuple[int, int], resize: Any) -> None:
    """Pixels whose interpolated logit is 0 to rounding may differ; there are none among random ones."""
    frame = Frame.fit(size=size, side=256, resize=resize)
    logits = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    resized = resize_masks(logits, frame)
    assert resized.shape == (2, 3, *size)
    crop, x0, y0 = full_size_mask(logits[1, 2].numpy(), frame)
    expected = np.zeros(size, dtype=bool)
    expected[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    clear = np.abs(resized[1, 2].numpy()) > 1e-4
    assert (((resized[1, 2].numpy() > 0) == expected) | ~clear).all() and clear.mean() > 0.99


def test_two_steps_are_the_packages() -> None:
    sam: Any = random_sam(NARROW_TINY)
    frame = Frame.fit(size=(90, 200), side=NARROW_TINY.side, resize="letterbox")
    logits = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(5))
    expected = sam.postprocess_masks(logits[:, None], frame.resized, frame.size)[:, 0]
    torch.testing.assert_close(two_step(logits, frame), expected)
    iou = compare_resizing(logits, frame)
    one = resize_masks(logits[:, None], frame)[:, 0].numpy() > 0
    np.testing.assert_allclose(iou, np.diag(mask_iou(one, expected.numpy() > 0)), atol=1e-6)
    assert (iou < 1).all()


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_the_products(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((40, 24, 24), dtype=bool)
    for mask in masks[:-1]:  # the last one stays empty
        y, x = rng.integers(0, 18, 2)
        mask[y : y + rng.integers(2, 14), x : x + rng.integers(2, 14)] = True
    labels = rng.integers(0, 3, len(masks))
    scores = np.round(rng.random(len(masks)), 1).astype(np.float32)  # with ties
    settings = Settings()
    kept = suppress(encode(masks), labels, scores, settings)
    assert kept == surviving(masks, labels, scores, np.ones(len(masks), dtype=bool), settings).tolist()
    free = suppress(encode(masks), labels, scores, Settings(containment=1.0))
    assert len(kept) < len(free) < len(masks) - 1, "both steps drop something"


def test_codes_are_the_products() -> None:
    mask = np.random.default_rng(0).random((9, 13)) > 0.5
    assert as_rle(encode(mask[None])[0]) == rle_encode(mask)


def test_the_head_is_read_from_its_graph() -> None:
    bundle = open_bundle("nano-voc20")
    features = np.random.default_rng(0).normal(size=(6, bundle.feature_width)).astype(np.float32)
    graph = OrtSession(bundle.graph_bytes("head"), bundle.graphs["head"], threads=1)
    expected = graph.run({"features": features})["logits"]
    with torch.no_grad():
        found = read_head(bundle)(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.1


class Widths(nn.Module):
    """As wide as a head that reads something else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))


def test_heads_read_tokens_features_or_both(bundle: Bundle, plain: PlainNano) -> None:
    path = EagerPath(plain, bundle)
    side, low = bundle.embedding_side, bundle.low_res_side
    maps = {plain.features: torch.randn(bundle.feature_width, side, side)}
    tokens, low_res = torch.randn(2, 4, 256), torch.full((2, 4, low, low), 30.0)
    choice = torch.tensor([1, 3])
    mean = maps[plain.features].mean(dim=(1, 2))
    for width, expected in (
        (1024, tokens.flatten(1)),
        (bundle.feature_width, mean.expand(2, -1)),
        (1024 + bundle.feature_width, torch.cat([tokens.flatten(1), mean.expand(2, -1)], dim=1)),
    ):
        path.head = Widths(width)
        found = path._instances(maps, tokens, low_res, choice)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_official_decoder_prompt_by_prompt_is_the_packages_predictor(tmp_path: Path) -> None:
    """On a photo of 3:2: tracing makes the package's cut to the photo a constant, that of the example it is given."""
    sam, photo = random_sam(WIDE_TINY), sample_path("coffee.png")
    file = export_decoder(sam, tmp_path / "decoder.onnx")
    written = file.stat().st_mtime_ns
    assert export_decoder(sam, file).stat().st_mtime_ns == written, "made once"
    found = OfficialLoop(sam, file, per_side=1, threads=1)(photo)
    pixels = sample_pixels("coffee.png")
    predictor = import_package().SamPredictor(sam)
    predictor.set_image(pixels)
    centre = np.array([[pixels.shape[1] / 2, pixels.shape[0] / 2]])

    def overlap(points: np.ndarray) -> float:
        masks, iou, _ = predictor.predict(points, np.array([1]), multimask_output=True)
        return float(mask_iou(rle_decode(found.masks[0])[None], masks[int(iou.argmax())][None])[0, 0])

    assert found.names == () and len(found.masks) == 1
    # Rounding flips pixels of noisy masks; a point that lies elsewhere flips more.
    assert overlap(centre) > 0.9995 > 0.99 > overlap(centre + 20)


def test_the_stock_generator_runs_with_its_own_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = StockGenerator(random_sam(NARROW_TINY), per_side=2)
    settings = vars(stock.generator)
    assert (settings["points_per_batch"], settings["pred_iou_thresh"], settings["box_nms_thresh"]) == (64, 0.88, 0.7)
    settings.update(pred_iou_thresh=-10.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
    found = stock(sample_path("chelsea.png"))
    height, width = sample_pixels("chelsea.png").shape[:2]
    assert 0 < len(found.masks) <= 12 and all(mask["size"] == [height, width] for mask in found.masks)


def test_the_photo_is_read_as_the_product_reads_it() -> None:
    assert eager.as_pixels is as_pixels and official.as_pixels is as_pixels
