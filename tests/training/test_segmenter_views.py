"""Views and clicks: a map stays on its photo, and a click lies where its mask is."""

from __future__ import annotations

import numpy as np
import pytest
from discs import draw_discs
from numpy.typing import NDArray
from PIL import Image

from gransam_sdk.training.nano.augment import View, draw_view, four_in_one, recolour, whole_view
from gransam_sdk.training.nano.clicks import (
    SeenMap,
    border_distance,
    draw_clicks,
    inner,
    low_res,
    surest_point,
)
from gransam_sdk.training.nano.config import SegmenterConfig

CONFIG = SegmenterConfig()


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def blobs(seed: int, size: tuple[int, int] = (33, 47)) -> NDArray[np.bool_]:
    """Random regions with holes and thin places."""
    noise = generator(seed).random((size[0] // 3 + 1, size[1] // 3 + 1)) < 0.6
    return np.kron(noise, np.ones((3, 3), bool))[: size[0], : size[1]]


def distances_by_hand(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each pixel against each pixel outside, those around the photo included."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    out = np.zeros(region.shape)
    for y, x in np.argwhere(region):
        out[y, x] = np.sqrt(((outside - (y + 1, x + 1)) ** 2).sum(axis=1).min())
    return out


@pytest.mark.parametrize("seed", range(4))
def test_distances_and_inner_pixels(seed: int) -> None:
    for region in (blobs(seed), np.ones((9, 14), bool), np.zeros((5, 5), bool)):
        expected = distances_by_hand(region)
        np.testing.assert_allclose(border_distance(region), expected, rtol=1e-6)
        assert np.array_equal(inner(region), expected >= 2)
        if region.any():
            x, y = surest_point(region)
            height, width = region.shape
            assert expected[int(y * height), int(x * width)] == expected.max()


def test_maps_are_seen_as_pillow_sees_them() -> None:
    regions = draw_discs(3)[1]
    for width, height, left, top in ((80, 60, 0, 0), (41, 37, 13, 22), (16, 16, 64, 44)):
        for mirrored in (False, True):
            view = View(left=left, top=top, width=width, height=height, mirrored=mirrored, side=64)
            box = (left, top, left + width, top + height)
            image = Image.fromarray(regions.astype(np.int32)).resize((64, 64), Image.Resampling.NEAREST, box=box)
            expected = np.asarray(image)[:, ::-1] if mirrored else np.asarray(image)
            assert np.array_equal(view.of_map(regions.astype(np.int64)), expected)


def test_a_map_stays_on_its_photo() -> None:
    rng = generator()
    for number in range(30):
        pixels, regions = draw_discs(number)
        view = draw_view(rng, pixels, 96, CONFIG)
        seen, numbers = view.of_photo(pixels), view.of_map(regions.astype(np.int64))
        assert seen.shape == (96, 96, 3)
        for value, color in ((1, (220, 30, 30)), (300, (30, 30, 220))):
            deep = border_distance(numbers == value) > 4
            assert np.abs(seen[deep].astype(int) - color).max(initial=0) <= 2


def test_crops_are_as_large_as_they_may_be_and_reach_everywhere() -> None:
    rng, pixels = generator(), np.zeros((60, 80, 3), np.uint8)
    views = [draw_view(rng, pixels, 64, CONFIG) for _ in range(2000)]
    areas = np.array([view.width * view.height / 4800 for view in views])
    assert areas.min() > 0.33 and areas.max() <= 1.0 and 0.5 < areas.mean() < 0.75
    assert 0.45 < np.mean([view.mirrored for view in views]) < 0.55
    covered = np.zeros((60, 80), int)
    for view in views:
        assert view.top + view.height <= 60 and view.left + view.width <= 80
        covered[view.top : view.top + view.height, view.left : view.left + view.width] += 1
    assert covered.min() > 0
    assert whole_view(pixels, 64).of_map(np.arange(4800).reshape(60, 80)).max() > 4700


def test_colours_change_and_places_do_not() -> None:
    rng, (pixels, regions) = generator(), draw_discs(1)
    changed = [recolour(rng, pixels) for _ in range(200)]
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in changed)
    assert len({one.tobytes() for one in changed}) == 200
    grey = [np.ptp(one.astype(int), axis=2).max() == 0 for one in changed]
    assert 2 <= sum(grey) <= 40
    edge = [np.abs(np.diff(one.mean(axis=2)[30])).argmax() for one in changed]
    outline = np.flatnonzero(np.diff(regions[30] > 0))
    assert np.mean([np.abs(outline - place).min() <= 1 for place in edge]) > 0.9


def test_four_in_one() -> None:
    quarters = [np.full((2, 2), value) for value in range(4)]
    assert np.array_equal(four_in_one(quarters), np.kron([[0, 1], [2, 3]], np.ones((2, 2), int)))


def seen(numbers: NDArray[np.int64], whole: bool = True, labelled: bool = True) -> SeenMap:
    return SeenMap(numbers=numbers, whole=whole, labelled=labelled)


def test_clicks_lie_in_their_masks() -> None:
    rng = generator()
    for number in range(20):
        pixels, regions = draw_discs(number)
        numbers = draw_view(rng, pixels, 96, CONFIG).of_map(regions.astype(np.int64))
        clicks = draw_clicks(rng, [seen(numbers)], CONFIG)
        assert clicks is not None and clicks.points.shape == (6, 2) and clicks.masks.shape == (6, 24, 24)
        for point, mask in zip(clicks.points, clicks.masks, strict=True):
            x, y = (int(v * 96) for v in point)
            assert np.array_equal(mask, low_res(numbers == numbers[y, x])) and numbers[y, x]
            assert inner(numbers == numbers[y, x])[y, x]


def test_a_thin_region_is_clicked_all_the_same() -> None:
    numbers = np.zeros((64, 64), np.int64)
    numbers[10] = 7
    clicks = draw_clicks(generator(), [seen(numbers)], CONFIG)
    assert clicks is not None and set((clicks.points[:, 1] * 64).astype(int)) == {10}


def test_larger_regions_by_the_root_of_their_area() -> None:
    numbers = np.ones((64, 64), np.int64)
    numbers[:16, :16] = 2  # 256 of 4,096 pixels: sqrt(256) / (sqrt(256) + sqrt(3840)) = 0.205
    numbers[40, 40] = 3  # one pixel: too small
    config = SegmenterConfig(clicks=4000)
    clicks = draw_clicks(generator(), [seen(numbers)], config)
    assert clicks is not None
    small = clicks.masks.sum(axis=(1, 2)) == 256
    assert abs(small.mean() - 0.205) < 0.03
    assert clicks.masks.sum(axis=(1, 2)).min() == 256


def test_maps_of_people_and_others_take_their_shares() -> None:
    drawn, found = np.ones((64, 64), np.int64), np.ones((64, 64), np.int64)
    maps = [seen(drawn), seen(found, whole=False, labelled=False), seen(found, whole=False, labelled=False)]
    config = SegmenterConfig(clicks=3000)
    clicks = draw_clicks(generator(), maps, config)
    assert clicks is not None and abs(clicks.whole.mean() - config.labelled) < 0.04
    alone = draw_clicks(generator(), maps[1:], config)
    assert alone is not None and not alone.whole.any()
    assert draw_clicks(generator(), [seen(np.zeros((64, 64), np.int64))], config) is None
    assert draw_clicks(generator(), [], config) is None


def test_low_res_counts_pixels() -> None:
    region = blobs(1, (64, 64))
    image = Image.fromarray(region.astype(np.float32)).resize((16, 16), Image.Resampling.BOX)
    np.testing.assert_allclose(low_res(region) / 16, np.asarray(image), atol=1e-6)
