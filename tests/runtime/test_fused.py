"""The fused graph against the four graphs it was made of: the same results, and never fewer in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import HeadKind, good_parts, write_good
from fused_pair import assert_alike, classes_of, fused_pair
from PIL import Image
from sample_photos import sample_pixels

import gransam_sdk as gs
from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import BundleError, EnvironmentFault, ImageError, InputError
from gransam_sdk.export.fused import fuse
from gransam_sdk.runtime.fused import FusedSegmenter, fused_on_onnxruntime
from gransam_sdk.runtime.fused_canary import check_fused_canary
from gransam_sdk.runtime.load import open_sessions
from gransam_sdk.runtime.overlap_nms import surviving_overlaps
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.select import surviving
from gransam_sdk.runtime.session import Session
from gransam_sdk.shapes import AnyArray
from gransam_sdk.types import MaskChoice, Settings

LOOSE = Settings(record_floor=0.1, points_per_side=8)
"""What passes and what is only recorded: 10 to 30 masks a photo before suppression, but one a click where a cat fills
the photo."""
KEPT = 32


@pytest.fixture(scope="module")
def nano() -> Iterator[tuple[Segmenter, FusedSegmenter]]:
    with fused_pair(open_bundle("nano-voc20"), LOOSE, kept=KEPT) as pair:
        check_fused_canary(pair[1])
        yield pair


@pytest.mark.parametrize("name", ["astronaut.png", "camera.png", "motorcycle_left.png", "motorcycle_right.png"])
def test_real_photos_give_the_same_result(name: str, nano: tuple[Segmenter, FusedSegmenter]) -> None:
    plain, fused = nano
    answer = fused.answer(sample_pixels(name), keep_tokens=True)
    expected = plain.segment(sample_pixels(name), keep_tokens=True)
    assert not answer.fell_back and answer.confident > len(expected) >= 3
    assert_alike(answer.result, expected)
    np.testing.assert_allclose(answer.result.stability_score, expected.stability_score, rtol=0, atol=1e-3)
    assert answer.result.tokens is not None and expected.tokens is not None
    np.testing.assert_allclose(answer.result.tokens, expected.tokens, rtol=0, atol=1e-4)
    assert set(answer.result.timings) == {"preprocess", "fused graph", "nms", "rle"}


def test_more_confident_prompts_than_masks_are_answered_by_the_four_graphs(
    nano: tuple[Segmenter, FusedSegmenter],
) -> None:
    plain, fused = nano
    photos, before = fused.photos, fused.fallbacks
    answer = fused.answer(sample_pixels("chelsea.png"))
    assert answer.fell_back and answer.confident > fused.spec.kept == KEPT
    expected = plain.segment(sample_pixels("chelsea.png"))
    assert_alike(answer.result, expected)
    assert answer.result.masks == expected.masks
    assert {"fused graph", "prompt graph", "mask graph"} <= set(answer.result.timings), "the vain run is paid for too"
    assert (fused.photos, fused.fallbacks) == (photos + 1, before + 1)
    with fused_pair(fused.bundle, LOOSE) as (_, wide):
        whole = wide.answer(sample_pixels("chelsea.png"))
        assert not whole.fell_back and whole.confident == answer.confident
        assert_alike(whole.result, answer.result)


def test_extreme_photos() -> None:
    """Strips of 1:18 and 17:1, three pixels by two, one row; the floor is below what chance gives a class."""
    settings = Settings(record_floor=0.01, points_per_side=5)
    photo = sample_pixels("motorcycle_left.png")
    with fused_pair(open_bundle("nano-voc20"), settings) as (plain, fused):
        for crop in (np.s_[200:240], np.s_[:, 300:330], np.s_[250:252, 300:303], np.s_[260:261]):
            strip = np.ascontiguousarray(photo[crop])
            answer = fused.answer(strip)
            assert_alike(answer.result, plain.segment(strip))
            assert not answer.fell_back and answer.confident == 25 and len(answer.result) > 0


def test_a_photo_that_was_decoded_to_scale(nano: tuple[Segmenter, FusedSegmenter]) -> None:
    """Once answered by the fused graph, once by the four that it falls back on."""
    plain, fused = nano
    for name, size, fell_back in (("astronaut.png", (1023, 1024), False), ("chelsea.png", (600, 901), True)):
        half = sample_pixels(name)[: -(-size[0] // 2), : -(-size[1] // 2)]
        answer = fused.answer(np.ascontiguousarray(half), size=size)
        assert answer.fell_back == fell_back and answer.result.size == size
        assert_alike(answer.result, plain.segment(np.ascontiguousarray(half), size=size))


@pytest.mark.shared
def test_photos_of_voc(nano: tuple[Segmenter, FusedSegmenter], shared: Path) -> None:
    plain, fused = nano
    paths = sorted((shared / "data" / "voc2012_dev" / "JPEGImages").glob("*.jpg"))[:6]
    before, masks = fused.fallbacks, 0
    for ours, theirs in zip(fused.stream(paths), plain.stream(paths), strict=True):
        assert_alike(ours, theirs)
        masks += len(theirs)
    assert masks > 20 and fused.fallbacks - before < 5


@pytest.mark.parametrize(
    ("specs", "settings"),
    [
        (["dog", "person=person", "vehicles=car,bus,motorbike"], replace(LOOSE, record_floor=0.3)),
        (None, Settings(conf=0.2, nms_iou=0.3, class_aware=True, containment=1.0)),
        (None, replace(LOOSE, conf=0.2, nms_iou=1.0, containment=0.6, join_fragments=True)),
        (None, replace(LOOSE, conf=0.2, pred_iou_thresh=0.3, stability_score_thresh=0.4)),
        (None, Settings(mask_choice="whole", points_per_side=7, class_conf={"motorbike": 0.9}, record_floor=0.2)),
    ],
    ids=["groups", "class-aware", "joined", "strict", "whole"],
)
def test_settings_mean_the_same(specs: list[str] | None, settings: Settings) -> None:
    with fused_pair(open_bundle("nano-voc20"), settings, specs, chunk=30) as (plain, fused):
        answer = fused.answer(sample_pixels("motorcycle_left.png"))
        expected = plain.segment(sample_pixels("motorcycle_left.png"))
        assert not answer.fell_back and answer.confident > 10 and len(expected) > 0
        assert_alike(answer.result, expected)


def letterboxed(folder: Path, kind: HeadKind, seed: int) -> Bundle:
    parts = good_parts(kind=kind, seed=seed)
    parts.manifest["preprocess"]["resize"] = "letterbox"
    return open_bundle(parts.write(folder))


@pytest.mark.parametrize("labels", ["prompt", "mask"])
def test_letterbox_and_explicit_background(labels: str, tmp_path: Path) -> None:
    bundle = letterboxed(tmp_path / "bundle", HeadKind(background=True, labels=labels), seed=32)
    settings, made, background = Settings(conf=1e-3, nms_iou=1.0, containment=1.0), 0, 0
    with fused_pair(bundle, settings) as (plain, fused):
        for size in ((16, 16), (40, 30), (9, 50), (64, 3), (300, 2)):
            photo = np.asarray(Image.fromarray(sample_pixels("coffee.png")).resize(size[::-1]))
            answer = fused.answer(photo)
            expected = plain.segment(photo)
            assert_alike(answer.result, expected)
            made += len(expected)
            background += fused.spec.prompts - answer.confident
    assert made > 10, "masks to compare"
    assert background > 3, "clicks that background won"


def test_a_graph_of_other_settings_is_refused(nano: tuple[Segmenter, FusedSegmenter], tmp_path: Path) -> None:
    bundle = open_bundle(write_good(tmp_path / "bundle"))
    other = open_bundle(write_good(tmp_path / "other", seed=5))
    settings = Settings(conf=0.1)
    classes = classes_of(bundle, settings)
    stricter = classes_of(bundle, Settings(conf=0.2))
    wrong = {
        "threshold": fuse(bundle, classes=stricter, settings=settings),
        "floor": fuse(bundle, classes=classes, settings=Settings(conf=0.1, record_floor=0.05)),
        "choice": fuse(bundle, classes=classes, settings=Settings(conf=0.1, mask_choice="single")),
        "chunk": fuse(bundle, classes=classes, settings=settings, chunk=3),
        "bundle": fuse(other, classes=classes, settings=settings),
    }
    for data in wrong.values():
        fused = fused_on_onnxruntime(data, open_sessions(bundle, "cpu", 1), classes, settings, device="cpu")
        with fused, pytest.raises(BundleError, match="fuse the bundle again"):
            fused.segment(sample_pixels("coffee.png"))


def test_numbers_that_are_none_are_an_error_as_with_four_graphs(tmp_path: Path) -> None:
    """A head that takes logarithms of negative numbers: no comparison with NaN is true, so nothing would be found."""
    parts = good_parts()

    def take_logarithms(model: object) -> None:
        nodes = model.graph.node  # type: ignore[attr-defined]
        nodes[-1].output[0] = "plain"
        nodes.add(op_type="Log", input=["plain"], output=["logits"])

    parts.edit("head", take_logarithms)
    with fused_pair(open_bundle(parts.write(tmp_path / "bundle")), Settings(conf=0.1)) as (plain, fused):
        for segmenter in (plain, fused):
            with pytest.raises(ImageError) as caught:
                segmenter.segment(sample_pixels("coffee.png"))
            assert caught.value.reason == "non-finite"
        with pytest.raises(BundleError, match="canary"):
            check_fused_canary(fused)


class Distorted:
    """A session whose answers are changed."""

    provider, threads = "DistortedProvider", 1

    def __init__(self, session: Session, **changes: AnyArray) -> None:
        self._session, self._changes = session, changes

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        return self._session.run(feeds) | self._changes

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[tuple[Segmenter, FusedSegmenter]]:
    with fused_pair(open_bundle(write_good(tmp_path / "bundle")), Settings(conf=0.1)) as pair:
        yield pair


def test_an_engine_that_contradicts_itself_is_refused(tiny: tuple[Segmenter, FusedSegmenter]) -> None:
    _, fused = tiny
    photo = sample_pixels("coffee.png")
    out = fused.run_fused(photo)
    assert 1 < int(out["confident"]) == out["recorded"].sum()
    fewer, twice = out["recorded"].copy(), out["prompt"].copy()
    fewer[0], twice[1] = False, twice[0]
    for changes in ({"recorded": fewer}, {"prompt": twice}):
        distorted = FusedSegmenter(
            fused.four_graphs, fused.classes, fused.settings, Distorted(fused._session, **changes)
        )
        with pytest.raises(EnvironmentFault, match="orders wrongly"):
            distorted.segment(photo)
        assert distorted.photos == 0


@pytest.mark.parametrize("name", ["tokens", "iou", "probabilities", "logits"])
def test_the_canary_sees_a_wrong_engine(name: str, tiny: tuple[Segmenter, FusedSegmenter]) -> None:
    _, fused = tiny
    check_fused_canary(fused)
    values = fused.run_fused(np.zeros((16, 16, 3), dtype=np.uint8))[name]
    session = Distorted(fused._session, **{name: values + np.float32(0.5)})
    with pytest.raises(BundleError, match="canary of the fused graph"):
        check_fused_canary(FusedSegmenter(fused.four_graphs, fused.classes, fused.settings, session))


def test_a_fused_run_is_another_run(tiny: tuple[Segmenter, FusedSegmenter]) -> None:
    plain, fused = tiny
    session = Distorted(fused._session)
    other = FusedSegmenter(fused.four_graphs, fused.classes, fused.settings, session, kept=8)
    assert plain.fingerprint != fused.fingerprint != other.fingerprint
    assert other.fingerprint["provider"] == other.provider == "DistortedProvider" and other.threads == 1
    assert set(plain.fingerprint) < set(fused.fingerprint)


def test_what_a_fused_graph_cannot_hold_is_refused_first(tmp_path: Path) -> None:
    bundle = open_bundle(write_good(tmp_path / "bundle"))
    headless = open_bundle(write_good(tmp_path / "headless", head=False))
    choices: tuple[MaskChoice, ...] = ("stable", "all3")
    for choice in choices:
        with pytest.raises(InputError, match="four graphs"):
            fuse(bundle, settings=Settings(mask_choice=choice))
    for wrong in (0, True, 1.5):
        with pytest.raises(InputError, match="kept"):
            fuse(bundle, kept=wrong)
    with pytest.raises(InputError, match="chunk"):
        fuse(bundle, chunk=0)
    with pytest.raises(BundleError, match="head"):
        fuse(headless)
    by_mask = open_bundle(write_good(tmp_path / "mask", kind=HeadKind(labels="mask")))
    with pytest.raises(InputError, match="labels prompts"):
        fuse(by_mask, settings=Settings(mask_choice="single"))


def test_closing_frees_both(tmp_path: Path) -> None:
    with fused_pair(open_bundle(write_good(tmp_path / "bundle")), Settings()) as (plain, fused):
        assert isinstance(fused, gs.Segmenter)
    for segmenter in (plain, fused):
        with pytest.raises(EnvironmentFault, match="closed"):
            segmenter.segment(sample_pixels("coffee.png"))


def test_overlaps_suppress_as_masks_do() -> None:
    """Against ``select.surviving`` on the masks themselves; equal scores, equal masks and empty ones are among them."""
    random = np.random.default_rng(3)
    suppressed = 0
    for trial in range(60):
        n = int(random.integers(0, 25))
        corner, side = random.integers(0, 8, (2, n, 2))
        rows, columns = np.arange(12)[None, :, None], np.arange(12)[None, None, :]
        (y, x), (height, width) = corner.T[:, :, None, None], side.T[:, :, None, None]
        masks = (rows >= y) & (rows < y + height) & (columns >= x) & (columns < x + width)
        labels, passed = random.integers(0, 3, n), random.random(n) < 0.5
        scores = (random.integers(0, 4, n) / 4).astype(np.float32)
        base = Settings(nms_iou=[0.5, 0.6, 1.0][trial % 3], class_aware=trial % 2 == 0)
        settings = replace(base, containment=[0.8, 1.0][trial // 3 % 2])
        flat = masks.reshape(n, 144).astype(np.int64)
        got = surviving_overlaps(flat @ flat.T, flat.sum(axis=1), labels, scores, passed, settings)
        expected = surviving(masks, labels, scores, passed, settings)
        np.testing.assert_array_equal(got, expected)
        suppressed += n - len(got)
    assert suppressed > 100
