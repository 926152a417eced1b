"""From encoded bytes to upright RGB pixels, or a reason why not.

The format is told by content and has to be one of ``FORMATS``. Pillow's format classes are used directly: no other
decoder can be reached, no external program started, and none of Pillow's process-wide limits is read or written.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import EnvironmentFault, ImageError, InputError
from ..shapes import AnyArray, Pixels
from .decode_scale import Least, fill, scale_jpeg
from .photo_file import read_bytes
from .photo_header import (
    FORMATS,
    SHORTEST,
    describe_other,
    exif_orientation,
    is_cut,
    is_grey16,
    jpeg_fault,
    photo_format,
    webp_size,
    without_animation,
)
from .upright import turn_upright, upright_size

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 100_000_000
"""Pixels above which a photo is refused before it is decoded."""

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | AnyArray"
"""What the API takes for a photo: a path, encoded bytes, a PIL image, or (h,w,3) uint8 RGB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photo:
    """A decoded photo.

    Attributes:
        pixels: (h,w,3) uint8, upright RGB, C-contiguous, read-only; smaller where it was decoded to scale.
        size: (h, w) of the whole photo, upright.
        orientation: The file's EXIF orientation, 1 to 8, already undone in ``pixels``.
        format: ``JPEG``, ``PNG``, ``WEBP`` or ``BMP``, by content.
    """

    pixels: Pixels
    size: tuple[int, int]
    orientation: int
    format: str


def decode_photo(
    data: bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    scale16: bool = False,
    least: Least | None = None,
) -> Photo:
    """Decodes the first picture of a photo file.

    Alpha is dropped (the stored colours stay), colour profiles are ignored, CMYK becomes (1-C)(1-K) of each channel,
    16-bit colour keeps its high byte.

    Args:
        data: The file's bytes.
        name: What messages call the photo.
        max_pixels: Largest h·w that is decoded.
        scale16: Take 16-bit grey photos, value/257, instead of refusing them.
        least: Decode a large JPEG at 1/2, 1/4 or 1/8 of its sides, but never below this; None decodes in full.

    Raises:
        ImageError: With reason ``empty``, ``unreadable``, ``truncated``, ``format``, ``pixels`` or ``depth``.
        EnvironmentFault: The process has told Pillow to pass truncated photos as whole ones.
    """
    what = name or "photo"
    kind = _allowed_format(data, what)
    if is_grey16(data, kind) and not scale16:
        raise _depth(what, "16-bit grey")
    _require_strict_pillow()
    try:
        image = _open(data, kind, what, max_pixels)
        whole = image.size
        box = scale_jpeg(image, least) if kind == "JPEG" and least is not None else None
        image.load()
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("pixels", what, found="more pixels than this machine's memory holds") from error
    except Exception as error:  # Pillow answers hostile bytes with a dozen kinds of exceptions
        raise _broken(data, kind, what, error) from error
    orientation = exif_orientation(image.info.get("exif") or b"")
    pixels = np.ascontiguousarray(_rgb(turn_upright(fill(image, box), orientation), what, scale16))
    pixels.setflags(write=False)
    return Photo(pixels=pixels, size=upright_size(whole, orientation), orientation=orientation, format=kind)


def _allowed_format(data: bytes, what: str) -> str:
    if not data:
        raise ImageError("empty", what, expected="a photo", found="0 bytes")
    if len(data) < SHORTEST:
        raise ImageError("unreadable", what, expected="a photo", found=f"{len(data)} bytes")
    kind = photo_format(data)
    if kind is None:
        raise ImageError(
            "format", what, expected=", ".join(FORMATS), found=describe_other(data), do="convert it to JPEG or PNG"
        )
    return kind


def _require_strict_pillow() -> None:
    from PIL import ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise EnvironmentFault(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES",
            expected="False",
            found="True: half a photo would pass as a whole one",
            do="set it to False where your program, or a library that it imports, switched it on",
        )


def _open(data: bytes, kind: str, what: str, max_pixels: int) -> ImageFile:
    """Reads the header only; the pixels come with ``load``."""
    _check_size(webp_size(data) if kind == "WEBP" else None, what, max_pixels)
    if kind == "JPEG" and (fault := jpeg_fault(data)):
        raise ImageError("unreadable", what, expected="a baseline or progressive JPEG", found=fault)
    image = _opener(kind)(BytesIO(without_animation(data) if kind == "PNG" else data))
    _check_size(image.size, what, max_pixels)
    return image


def _opener(kind: str) -> type[ImageFile]:
    if kind == "JPEG":
        return _jpeg_class()
    if kind == "PNG":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile
    if kind == "WEBP":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile
    from PIL.BmpImagePlugin import BmpImageFile

    return BmpImageFile


