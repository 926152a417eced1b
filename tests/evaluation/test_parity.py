"""The comparison of two models, on answers made by hand and on fake models; figures are computed again another way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gransam_sdk.errors import EnvironmentFault, InputError
from gransam_sdk.evaluation.parity import Parity, check_comparable, measure_parity
from gransam_sdk.evaluation.parity_answers import Answers, Recorder, all_classes
from gransam_sdk.evaluation.parity_labels import match, pairwise_iou
from gransam_sdk.evaluation.parity_tally import MaskTally
from gransam_sdk.evaluation.parity_truth import Truth
from gransam_sdk.manifest import HeadInfo
from gransam_sdk.nms import mask_iou
from gransam_sdk.rle import rle_encode
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import FakeSession, fake_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.result import Result
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.shapes import AnyArray
from gransam_sdk.types import Settings

RANDOM = np.random.default_rng(7)


def answers(masks: np.ndarray, tokens: np.ndarray | None = None, iou: float = 0.5) -> Answers:
    """Of (g,4,y,x) masks, without labels."""
    g = len(masks)
    if tokens is None:
        tokens = np.ones((g, 4, 6), dtype=np.float32)
    return Answers(
        tokens=tokens,
        iou=np.full((g, 4), iou, dtype=np.float32),
        masks=masks,
        choice=np.ones(g, dtype=np.int64),
        class_logits=None,
        labels=None,
        result=None,
    )


def blobs(g: int, side: int = 24) -> np.ndarray:
    """(g,4,side,side) bool rectangles of 100 cells and more."""
    masks = np.zeros((g, 4, side, side), dtype=np.bool_)
    for mask in masks.reshape(-1, side, side):
        y, x = RANDOM.integers(0, side - 14, size=2)
        mask[y : y + 12, x : x + 13] = True
    return masks


def test_figures_of_tokens_and_masks_are_what_numpy_says() -> None:
    tally, found, expected = MaskTally(), [], []
    for photo in range(3):
        reference = RANDOM.normal(size=(5, 4, 6)).astype(np.float32)
        tokens = reference + RANDOM.normal(scale=1e-3, size=reference.shape).astype(np.float32)
        masks = blobs(5)
        flipped = masks ^ (RANDOM.random(masks.shape) < 0.01 * photo)
        found.append(answers(flipped, tokens, iou=0.5 + 0.01 * photo))
        expected.append(answers(masks, reference))
        tally.add(f"{photo}.jpg", found[-1], expected[-1])
    figures = tally.figures()
    ours, theirs = (
        np.concatenate([a.tokens for a in each]).reshape(-1, 6).astype(np.float64) for each in (found, expected)
    )
    gaps = np.abs(ours - theirs)
    np.testing.assert_allclose(figures["tokens_max_abs"], gaps.max(), rtol=1e-12)
    assert 1 <= figures["tokens_p999_abs"] / np.quantile(gaps, 0.999, method="inverted_cdf") <= 1.1221
    cosine = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(figures["tokens_cosine_min"], min(cosine), rtol=1e-12)
    np.testing.assert_allclose(
        figures["tokens_relative_norm"], np.linalg.norm(gaps) / np.linalg.norm(theirs), rtol=1e-9
    )
    np.testing.assert_allclose(figures["iou_max_abs"], 0.02, rtol=1e-5)
    ours, theirs = (np.concatenate([a.masks for a in each]).reshape(-1, 24 * 24) for each in (found, expected))
    np.testing.assert_allclose(figures["sign_flips"], (ours ^ theirs).mean())
    iou = (ours & theirs).sum(axis=1) / (ours | theirs).sum(axis=1)
    assert figures["masks"] == len(iou) == 60
    np.testing.assert_allclose(figures["mask_iou_mean"], iou.mean(), rtol=1e-6)
    np.testing.assert_allclose(figures["mask_iou_min"], iou.min(), rtol=1e-6)
    np.testing.assert_allclose(figures["mask_iou_p1"], np.percentile(iou, 1), rtol=1e-6)
    assert figures["worst_photo"] == "2.jpg"
    np.testing.assert_allclose(figures["worst_photo_iou"], iou[40:].mean(), rtol=1e-6)


def test_small_masks_count_nowhere_and_none_at_all_is_an_error() -> None:
    masks = np.zeros((2, 4, 24, 24), dtype=np.bool_)
    masks[:, :, :9, :11] = True  # 99
    tally = MaskTally()
    tally.add("a.jpg", answers(masks), answers(masks))
    with pytest.raises(EnvironmentFault, match="100 low-res pixels"):
        tally.figures()
    masks[0, 0, 9, 0] = True
    tally.add("b.jpg", answers(np.zeros_like(masks)), answers(masks))
    assert tally.figures()["masks"] == 1 and tally.figures()["mask_iou_mean"] == 0.0


def test_iou_by_runs_is_that_of_decoded_masks() -> None:
    masks = RANDOM.random((7, 19, 23)) < RANDOM.random((7, 1, 1))
    masks[0], masks[1] = False, True
    codes = [rle_encode(mask) for mask in masks]
    np.testing.assert_allclose(pairwise_iou(codes, codes[2:]), mask_iou(masks, masks[2:]), atol=1e-6)
    assert pairwise_iou([], codes).shape == (0, 7)


def test_kept_masks_pair_one_to_one_best_first() -> None:
    def bar(start: int, stop: int) -> Any:
        mask = np.zeros((4, 100), dtype=np.bool_)
        mask[:, start:stop] = True
        return rle_encode(mask)

    expected = [bar(0, 40), bar(5, 45), bar(60, 80)]
    found = [bar(4, 44), bar(0, 30), bar(71, 91)]
    # 4-44 is nearest to 5-45 (39 of 41), though it also fits 0-40 (36 of 44); 71-91 shares 9 of 31 with 60-80.
    iou, pairs = match(found, expected)
    assert pairs == [(0, 1), (1, 0)]
    np.testing.assert_allclose(iou, [39 / 41, 30 / 40], rtol=1e-6)
    assert match([], expected)[1] == [] and match(found, [])[1] == []


class Twisted(FakeSession):
    """The fake prompt or head graph with one output changed."""

    def __init__(self, model: Model, name: str, twist: Any) -> None:
        super().__init__(model.bundle, name)
        self._twist = twist

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        out = super().run(feeds)
        self._twist(out)
        return out


def twisted(name: str, twist: Any, **kind: Any) -> Model:
    model = fake_model(fake_bundle(**kind))
    sessions = {graph: FakeSession(model.bundle, graph) for graph in model.bundle.graphs}
    return Model(model.bundle, sessions | {name: Twisted(model, name, twist)})


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three colours on grey: fake classes that pass their thresholds."""
    paths = []
    for index, color in enumerate([(220, 40, 40), (40, 70, 210), (40, 160, 60)]):
        pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
        pixels[8:30, 4:60] = color
        pixels[36:60, 4:60] = (220, 200, 40)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        paths.append(tmp_path / f"{index}.png")
    return paths


