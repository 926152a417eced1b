"""The engine cache: what is used, what is built again and why, who may write, and many processes at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_race import head_spec, machine
from engine_site import HERE, PLAN, Site

from gransam_sdk.errors import EnvironmentFault, OutputError
from gransam_sdk.runtime.engine_cache import EngineCache
from gransam_sdk.runtime.engine_spec import AxisRange, BuildOptions, EngineSpec


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "home")


def test_an_engine_is_built_once_and_read_afterwards(site: Site) -> None:
    first, second = site.fetch(), site.fetch()
    assert (first.built, second.built) == (True, False)
    assert first.plan == second.plan == PLAN + b"head A 1"
    assert site.built == ["pets-head"]
    assert site.lines == ["engine for pets-head is not there yet: building, which can take minutes"]


def test_the_plan_is_plain_and_the_sidecar_says_what_it_is(site: Site) -> None:
    engine = site.fetch()
    assert engine.path.read_bytes() == engine.plan  # nothing around it: trtexec loads it
    about = json.loads(site.file("json").read_text())
    assert about["plan"] == {"bytes": len(engine.plan), "sha256": hashlib.sha256(engine.plan).hexdigest()}
    assert about["facts"]["gpu"] == "Fake GPU A" and about["facts"]["shapes"] == {
        "tokens": [[1, 4, 8], [10, 4, 8], [16, 4, 8]]
    }
    assert about["facts"]["options"]["tf32"] is False
    # The key by hand, as docs/tensorrt.md says: canonical JSON of the facts.
    text = json.dumps(about["facts"], sort_keys=True, separators=(",", ":"))
    assert about["key"] == hashlib.sha256(text.encode()).hexdigest()
    assert engine.path.name == f"pets-head-{about['key'][:16]}.plan"


def test_the_folder_and_its_files_are_for_this_user_alone(site: Site) -> None:
    site.fetch()
    assert site.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in site.folder.iterdir()} == {0o600}
    assert sorted(path.suffix for path in site.folder.iterdir()) == [".json", ".lock", ".plan"]


GRAPH = head_spec().graph
OTHERS = {
    "bundle": lambda: (head_spec(digest="e" * 64), HERE),
    "weights": lambda: (head_spec(b"head B"), HERE),
    "precision": lambda: (head_spec(precision="fp16"), HERE),
    "shapes": lambda: (head_spec(ranges={"g": AxisRange(least=1, best=10, most=17)}), HERE),
    "workspace": lambda: (head_spec(options=BuildOptions(workspace_bytes=1 << 30)), HERE),
    "level": lambda: (head_spec(options=BuildOptions(optimization_level=5)), HERE),
    "gpu": lambda: (head_spec(), machine(gpu="Fake GPU B")),
    "capability": lambda: (head_spec(), machine(compute_capability="8.9")),
    "tensorrt": lambda: (head_spec(), machine(tensorrt="11.4.0.107")),
    "driver": lambda: (head_spec(), machine(driver="580.66")),
    "cuda": lambda: (head_spec(), machine(cuda="13.1")),
    "system": lambda: (head_spec(), machine(system="Linux aarch64")),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_an_engine_depends_on_is_in_its_key(site: Site, what: str) -> None:
    spec, on = OTHERS[what]()
    site.fetch()
    assert site.fetch(spec, on).built
    assert not site.fetch().built and not site.fetch(spec, on).built  # both are kept, apart


def test_the_reason_is_said_in_one_line_with_what_building_took(site: Site) -> None:
    site.fetch(on=machine(gpu="Fake GPU B"))
    sidecar = site.file("json")
    about = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(about | {"build_seconds": 200.0}))
    site.fetch()
    assert site.lines[1] == (
        "engine for pets-head is of another GPU (Fake GPU B, here Fake GPU A): building, about 3 min"
    )


def test_the_nearest_engine_gives_the_reason(site: Site) -> None:
    site.fetch(on=machine(gpu="Fake GPU B", driver="1", tensorrt="10.8"))
    site.fetch(on=machine(tensorrt="11.3"))
    site.fetch()
    assert "is of another TensorRT (11.3, here 11.4.0.106)" in site.lines[2]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a flipped bit": ("plan", flip, "is damaged"),
    "a cut plan": ("plan", lambda path: os.truncate(path, 40), "is damaged (40 bytes"),
    "an empty plan": ("plan", lambda path: os.truncate(path, 0), "is damaged (0 bytes"),
    "a longer plan": ("plan", lambda path: path.write_bytes(path.read_bytes() + b"\0"), "is damaged"),
    "no plan": ("plan", Path.unlink, "plan is not there"),
    "a linked plan": ("plan", to_link, "cannot be read"),
    "a plan with two names": ("plan", lambda path: os.link(path, path.with_name("x")), "is a hard link"),
    "a plan that others may write": ("plan", lambda path: path.chmod(0o622), "is writable by others"),
    "a folder for a plan": ("plan", lambda path: (path.unlink(), path.mkdir()), "plan"),
    "a cut sidecar": ("json", lambda path: os.truncate(path, 100), "json is damaged"),
    "an empty sidecar": ("json", lambda path: os.truncate(path, 0), "json is damaged"),
    "a list": ("json", lambda path: path.write_text("[]"), "is no sidecar"),
    "a huge sidecar": ("json", lambda path: path.write_text(" " * (1 << 20) + "{}"), "has 1,048,578 bytes"),
    "a sidecar that others may write": ("json", lambda path: path.chmod(0o666), "is writable by others"),
    "another schema": ("json", lambda path: edit(path, schema=2), "is no sidecar"),
    "another key": ("json", lambda path: edit(path, key="0" * 64), "something else"),
    "another GPU's facts": (
        "json",
        lambda path: edit(path, facts=json.loads(path.read_text())["facts"] | {"gpu": "Fake GPU B"}),
        "another GPU (Fake GPU B, here Fake GPU A)",
    ),
    "another hash": ("json", lambda path: edit(path, plan={"bytes": 1, "sha256": "0" * 64}), "is damaged"),
}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("what", [what for what in DAMAGE if what != "a folder for a plan"])
def test_a_damaged_engine_is_built_again_once(site: Site, what: str) -> None:
    ending, damage, reason = DAMAGE[what]
    site.fetch()
    damage(site.file(ending))
    again = site.fetch()
    assert again.built and again.plan == PLAN + b"head A 2"
    assert reason in site.lines[1] and "\n" not in site.lines[1]
    assert not site.fetch().built and len(site.lines) == 2


def test_a_folder_in_the_place_of_a_plan_is_an_error_not_a_crash(site: Site) -> None:
    site.fetch()
    DAMAGE["a folder for a plan"][1](site.file("plan"))
    with pytest.raises(OutputError, match="engine folder"):
        site.fetch()
    assert [path.suffix for path in site.folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("both", [False, True])
def test_engines_of_two_heads_that_change_places_are_built_again(site: Site, both: bool) -> None:
    mine, other = site.fetch(), site.fetch(head_spec(b"head B"))
    for suffix in (".plan", ".json") if both else (".plan",):
        pair = [path.with_suffix(suffix) for path in (mine.path, other.path)]
        hold = site.folder / "hold"
        shutil.move(pair[0], hold)
        shutil.move(pair[1], pair[0])
        shutil.move(hold, pair[1])
    assert site.fetch().plan == PLAN + b"head A 3"
    assert site.fetch(head_spec(b"head B")).plan == PLAN + b"head B 4"


def test_a_build_that_was_killed_leaves_nothing_that_is_used(site: Site) -> None:
    site.fetch()
    plan, sidecar = site.file("plan"), site.file("json")
    left = plan.with_name(f".{plan.name}.tmp")
    left.write_bytes(b"half of")
    sidecar.unlink()  # as it is between the plan and its sidecar
    assert site.fetch().built
    assert not left.exists() and sidecar.exists()


def test_a_build_that_fails_leaves_nothing(site: Site) -> None:
    def fail(spec: EngineSpec) -> bytes:
        raise EnvironmentFault("engine", found="no kernel")

    with pytest.raises(EnvironmentFault, match="no kernel"):
        EngineCache(site.folder).fetch(head_spec(), HERE, fail)
    assert [path.suffix for path in site.folder.iterdir()] == [".lock"]
    assert site.fetch().built  # the lock is free


def test_what_may_not_be_built_is_an_error_that_says_how(site: Site) -> None:
    with pytest.raises(EnvironmentFault, match="is not there yet") as caught:
        site.fetch(may_build=False)
    assert caught.value.do.endswith("gransam engine pets")
    site.fetch()
    assert not site.fetch(may_build=False).built


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(site: Site, mode: int) -> None:
    site.fetch()
    site.folder.chmod(mode)
    for ask in (site.fetch, EngineCache(site.folder).held, EngineCache(site.folder).remove):
        with pytest.raises(EnvironmentFault, match="others may write") as caught:
            ask()
        assert f"chmod 700 {site.folder}" in caught.value.do
    assert len(site.built) == 1


def test_a_folder_of_somebody_else_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fetch()
    monkeypatch.setattr(os, "geteuid", lambda: site.folder.stat().st_uid + 1)
    with pytest.raises(EnvironmentFault, match="a folder of user"):
        site.fetch()


def test_a_folder_that_is_a_link_or_a_file_is_refused(site: Site, tmp_path: Path) -> None:
    site.folder.parent.mkdir()
    (tmp_path / "real").mkdir(mode=0o700)
    site.folder.symlink_to(tmp_path / "real")
    with pytest.raises(EnvironmentFault, match="a link or a file"):
        site.fetch()
    site.folder.unlink()
    site.folder.write_text("")
    with pytest.raises(EnvironmentFault, match="a link or a file"):
        site.fetch()


def test_a_full_disk_keeps_nothing_half(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match="ENOSPC"):
            site.fetch()
    assert [path.suffix for path in site.folder.iterdir()] == [".lock"]
    assert site.fetch().built


def test_listing_and_removing(site: Site) -> None:
    cache = EngineCache(site.folder)
    assert cache.held() == [] and cache.remove() == 0 and not site.folder.exists()
    site.fetch()
    site.fetch(head_spec(bundle="pets-2"))
    site.fetch(on=machine(gpu="Fake GPU B"))
    assert [(held.facts["bundle_name"], held.bytes) for held in cache.held()].count(("pets", len(PLAN) + 8)) == 2
    (site.folder / "notes.txt").write_text("mine")
    assert cache.remove("pets") > 2 * len(PLAN)
    assert [held.facts["bundle_name"] for held in cache.held()] == ["pets-2"]
    cache.remove()
    assert [path.name for path in site.folder.iterdir()] == ["notes.txt"]


def test_discarding_takes_one_engine(site: Site) -> None:
    site.fetch()
    site.fetch(head_spec(b"head B"))
    EngineCache(site.folder).discard(head_spec(), HERE)
    assert site.fetch().built and not site.fetch(head_spec(b"head B")).built
