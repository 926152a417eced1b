"""The segmenter on fake sessions: what a caller gets, whatever the engine."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from sample_photos import sample_path, sample_pixels

from gransam_sdk.bundle import Tensor
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import EnvironmentFault, ImageError, InputError
from gransam_sdk.geometry import Resize
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import FakeSession, fake_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.result import Result
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

RESIZES: tuple[Resize, ...] = ("stretch", "letterbox")


def fake_segmenter(
    settings: Settings | None = None, classes: list[str] | None = None, resize: Resize = "stretch"
) -> Segmenter:
    bundle, settings = fake_bundle(), settings or Settings()
    bundle = replace(bundle, preprocess=replace(bundle.preprocess, resize=resize))
    chosen = select_classes(
        bundle.classes, classes, file=None, conf=settings.conf, class_conf=dict(settings.class_conf)
    )
    return Segmenter(fake_model(bundle), chosen, settings)


@pytest.mark.parametrize("resize", RESIZES)
def test_a_red_square_is_found_where_it_is(resize: Resize) -> None:
    pixels = np.full((90, 120, 3), 128, dtype=np.uint8)
    pixels[20:60, 30:90] = (220, 40, 40)
    with fake_segmenter(Settings(conf=0.5), resize=resize) as segmenter:
        result = segmenter.segment(pixels, keep_tokens=True)
    assert result.size == (90, 120)
    assert "red" in result.names
    red = result.names.index("red")
    assert result.class_ids[red] == 1 and result.confidence[red] > 0.9
    dense = result.to_dense()[red]
    truth = np.zeros((90, 120), dtype=bool)
    truth[20:60, 30:90] = True
    assert (dense & truth).sum() / (dense | truth).sum() > 0.85
    x0, y0, x1, y1 = result.boxes[red]
    assert abs(x0 - 30) <= 2 and abs(y0 - 20) <= 2 and abs(x1 - 90) <= 2 and abs(y1 - 60) <= 2
    assert 30 <= result.points[red][0] <= 90 and 20 <= result.points[red][1] <= 60
    assert result.tokens is not None and result.tokens.shape == (len(result), 4, 8)


def test_results_read_the_same_from_file_bytes_pil_and_array() -> None:
    path = sample_path("coffee.png")
    with fake_segmenter() as segmenter, Image.open(path) as image:
        sources = [path, str(path), path.read_bytes(), image, sample_pixels("coffee.png")]
        results = segmenter(sources)
        assert segmenter(path)[0].masks == results[0].masks
        assert [r.masks for r in segmenter.stream(iter(sources))] == [r.masks for r in results]
    assert len(results[0]) > 0
    assert all(result.masks == results[0].masks for result in results)


def test_every_chunk_size_gives_the_same_masks() -> None:
    pixels = sample_pixels("astronaut.png")
    answers = [fake_segmenter(Settings(chunk=chunk)).segment(pixels) for chunk in (1, 7, 36, 100)]
    assert len(answers[0]) > 1
    for answer in answers[1:]:
        assert answer.masks == answers[0].masks and answer.names == answers[0].names


def test_coco_entries_are_what_pycocotools_reads() -> None:
    result = fake_segmenter().segment(sample_pixels("chelsea.png"))
    assert len(result) > 0
    for entry, dense in zip(result.to_coco(image_id=7), result.to_dense(), strict=True):
        assert entry["image_id"] == 7 and entry["iscrowd"] == 0
        assert (coco.decode(entry["segmentation"]) == dense).all()
        assert entry["area"] == dense.sum() == coco.area(entry["segmentation"])
        assert entry["bbox"] == coco.toBbox(entry["segmentation"]).tolist()


def test_order_scores_and_runners_up() -> None:
    result = fake_segmenter(Settings(conf=0.9, record_floor=0.2)).segment(sample_pixels("motorcycle_left.png"))
    assert len(result) > 2
    assert (np.diff(result.scores) <= 0).all()
    for name, confidence, runners in zip(result.names, result.confidence, result.runner_up, strict=True):
        assert len(runners) == 2 and name not in dict(runners)
        assert confidence >= runners[0][1] >= runners[1][1]
    assert not result.passed.all() and result.passed.any()


def test_nothing_found_is_an_empty_result() -> None:
    result = fake_segmenter(Settings(conf=1.0)).segment(np.full((40, 40, 3), 127, dtype=np.uint8))
    assert len(result) == 0 and result.boxes.shape == (0, 4) and result.to_dense().shape == (0, 40, 40)
    assert result.to_coco() == []


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 5)])
def test_extreme_photos_are_segmented(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), (220, 40, 40), dtype=np.uint8)
    result = fake_segmenter(Settings(conf=0.3)).segment(pixels)
    assert result.size == size and result.to_dense().shape[1:] == size
    assert len(result) >= 1


def test_padding_counts_neither_in_nms_nor_for_stability() -> None:
    """Each half's mask reaches over the padding, three quarters of the square; in the photo they share nothing."""
    pixels = np.full((40, 160, 3), 127, dtype=np.uint8)
    pixels[:, :80, 0], pixels[:, 80:, 0] = 51, 204
    settings = Settings(conf=0.01, mask_choice="single")
    result = fake_segmenter(settings, resize="letterbox").segment(pixels)
    left = np.arange(160) < 80
    found = result.to_dense()
    assert len(found) == 2
    assert sorted((mask == left).mean() for mask in found) == pytest.approx([0, 1], abs=0.03)
    assert (result.stability_score > 0.9).all()


