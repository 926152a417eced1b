"""Numbers, seeds and resuming of pictures from a diffusion model, with a fake pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_pipeline import CLASSES, FAKE, FakePipeline, load_instead, make, provenance_of

from gransam_sdk.errors import InputError, OutputError
from gransam_sdk.training.sources import painter as painter_module
from gransam_sdk.training.sources.diffusion import DiffusionConfig
from gransam_sdk.training.sources.source import put_picture


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    return load_instead(monkeypatch)


def test_seeds_are_fixed_by_class_and_number(fake: FakePipeline, tmp_path: Path) -> None:
    make(tmp_path, replace(FAKE, seed=5, batch=2))
    assert fake.seeds == [[5, 6], [7], [1005, 1006], [1007]]
    assert fake.prompts == {"a photo of a red fox", "a photo of a badger"}
    assert [row["seed"] for row in provenance_of(tmp_path / "badger").values()] == [1005, 1006, 1007]


def test_the_paper_s_article_is_left_as_it_is(fake: FakePipeline, tmp_path: Path) -> None:
    make(tmp_path, classes=("aeroplane",), n=1)
    assert fake.prompts == {"a photo of a aeroplane"}


@pytest.mark.parametrize("batch", [1, 4])
def test_blanked_pictures_are_replaced_by_the_next_seeds(fake: FakePipeline, tmp_path: Path, batch: int) -> None:
    fake.flagged, fake.black = {1}, {2, 4}
    (report,) = make(tmp_path, replace(FAKE, batch=batch), ("fox",), 4)
    assert sorted(provenance_of(tmp_path / "fox")) == [0, 3, 5, 6]
    assert (report.made, report.missing) == (4, 0)
    assert report.skipped == (("seed 1", "blanked"), ("seed 2", "blanked"), ("seed 4", "blanked"))
    assert fake.made == list(range(7))


def test_a_class_that_stays_blank_is_given_up(fake: FakePipeline, tmp_path: Path) -> None:
    fake.flagged = set(range(2, 1000))
    fox, badger = make(tmp_path, replace(FAKE, batch=1), n=8)
    assert (fox.made, fox.missing, fox.reasons) == (2, 6, {"blanked": 11})
    assert (badger.made, badger.missing) == (8, 0), "the other class gets its pictures"


def test_seeds_of_two_classes_never_meet(fake: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gransam_sdk.training.sources.diffusion.SEEDS_PER_CLASS", 10)
    fake.flagged = {8}
    fox, badger = make(tmp_path, n=10)
    assert (fox.made, fox.missing, badger.made) == (9, 1, 10)
    assert fake.made == list(range(20))


def test_a_run_that_was_cut_goes_on_where_it_was(fake: FakePipeline, tmp_path: Path) -> None:
    fake.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", replace(FAKE, batch=1), n=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.png")}
    assert len(before) == 3
    fake.stop_after = None
    fake.seeds.clear()
    fox, badger = make(tmp_path / "cut", replace(FAKE, batch=4), n=2)
    assert fake.made == [1001]
    assert (fox.made, fox.kept, badger.made, badger.kept) == (0, 2, 1, 1)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.png")}.items()
    make(tmp_path / "whole", replace(FAKE, batch=3), n=2)
    files = {
        name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("cut", "whole")
    }
    assert files["cut"] == files["whole"] and len(files["cut"]) == 8


def test_nothing_is_loaded_when_nothing_is_missing(
    fake: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(painter_module, "load_painter", None)
    assert [(c.made, c.kept) for c in make(tmp_path)] == [(0, 3), (0, 3)]


def test_more_pictures_and_more_classes_later(fake: FakePipeline, tmp_path: Path) -> None:
    make(tmp_path)
    fake.seeds.clear()
    make(tmp_path, classes=(*CLASSES, "otter"), n=4)
    assert fake.made == [3, 1003, 2000, 2001, 2002, 2003]


def test_a_deleted_picture_is_not_made_again(fake: FakePipeline, tmp_path: Path) -> None:
    make(tmp_path, classes=("fox",))
    (tmp_path / "fox" / "0001.png").unlink()
    fake.seeds.clear()
    (report,) = make(tmp_path, classes=("fox",))
    assert fake.made == [3]
    assert (report.kept, report.made) == (2, 1)


def test_pictures_of_others_are_left_alone(fake: FakePipeline, tmp_path: Path) -> None:
    folder = tmp_path / "fox"
    folder.mkdir()
    put_picture(folder, 1, b"from the web", ".jpg", {"source": "openverse"})
    (folder / "0002.png").write_bytes(b"no provenance")
    (report,) = make(tmp_path, classes=("fox",))
    assert fake.made == [0, 3, 4]
    assert (report.made, report.kept) == (3, 0)
    assert (folder / "0001.jpg").read_bytes() == b"from the web"
    assert (folder / "0002.png").read_bytes() == b"no provenance"


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("model", {"model": "another/model"}),
        ("prompt", {"template": "a drawing of a {c}"}),
        ("steps", {"steps": 8}),
        ("guidance", {"guidance": 5.5}),
        ("seed", {"seed": 1}),
        ("revision", {"revision": "v2"}),
    ],
)
def test_pictures_made_in_another_way_stop_the_run(
    fake: FakePipeline, tmp_path: Path, what: str, changed: dict[str, Any]
) -> None:
    make(tmp_path)
    fake.seeds.clear()
    with pytest.raises(InputError, match=what) as caught:
        make(tmp_path, replace(FAKE, **changed), n=4)
    assert "another folder" in str(caught.value)
    assert not fake.seeds


def test_another_order_of_the_classes_stops_the_run(fake: FakePipeline, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match="order of the classes"):
        make(tmp_path, classes=CLASSES[::-1])


def test_a_model_that_moved_on_stops_the_run(
    fake: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    load_instead(monkeypatch, commit="def")
    with pytest.raises(InputError, match="--revision abc"):
        make(tmp_path, n=4)
    assert [c.made for c in make(tmp_path, replace(FAKE, revision="abc"), n=4)] == [1, 1], "the advice works"


def test_a_full_disk_loses_nothing(fake: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = put_picture, iter(range(100))

    def put(*arguments: Any) -> Path:
        if next(calls) == 2:
            raise OutputError("output", found="ENOSPC")
        return real(*arguments)

    monkeypatch.setattr("gransam_sdk.training.sources.diffusion.put_picture", put)
    with pytest.raises(OutputError, match="ENOSPC"):
        make(tmp_path, n=5)
    assert sorted(provenance_of(tmp_path / "red fox")) == [0, 1]
    assert [c.missing for c in make(tmp_path, n=5)] == [0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", " "),
        ("template", "a photo"),
        ("template", "{c} beside a {c}"),
        ("steps", 0),
        ("steps", True),
        ("batch", 0),
        ("guidance", -1.0),
        ("guidance", float("nan")),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        DiffusionConfig(**{name: value})  # type: ignore[arg-type]


def test_a_local_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="revision"):
        DiffusionConfig(model=str(tmp_path), revision="main")


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_or_too_many_pictures(fake: FakePipeline, tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="pictures per class"):
        make(tmp_path, n=count)


def test_a_seed_that_no_generator_takes(fake: FakePipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="63 bits"):
        make(tmp_path, replace(FAKE, seed=2**63 - 2000))
    make(tmp_path, replace(FAKE, seed=2**63 - 2001))
