"""What the bytes of a photo say before a decoder sees them: its format, its canvas, whether its end is missing.

The bytes are untrusted. Nothing here allocates by what a header claims or runs longer than one pass over the bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""The formats that are decoded; everything else is refused before any decoder is asked."""
SHORTEST = 16
"""Bytes below which no format can be told."""
MAX_JPEG_SCANS = 100
"""Progressive photos have about ten scans. Each costs a pass over the picture, so a small file could take hours."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Stuffed zeros, restart markers and fill bytes are not the start of a segment."""
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS_FRAME = 0xC3
_ORIENTATION_TAG = 0x0112

_OTHERS = (
    ("GIF", rb"GIF8"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("HEIC", rb".{4}ftyp(?:hei|hev|mif1|msf1)"),
    ("AVIF", rb".{4}ftypavi"),
    ("PSD", rb"8BPS"),
    ("PDF", rb"%PDF"),
    ("PostScript", rb"%!|\xc5\xd0\xd3\xc6"),
    ("SVG", rb"\s*(?:<\?xml.*)?<svg"),
    ("HTML or XML", rb"\s*<"),
    ("ZIP", rb"PK\x03\x04"),
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("JPEG 2000", rb"\0\0\0\x0cjP  "),
)


def photo_format(data: bytes) -> str | None:
    """One of ``FORMATS`` by the first bytes, whatever the file is called; None for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone begins many a text; the size of the header behind it does not.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


def describe_other(data: bytes) -> str:
    """What a refused file seems to be, for a message: ``a HEIC file``, ``an unknown kind of file``."""
    for name, pattern in _OTHERS:
        if re.match(pattern, data[:512], re.DOTALL):
            return f"a {name} file"
    return "an unknown kind of file"


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(w, h) of a WebP's canvas in pixels, None if its first chunk does not say; its decoder allocates on opening."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if chunk == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def is_cut(data: bytes, kind: str) -> bool:
    """Whether the mark that ends a file of this format is missing."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data
    if kind == "PNG":
        return b"IEND" not in data
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False


def jpeg_fault(data: bytes) -> str:
    """Why a JPEG is refused before it is decoded, in words; empty for all that are not."""
    # Stops at the frame header, which is near the start.
    frame = next((marker for marker in _jpeg_markers(data) if marker in _JPEG_FRAMES), None)
    if frame == _LOSSLESS_FRAME:
        return "a lossless JPEG, which does not say what its channels mean"
    # Counting bytes is quick; what is appended to a photo (a second picture, a film) may hold any bytes, though.
    if (
        data.count(b"\xff\xda") > MAX_JPEG_SCANS
        and sum(marker == 0xDA for marker in _jpeg_markers(data)) > MAX_JPEG_SCANS
    ):
        return f"a JPEG with more than {MAX_JPEG_SCANS} scans, made to keep a decoder busy"
    return ""


def _jpeg_markers(data: bytes) -> Iterator[int]:
    """The markers of the first picture, segment after segment as the decoder finds them."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker = data[found.end() - 1]
        yield marker
        if marker == 0xD9:  # end of the picture
            return
        has_length = marker not in (0x01, 0xD8)
        at = found.end() + (int.from_bytes(data[found.end() : found.end() + 2], "big") if has_length else 0)


def is_grey16(data: bytes, kind: str) -> bool:
    """Whether a PNG holds 16-bit grey values, with or without alpha."""
    return kind == "PNG" and len(data) > 25 and data[24] == 16 and data[25] in (0, 4)


def without_animation(data: bytes) -> bytes:
    """A PNG without its animation chunks: the picture that every reader of still PNGs shows."""
    if b"acTL" not in data:
        return data
    kept = (data[at:end] for at, end in _png_chunks(data) if data[at + 4 : at + 8] not in (b"acTL", b"fcTL", b"fdAT"))
    return _PNG_SIGNATURE + b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    at = len(_PNG_SIGNATURE)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield at, end
        at = end


def exif_orientation(exif: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the EXIF is broken.

    Args:
        exif: The EXIF block with or without its ``Exif`` prefix (TIFF 6.0, first directory, tag 0x0112).
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION_TAG and kind in (3, 4):  # SHORT by the standard, LONG from some cameras
                (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", tiff, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
