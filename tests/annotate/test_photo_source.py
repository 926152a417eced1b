"""Photos walked more than once: lists from stdin, and photos read again by key."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import StandIn, annotate, record_names

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.photo_source import PhotoIndex, PhotoSource
from gransam_sdk.annotate.publish import Products
from gransam_sdk.annotate.run import RunOptions, run_photos


def test_a_list_on_stdin_is_walked_for_the_run_and_again_for_the_overlays(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    listing = photos.parent / "list"
    listing.write_text("000.png\na/001.png\n")
    with listing.open("rb") as stdin:
        source = PhotoSource("-", exclude=out, stdin=stdin)
    assert source.count() == 2 == source.count()
    with closing(source), OutputFolder.open(out) as folder:
        options = RunOptions(products=Products(formats=(), overlays=True, report=False))
        run_photos(StandIn(), source, folder, options)
    assert record_names(out) == ["000.png.json", "a/001.png.json"]
    assert len(list((out / "overlays").rglob("*.jpg"))) == 2


def test_a_photo_is_shown_only_while_it_is_the_one_that_was_recorded(photos: Path, out: Path) -> None:
    annotate(photos, out)
    (photos / "000.png").write_bytes((photos / "004.png").read_bytes())
    with OutputFolder.open(out) as folder:
        index = PhotoIndex(PhotoSource(photos, exclude=out), folder, scale16=False)
        assert index("000.png") is None
        assert index("z-cut.png") is None
        assert index("nowhere.png") is None
        with Image.open(photos / "a/001.png") as picture:
            assert np.array_equal(index("a/001.png"), np.asarray(picture))
        index.close()
