"""Explicit background and labels a mask, from photo to result: on fake sessions, and on graphs against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import HeadKind, logits_of, make_weights, tokens_of, write_good
from sample_photos import sample_pixels

import gransam_sdk as gs
from gransam_sdk.bundle import Bundle, HeadInfo, open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.fake_bundle import COLORS, fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import MaskChoice, PointGrid, Settings

EXPLICIT = HeadInfo(background=True, labels="prompt", calibration=None)
BY_MASK = HeadInfo(background=False, labels="mask", calibration=None)
EVERYTHING = {"conf": 1e-6, "nms_iou": 1.0, "containment": 1.0}
RUST = (190, 90, 80)
"""Nearest to red, then to grey."""


def run(bundle: Bundle, pixels: np.ndarray, specs: list[str] | None = None, **settings: object) -> gs.Result:
    assert bundle.head is not None
    given = Settings(**settings)  # type: ignore[arg-type]
    classes = select_classes(bundle.classes, specs, conf=given.conf, background=bundle.head.background)
    with Segmenter(fake_model(bundle), classes, given) as segmenter:
        return segmenter.segment(pixels)


def plain_photo(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((48, 64, 3), color, dtype=np.uint8)


def probabilities(color: tuple[int, int, int], names: tuple[str, ...], *, background: bool) -> dict[str, float]:
    """The fake head's formula, softmax included, in float64."""
    places = {name: COLORS[name] for name in names} | ({"_background": (127.5,) * 3} if background else {})
    weights = {
        name: float(np.exp(-4 * np.square((np.array(color) - np.array(place)) / 127.5).sum()))
        for name, place in places.items()
    }
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def test_where_background_wins_there_is_no_mask() -> None:
    grey = plain_photo((128, 128, 128))
    assert len(run(fake_bundle(), grey, **EVERYTHING)) > 0
    assert len(run(fake_bundle(head=EXPLICIT), grey, **EVERYTHING)) == 0
    half = plain_photo((220, 40, 40))
    half[:, 32:] = 128
    found = run(fake_bundle(head=EXPLICIT), half, **EVERYTHING)
    assert set(found.names) == {"red"} and (found.points[:, 0] <= 32).all()


def test_backgrounds_share_is_missing_from_the_classes() -> None:
    names = tuple(COLORS)
    without, beside = (probabilities(RUST, names, background=given) for given in (False, True))
    for expected, bundle in ((without, fake_bundle()), (beside, fake_bundle(head=EXPLICIT))):
        found = run(bundle, plain_photo(RUST), conf=0.3)
        assert found.names[0] == "red"
        assert found.confidence[0] == pytest.approx(expected["red"], abs=1e-4)
    assert beside["red"] < without["red"] - 0.1, "or the photo shows nothing"
    name, share = found.runner_up[0][0]
    assert (name, share) == ("_background", pytest.approx(beside["_background"], abs=1e-4))


def test_one_class_beside_background() -> None:
    bundle = fake_bundle(head=EXPLICIT, names=("red",))
    expected = probabilities(RUST, ("red",), background=True)
    found = run(bundle, plain_photo(RUST), conf=0.5)
    assert found.names[0] == "red" and found.confidence[0] == pytest.approx(expected["red"], abs=1e-4)
    assert 0.5 < expected["red"] < 0.99, "a softmax over one column would say 1"
    assert [name for name, _ in found.runner_up[0]] == ["_background"]
    assert len(run(bundle, plain_photo((128, 128, 128)), **EVERYTHING)) == 0


def test_a_group_is_its_members_without_background() -> None:
    bundle, specs = fake_bundle(head=EXPLICIT), ["warm=red,yellow,magenta"]
    expected = probabilities(RUST, tuple(COLORS), background=True)
    found = run(bundle, plain_photo(RUST), specs, conf=0.3)
    warm = expected["red"] + expected["yellow"] + expected["magenta"]
    assert found.names[0] == "warm" and found.confidence[0] == pytest.approx(warm, abs=1e-4)
    assert found.runner_up[0][0][0] == "_background"


def test_each_mask_has_its_own_label() -> None:
    """The fake head gives mask 1 the clicked colour's class, mask 2 the next one, mask 3 the one after."""
    bundle, red = fake_bundle(head=BY_MASK), plain_photo((220, 40, 40))
    red[:, 20:30] = (240, 110, 110)  # only mask 3 of a click on red holds it too, so it has the largest predicted IoU
    red[:, 30:] = 255
    every = run(bundle, red, mask_choice="all3", **EVERYTHING)
    click = every.points[every.names.index("red")]
    mine = np.flatnonzero((every.points == click).all(axis=1))
    by_name = {every.names[i]: float(every.predicted_iou[i]) for i in mine}
    assert by_name.keys() == {"red", "yellow", "green"} and len(mine) == 3
    assert by_name["red"] == by_name["yellow"] < by_name["green"]
    for choice in ("whole", "best_iou"):
        found = run(bundle, red, mask_choice=choice, **EVERYTHING)
        rows = (found.points == click).all(axis=1)
        assert [found.names[i] for i in np.flatnonzero(rows)] == ["green"]


