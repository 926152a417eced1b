"""Colours, orientation and limits of the decoder, against values worked out by hand or by PIL's own tools."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import photo_bytes
import photos
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from gransam_sdk.errors import EnvironmentFault, ImageError
from gransam_sdk.runtime.decode import decode_photo
from gransam_sdk.runtime.photo_header import exif_orientation


def reason(data: bytes, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        decode_photo(data, name="x.jpg", **options)
    return caught.value.reason


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_orientation_is_undone_as_pil_does(orientation: int, order: str) -> None:
    data = photo_bytes.encode(photo_bytes.cat(), exif=photo_bytes.exif(orientation, order))
    photo = decode_photo(data)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
        assert upright.shape[:2] == (image.size[::-1] if orientation < 5 else image.size)
    assert np.array_equal(photo.pixels, upright)
    assert photo.orientation == orientation
    assert photo.pixels.flags.c_contiguous and not photo.pixels.flags.writeable


@pytest.mark.parametrize(
    ("orientation", "first_row", "first_column"),
    [
        (1, "top", "left"),
        (2, "top", "right"),
        (3, "bottom", "right"),
        (4, "bottom", "left"),
        (5, "left", "top"),
        (6, "right", "top"),
        (7, "right", "bottom"),
        (8, "left", "bottom"),
    ],
)
def test_orientation_by_the_words_of_the_standard(orientation: int, first_row: str, first_column: str) -> None:
    """EXIF 2.32, tag 274: where the stored first row and first column are seen."""
    stored = np.zeros((6, 9, 3), dtype=np.uint8)
    stored[0, :, 0] = stored[:, 0, 1] = 255  # red: first row, green: first column
    pixels = decode_photo(photo_bytes.encode(Image.fromarray(stored), "PNG", exif=photo_bytes.exif(orientation))).pixels
    edges = {"top": pixels[0], "bottom": pixels[-1], "left": pixels[:, 0], "right": pixels[:, -1]}
    assert [name for name, edge in edges.items() if edge[:, 0].all()] == [first_row]
    assert [name for name, edge in edges.items() if edge[:, 1].all()] == [first_column]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_orientation_counts_in_every_format(kind: str) -> None:
    data = photo_bytes.encode(photo_bytes.cat(60), kind, exif=photo_bytes.exif(6))
    assert decode_photo(data).orientation == 6
    assert decode_photo(data).pixels.shape == (60, 40, 3)


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"II*\0", photo_bytes.exif(0), photo_bytes.exif(9), photo_bytes.exif(6)[:-8]]
)
def test_broken_exif_means_upright(block: bytes) -> None:
    assert exif_orientation(block) == 1


def test_a_long_orientation_is_read() -> None:
    entry = struct.pack(">HHII", 0x0112, 4, 1, 8)
    assert exif_orientation(b"MM\0*" + struct.pack(">IH", 8, 1) + entry) == 8


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_plain_colours_are_kept(kind: str) -> None:
    image = photo_bytes.cat()
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = decode_photo(photo_bytes.encode(image, kind, **options))
    assert photo.format == kind
    assert np.array_equal(photo.pixels, np.asarray(image))


def test_alpha_is_dropped_and_the_stored_colour_stays() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    colours[0, :, 3] = 0  # fully transparent, and still a colour
    assert np.array_equal(decode_photo(photo_bytes.encode(Image.fromarray(colours), "PNG")).pixels, colours[..., :3])
    grey = decode_photo(photo_bytes.encode(Image.fromarray(colours[..., ::3].copy(), "LA"), "PNG")).pixels
    assert np.array_equal(grey, np.repeat(colours[..., :1], 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 3, bytes([0, 128] + [255] * 30)])
def test_palette(transparency: object) -> None:
    image = photo_bytes.cat(60).quantize(32)
    table = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    options = {} if transparency is None else {"transparency": transparency}
    assert np.array_equal(decode_photo(photo_bytes.encode(image, "PNG", **options)).pixels, table[np.asarray(image)])


def test_transparent_grey_and_colour_keys_change_nothing() -> None:
    grey = photo_bytes.png(2, 1, 8, 0, b"\0\x40\x80", photo_bytes.chunk(b"tRNS", b"\0\x40"))
    assert decode_photo(grey).pixels.tolist() == [[[0x40] * 3, [0x80] * 3]]
    colour = photo_bytes.png(1, 1, 8, 2, b"\0\1\2\3", photo_bytes.chunk(b"tRNS", b"\0\1\0\2\0\3"))
    assert decode_photo(colour).pixels.tolist() == [[[1, 2, 3]]]


def test_one_bit_is_black_and_white() -> None:
    data = photo_bytes.png(10, 1, 1, 0, bytes([0, 0b10100101, 0b10000000]))
    assert decode_photo(data).pixels[0, :, 0].tolist() == [255, 0, 255, 0, 0, 255, 0, 255, 255, 0]


@pytest.mark.parametrize("marker", [None, 0])
def test_stored_cmyk_is_inverted(marker: int | None) -> None:
    """As Adobe writes it: a stored 255 is no ink, so a channel is the product of two stored ones."""
    stored = np.array([200, 150, 100, 250], dtype=np.float64)
    expected = stored[:3] * stored[3] / 255
    pixels = decode_photo(photo_bytes.flat_jpeg([200, 150, 100, 250], adobe=marker)).pixels
    assert np.abs(pixels - expected).max() <= 1
    assert np.ptp(pixels, axis=(0, 1)).max() == 0


def test_stored_ycck_is_inverted() -> None:
    luma, blue, red, black = 200.0, 140.0, 120.0, 250.0
    rgb = np.array(
        [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ]
    )
    # ITU T.872: the transform is undone into C, M, Y = 255 - (R, G, B), and those are stored inverted as well.
    expected = (255 - rgb) * black / 255
    pixels = decode_photo(photo_bytes.flat_jpeg([200, 140, 120, 250], adobe=2)).pixels
    assert np.abs(pixels - expected).max() <= 1


def test_cmyk_looks_like_the_photo_it_was_made_of() -> None:
    image = photo_bytes.cat()
    pixels = decode_photo(photo_bytes.encode(image.convert("CMYK"), quality=95)).pixels
    assert np.abs(pixels.astype(float) - np.asarray(image)).mean() < 6


def test_grey16_is_refused_or_scaled() -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32768, 65406, 65407, 65535]])
    data = photo_bytes.grey16_png(values)
    assert reason(data) == "depth"
    scaled = decode_photo(data, scale16=True).pixels
    assert np.array_equal(scaled[..., 0], np.rint(values / 257))
    assert np.array_equal(scaled[..., 0], scaled[..., 2])
    turned = photo_bytes.chunk(b"eXIf", photo_bytes.exif(6).removeprefix(b"Exif\0\0"))
    assert decode_photo(data[:33] + turned + data[33:], scale16=True).pixels.shape == (9, 1, 3)


def test_grey16_with_alpha_is_refused_or_scaled() -> None:
    data = photo_bytes.png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 0x1234, 0, 0xFFFF, 0xFFFF))
    assert reason(data) == "depth"
    assert decode_photo(data, scale16=True).pixels[0, :, 0].tolist() == [0x12, 255]


def test_colour16_keeps_the_high_byte() -> None:
    data = photo_bytes.png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x01FF, 0x8000, 0xFFFF))
    assert decode_photo(data).pixels.tolist() == [[[1, 128, 255]]]


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "film.png"), ("WEBP", "film.webp")])
def test_of_an_animation_the_first_frame(kind: str, extension: str, tmp_path: Path) -> None:
    photos.ROWS["I31"](tmp_path)
    assert np.array_equal(decode_photo((tmp_path / extension).read_bytes()).pixels, np.asarray(photo_bytes.cat(60)))


def test_of_a_phone_pair_the_first_photo(tmp_path: Path) -> None:
    photos.ROWS["I33"](tmp_path)
    assert decode_photo((tmp_path / "pair.jpg").read_bytes()).pixels.shape == (40, 60, 3)


def test_the_pixel_cap_is_exact_and_precedes_decoding() -> None:
    data = photo_bytes.encode(Image.new("RGB", (20, 10)), "PNG")
    assert decode_photo(data, max_pixels=200).pixels.shape == (10, 20, 3)
    assert reason(data, max_pixels=199) == "pixels"
    without_pixels = photo_bytes.png(20, 10, 8, 2)
    assert reason(without_pixels, max_pixels=199) == "pixels"
    assert reason(without_pixels, max_pixels=200) == "truncated"
    # Between Pillow's own warning and error: allowed here, so there must be neither.
    assert reason(photo_bytes.png(9800, 9800, 1, 0)) == "truncated"


def test_a_hundred_scans_are_enough() -> None:
    data = photo_bytes.encode(photo_bytes.cat(), progressive=True)
    at = data.rindex(b"\xff\xda")
    header = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    assert decode_photo(data[:-2] + header * 50 + b"\xff\xd9").format == "JPEG"
    begun = time.perf_counter()
    assert reason(data[:-2] + header * 100_000 + b"\xff\xd9") == "unreadable"
    assert time.perf_counter() - begun < 2
    # Behind the end of the picture anything may lie, such as the film of a moving photo.
    assert decode_photo(data + header * 1000).format == "JPEG"


def test_text_in_a_png_is_bounded_before_and_behind_the_pixels() -> None:
    bomb = photo_bytes.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 25), 9))
    assert reason(photo_bytes.png(1, 1, 8, 2, bytes(4), bomb)) == "unreadable"
    plain = photo_bytes.png(1, 1, 8, 2, bytes(4))
    assert reason(plain[:-12] + bomb + plain[-12:]) == "unreadable"


def test_truncated_photos_do_not_pass_when_pillow_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(EnvironmentFault, match="LOAD_TRUNCATED_IMAGES"):
        decode_photo(photo_bytes.encode(photo_bytes.cat())[:-500])


def test_messages_say_what_was_found() -> None:
    with pytest.raises(ImageError) as caught:
        decode_photo(struct.pack(">I", 24) + b"ftypheic" + bytes(20), name="beach.jpg")
    assert caught.value.reason == "format"
    assert str(caught.value).splitlines() == [
        "beach.jpg",
        "  expected: JPEG, PNG, WEBP, BMP",
        "  found:    a HEIC file",
        "  do this:  convert it to JPEG or PNG",
    ]


def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = random.Random(46)
    small = photo_bytes.cat(40)
    seeds = [photo_bytes.encode(small, exif=photo_bytes.exif(6)), photo_bytes.encode(small, progressive=True)]
    seeds += [photo_bytes.encode(small.convert("CMYK")), photo_bytes.encode(small.quantize(16), "PNG", transparency=3)]
    seeds += [photo_bytes.encode(small, kind) for kind in ("PNG", "WEBP", "BMP")]
    seeds += [
        photo_bytes.encode(small, kind, save_all=True, append_images=[small.rotate(9)]) for kind in ("PNG", "WEBP")
    ]
    outcomes = set()
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(min(len(data), rng.choice((60, 400, 1 << 20))))
            data[at] = rng.randrange(256)
        try:
            outcomes.add(decode_photo(bytes(data), max_pixels=10_000_000).format)
        except ImageError as error:
            outcomes.add(error.reason)
    assert outcomes >= {"JPEG", "PNG", "WEBP", "BMP", "unreadable", "truncated", "pixels", "format"}


def test_no_other_decoder_is_loaded(tmp_path: Path) -> None:
    """Nor Pillow's TIFF, EPS or multi-picture plugins: what is not imported cannot be attacked."""
    for name in ("I10", "I11", "I25", "I33", "I35"):
        (tmp_path / name).mkdir()
        photos.ROWS[name](tmp_path / name)
    code = (
        "import sys, pathlib\n"
        "from gransam_sdk.errors import ImageError\n"
        "from gransam_sdk.runtime.decode import decode_photo\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.*')):\n"
        "    try: decode_photo(path.read_bytes())\n"
        "    except ImageError: pass\n"
        "print(*sorted(m[4:] for m in sys.modules if m.startswith('PIL.') and m.endswith('ImagePlugin')))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["JpegImagePlugin"]


def test_pillow_is_left_as_it_was() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)
    decode_photo(photo_bytes.encode(photo_bytes.cat()))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)