def test_all3_gives_each_click_three_masks_of_one_label() -> None:
    off = {"nms_iou": 1.0, "containment": 1.0}
    pixels = sample_pixels("coffee.png")
    best = fake_segmenter(Settings(**off)).segment(pixels)
    every = fake_segmenter(Settings(mask_choice="all3", **off)).segment(pixels)
    assert 0 < len(every) <= 3 * len(best) and len(every) > len(best)
    assert set(_rows(best)) < set(_rows(every))
    areas = every.to_dense().mean(axis=(1, 2))
    np.testing.assert_allclose(every.predicted_iou, np.clip(0.5 + areas, 0, 0.99), rtol=0, atol=0.04)  # its rule
    for point in np.unique(every.points, axis=0):
        mine = (every.points == point).all(axis=1)
        assert mine.sum() <= 3 and len({every.names[i] for i in np.flatnonzero(mine)}) == 1


def _rows(result: Result) -> list[tuple[float, float, float, str, str]]:
    return [
        (*map(float, point), float(iou), mask["counts"], name)
        for point, iou, mask, name in zip(result.points, result.predicted_iou, result.masks, result.names, strict=True)
    ]


def test_a_mask_that_goes_takes_no_other_with_it() -> None:
    """What is not trusted is dropped before suppression, so a trusted mask under it stays."""
    pixels = sample_pixels("motorcycle_left.png")
    loose = Settings(stability_score_thresh=0.0, nms_iou=1.0, containment=1.0)
    every = fake_segmenter(loose).segment(pixels)
    rows = set(_rows(every))
    for name, scores in (("stability_score_thresh", every.stability_score), ("pred_iou_thresh", every.predicted_iou)):
        limit = float(np.median(scores))
        kept = fake_segmenter(replace(loose, **{name: limit})).segment(pixels)
        assert set(_rows(kept)) < rows and len(kept) == (scores >= limit).sum() > 1
    limit = float(np.median(every.stability_score))
    suppressed = fake_segmenter(replace(loose, nms_iou=0.5)).segment(pixels)
    stable = fake_segmenter(replace(loose, nms_iou=0.5, stability_score_thresh=limit)).segment(pixels)
    assert set(_rows(stable)) - set(_rows(suppressed)), "what an unstable mask took with it is there again"


def test_joined_fragments_cover_what_the_fragments_did() -> None:
    settings = Settings(conf=0.2, nms_iou=0.9, containment=1.0)
    pixels = sample_pixels("motorcycle_left.png")
    apart = fake_segmenter(settings).segment(pixels)
    joined = fake_segmenter(replace(settings, join_fragments=True)).segment(pixels)
    assert 0 < len(joined) < len(apart)
    assert (np.diff(joined.scores) <= 0).all() and set(joined.scores) <= set(apart.scores)
    for name in set(apart.names):
        pieces, whole = (_union(result, name) for result in (apart, joined))
        assert whole[pieces].all(), "joining hides nothing"
        assert whole.sum() < 1.1 * pieces.sum(), "and closes no more than seams"