def test_masks_that_pass_are_recorded_without_their_siblings() -> None:
    """Thresholds test each mask's own confidence, so some of three may go."""
    bundle, pixels = fake_bundle(head=BY_MASK), sample_pixels("coffee.png")
    found = run(bundle, pixels, ["red"], mask_choice="all3", nms_iou=1.0, containment=1.0)
    assert set(found.names) == {"red"}
    assert max(np.unique(found.points, axis=0, return_counts=True)[1]) == 1, "one of a click's three is red"


@pytest.mark.parametrize("choice", ["best_iou", "whole", "all3"])
@pytest.mark.parametrize("background", [False, True])
def test_graphs_that_label_masks_against_numpy(choice: MaskChoice, background: bool, tmp_path: Path) -> None:
    kind, weights = _mask_bundle(tmp_path / "bundle", background=background)
    pixels = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    points = PointGrid(per_side=4).points()
    _, tokens = tokens_of(weights, pixels, points)
    logits = logits_of(weights, tokens, kind)
    chances = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)  # (g,3,c)
    best = tokens.mean(axis=2)[:, 1:].argmax(axis=1)
    with gs.load(tmp_path / "bundle", device="cpu", settings=Settings(mask_choice=choice, **EVERYTHING)) as segmenter:
        found = segmenter.segment(pixels)
    expected: dict[tuple[float, ...], list[tuple[str, float]]] = {}
    for g, point in enumerate((points * 16).tolist()):
        for mask in {"best_iou": [best[g]], "whole": [2], "all3": [0, 1, 2]}[choice]:
            winner = int(chances[g, mask].argmax())
            if winner < len(kind.names):  # otherwise it is background's
                expected.setdefault(tuple(point), []).append((kind.names[winner], float(chances[g, mask, winner])))
    assert (sum(map(len, expected.values())) < 16 * (3 if choice == "all3" else 1)) == background
    assert len(found) > 3, "masks without a pixel are no masks, so not all that is expected"
    for place, name, confidence in zip(found.points.tolist(), found.names, found.confidence.tolist(), strict=True):
        labels = expected[tuple(place)]
        nearest = min(range(len(labels)), key=lambda i: abs(labels[i][1] - confidence))
        assert labels.pop(nearest) == (name, pytest.approx(confidence, abs=1e-4))


@pytest.mark.parametrize("choice", ["single", "stable"])
def test_a_choice_of_mask_0_needs_a_label_a_prompt(choice: MaskChoice, tmp_path: Path) -> None:
    _mask_bundle(tmp_path / "bundle", background=False)
    settings = Settings(mask_choice=choice)
    with pytest.raises(InputError, match="needs a bundle that labels prompts") as caught:
        gs.load(tmp_path / "bundle", device="cpu", settings=settings)
    assert choice in str(caught.value) and caught.value.exit_code == 2
    bundle = fake_bundle(head=BY_MASK)
    with pytest.raises(InputError, match="labels prompts"):
        Segmenter(fake_model(bundle), select_classes(bundle.classes), settings)


@pytest.mark.parametrize(("labels", "seed"), [("prompt", 2), ("mask", 4)])
def test_a_bundle_of_one_class_loads_and_labels(labels: str, seed: int, tmp_path: Path) -> None:
    """With these seeds background wins 1 and 2 of the 16 clicks."""
    kind = HeadKind(background=True, labels=labels, names=("crack",))
    folder = write_good(tmp_path / "bundle", kind=kind, seed=seed)
    assert len(open_bundle(folder).classes) == 1
    with gs.load(folder, device="cpu", settings=Settings(**EVERYTHING)) as segmenter:
        found = segmenter.segment(np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8))
        assert segmenter.classes.column_names == ("crack", "_background")
    assert 3 < len(found) < 16 and set(found.names) == {"crack"}
    assert (found.confidence > 0.5).all() and (found.confidence < 1).any(), "a softmax over one column says 1"


def _mask_bundle(folder: Path, *, background: bool) -> tuple[HeadKind, dict[str, np.ndarray]]:
    kind = HeadKind(background=background, labels="mask")
    write_good(folder, kind=kind, seed=32)  # background wins some clicks, whichever mask is chosen
    return kind, make_weights(32, kind)
