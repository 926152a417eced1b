"""What does decoding large JPEGs to scale save, and which masks does it change?

python benchmarks/decode_scale.py ../shared/data/voc2012_dev/JPEGImages --count 60
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from result import Cell, write_result

from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.evaluation.agreement import Agreement, AgreementTally
from gransam_sdk.runtime.decode import as_pixels, decode_source
from gransam_sdk.runtime.load import load
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import Settings

GRAIN = 6.0
"""Standard deviation of the noise that stands in for a sensor's, of 255."""
QUALITY, QUALITY_AGAIN = 90, 95
FULL, SCALED, AGAIN = "in full", "to scale", f"in full, saved again at {QUALITY_AGAIN}"
BARS = "The bars for doing so by default are a mean IoU of 0.99 and the same label for 99.5 % of the pairs"

Large = Callable[[Path], bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--megapixels", type=float, default=12.0)
    options = parser.parse_args()
    pixels = round(options.megapixels * 1e6)
    kinds: dict[str, Large] = {
        "enlarged": lambda path: encode(enlarge(path, pixels)),
        "enlarged, with grain": lambda path: encode(grainy(enlarge(path, pixels))),
    }
    photos = sorted(options.photos.iterdir())[: options.count]
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for kind, large in kinds.items() for row in measure(kind, large, photos, Path(scratch) / kind)]
    write_result(
        "decode_scale",
        title="Decoding to scale",
        question="What does decoding large JPEGs at 1/2, 1/4 or 1/8 save, and which masks does it change?",
        columns=(
            *("photos", "decoding", "decode ms", "decoded and labelled, photos a second", "annotate, photos a second"),
            *("masks kept", "paired", "IoU mean", "IoU p1", "same label %"),
        ),
        rows=rows,
        notes=[
            f"{len(photos)} photos, enlarged to {options.megapixels:g} megapixels with Lanczos and saved as JPEG of "
            f"quality {QUALITY}; *grain* is noise of standard deviation {GRAIN:g}, because enlarging makes no detail. "
            "Decoding is the median; photos a second of one after the other, and of `gransam annotate`, which decodes "
            "in a thread beside.",
            "Masks are those that pass their threshold, paired one to one with those of the photo decoded in full. "
            f"{BARS}. The row of photos that were saved once more is there to compare: no eye sees a difference.",
        ],
    )


@dataclass(kw_only=True)
class Way:
    """One way to decode, what is done to the file before, and what came of it."""

    segmenter: Segmenter
    change: Callable[[bytes], bytes] = bytes
    decode: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tally: AgreementTally = field(default_factory=AgreementTally)


def measure(kind: str, large: Large, photos: list[Path], scratch: Path) -> Iterator[tuple[Cell, ...]]:
    """The rows of one kind of photo."""
    folder = scratch / "photos"
    folder.mkdir(parents=True)
    for path in photos:
        (folder / f"{path.stem}.jpg").write_bytes(large(path))
    with load("nano-voc20") as full, load("nano-voc20", settings=Settings(decode_to_scale=True)) as scaled:
        ways = {FULL: Way(segmenter=full), SCALED: Way(segmenter=scaled), AGAIN: Way(segmenter=full, change=save_again)}
        compare(ways, sorted(folder.iterdir()))
    for name, way in ways.items():
        agreement = way.tally.sum()
        yield (kind, name, *(clocked(way, folder, scratch / name) if name != AGAIN else (None,) * 3),
               agreement.found, *(agreement_cells(agreement) if name != FULL else (None,) * 4))  # fmt: skip


def clocked(way: Way, folder: Path, run: Path) -> tuple[Cell, ...]:
    """Median decoding, one photo after the other, and a whole run."""
    report = annotate_folder(folder, run, settings=way.segmenter.settings, to=(), report=False)
    assert report.photos_per_second is not None
    alone = len(way.whole) / sum(way.whole)
    return round(1000 * float(np.median(way.decode)), 1), round(alone, 2), round(report.photos_per_second, 2)


def compare(ways: dict[str, Way], photos: list[Path]) -> None:
    """Takes every photo in every way, another one first each time; the first photo is taken once more before."""
    names = list(ways)
    for way in ways.values():
        way.segmenter(photos[0])
    for number, path in enumerate(photos):
        results = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            way = ways[name]
            data = way.change(path.read_bytes())
            begun = time.perf_counter()
            photo = decode_source(data, way.segmenter.least)
            way.decode.append(time.perf_counter() - begun)
            results[name] = way.segmenter.segment(photo.pixels, size=photo.size)
            way.whole.append(time.perf_counter() - begun)
        for name, way in ways.items():
            way.tally.add(results[name], results[FULL])


def agreement_cells(agreement: Agreement) -> tuple[Cell, ...]:
    """What the masks have in common with those of the photo decoded in full."""
    assert agreement.iou_mean is not None and agreement.iou_p1 is not None and agreement.same_label is not None
    same = round(100 * agreement.same_label, 2)
    return agreement.matched, round(agreement.iou_mean, 4), round(agreement.iou_p1, 4), same


def enlarge(path: Path, pixels: int) -> Image.Image:
    """A photo with about so many pixels."""
    image = Image.fromarray(as_pixels(path))
    scale = (pixels / (image.width * image.height)) ** 0.5
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def grainy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    noise = np.random.default_rng(pixels.size).standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray((pixels + GRAIN * noise).round().clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, quality: int = QUALITY) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def save_again(data: bytes) -> bytes:
    """A change that nobody sees: how much masks hang on the last digit of a pixel."""
    return encode(Image.fromarray(as_pixels(data)), QUALITY_AGAIN)


if __name__ == "__main__":
    main()