def _union(result: Result, name: str) -> np.ndarray:
    return result.to_dense()[[given == name for given in result.names]].any(axis=0)


def test_state_that_the_mask_graph_does_not_read_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The format lets a mask graph read any of the ``m_*``."""
    honest, bundle = FakeSession._prompt, fake_bundle()
    prompt = bundle.graphs["prompt"]
    more = replace(prompt, outputs=(*prompt.outputs, Tensor("m_more", "float32", ("g", 3))))
    bundle = replace(bundle, graphs={**bundle.graphs, "prompt": more})
    monkeypatch.setattr(
        FakeSession,
        "_prompt",
        lambda self, feeds: {**honest(self, feeds), "m_more": np.zeros((len(feeds["points"]), 3), np.float32)},
    )
    segmenter = Segmenter(fake_model(bundle), select_classes(bundle.classes), Settings())
    pixels = sample_pixels("coffee.png")
    assert segmenter.segment(pixels).masks == fake_segmenter().segment(pixels).masks


def test_groups_rename_and_sum() -> None:
    pixels = np.full((60, 60, 3), (220, 40, 40), dtype=np.uint8)
    plain = fake_segmenter().segment(pixels)
    warm = fake_segmenter(classes=["warm=red,yellow"]).segment(pixels)
    assert warm.names[0] == "warm" and warm.confidence[0] >= plain.confidence[0]
    assert fake_segmenter(classes=["blue"]).segment(pixels).names == ()


def test_fingerprint_changes_with_what_changes_results() -> None:
    base = fake_segmenter().fingerprint
    assert base == fake_segmenter().fingerprint
    other = {"points_per_side": 4, "mask_choice": "whole", "conf": 0.9, "class_conf": {"red": 0.9}, "chunk": 3}
    other |= {"record_floor": 0.3, "nms_iou": 0.7, "class_aware": True, "containment": 0.7, "join_fragments": True}
    other |= {"decode_to_scale": True, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.9}
    for field in fields(Settings):
        assert fake_segmenter(replace(Settings(), **{field.name: other[field.name]})).fingerprint != base, field.name
    assert fake_segmenter(classes=["red"]).fingerprint != base
    import json

    assert json.loads(json.dumps(base)) == base


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_outputs_fail_the_photo_loudly(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FakeSession._prompt

    def broken(self: FakeSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = honest(self, feeds)
        out["iou"][0, 1] = value
        return out

    monkeypatch.setattr(FakeSession, "_prompt", broken)
    with pytest.raises(ImageError, match="NaN or infinity") as caught:
        fake_segmenter().segment(sample_pixels("coffee.png"))
    assert caught.value.reason == "non-finite"


def test_arrays_that_are_no_photos_are_refused() -> None:
    segmenter = fake_segmenter()
    for bad in (np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)):
        with pytest.raises(InputError):
            segmenter(bad)


def test_a_closed_segmenter_says_so() -> None:
    segmenter = fake_segmenter()
    segmenter.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        segmenter.segment(np.zeros((8, 8, 3), np.uint8))


def test_only_confident_prompts_pay_for_masks() -> None:
    bundle = fake_bundle()
    sessions = {name: FakeSession(bundle, name) for name in bundle.graphs}
    sizes: list[int] = []
    honest = sessions["mask"].run
    sessions["mask"].run = lambda feeds: sizes.append(len(feeds["choice"])) or honest(feeds)  # type: ignore[func-returns-value,method-assign]
    settings = Settings(conf=0.9)
    classes = select_classes(bundle.classes, None, file=None, conf=0.9, class_conf={})
    segmenter = Segmenter(Model(bundle, sessions), classes, settings)
    segmenter.segment(sample_pixels("coffee.png"))
    assert 0 < sum(sizes) < segmenter.grid.per_side**2


def test_a_path_that_is_missing_names_it(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        fake_segmenter()(tmp_path / "gone.jpg")