@pytest.mark.parametrize("labels", ["prompt", "mask"])
def test_a_model_is_itself(photos: list[Path], labels: Any) -> None:
    head = HeadInfo(background=True, labels=labels, calibration=None)
    done: list[int] = []
    parity = measure_parity(
        fake_model(fake_bundle(head=head)), fake_model(fake_bundle(head=head)), photos, progress=done.append
    )
    assert done == [1, 2, 3] and parity.photos == 3 and parity.masks > 50
    assert (parity.tokens_max_abs, parity.tokens_p999_abs, parity.sign_flips) == (0, 0, 0)
    assert parity.confident and parity.kept and parity.matched == parity.kept and parity.clear
    for name, value in parity.figures().items():
        if name.endswith(("_mean", "_p1", "_min", "agreement", "_f1")):
            assert value == pytest.approx(1.0), name
    assert parity.miou_change is None


def test_kept_masks_are_the_segmenters_own(photos: list[Path]) -> None:
    model = fake_model(fake_bundle())
    parity = measure_parity(model, fake_model(fake_bundle()), photos)
    with Segmenter(model, all_classes(model.bundle), Settings()) as segmenter:
        assert parity.kept == sum(len(result) for result in segmenter([str(photo) for photo in photos]))


def test_the_photo_that_differs_is_named_and_labels_that_differ_are_counted(photos: list[Path]) -> None:
    def red_is_blue(out: dict[str, AnyArray]) -> None:
        rows = out["logits"].argmax(axis=1) == 0
        out["logits"][rows] = np.roll(out["logits"][rows], 4, axis=1)

    model = fake_model(fake_bundle())
    parity = measure_parity(twisted("head", red_is_blue), model, photos)
    expected = [Recorder(model).answer(np.asarray(Image.open(photo)), 6) for photo in photos]
    reds = sum(int((a.labels.passed & (a.labels.order[:, 0] == 0)).sum()) for a in expected if a.labels)
    assert parity.confident and 0 < reds < parity.confident
    assert parity.label_agreement == pytest.approx(1 - reds / parity.confident)
    kept_reds = sum(a.result.names.count("red") for a in expected if a.result)
    assert parity.kept and parity.kept_f1 == pytest.approx(1 - kept_reds / parity.kept)
    assert parity.kept_iou_mean == 1.0 and parity.mask_iou_min == 1.0 and parity.class_logits_max_abs

    runs: list[int] = []

    def smaller_on_the_second_photo(out: dict[str, AnyArray]) -> None:
        runs.append(1)
        if 3 < len(runs) <= 6:  # 36 prompts, 16 at a time
            out["m_logits"][:, :, :16] = -1

    parity = measure_parity(twisted("prompt", smaller_on_the_second_photo), model, photos)
    assert parity.worst_photo == "1.png" and parity.worst_photo_iou < 0.9 and parity.sign_flips > 0.01
    assert len(runs) == 9


