"""Scenes: what is planned, what the pixels are, and which picture lies under a click."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import make_pictures, write_picture
from PIL import Image

from gransam_sdk.errors import ImageError
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.training import scenes as scenes_module
from gransam_sdk.training.examples import Example
from gransam_sdk.training.folds import fold_numbers
from gransam_sdk.training.scenes import NO_PART, PARTS, SCALE, SIDE, SPLIT, Scene, Tile, plan_scenes
from gransam_sdk.training.token_cache import CachePlan
from gransam_sdk.training.tokens import cache_pictures, extract_bags, load_bags
from gransam_sdk.types import PointGrid

POINTS = PointGrid(per_side=36).points()


def example(path: Path, label: int) -> Example:
    return Example(path=path, label=label, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Twenty pictures of each of two classes and twenty of background, each of one colour that no other has."""
    folder, examples = tmp_path_factory.mktemp("flat"), []
    for number in range(60):
        path = folder / f"{number}.png"
        Image.new("RGB", (20, 14), (number * 4 + 10, 0, 200 - number)).save(path)
        examples.append(example(path, (0, 1, -1)[number // 20]))
    return examples


def folds_of(examples: list[Example]) -> np.ndarray:
    return fold_numbers(np.array([one.label for one in examples]))


def plans(scenes: list[Scene]) -> list[str]:
    return [scene.sha256 for scene in scenes]


def test_the_same_seed_plans_the_same_scenes(flat: list[Example]) -> None:
    folds = folds_of(flat)
    first = plan_scenes(flat, folds)
    assert first == plan_scenes(flat, folds) and plans(first) == plans(plan_scenes(flat, folds))
    assert not set(plans(first)) & set(plans(plan_scenes(flat, folds, seed=1)))


def test_every_class_picture_has_its_scene_within_its_fold(flat: list[Example]) -> None:
    folds = folds_of(flat)
    fold_of = {one.sha256: fold for one, fold in zip(flat, folds, strict=True)}
    scenes = plan_scenes(flat, folds)
    assert len(set(plans(scenes))) == len(scenes) == 40
    assert [scene.fold for scene in scenes] == sorted(scene.fold for scene in scenes)
    for scene in scenes:
        assert {fold_of[tile.example.sha256] for tile in scene.tiles} == {scene.fold}
    for fold in range(10):
        shown = {one.sha256 for one, own in zip(flat, folds, strict=True) if own == fold and one.label >= 0}
        inside = {tile.example.sha256 for scene in scenes if scene.fold == fold for tile in scene.tiles}
        assert shown <= inside
    kinds = [len(scene.tiles) for scene in scenes]
    assert set(kinds) == {2, PARTS} and kinds.count(2) == kinds.count(4) == 20, "by turns"


def test_boxes_lie_in_the_square_and_four_pictures_fill_it(flat: list[Example]) -> None:
    mirrored, sides = [], []
    for seed in range(5):
        for scene in plan_scenes(flat, folds_of(flat), seed):
            covered = np.zeros((SIDE, SIDE), dtype=np.int64)
            for tile in scene.tiles:
                x0, y0, x1, y1 = tile.box
                assert 0 <= x0 < x1 <= SIDE and 0 <= y0 < y1 <= SIDE
                covered[y0:y1, x0:x1] += 1
                mirrored.append(tile.mirrored)
            if len(scene.tiles) == PARTS:
                assert (covered == 1).all(), "without a gap and without an overlap"
                x, y = scene.tiles[0].box[2:] if scene.tiles[0].box[:2] == (0, 0) else (0, 0)
                assert not x or SPLIT[0] * SIDE - 1 <= min(x, y) <= max(x, y) <= SPLIT[1] * SIDE
            else:
                behind, small = scene.tiles
                assert behind.example.label == -1 and small.example.label >= 0
                assert behind.box == (0, 0, SIDE, SIDE)
                sides += [(small.box[2] - small.box[0]) / SIDE, (small.box[3] - small.box[1]) / SIDE]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert 0.85 * SCALE[0] - 0.01 < min(sides) < 0.5 and 0.7 < max(sides) <= 1.15 * SCALE[1]


def test_the_picture_under_a_click_is_the_one_that_is_seen(flat: list[Example]) -> None:
    color = {one.sha256: one.pixels()[0, 0].tolist() for one in flat}
    met = set()
    for scene in plan_scenes(flat, folds_of(flat), seed=2):
        pixels, part = scene.pixels(), scene.part_of(POINTS)
        assert pixels.shape == (SIDE, SIDE, 3) and pixels.dtype == np.uint8
        met |= {(len(scene.tiles), int(index)) for index in part}
        for (x, y), index in zip((POINTS * SIDE).astype(int), part, strict=True):
            assert pixels[y, x].tolist() == color[scene.tiles[index].example.sha256]
    assert met == {(2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)}


def test_a_tile_is_the_picture_made_small_and_mirrored_where_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:, :45, 0] = pixels[:30, 45:, 1] = 255  # red on the left, green at the top right
    Image.fromarray(pixels).save(path)
    corners = {}
    for mirrored in (False, True):
        tile = Tile(example=example(path, 0), box=(100, 50, 220, 150), mirrored=mirrored)
        scene = Scene(tiles=(tile,), fold=0).pixels()
        corners[mirrored] = [scene[y, x].tolist() for y, x in ((52, 102), (52, 217), (147, 217), (147, 102))]
        assert not scene[:50].any() and not scene[:, 220:].any()
    red, green, black = [255, 0, 0], [0, 255, 0], [0, 0, 0]
    assert corners == {False: [red, green, black, red], True: [green, red, red, black]}


def test_without_background_all_pictures_stand_beside_others(flat: list[Example]) -> None:
    shown = flat[:40]
    scenes = plan_scenes(shown, folds_of(shown))
    assert len(scenes) == 40 and all(len(scene.tiles) == PARTS for scene in scenes)
    assert all(tile.example.label >= 0 for scene in scenes for tile in scene.tiles)


def test_background_stands_beside_pictures_too(flat: list[Example]) -> None:
    scenes = [scene for seed in range(8) for scene in plan_scenes(flat, folds_of(flat), seed)]
    beside = [
        np.mean([tile.example.label < 0 for tile in scene.tiles]) for scene in scenes if len(scene.tiles) == PARTS
    ]
    assert np.mean(beside) == pytest.approx(0.3 * 3 / 4, abs=0.05)


def test_a_fold_with_one_picture_has_no_scene(flat: list[Example]) -> None:
    some = [flat[0], flat[1], flat[20], flat[40], flat[41], flat[42]]
    scenes = plan_scenes(some, np.array([3, 4, 4, 5, 5, 6]))
    assert [scene.fold for scene in scenes] == [4, 4], "and folds of background alone have none"
    assert plan_scenes(some[:1], np.array([0])) == [] and plan_scenes([], np.zeros(0, dtype=np.int64)) == []


def test_the_hash_is_of_all_that_the_pixels_come_from(
    flat: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = tuple(Tile(example=flat[i], box=(0, 0, 100 + i, 90), mirrored=False) for i in range(2))
    scene = Scene(tiles=tiles, fold=0)

    def changed(**change: object) -> str:
        return Scene(tiles=(replace(tiles[0], **change), tiles[1]), fold=0).sha256  # type: ignore[arg-type]

    others = [
        changed(box=(0, 1, 100, 90)),
        changed(mirrored=True),
        changed(example=flat[9]),
        Scene(tiles=tiles[::-1], fold=0).sha256,
        Scene(tiles=tiles[:1], fold=0).sha256,
    ]
    assert len({scene.sha256, *others}) == 6
    assert changed(example=replace(flat[0], path=tmp_path / "moved.png")) == scene.sha256
    assert len(scene.sha256) == 64 and Scene(tiles=tiles, fold=4).sha256 == scene.sha256
    monkeypatch.setattr(scenes_module, "SCENE_FORMAT", scenes_module.SCENE_FORMAT + 1)
    assert Scene(tiles=tiles, fold=0).sha256 != scene.sha256


def test_a_picture_that_changed_is_an_image_error(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    write_picture(path, (1, 2, 3))
    scene = Scene(tiles=(Tile(example=example(path, 0), box=(0, 0, 9, 9), mirrored=False),), fold=0)
    write_picture(path, (3, 2, 1))
    with pytest.raises(ImageError) as caught:
        scene.pixels()
    assert caught.value.reason == "changed" and str(path) in scene.name
    path.unlink()
    with pytest.raises(ImageError):
        scene.pixels()


def test_scenes_are_bags_of_what_the_graphs_say_of_their_pixels(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 12)
    make_pictures(tmp_path / "pictures", 2, classes=("_background",))
    told: list[CachePlan] = []
    model = fake_model(fake_bundle())
    cached = cache_pictures(model, tmp_path / "pictures", cache=tmp_path / "cache", announce=told.append)
    assert [(plan.what, plan.pictures, plan.cached) for plan in told] == [("pictures", 26, 0), ("scenes", 24, 0)]
    bags = load_bags(cached)
    found = bags.scenes
    assert found.instances.shape == (24, 36, bags.instances.shape[2])
    assert found.parts.shape == (24, PARTS) and found.part_of.shape == (24, 36)
    for row, scene in enumerate(cached.scenes):
        shown = [tile.example.label for tile in scene.tiles]
        assert found.parts[row].tolist() == shown + [NO_PART] * (PARTS - len(shown))
    points = PointGrid(per_side=6).points()
    assert np.array_equal(found.part_of, [scene.part_of(points) for scene in cached.scenes])
    assert found.folds.tolist() == [scene.fold for scene in cached.scenes]
    red_over_blue = found.instances[:, :, 0].astype(float) - found.instances[:, :, 2]  # the clicked colour
    under = found.under()
    assert {-1, 0, 1} == set(under.ravel())
    for label, sign in ((0, -1), (1, 1)):
        assert (np.sign(red_over_blue[under == label]) == sign).mean() > 0.8, "but for stripes and seams"
    assert (np.abs(red_over_blue[under == -1]) < 0.3).mean() > 0.8
    told.clear()
    again = extract_bags(model, tmp_path / "pictures", cache=tmp_path / "cache", announce=told.append)
    assert [(plan.what, plan.cached) for plan in told] == [("pictures", 26), ("scenes", 24)]
    assert np.array_equal(again.scenes.instances, found.instances)
    plain = extract_bags(model, tmp_path / "pictures", scenes=False, cache=tmp_path / "cache")
    assert len(plain.scenes.folds) == 0 and np.array_equal(plain.instances, bags.instances)


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_picture_lost_meanwhile_costs_its_scenes_and_not_the_run(tmp_path: Path, harm: str) -> None:
    root, cache = make_pictures(tmp_path / "pictures", 12), tmp_path / "cache"
    victim = root / "red" / "3.png"
    whole = extract_bags(fake_model(fake_bundle()), root, cache=tmp_path / "other")

    def spoil(plan: CachePlan) -> None:
        if plan.what == "scenes" and harm == "changed":
            write_picture(victim, (9, 8, 7))
        elif plan.what == "scenes":
            victim.unlink()

    bags = extract_bags(fake_model(fake_bundle()), root, cache=cache, announce=spoil)
    assert np.array_equal(bags.instances, whole.instances), "its own tokens are there"
    lost = [reason for name, reason in bags.skipped if str(victim) in name and name.startswith("scene of ")]
    assert len(lost) == len(bags.skipped) == 24 - len(bags.scenes.folds) > 0
    assert len(bags.scenes.folds) > 12
    assert len(set(lost)) == 1 and (lost[0] == "changed") == (harm == "changed")
