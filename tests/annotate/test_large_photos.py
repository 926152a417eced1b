"""One row, one column and 24 megapixels through a whole run with the embedded bundle, in full and to scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gransam_sdk.annotate.run import annotate_folder
from gransam_sdk.errors import OutputError
from gransam_sdk.evaluation.agreement import AgreementTally
from gransam_sdk.rle import rle_decode
from gransam_sdk.types import Settings

SIZES = {"column.jpg": (1, 8000), "large.jpg": (6000, 4000), "row.jpg": (65000, 1), "turned.jpg": (2000, 3001)}
"""(w, h) as they stand upright."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Path:
    folder = tmp_path_factory.mktemp("large")
    with Image.open(sample_photos["astronaut.png"]) as image:
        photo = image.convert("RGB").resize(SIZES["large.jpg"], Image.Resampling.BICUBIC)
    photo.save(folder / "large.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    turned = photo.resize(SIZES["turned.jpg"]).transpose(Image.Transpose.ROTATE_90)
    turned.save(folder / "turned.jpg", quality=90, exif=exif)
    photo.crop((0, 2000, 6000, 2001)).resize(SIZES["row.jpg"]).save(folder / "row.jpg")
    photo.crop((3000, 0, 3001, 4000)).resize(SIZES["column.jpg"]).save(folder / "column.jpg")
    return folder


@pytest.fixture(scope="module")
def runs(large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Run folders by whether photos were decoded to scale."""
    out = {scaled: tmp_path_factory.mktemp("runs") / f"scaled-{scaled}" for scaled in (False, True)}
    for scaled, folder in out.items():
        done = annotate_folder(large, folder, settings=Settings(decode_to_scale=scaled), overlays=True)
        assert (done.new, done.failed) == (4, 0)
    return out


def records(run: Path) -> dict[str, Any]:
    return {name: json.loads((run / "records" / f"{name}.json").read_text()) for name in SIZES}


@pytest.mark.parametrize("scaled", [False, True])
def test_records_are_of_the_whole_photo(scaled: bool, runs: dict[bool, Path]) -> None:
    for name, record in records(runs[scaled]).items():
        assert (record["image"]["width"], record["image"]["height"]) == SIZES[name]
        for annotation in record["annotations"]:
            w, h = SIZES[name]
            assert annotation["segmentation"]["size"] == [h, w]
            x, y = annotation["point_coords"][0]
            assert 0 <= x <= w and 0 <= y <= h
        with Image.open(runs[scaled] / "overlays" / f"{name}.jpg") as painted:
            assert painted.size == SIZES[name]
    assert records(runs[scaled])["turned.jpg"]["image"]["orientation"] == 6


def people(run: Path, name: str) -> list[Any]:
    """Codes of the masks that are surely a person's."""
    found = records(run)[name]["annotations"]
    return [a["segmentation"] for a in found if a["class"] == "person" and a["confidence"] > 0.9]


def test_a_person_is_where_she_was(runs: dict[bool, Path]) -> None:
    """Astronauts are found both ways, in the same place; what is decoded to scale is not the same bytes."""
    tally = AgreementTally()
    for name in ("large.jpg", "turned.jpg"):
        scaled, whole = (people(runs[scaled], name) for scaled in (True, False))
        middle = rle_decode(scaled[0])[SIZES[name][1] // 3]
        assert 0.2 < np.flatnonzero(middle).mean() / SIZES[name][0] < 0.7
        tally.add_masks(scaled, ["person"] * len(scaled), whole, ["person"] * len(whole))
    agreement = tally.sum()
    assert agreement.matched == agreement.kept == agreement.found > 1
    assert agreement.iou_min is not None and agreement.iou_min > 0.95
    assert records(runs[False])["large.jpg"] != records(runs[True])["large.jpg"]
    for name in ("row.jpg", "column.jpg"):
        assert records(runs[False])[name] == records(runs[True])[name], "too thin to be scaled"


def test_the_two_ways_are_different_runs(large: Path, runs: dict[bool, Path]) -> None:
    for scaled, folder in runs.items():
        with pytest.raises(OutputError, match="decode_to_scale"):
            annotate_folder(large, folder, settings=Settings(decode_to_scale=not scaled))
        assert annotate_folder(large, folder, settings=Settings(decode_to_scale=scaled)).done == 4
