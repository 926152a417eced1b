"""Decoding to scale against block means of the full decode, and bad photos both ways."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import photo_bytes
import photos
import pytest
from PIL import Image
from sample_photos import sample_path

from gransam_sdk.classes import select_classes
from gransam_sdk.errors import ImageError, InputError
from gransam_sdk.geometry import Frame, reduction_between
from gransam_sdk.runtime import decode
from gransam_sdk.runtime.decode import decode_photo
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.preprocess import resize
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings


def least(rows: int, columns: int):
    return lambda size: (rows, columns)


def eighth(size: tuple[int, int]) -> tuple[int, int]:
    """Anything is enough."""
    return 1, 1


def photo(width: int, height: int) -> Image.Image:
    with Image.open(sample_path("coffee.png")) as image:
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """Of whole blocks only: what a scaled pixel stands for."""
    h, w = (length // side * side for length in pixels.shape[:2])
    return pixels[:h, :w].reshape(h // side, side, w // side, side, 3).astype(np.float64).mean(axis=(1, 3))


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (320, 480, (320, 480)),  # exactly half
        (321, 480, (640, 960)),
        (320, 481, (640, 960)),
        (160, 240, (160, 240)),
        (81, 120, (160, 240)),
        (80, 120, (80, 120)),
        (1, 1, (80, 120)),  # no less than an eighth
        (640, 960, (640, 960)),
        (2000, 1, (640, 960)),
    ],
)
def test_the_smallest_scale_that_leaves_enough(rows: int, columns: int, expected: tuple[int, int]) -> None:
    decoded = decode_photo(photo_bytes.encode(photo(960, 640)), least=least(rows, columns))
    assert decoded.pixels.shape == (*expected, 3)
    assert decoded.size == (640, 960)
    assert decoded.pixels.flags.c_contiguous and not decoded.pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_on_its_side_is_asked_for_upright(orientation: int) -> None:
    """960 x 640 as stored; upright, 7 and 8 among others are 640 wide."""
    data = photo_bytes.encode(photo(960, 640), exif=photo_bytes.exif(orientation))
    full = decode_photo(data)
    sizes = []

    def ask(size: tuple[int, int]) -> tuple[int, int]:
        sizes.append(size)
        return (480, 100) if orientation >= 5 else (320, 100)

    decoded = decode_photo(data, least=ask)
    assert sizes == [full.pixels.shape[:2]] == [decoded.size] == [full.size]
    assert decoded.orientation == orientation
    assert decoded.pixels.shape == ((480, 320, 3) if orientation >= 5 else (320, 480, 3))
    assert np.abs(block_means(full.pixels, 2) - decoded.pixels).mean() < 1.5


@pytest.mark.parametrize("side", [2, 4, 8])
@pytest.mark.parametrize("kind", ["plain", "4:2:0", "progressive", "grey", "cmyk"])
def test_a_scaled_photo_is_the_full_one_averaged(kind: str, side: int) -> None:
    image = photo(960, 640)
    options = {"progressive": {"progressive": True}, "4:2:0": {"subsampling": 2}}.get(kind, {"subsampling": 0})
    image = {"grey": image.convert("L"), "cmyk": image.convert("CMYK")}.get(kind, image)
    data = photo_bytes.encode(image, quality=90, **options)
    found = decode_photo(data, least=least(640 // side, 960 // side)).pixels
    means = block_means(decode_photo(data).pixels, side)
    assert found.shape == means.shape
    assert np.abs(found - means).mean() < 1.5
    assert np.abs(found[:, ::-1] - means).mean() > 10  # it could have failed


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_part_of_a_last_pixel_moves_nothing(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """801 x 601 at 1/8 is 101 x 76, of which the last column and row show one pixel of eight."""
    data = photo_bytes.encode(photo(801, 601), quality=95, subsampling=0, exif=photo_bytes.exif(orientation))
    full, scaled = decode_photo(data), decode_photo(data, least=eighth)
    reduction = reduction_between(full.size, scaled.pixels.shape[:2])
    assert reduction == 8

    def shown(found: decode.Photo, reduction: int) -> np.ndarray:
        return resize(found.pixels, Frame.fit(found.size, 32, "stretch", reduction)).astype(np.float64)

    error = np.abs(shown(scaled, 8) - shown(full, 1)).mean()
    monkeypatch.setattr(decode, "fill", lambda image, box: image)
    unfilled = np.abs(shown(decode_photo(data, least=eighth), 8) - shown(full, 1)).mean()
    assert error < 1 and error < unfilled / 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_in_full(kind: str) -> None:
    decoded = decode_photo(photo_bytes.encode(photo_bytes.cat(), kind), least=eighth)
    assert decoded.pixels.shape == (150, 225, 3) and decoded.size == (150, 225)


@pytest.mark.parametrize(
    ("size", "smallest"), [((1, 3000), (1, 3000)), ((3000, 1), (3000, 1)), ((1, 1), (1, 1)), ((7, 9), (2, 3))]
)
def test_thin_photos_keep_their_side(size: tuple[int, int], smallest: tuple[int, int]) -> None:
    """Even where anything is enough: a side of one is never divided."""
    data = photo_bytes.encode(Image.new("RGB", size, (200, 100, 50)))
    decoded = decode_photo(data, least=fake_model(fake_bundle()).least)
    assert decoded.pixels.shape[:2] == decoded.size == size[::-1]
    squeezed = decode_photo(data, least=eighth)
    assert squeezed.pixels.shape[:2] == smallest[::-1] and squeezed.size == size[::-1]
    assert np.abs(squeezed.pixels.astype(int) - decoded.pixels[:1, :1]).max() <= 1


@pytest.mark.parametrize("row", sorted(photos.ROWS))
def test_bad_photos_fail_for_the_same_reasons(row: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos.ROWS[row](folder)
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        outcomes = []
        for enough in (None, eighth):
            try:
                outcomes.append(decode_photo(path.read_bytes(), name="x", least=enough).format)
            except ImageError as error:
                outcomes.append(error.reason)
        assert outcomes[0] == outcomes[1], path.name


def test_damaged_jpegs_fail_for_the_same_reasons() -> None:
    """And those that still decode keep their size."""
    rng = random.Random(8)
    small = photo_bytes.cat(96)
    seeds = [photo_bytes.encode(small, exif=photo_bytes.exif(6)), photo_bytes.encode(small, progressive=True)]
    seeds += [photo_bytes.encode(small.convert("CMYK")), photo_bytes.encode(small.convert("L"), subsampling=2)]
    reasons = []
    for _ in range(1500):
        data = bytearray(rng.choice(seeds))
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.choice((0, 1, 2, 8))):
            at = rng.randrange(max(min(len(data), rng.choice((60, 400, 1 << 20))), 1))
            data[at : at + 1] = bytes([rng.randrange(256)])
        outcomes = []
        for enough in (None, eighth):
            try:
                outcomes.append(str(decode_photo(bytes(data), max_pixels=10_000_000, least=enough).size))
            except ImageError as error:
                outcomes.append(error.reason)
        assert outcomes[0] == outcomes[1]
        reasons.append(outcomes[0])
    assert {"unreadable", "truncated", "(64, 96)", "(96, 64)"} <= set(reasons)


def test_a_model_is_left_twice_what_it_is_shown() -> None:
    """Side 64; what is asked for is worked out by hand."""
    bundle = fake_bundle()
    assert fake_model(bundle).least((3000, 4000)) == (128, 128)
    boxed = replace(bundle, preprocess=replace(bundle.preprocess, resize="letterbox"))
    assert fake_model(boxed).least((3000, 4000)) == (96, 128)
    assert fake_model(boxed).least((65535, 1)) == (128, 2)


def segmenter(settings: Settings | None = None) -> Segmenter:
    bundle = fake_bundle()
    settings = settings or Settings(conf=0.5, decode_to_scale=True)
    return Segmenter(fake_model(bundle), select_classes(bundle.classes), settings)


def test_files_are_scaled_and_results_are_of_the_whole_photo(tmp_path: Path) -> None:
    pixels = np.full((1203, 1601, 3), 128, dtype=np.uint8)
    pixels[267:800, 350:1250] = (220, 40, 40)
    path = tmp_path / "square.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    scaled, whole = segmenter()(path)[0], segmenter(Settings(conf=0.5))(path)[0]
    for result in (scaled, whole, segmenter()(path.read_bytes())[0]):
        assert result.size == (1203, 1601)
        mask = result.to_dense()[result.names.index("red")]
        truth = (pixels == (220, 40, 40)).all(axis=2)
        assert mask.shape == truth.shape and (mask & truth).sum() / (mask | truth).sum() > 0.85
        assert 350 <= result.points[0][0] <= 1250 and 267 <= result.points[0][1] <= 800
    exact = segmenter().segment(decode_photo(path.read_bytes()).pixels)
    assert whole.masks == exact.masks
    np.testing.assert_allclose(scaled.boxes[0], exact.boxes[0], atol=16)


def test_a_size_that_does_not_fit_is_refused() -> None:
    pixels = np.zeros((50, 75, 3), dtype=np.uint8)
    model = segmenter()
    for size in ((50, 75), (100, 150), (99, 149), (200, 300), (393, 600)):
        assert model.segment(pixels, size=size).size == size
    for size in ((75, 50), (150, 100), (100, 75), (150, 225), (101, 150), (392, 600), (49, 75)):
        with pytest.raises(InputError, match="said to have"):
            model.segment(pixels, size=size)
    with pytest.raises(InputError, match="as in its frame"):
        resize(pixels, Frame.fit((100, 150), 64, "stretch"))
    assert resize(pixels, Frame.fit((100, 150), 64, "stretch", 2)).shape == (64, 64, 3)