def test_without_a_head_there_are_no_labels(photos: list[Path]) -> None:
    bundle = fake_bundle()
    graphs = {name: graph for name, graph in bundle.graphs.items() if name != "head"}
    bare = [fake_model(replace(bundle, graphs=graphs, head=None, classes=())) for _ in range(2)]
    parity = measure_parity(*bare, photos)
    whole = measure_parity(fake_model(bundle), fake_model(bundle), photos)
    assert parity.masks == whole.masks and parity.confident is None and parity.kept_f1 is None
    assert "kept" not in parity.figures() and parity.to_json()["kept"] is None


def test_what_cannot_be_compared_is_refused(photos: list[Path]) -> None:
    model = fake_model(fake_bundle())
    with pytest.raises(InputError, match="real photos"):
        measure_parity(model, model, [])
    for change in ({"token_width": 9}, {"input_side": 128}, {"low_res_side": 32}, {"head": None}, {"classes": ()}):
        other = fake_model(replace(fake_bundle(), **change))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=next(iter(change))):
            check_comparable(model, other)

    def overflow(out: dict[str, AnyArray]) -> None:
        out["tokens"][0, 0, 0] = np.inf

    with pytest.raises(EnvironmentFault, match=r"0\.png(.|\n)*bundle fake"):
        measure_parity(twisted("prompt", overflow), model, photos)
    with pytest.raises(EnvironmentFault, match="the reference"):
        measure_parity(model, twisted("prompt", overflow), photos)


def test_parity_goes_through_json_whole(photos: list[Path]) -> None:
    model = fake_model(fake_bundle())
    parity = measure_parity(model, model, photos)
    document = json.loads(json.dumps(parity.to_json()))
    assert Parity.from_json(document) == parity
    for change in ({"masks": 1.5}, {"masks": None}, {"worst_photo": 3}, {"kept_f1": "1"}, {"kept": True}, {"more": 1}):
        with pytest.raises(InputError, match=next(iter(change))):
            Parity.from_json(document | change)
    with pytest.raises(InputError, match="kept_f1"):
        Parity.from_json({name: value for name, value in document.items() if name != "kept_f1"})


def labelled(mask: np.ndarray | None, class_id: int) -> Result:
    """A result of one mask, or none, on a photo of 4 x 4."""
    masks = () if mask is None else (rle_encode(mask),)
    n = len(masks)
    ones = np.ones(n, dtype=np.float32)
    return Result(
        size=(4, 4), class_ids=np.full(n, class_id), names=("x",) * n, confidence=ones, predicted_iou=ones,
        stability_score=ones, boxes=np.zeros((n, 4), dtype=np.float32), masks=masks,
        points=np.zeros((n, 2), dtype=np.float32), runner_up=((),) * n, passed=np.ones(n, dtype=np.bool_),
    )  # fmt: skip


def test_the_change_in_mean_iou_is_counted_by_hand(tmp_path: Path) -> None:
    """Truth: upper half cat. Reference: all of it. Judged: a quarter of it named cow."""
    named = [replace(info, name=name) for info, name in zip(fake_bundle().classes, ("cat", "cow"), strict=False)]
    bundle = replace(fake_bundle(), classes=tuple(named))
    (tmp_path / "SegmentationClass").mkdir()
    labels = np.zeros((4, 4), dtype=np.uint8)
    labels[:2] = 8  # cat in VOC
    Image.fromarray(labels).save(tmp_path / "SegmentationClass" / "a.png")
    truth = Truth(f"voc:{tmp_path}", bundle)
    assert truth.change() is None
    quarter = np.zeros((4, 4), dtype=np.bool_)
    quarter[0, :2] = True
    truth.add(Path("elsewhere.jpg"), labelled(quarter, 2), labelled(quarter, 1))
    assert truth.photos == 0
    truth.add(Path("a.jpg"), labelled(quarter, 2), labelled(labels > 0, 1))
    background, cat, cow = 8 / 14, 0.0, 0.0  # 6 cells of the cat are taken for background
    assert truth.change() == pytest.approx(100 * ((background + cat + cow) / 3 - 1.0))


def test_ground_truth_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    cat = replace(fake_bundle(), classes=(replace(fake_bundle().classes[0], name="cat"),))
    for gt, says in (("voc", "voc:DIR"), ("png:x", "voc:DIR"), (f"voc:{tmp_path}", "SegmentationClass")):
        with pytest.raises(InputError, match=says):
            Truth(gt, cat)
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(InputError, match="classes are VOC's"):
        Truth(f"voc:{tmp_path}", fake_bundle())
    with pytest.raises(InputError, match="no classes"):
        Truth(f"voc:{tmp_path}", replace(fake_bundle(), classes=(), head=None))
    with pytest.raises(InputError, match=r"instances\.json"):
        Truth(f"coco:{tmp_path}", cat)
