"""Overlays: where paint goes and where it does not, names that can be read, and photos that are gone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hand_records import CLASSES, MemoryFolder, annotation, record
from PIL import Image

from gransam_sdk.annotate.exporters.overlays import export_overlays, overlay
from gransam_sdk.errors import InputError
from gransam_sdk.rle import rle_decode, rle_encode, rle_from_counts
from gransam_sdk.runtime.draw import draw_masks, ink_on, mask_window, name_color, voc_palette

GREY = np.full((200, 300, 3), 100, dtype=np.uint8)


def rectangle(rows: slice, columns: slice, size: tuple[int, int] = (200, 300)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[rows, columns] = True
    return mask


def test_paint_stays_inside_the_mask_and_its_label() -> None:
    mask = rectangle(slice(60, 180), slice(50, 250))
    photo = GREY.copy()
    painted = np.array(draw_masks(photo, [rle_encode(mask)], ["cat"], {"cat": (200, 0, 50)}))
    np.testing.assert_array_equal(photo, GREY)
    changed = (painted != GREY).any(axis=2)
    assert changed[mask].all()
    rows, _ = np.nonzero(changed & ~mask)
    assert rows.min() >= 40 and rows.max() < 60, "only the name's plate lies outside, just above the mask"
    assert painted[120, 150].tolist() == [140, 60, 80]  # 60 % photo, 40 % colour
    assert painted[120, 50].tolist() == [255, 255, 255]  # rim, then a line in the class's colour
    assert painted[120, 51].tolist() == painted[120, 52].tolist() == [200, 0, 50]
    assert painted[179, 150].tolist() == [255, 255, 255]


def test_the_first_mask_lies_on_top() -> None:
    masks = [
        rle_encode(rectangle(slice(50, 150), slice(50, 200))),
        rle_encode(rectangle(slice(50, 150), slice(100, 250))),
    ]
    painted = np.array(draw_masks(GREY, masks, ["a", "b"], {"a": (255, 0, 0), "b": (0, 0, 255)}))
    assert painted[100, 199].tolist() == [255, 255, 255] and painted[100, 197].tolist() == [255, 0, 0]
    assert painted[100, 230].tolist() == [60, 60, 162]


def test_names_at_one_place_do_not_hide_each_other() -> None:
    spot = rle_encode(rectangle(slice(100, 101), slice(150, 151)))
    colours = {"one": (250, 10, 10), "two": (10, 250, 10), "three": (10, 10, 250)}
    painted = np.array(draw_masks(GREY, [spot] * 3, list(colours), colours, [0.5, 0.6, 0.7])).reshape(-1, 3)
    plates = [int((painted == colour).all(axis=1).sum()) for colour in colours.values()]
    assert min(plates) > 400


@pytest.mark.parametrize("corner", [(0, 0), (0, 299), (199, 0), (199, 299)])
def test_names_stay_inside_the_photo(corner: tuple[int, int]) -> None:
    mask = rectangle(slice(corner[0], corner[0] + 1), slice(corner[1], corner[1] + 1))
    painted = np.array(draw_masks(GREY, [rle_encode(mask)], ["aeroplane"], {"aeroplane": (128, 0, 0)}, [0.93]))
    plate = (painted == (128, 0, 0)).all(axis=2)
    rows, columns = np.nonzero(plate)
    assert np.ptp(rows) > 12 and np.ptp(columns) > 60, "the whole plate is there"
    assert (painted == 255).all(axis=2).sum() > 100, "white ink on dark red"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (9, 9)])
def test_photos_too_small_for_a_name_are_painted_all_the_same(size: tuple[int, int]) -> None:
    photo = np.zeros((*size, 3), dtype=np.uint8)
    painted = draw_masks(photo, [rle_encode(np.ones(size, dtype=bool))], ["pottedplant"])
    assert painted.size == (size[1], size[0])
    assert np.array(painted).any()


def test_text_and_lines_grow_with_the_photo() -> None:
    widths = []
    for scale in (1, 4):
        size = (300 * scale, 300 * scale)
        mask = rectangle(slice(100 * scale, 200 * scale), slice(100 * scale, 200 * scale), size)
        painted = np.array(draw_masks(np.zeros((*size, 3), np.uint8), [rle_encode(mask)], ["a"], {"a": (0, 0, 200)}))
        line = (painted == (0, 0, 200)).all(axis=2)
        widths.append((int(line[150 * scale, : 150 * scale].sum()), int(line[: 100 * scale].sum())))
    assert widths[1][0] > widths[0][0] >= 2
    assert widths[1][1] > 3 * widths[0][1] > 0


def test_windows_equal_the_dense_mask() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        size = tuple(int(v) for v in random.integers(1, 12, 2))
        mask = random.random(size) < random.choice([0.0, 0.1, 0.5, 1.0])
        window, x0, y0 = mask_window(rle_encode(mask))
        placed = np.zeros(size, dtype=bool)
        placed[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window
        np.testing.assert_array_equal(placed, mask)
        if mask.any():
            assert window[0].any() and window[-1].any() and window[:, 0].any() and window[:, -1].any()
    runs = rle_from_counts([2, 0, 1, 3], (3, 2))  # a foreground run of no pixels
    window, x0, y0 = mask_window(runs)
    np.testing.assert_array_equal(window, rle_decode(runs)[:, 1:])
    assert (x0, y0) == (1, 0)


def test_palette_is_vocs() -> None:
    published = [
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)),
        *((128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128)),
        *((64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)),
    ]
    assert [tuple(colour) for colour in voc_palette()[:21, 0].tolist()] == published
    assert voc_palette()[255, 0].tolist() == [224, 224, 192]


def test_classes_without_a_colour_get_a_vivid_one_of_their_own() -> None:
    names = [f"class {i}" for i in range(300)]
    colours = [name_color(name) for name in names]
    assert min(max(colour) for colour in colours) >= 128
    assert len(set(colours)) > 120
    assert name_color("cat") == name_color("cat") != name_color("dog")


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (128, 0, 0), (192, 128, 128), (0, 192, 0), (128, 128, 128)]
)
def test_ink_has_contrast(colour: tuple[int, int, int]) -> None:
    def luminance(rgb: tuple[int, int, int]) -> float:
        linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 if c > 10 else c / 255 / 12.92 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


@pytest.mark.parametrize(
    ("image", "masks", "names", "scores"),
    [
        (GREY[..., 0], [], [], None),
        (GREY.astype(np.float32), [], [], None),
        (GREY[:0], [], [], None),
        (GREY, [rle_encode(np.ones((300, 200), dtype=bool))], ["cat"], None),
        (GREY, [], ["cat"], None),
        (GREY, [], [], [0.5]),
    ],
)
def test_what_cannot_be_drawn_is_refused(image: np.ndarray, masks: list, names: list, scores: list | None) -> None:
    with pytest.raises(InputError):
        draw_masks(image, masks, names, scores=scores)


def test_overlays_of_a_real_photo(sample_photos: dict[str, Path]) -> None:
    with Image.open(sample_photos["chelsea.png"]) as picture:
        photo = np.array(picture.convert("RGB"))
    size = photo.shape[:2]
    mask = rectangle(slice(100, 250), slice(120, 330), size)
    faint = rectangle(slice(0, 90), slice(0, 90), size)
    found = [annotation(mask, 1, 0.93, 0.8), annotation(faint, 2, 0.49, 0.4)]
    records = [record("deep/chelsea.png", size, found), record("gone.jpg", (5, 5)), record("none.png", size)]
    folder = MemoryFolder()
    photos = {"deep/chelsea.png": photo, "none.png": photo}
    missing = export_overlays(lambda: iter(records), CLASSES, folder, photos.get)  # type: ignore[arg-type]
    assert missing == 1
    assert sorted(folder.files) == ["overlays/deep/chelsea.png.jpg", "overlays/none.png.jpg"]
    with Image.open(io.BytesIO(folder.files["overlays/deep/chelsea.png.jpg"])) as picture:
        assert picture.format == "JPEG"
        painted = np.array(picture).astype(int)
    outside = ~rectangle(slice(70, 250), slice(120, 330), size)  # 30 rows for the name
    assert np.abs(painted - photo)[outside].mean() < 3, "what is below its threshold is not painted"
    np.testing.assert_allclose(painted[175, 225], 0.6 * photo[175, 225] + 0.4 * np.array([64, 0, 0]), atol=8)


def test_higher_scores_lie_on_top_and_of_equal_ones_the_smaller_mask() -> None:
    wide, narrow = rectangle(slice(40, 190), slice(10, 290)), rectangle(slice(60, 170), slice(30, 270))
    for scores in ((0.5, 0.6), (0.5, 0.5)):
        for found in ((wide, 1, scores[0]), (narrow, 2, scores[1])), ((narrow, 2, scores[1]), (wide, 1, scores[0])):
            made = record("a.jpg", (200, 300), [annotation(m, c, 0.9, s) for m, c, s in found])
            painted = np.array(overlay(made, CLASSES, GREY))
            assert painted[169, 50].tolist() == [255, 255, 255], "the rim of the mask on top is whole"
    made = record("a.jpg", (200, 300), [annotation(wide, 1, 0.9, 0.7), annotation(narrow, 2, 0.9, 0.6)])
    assert np.array(overlay(made, CLASSES, GREY))[169, 50].tolist() != [255, 255, 255]


def test_a_photo_of_another_size_is_refused() -> None:
    made = record("a.jpg", (4, 4), [annotation(np.ones((4, 4), dtype=bool), 1, 0.9, 0.8)])
    with pytest.raises(InputError, match="300 x 200"):
        overlay(made, CLASSES, GREY)
