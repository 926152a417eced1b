"""How much of its picture's rim a mask covers: by hand, on every kind of picture, and through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pictures import make_pictures

from gransam_sdk.geometry import Frame, Resize
from gransam_sdk.runtime.fake_bundle import EMBEDDING, fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.model import Prompts
from gransam_sdk.training.examples import Example
from gransam_sdk.training.scenes import SIDE, Scene, Tile
from gransam_sdk.training.token_cache import _Pass
from gransam_sdk.training.token_shard import PictureTokens, rim_share
from gransam_sdk.training.tokens import cache_pictures, load_bags
from gransam_sdk.types import PointGrid

E = 7
AREAS = (
    (0, 0, E, E),
    (0, 0, E, 4),  # letterboxed: the rest is padding
    (3, 2, 4, 3),  # one cell
    (6, 6, 7, 7),
    (0, 5, E, 6),  # one row
    (2, 1, 4, E),  # two columns: all rim
    (1, 2, 6, 6),
)


def by_hand(mask: np.ndarray, area: Sequence[int]) -> np.float16:
    """One mask (e,e) of logits, cell by cell."""
    x0, y0, x1, y1 = area
    covered = cells = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            if x in (x0, x1 - 1) or y in (y0, y1 - 1):
                cells += 1
                covered += bool(mask[y, x] > 0)
    return np.float16(covered / cells)


def lattice_of(prompts: int, seed: int = 0, side: int = E) -> np.ndarray:
    """Logits (g,4,e,e) of masks of every size; some are exactly 0, which is outside."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(prompts, 4, side, side)) + random.uniform(-2, 2, size=(prompts, 4, 1, 1))
    values[random.uniform(size=values.shape) < 0.1] = 0.0
    return values.astype(np.float32)


def test_shares_by_hand() -> None:
    areas = np.array([AREAS[i % len(AREAS)] for i in range(42)])
    areas = np.random.default_rng(1).permutation(areas)
    lattice = lattice_of(42)
    found = rim_share(lattice, areas)
    assert found.shape == (42, 4) and found.dtype == np.float16
    expected = [[by_hand(mask, area) for mask in masks] for masks, area in zip(lattice, areas, strict=True)]
    assert found.tolist() == np.array(expected).tolist()
    assert {0.0, 1.0} < set(found.ravel().tolist()), "one cell is all or nothing, others are between"


