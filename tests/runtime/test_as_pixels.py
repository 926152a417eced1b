"""What a caller may hand over as a photo, and what is said about everything else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import photo_bytes
import pytest
from PIL import Image

from gransam_sdk.errors import ImageError, InputError
from gransam_sdk.runtime.decode import as_pixels

PHOTO = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_path_bytes_pil_and_array_agree(tmp_path: Path) -> None:
    data = photo_bytes.encode(Image.fromarray(PHOTO), "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for source in (path, str(path), data, Image.fromarray(PHOTO), PHOTO):
        assert np.array_equal(as_pixels(source), PHOTO)


def test_strides_and_read_only_memory_are_fine() -> None:
    frozen = PHOTO.copy()
    frozen.setflags(write=False)
    for array in (frozen, PHOTO[:, ::-1], PHOTO[..., ::-1], np.asfortranarray(PHOTO)):
        pixels = as_pixels(array)
        assert pixels.flags.c_contiguous
        assert np.array_equal(pixels, array)


@pytest.mark.parametrize(
    ("array", "found", "advice"),
    [
        (np.zeros((4, 5, 3)), "(4, 5, 3) float64", "* 255"),
        (np.zeros((4, 5, 3), np.float32), "(4, 5, 3) float32", "* 255"),
        (np.zeros((3, 4, 5), np.uint8), "(3, 4, 5) uint8", "transpose(1, 2, 0)"),
        (np.zeros((4, 5), np.uint8), "(4, 5) uint8", "repeat"),
        (np.zeros((4, 5, 1), np.uint8), "(4, 5, 1) uint8", "repeat"),
        (np.zeros((4, 5, 4), np.uint8), "(4, 5, 4) uint8", "[..., :3]"),
        (np.zeros((2, 4, 5, 3), np.uint8), "(2, 4, 5, 3) uint8", "list"),
        (np.zeros((0, 5, 3), np.uint8), "(0, 5, 3) uint8", "empty"),
        (np.zeros((4, 0, 3), np.uint8), "(4, 0, 3) uint8", "empty"),
        (np.zeros((4, 5, 3), np.uint16), "(4, 5, 3) uint16", "8-bit"),
        (np.zeros((4, 5, 3), np.bool_), "(4, 5, 3) bool", "8-bit"),
        (np.uint8(3), "numpy.uint8", "numpy.asarray"),
        ([[[1, 2, 3]]], "builtins.list", "numpy.asarray"),
        (None, "builtins.NoneType", "numpy.asarray"),
    ],
)
def test_other_arrays_are_value_errors(array: object, found: str, advice: str) -> None:
    with pytest.raises(ValueError) as caught:
        as_pixels(array)
    assert isinstance(caught.value, InputError)
    assert caught.value.found == found
    assert "uint8" in caught.value.expected
    assert advice in caught.value.do


def test_the_advice_works() -> None:
    grey = PHOTO[..., 0]
    for flat in (grey, grey[..., None]):
        repeated = np.repeat(flat.reshape(*flat.shape[:2], 1), 3, axis=2)
        assert np.array_equal(as_pixels(repeated)[..., 1], grey)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_every_mode(mode: str) -> None:
    image = photo_bytes.cat(30).convert("P").convert("PA") if mode == "PA" else photo_bytes.cat(30).convert(mode)
    image.info["transparency"] = 0
    assert as_pixels(image).shape == (20, 30, 3)
    assert image.info["transparency"] == 0 and image.mode == mode


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B"])
def test_pil_images_of_more_than_8_bits(mode: str) -> None:
    with pytest.raises(ImageError) as caught:
        as_pixels(Image.new(mode, (3, 2)))
    assert caught.value.reason == "depth"


def test_a_pil_image_lies_as_its_holder_sees_it() -> None:
    data = photo_bytes.encode(photo_bytes.cat(), exif=photo_bytes.exif(6))
    with Image.open(io.BytesIO(data)) as image:
        assert as_pixels(image).shape == (150, 225, 3)
    assert as_pixels(data).shape == (225, 150, 3)


def test_a_pil_image_whose_file_is_cut() -> None:
    with (
        Image.open(io.BytesIO(photo_bytes.encode(photo_bytes.cat())[:2000])) as image,
        pytest.raises(ImageError) as caught,
    ):
        as_pixels(image)
    assert caught.value.reason == "truncated"


def test_an_empty_pil_image() -> None:
    with pytest.raises(InputError, match="1 x 1"):
        as_pixels(Image.new("RGB", (0, 4)))


@pytest.mark.parametrize(("name", "reason"), [("none.jpg", "missing"), (".", "not-a-file"), ("a\0b", "missing")])
def test_paths_that_cannot_be_read(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        as_pixels(str(tmp_path / name))
    assert caught.value.reason == reason
