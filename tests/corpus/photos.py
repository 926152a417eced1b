"""Good and bad photos, made at test time: one function a kind, numbered I1 to I46.

``ROWS["I3"](folder)`` fills an empty folder and says what has to come of it: for each key ``ok`` or the reason for
which it is passed over. An empty answer means that the whole folder is a usage error.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photo_bytes import cat, chunk, encode, exif, flat_jpeg, grey16_png, lossless_jpeg, png
from PIL import Image

Outcomes = dict[str, str]
ROWS: dict[str, Callable[[Path], Outcomes]] = {}

FAR_BEYOND = 2**31 - 1


def row(name: str) -> Callable[[Callable[[Path], Outcomes]], Callable[[Path], Outcomes]]:
    def register(make: Callable[[Path], Outcomes]) -> Callable[[Path], Outcomes]:
        ROWS[name] = make
        return make

    return register


def _write(folder: Path, files: dict[str, bytes], outcome: str) -> Outcomes:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return dict.fromkeys(files, outcome)


@row("I1")
def empty_file(folder: Path) -> Outcomes:
    return _write(folder, {"empty.jpg": b""}, "empty")


@row("I2")
def one_byte(folder: Path) -> Outcomes:
    return _write(folder, {"one.jpg": b"\xff"}, "unreadable")


@row("I3")
def half_jpeg(folder: Path) -> Outcomes:
    plain, progressive = encode(cat()), encode(cat(), progressive=True)
    files = {"half.jpg": plain[: len(plain) // 2], "progressive.jpg": progressive[: len(progressive) // 2]}
    webp = encode(cat(), "WEBP")
    bmp = encode(cat(), "BMP")
    files |= {"head.jpg": plain[:300], "half.webp": webp[: len(webp) // 2], "half.bmp": bmp[: len(bmp) // 2]}
    return _write(folder, files, "truncated")


@row("I4")
def jpeg_without_end(folder: Path) -> Outcomes:
    return _write(folder, {"end.jpg": encode(cat())[:-8]}, "truncated")


@row("I5")
def half_png(folder: Path) -> Outcomes:
    data = encode(cat(), "PNG")
    return _write(
        folder, {"half.png": data[: len(data) // 2], "head.png": data[:60], "type.png": data[:40]}, "truncated"
    )


@row("I6")
def bad_crc(folder: Path) -> Outcomes:
    data = bytearray(encode(cat(), "PNG"))
    data[29] ^= 1  # the first byte of IHDR's check sum
    return _write(folder, {"crc.png": bytes(data)}, "unreadable")


@row("I7")
def flipped_bit(folder: Path) -> Outcomes:
    data = bytearray(encode(cat(), "PNG"))
    data[data.index(b"IDAT") + 1000] ^= 1
    return _write(folder, {"bit.png": bytes(data)}, "unreadable")


@row("I8")
def text(folder: Path) -> Outcomes:
    files = {"text.jpg": b"These are not the pixels.", "html.jpg": b"<!DOCTYPE html><html><body>404</body></html>"}
    return _write(folder, files | {"bm.jpg": b"BMW sells cars, and this is a text."}, "format")


@row("I9")
def zip_archive(folder: Path) -> Outcomes:
    return _write(folder, {"zip.png": b"PK\x03\x04" + bytes(60)}, "format")


@row("I10")
def svg_pdf_psd(folder: Path) -> Outcomes:
    psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3) + bytes(64)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'
    return _write(folder, {"a.svg": svg, "b.png": svg, "c.jpg": b"%PDF-1.7\n%\n1 0 obj", "d.psd": psd}, "format")


@row("I11")
def postscript(folder: Path) -> Outcomes:
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return _write(folder, {"script.png": data}, "format")


@row("I12")
def trailing_garbage(folder: Path) -> Outcomes:
    rest = np.random.default_rng(12).bytes(5000)
    files = {f"{kind}.{kind.lower()}": encode(cat(), kind) + rest for kind in ("PNG", "WEBP", "BMP")}
    return _write(folder, files | {"JPEG.jpg": encode(cat()) + rest}, "ok")


@row("I13")
def huge_one_bit(folder: Path) -> Outcomes:
    return _write(folder, {"huge.png": png(60000, 60000, 1, 0)}, "pixels")


@row("I14")
def large(folder: Path) -> Outcomes:
    return _write(folder, {"large.png": png(12000, 12000, 8, 2)}, "pixels")


@row("I15")
def beyond(folder: Path) -> Outcomes:
    bmp = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 58, 0, 0, 54, 40, FAR_BEYOND, FAR_BEYOND, 1, 24, 0, 0, 0, 0, 0, 0)
    jpeg = bytearray(encode(cat()))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    # The canvas of an extended WebP: 24 bits a side, alone larger than any decoder should allocate.
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6
    files = {"beyond.png": png(FAR_BEYOND, FAR_BEYOND, 8, 2), "beyond.bmp": bmp + bytes(4)}
    return _write(folder, files | {"beyond.jpg": bytes(jpeg), "beyond.webp": webp}, "pixels")


@row("I16")
def no_width(folder: Path) -> Outcomes:
    return _write(folder, {"none.png": png(0, 8, 8, 2)}, "unreadable")


@row("I17")
def one_pixel(folder: Path) -> Outcomes:
    dot = Image.new("RGB", (1, 1), (10, 200, 30))
    files = {f"dot.{kind.lower()}": encode(dot, kind) for kind in ("PNG", "WEBP", "BMP")}
    return _write(folder, files | {"dot.jpg": encode(dot)}, "ok")


@row("I18")
def lines(folder: Path) -> Outcomes:
    files = {"wide.png": encode(Image.new("RGB", (65535, 1), "red"), "PNG")}
    return _write(folder, files | {"tall.png": encode(Image.new("RGB", (1, 3000), "red"), "PNG")}, "ok")


@row("I19")
def nothing_to_see(folder: Path) -> Outcomes:
    noise = np.random.default_rng(19).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    files = {"noise.png": encode(Image.fromarray(noise), "PNG")}
    files |= {f"{colour}.jpg": encode(Image.new("RGB", (120, 90), colour)) for colour in ("black", "white")}
    return _write(folder, files, "ok")


@row("I20")
def without_objects(folder: Path) -> Outcomes:
    return _write(folder, {"grey.jpg": encode(Image.new("RGB", (120, 90), "grey"))}, "ok")


@row("I22")
def same_stems(folder: Path) -> Outcomes:
    small = cat(48)
    files = {"a.jpg": encode(small), "A.jpg": encode(small.rotate(180)), "a.png": encode(small, "PNG")}
    return _write(folder, files | {"a.JPG": encode(small)}, "ok")


@row("I24")
def grey16(folder: Path) -> Outcomes:
    values = np.arange(64 * 48).reshape(48, 64) * 21
    alpha = png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 0, 65535, 65535, 65535))
    return _write(folder, {"grey16.png": grey16_png(values), "alpha16.png": alpha}, "depth")


@row("I25")
def float_tiff(folder: Path) -> Outcomes:
    data = encode(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF")
    return _write(folder, {"float.tif": data, "float.jpg": data}, "format")


@row("I26")
def other_jpegs(folder: Path) -> Outcomes:
    deep = bytearray(encode(cat()))
    deep[deep.index(b"\xff\xc0") + 4] = 12
    return _write(folder, {"deep.jpg": bytes(deep), "lossless.jpg": lossless_jpeg()}, "unreadable")


@row("I27")
def cmyk(folder: Path) -> Outcomes:
    files = {"cmyk.jpg": encode(cat().convert("CMYK")), "plain.jpg": flat_jpeg([200, 150, 100, 250], adobe=0)}
    return _write(folder, files | {"ycck.jpg": flat_jpeg([200, 140, 120, 250], adobe=2)}, "ok")


@row("I28")
def palette(folder: Path) -> Outcomes:
    image = cat(60).quantize(32)
    some = encode(image, "PNG", transparency=bytes([0, 128] + [255] * 30))
    return _write(folder, {"one.png": encode(image, "PNG", transparency=3), "some.png": some}, "ok")


@row("I29")
def alpha(folder: Path) -> Outcomes:
    image = cat(60)
    image.putalpha(100)
    files = {f"rgba.{kind.lower()}": encode(image, kind) for kind in ("PNG", "WEBP", "BMP")}
    return _write(folder, files | {"la.png": encode(image.convert("LA"), "PNG")}, "ok")


@row("I30")
def one_bit(folder: Path) -> Outcomes:
    image = cat(60).convert("1")
    return _write(folder, {"bit.png": encode(image, "PNG"), "bit.bmp": encode(image, "BMP")}, "ok")


@row("I31")
def animated(folder: Path) -> Outcomes:
    first = cat(60)
    film = {"save_all": True, "append_images": [first.rotate(90), first.rotate(180)]}
    broken = bytearray(encode(first, "PNG", **film))
    at = broken.index(b"acTL")
    broken[at - 4 : at + 16] = chunk(b"acTL", bytes(8))  # an animation of no frames
    expect = _write(folder, {"film.webp": encode(first, "WEBP", lossless=True, **film)}, "ok")
    expect |= _write(folder, {"film.png": encode(first, "PNG", **film), "none.png": bytes(broken)}, "ok")
    return expect | _write(folder, {"film.gif": encode(first, "GIF", **film)}, "format")


@row("I32")
def pages(folder: Path) -> Outcomes:
    data = encode(cat(60), "TIFF", save_all=True, append_images=[cat(60)])
    return _write(folder, {"pages.tiff": data}, "format")


@row("I33")
def phone_pair(folder: Path) -> Outcomes:
    data = encode(cat(60), "MPO", save_all=True, append_images=[cat(30)])
    return _write(folder, {"pair.jpg": data, "pair.mpo": data}, "ok")


@row("I34")
def heic(folder: Path) -> Outcomes:
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
    return _write(folder, {"phone.heic": data, "phone.jpg": data}, "format")


@row("I35")
def turned(folder: Path) -> Outcomes:
    return _write(folder, {f"{n}.jpg": encode(cat(), exif=exif(n)) for n in range(1, 9)}, "ok")


@row("I36")
def broken_exif(folder: Path) -> Outcomes:
    blocks = {
        "99": exif(99),
        "0": exif(0),
        "short": exif(6)[:-16],
        "noise": b"Exif\0\0" + np.random.default_rng(36).bytes(200),
        "pointer": b"Exif\0\0MM\0*\xff\xff\xff\xf0",
        "count": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40),
    }
    files = {f"{name}.jpg": encode(cat(60), exif=block) for name, block in blocks.items()}
    return _write(folder, files | {"noise.png": encode(cat(60), "PNG", exif=blocks["noise"])}, "ok")


@row("I37")
def garbage_profile(folder: Path) -> Outcomes:
    profile = b"no profile at all" * 9
    files = {f"{kind}.jpg": encode(cat(60), kind, icc_profile=profile) for kind in ("JPEG", "PNG", "WEBP")}
    extra = chunk(b"iCCP", b"name\0\0not zlib")
    return _write(folder, files | {"zlib.png": png(1, 1, 8, 2, bytes(4), extra)}, "ok")


@row("I38")
def text_bomb(folder: Path) -> Outcomes:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 25), 9))
    return _write(folder, {"bomb.png": png(1, 1, 8, 2, bytes(4), bomb)}, "unreadable")


@row("I39")
def broken_links(folder: Path) -> Outcomes:
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("pool.jpg")
    (folder / "pool.jpg").symlink_to("loop.jpg")
    return {"dangling.jpg": "missing", "loop.jpg": "loop", "pool.jpg": "loop"}


@row("I40")
def links_out(folder: Path) -> Outcomes:
    outside = folder.parent / f"{folder.name} outside"
    outside.mkdir()
    (outside / "far.jpg").write_bytes(encode(cat(48)))
    (folder / "near.jpg").write_bytes(encode(cat(48)))
    (folder / "far.jpg").symlink_to(outside / "far.jpg")
    (folder / "gallery").symlink_to(outside)
    (folder / "alias.jpg").symlink_to("near.jpg")
    return {"near.jpg": "ok", "alias.jpg": "ok", "far.jpg": "outside", "gallery/": "outside"}


@row("I41")
def no_files(folder: Path) -> Outcomes:
    os.mkfifo(folder / "pipe.jpg")
    os.mknod(folder / "socket.jpg", stat.S_IFSOCK | 0o600)
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "pipe link.jpg").symlink_to("pipe.jpg")
    return dict.fromkeys(("pipe.jpg", "socket.jpg", "zero.jpg", "pipe link.jpg"), "not-a-file")


@row("I42")
def folder_named_photo(folder: Path) -> Outcomes:
    (folder / "x.jpg").mkdir()
    (folder / "x.jpg" / "y.jpg").write_bytes(encode(cat(48)))
    return {"x.jpg/y.jpg": "ok"}


ODD_NAMES = {
    b"caf\xe9.jpg": "caf%E9.jpg",
    b"new\nline.jpg": "new%0Aline.jpg",
    b"-rf.jpg": "-rf.jpg",
    b"100%.jpg": "100%25.jpg",
    b"100%25.jpg": "100%2525.jpg",
    "évzé 猫 🐈.jpg".encode(): "évzé 猫 🐈.jpg",
    "gpj\u202ejpg.jpg".encode(): "gpj%E2%80%AEjpg.jpg",
    b"\x1b[31mred.jpg": "%1B[31mred.jpg",
    b"n" * 251 + b".jpg": "n" * 251 + ".jpg",
    "é".encode() * 125 + b".jpg": "é" * 125 + ".jpg",
    b"\xff" * 251 + b".jpg": "%FF" * 251 + ".jpg",
}
"""Names on disk, and their keys."""


@row("I44")
def odd_names(folder: Path) -> Outcomes:
    data = encode(cat(24))
    for name in ODD_NAMES:
        Path(folder, os.fsdecode(name)).write_bytes(data)
    return dict.fromkeys(ODD_NAMES.values(), "ok")


@row("I45")
def deep_and_round(folder: Path) -> Outcomes:
    data = encode(cat(24))
    deep = folder.joinpath(*["deep"] * 50)
    deep.mkdir(parents=True)
    (deep / "down.jpg").write_bytes(data)
    (deep / "up").symlink_to(folder)
    (folder / "round").symlink_to(".")
    return {"deep/" * 50 + "down.jpg": "ok"}


@row("I46")
def no_photos(folder: Path) -> Outcomes:
    (folder / "inner").mkdir()
    (folder / "readme.md").write_bytes(b"No photos here.")
    (folder / ".hidden.jpg").write_bytes(b"")
    return {}