@functools.cache
def _jpeg_class() -> type[ImageFile]:
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    class PlainJpeg(JpegImageFile):
        """JPEG without Pillow's EXIF parser, which looks for a resolution on opening and warns of broken EXIF."""

        def getexif(self) -> Image.Exif:
            return Image.Exif()

    return PlainJpeg


def _check_size(size: tuple[int, int] | None, what: str, max_pixels: int) -> None:
    if size is not None and size[0] * size[1] > max_pixels:
        raise ImageError(
            "pixels",
            what,
            expected=f"at most {max_pixels / 1e6:g} megapixels",
            found=f"{size[0]} x {size[1]}, {size[0] * size[1] / 1e6:.0f} megapixels",
            do="make the photo smaller, or cut it into tiles",
        )


def _broken(data: bytes, kind: str, what: str, error: Exception) -> ImageError:
    cut = is_cut(data, kind) or "truncated" in str(error).lower()
    found = f"{'a file whose end is missing' if cut else 'damaged data'} ({error or type(error).__name__})"
    return ImageError("truncated" if cut else "unreadable", what, expected=f"a whole {kind} file", found=found)


def _depth(what: str, found: str) -> ImageError:
    advice = "pass --scale16 (scale16=True) for a file in which 0-65535 means black to white, or scale it to 8 bits"
    return ImageError("depth", what, expected="8 bits a channel", found=found, do=advice)


def _rgb(image: Image.Image, what: str, scale16: bool = False) -> Pixels:
    if scale16 and image.mode.startswith("I;16"):
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode.startswith(("I", "F")):  # Pillow's own conversion clips to 255, so all turns white or black
        raise _depth(what, f"Pillow mode {image.mode}")
    # With it, Pillow would fold transparency into the conversion, and warn about palettes.
    image.info.pop("transparency", None)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def decode_source(source: bytes | str | os.PathLike[str], least: Least | None = None) -> Photo:
    """``decode_photo`` of a path or of encoded bytes."""
    if isinstance(source, bytes):
        return decode_photo(source, name="photo bytes", least=least)
    return decode_photo(read_bytes(Path(source)), name=str(source), least=least)


def as_pixels(source: ImageSource) -> Pixels:
    """The pixels of whatever a caller calls a photo.

    Paths and bytes are turned upright by EXIF. A PIL image or an array is taken as it lies: whoever holds it draws
    on it in that frame.

    Args:
        source: Path, encoded bytes, PIL image, or (h,w,3) uint8 RGB array.

    Returns:
        (h,w,3) uint8, C-contiguous; the same memory where an array already is.

    Raises:
        ImageError: A file or PIL image cannot be read as a photo.
        InputError: An array of another shape or dtype, or something else altogether.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source)
    if isinstance(source, bytes | str | os.PathLike):
        return decode_source(source).pixels
    from PIL import Image

    if isinstance(source, Image.Image):
        return _pil_pixels(source)
    raise InputError(
        "photo",
        expected="a path, bytes, a PIL image, or an (h, w, 3) uint8 array",
        found=f"{type(source).__module__}.{type(source).__qualname__}",
        do="numpy.asarray(photo, dtype=numpy.uint8) makes an array of a list or a CPU tensor",
    )


def _pil_pixels(image: Image.Image) -> Pixels:
    if 0 in image.size:
        raise InputError("PIL image", expected="at least 1 x 1", found=f"{image.size[0]} x {image.size[1]}")
    try:
        # A copy where ``_rgb`` would change the caller's image.
        return _rgb(image.copy() if "transparency" in image.info else image, "PIL image")
    except ImageError:
        raise
    except Exception as error:
        cut = "truncated" in str(error).lower()
        raise ImageError("truncated" if cut else "unreadable", "PIL image", found=str(error)) from error


def _checked_array(array: AnyArray) -> Pixels:
    shape, dtype = array.shape, array.dtype
    if dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and shape[0] and shape[1]:
        return np.ascontiguousarray(array)
    raise InputError(
        "photo array",
        expected="(h, w, 3) uint8, upright RGB, h and w from 1",
        found=f"{shape} {dtype}",
        do=_array_advice(shape, dtype),
    )


def _array_advice(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> str:
    if 0 in shape:
        return "an empty array is no photo"
    if len(shape) == 3 and shape[0] == 3 and shape[2] != 3:
        return "channels first? photo.transpose(1, 2, 0)"
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return "grey? numpy.repeat(photo.reshape(*photo.shape[:2], 1), 3, axis=2)"
    if len(shape) == 3 and shape[2] == 4:
        return "RGBA? photo[..., :3]"
    if len(shape) == 4:
        return "a batch? pass a list of photos"
    if dtype.kind == "f":
        return "0 to 1? (photo * 255).round().astype(numpy.uint8)"
    return "convert it to 8-bit RGB"