@pytest.mark.parametrize("area", AREAS)
def test_what_surrounds_a_picture_has_all_of_its_rim_and_an_object_nothing(area: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = area
    around = np.full((1, 4, E, E), -3.0, dtype=np.float32)
    around[:, :, y0:y1, x0:x1] = 3.0
    around[:, :, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = -3.0
    areas = np.array([area])
    assert (rim_share(around, areas) == 1.0).all()
    assert (rim_share(-around, areas) == 0.0).all(), "whatever there is outside the picture"
    assert rim_share(np.ones((1, 4, E, E), dtype=np.float32), areas).tolist() == [[1.0] * 4]


def prompts_of(lattice: np.ndarray) -> Prompts:
    g = len(lattice)
    return Prompts(
        points=np.zeros((g, 2), dtype=np.float32),
        tokens=np.zeros((g, 4, 2), dtype=np.float32),
        iou=np.zeros((g, 4), dtype=np.float32),
        lattice=lattice,
        features=np.zeros((g, 4, 3), dtype=np.float32),
        state={},
    )


@pytest.mark.parametrize("chunk", [1, 5, 16, 40])
def test_every_chunk_gets_its_own_areas(chunk: int) -> None:
    lattice, areas = lattice_of(16), np.array([AREAS[i % len(AREAS)] for i in range(16)])
    chunks = [prompts_of(lattice[start : start + chunk]) for start in range(0, 16, chunk)]
    assert PictureTokens.of(chunks, areas).rim.tolist() == rim_share(lattice, areas).tolist()


def cells_of(areas: np.ndarray, size: tuple[int, int], resize: Resize) -> np.ndarray:
    """Areas (g,4) of a photo (h,w), in cells of the fake model's lattice."""
    model = fake_model(fake_bundle())
    frame = Frame.fit(size=size, side=model.bundle.input_side, resize=resize)
    return _Pass(model, None)._cells(areas.astype(np.float32), frame)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "resize", "whole"),
    [
        ((30, 40), "stretch", [0, 0, EMBEDDING, EMBEDDING]),
        ((30, 40), "letterbox", [0, 0, EMBEDDING, 12]),
        ((400, 100), "letterbox", [0, 0, 4, EMBEDDING]),
        ((3, 900), "letterbox", [0, 0, EMBEDDING, 1]),
    ],
)
def test_cells_are_those_whose_centre_is_in_the_area(size: tuple[int, int], resize: Resize, whole: list[int]) -> None:
    """A photo in the corner of the model's square has cells of its own only; none of the padding's."""
    assert cells_of(np.array([[0.0, 0, 1, 1]]), size, resize).tolist() == [whole]
    columns, rows = whole[2:]
    corners = np.sort(np.random.default_rng(0).uniform(size=(500, 2, 2)), axis=1)
    areas = corners.reshape(500, 4)
    checked = 0
    for area, found in zip(areas, cells_of(areas, size, resize), strict=True):
        assert 0 <= found[0] < found[2] <= columns and 0 <= found[1] < found[3] <= rows
        for axis, cells in ((0, columns), (1, rows)):
            centres = (np.arange(cells) + 0.5) / cells
            inside = np.flatnonzero((area[axis] < centres) & (centres < area[axis + 2]))
            if len(inside):
                checked += 1
                assert list(range(found[axis], found[axis + 2])) == inside.tolist()
    assert checked > 400


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_the_smallest_tile_has_a_cell_wherever_it_lies(resize: Resize) -> None:
    """Also between two centres, and at the right and lower edge."""
    places = np.array([0.0, 1e-4, 0.3, 0.5, 0.9999, 1.0])
    x, y = (axis.ravel() for axis in np.meshgrid(places, places))
    areas = np.stack([x, y, (x + 1e-5).clip(max=1), (y + 1e-5).clip(max=1)], axis=1)
    for size in ((30, 40), (40, 30), (2, 500)):
        cells = cells_of(areas, size, resize)
        end = cells_of(np.array([[0.0, 0, 1, 1]]), size, resize)[0, 2:]
        assert (cells[:, 2:] - cells[:, :2] == 1).all() and (cells >= 0).all() and (cells[:, 2:] <= end).all()


def test_areas_of_a_picture_and_of_a_scene() -> None:
    points = PointGrid(per_side=6).points()
    one = Example(path=Path("0.png"), label=0, sha256="0" * 64)
    assert one.areas(points).tolist() == [[0.0, 0.0, 1.0, 1.0]] * 36
    boxes = [(0, 0, SIDE, SIDE), (112, 0, 336, 224)]
    scene = Scene(tiles=tuple(Tile(example=one, box=box, mirrored=True) for box in boxes), fold=0)
    small = 0
    for (x, y), area in zip(points * SIDE, scene.areas(points), strict=True):
        on_small = 112 <= x < 336 and y < 224
        small += on_small
        assert area.tolist() == ([0.25, 0.0, 0.75, 0.5] if on_small else [0.0, 0.0, 1.0, 1.0])
    assert 0 < small < 36


def test_in_a_scene_the_rim_is_the_tiles(tmp_path: Path) -> None:
    """The graphs over a scene's pixels, and the masks' cells counted by hand within the tile under the click."""
    make_pictures(tmp_path / "pictures", 12)
    make_pictures(tmp_path / "pictures", 2, classes=("_background",))
    model = fake_model(fake_bundle())
    cached = cache_pictures(model, tmp_path / "pictures", cache=tmp_path / "cache")
    bags = load_bags(cached, "single")
    points = PointGrid(per_side=6).points()
    other = 0
    for row, scene in enumerate(cached.scenes):
        pixels = scene.pixels()
        frame = model.frame(pixels)
        prompts = next(model.prompt(model.hoist(model.prepare(pixels, frame)), frame, points, len(points)))
        for click, tile in enumerate(scene.part_of(points)):
            area = np.rint(np.array(scene.tiles[tile].box) / SIDE * EMBEDDING).astype(int)
            mask = prompts.lattice[click, 0]
            assert bags.scenes.rim[row, click] == by_hand(mask, area)
            other += by_hand(mask, area) != by_hand(mask, (0, 0, EMBEDDING, EMBEDDING))
    assert other > 200, "the whole scene's rim is another"
