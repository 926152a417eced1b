"""Photo files as bytes: encoded by Pillow, or written by hand where an encoder would not make them."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def sample(name: str = "chelsea.png") -> Path:
    """A photo that comes with scikit-image, found without importing it."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data" / name


def cat(width: int = 225) -> Image.Image:
    """The cat, 3:2, upright RGB."""
    with Image.open(sample()) as image:
        return image.convert("RGB").resize((width, width * 2 // 3))


def encode(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG by hand; ``rows`` are the scan lines, each after its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def grey16_png(values: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 0, rows)


def flat_jpeg(values: list[int], adobe: int | None = None) -> bytes:
    """One 8x8 block a channel, flat, written bit by bit after ITU T.81: stored values come out exactly.

    Args:
        values: Stored value of each channel, 0-255.
        adobe: Transform flag of an Adobe marker (0: as stored, 2: YCCK), None for no marker.
    """
    bits = ""
    for value in values:  # quantised by 8, so that the DC coefficient is value - 128; then "end of block"
        dc = value - 128
        size = abs(dc).bit_length()
        bits += f"{size:04b}" + (f"{dc if dc > 0 else dc + (1 << size) - 1:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    n = len(values)
    parts = [b"\xff\xd8"]
    if adobe is not None:
        parts.append(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([adobe]))
    parts.append(b"\xff\xdb\0\x43\0" + bytes([8] * 64))
    parts.append(b"\xff\xc0" + struct.pack(">HBHHB", 8 + 3 * n, 8, 8, 8, n))
    parts += [bytes([i + 1, 0x11, 0]) for i in range(n)]
    # DC: nine codes of four bits, sizes 0 to 8; AC: one code of one bit, end of block.
    parts.append(b"\xff\xc4" + struct.pack(">HB", 19 + 9, 0x00) + bytes([0, 0, 0, 9] + [0] * 12) + bytes(range(9)))
    parts.append(b"\xff\xc4" + struct.pack(">HB", 19 + 1, 0x10) + bytes([1] + [0] * 15) + b"\0")
    parts.append(b"\xff\xda" + struct.pack(">HB", 6 + 2 * n, n))
    parts += [bytes([i + 1, 0x00]) for i in range(n)]
    parts.append(b"\0\x3f\0" + scan + b"\xff\xd9")
    return b"".join(parts)


def lossless_jpeg() -> bytes:
    """8x8 grey, lossless (ITU T.81 annex H, predictor 1): every difference is zero, one bit each."""
    return (
        b"\xff\xd8"
        + b"\xff\xc3" + struct.pack(">HBHHB", 11, 8, 8, 8, 1) + bytes([1, 0x11, 0])
        + b"\xff\xc4" + struct.pack(">HB", 20, 0x00) + bytes([1] + [0] * 15) + b"\0"
        + b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0x00]) + b"\x01\0\0"
        + bytes(8) + b"\xff\xd9"
    )  # fmt: skip


def exif(orientation: int, order: str = ">") -> bytes:
    """An EXIF block with one entry, by hand."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
