"""Bundles: the good one opens with all it says; rows B1 to B24 of the table of bad inputs do not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_bundles import all_cases
from bundle_case import Case
from bundles import (
    CANARY_POINTS,
    NAMES,
    D,
    E,
    F,
    HeadKind,
    L,
    S,
    calibrated,
    good_parts,
    head_model,
    make_weights,
    write_good,
)
from onnx import helper

import gransam_sdk.bundle
from gransam_sdk.bundle import BUNDLED, Bundle, HeadCalibration, HeadInfo, Tensor, open_bundle
from gransam_sdk.canary_picture import canary_picture
from gransam_sdk.errors import BundleError
from gransam_sdk.types import Evidence

CASES = all_cases()


def test_a_good_bundle_says_what_its_manifest_says(tmp_path: Path) -> None:
    bundle = open_bundle(write_good(tmp_path / "bundle"))
    assert (bundle.name, bundle.version, bundle.architecture, bundle.precision) == (
        "test-bundle",
        "1",
        "linear",
        "fp32-w16",
    )
    assert (bundle.input_side, bundle.embedding_side, bundle.low_res_side) == (S, E, L)
    assert (bundle.token_width, bundle.feature_width, bundle.lattice_offset) == (D, F, 0)
    assert (bundle.points_per_side, bundle.prompt_chunk, bundle.opset) == (4, 8, 20)
    assert (bundle.preprocess.resize, bundle.preprocess.mean) == ("stretch", (127.5, 127.5, 127.5))
    assert [(info.id, info.name, info.color) for info in bundle.classes] == [
        (i + 1, name, (i, 2 * i, 255)) for i, name in enumerate(NAMES)
    ]
    assert bundle.graphs["mask"].inputs[2] == Tensor("choice", "int64", ("n",))
    np.testing.assert_array_equal(bundle.canary.points, np.array(CANARY_POINTS, np.float32))
    assert {name: values.shape for name, values in bundle.canary.expected.items()} == {
        "tokens": (2, 4),
        "iou": (2, 4),
        "lattice": (2, 4),
        "mask": (2,),
        "head": (2, 3),
    }
    assert bundle.provenance["training_data"] == ("none",)
    assert bundle.parity["mask_iou_min"] == 1
    assert bundle.licence == {"code": "Apache-2.0", "weights": "Apache-2.0"}


def test_the_bytes_are_the_files_and_the_digest_is_the_manifests(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    bundle = open_bundle(str(folder))
    assert bundle.digest == hashlib.sha256((folder / "gransam.json").read_bytes()).hexdigest()
    assert bundle.file_bytes("model-card.md") == (folder / "model-card.md").read_bytes()
    for name in ("image", "prompt", "mask", "head"):
        assert bundle.graph_bytes(name) == (folder / f"{name}.onnx").read_bytes()
    with pytest.raises(BundleError, match=r"model-card\.md"):
        bundle.file_bytes("licence.txt")


def test_what_a_head_says_of_its_logits_and_thresholds(tmp_path: Path) -> None:
    plain = open_bundle(write_good(tmp_path / "plain"))
    assert plain.head == HeadInfo(background=False, labels="prompt", calibration=None)
    assert [info.evidence for info in plain.classes] == [None] * 3
    parts = good_parts(kind=HeadKind(background=True, labels="mask"))
    calibrated(parts.manifest)
    bundle = open_bundle(parts.write(tmp_path / "calibrated"))
    calibration = HeadCalibration(temperature=1.25, target=0.8, pictures=30, background_pictures=0)
    assert bundle.head == HeadInfo(background=True, labels="mask", calibration=calibration)
    assert [info.evidence for info in bundle.classes] == [
        Evidence(precision=0.75, kept=40, pictures=10, basis="target"),
        Evidence(precision=0.75, kept=40, pictures=10, basis="highest"),
        Evidence(precision=None, kept=0, pictures=10, basis="default"),
    ]
    assert bundle.canary.expected["head"].shape == (2, 3 * 4)


def test_a_bundle_without_a_head_opens(tmp_path: Path) -> None:
    bundle = open_bundle(write_good(tmp_path / "bundle", head=False))
    assert not bundle.has_head
    assert bundle.head is None
    assert bundle.classes == ()
    with pytest.raises(BundleError, match="gransam train --base"):
        bundle.graph_bytes("head")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    path = case.build(folder)
    started = time.process_time()
    with pytest.raises(BundleError, match=case.says) as caught:
        open_bundle(path)
    assert time.process_time() - started < 2.0
    assert caught.value.exit_code == 5
    assert caught.value.expected and caught.value.found
    assert len(str(caught.value)) < 4000


def test_every_row_of_the_table_is_tried() -> None:
    elsewhere = {"B2", "B3", "B22", "B24"}  # the tests below
    assert {case.row for case in CASES} | elsewhere == {f"B{i}" for i in range(1, 25)}


def flipped(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_b2_any_flipped_bit_of_a_hashed_file_is_seen(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    rng = np.random.default_rng(0)
    for name in ("image.onnx", "prompt.onnx", "mask.onnx", "head.onnx", "model-card.md"):
        data = (folder / name).read_bytes()
        for position in np.unique(np.linspace(0, len(data) - 1, 200).astype(int)):
            (folder / name).write_bytes(flipped(data, int(position), int(rng.integers(8))))
            with pytest.raises(BundleError, match="sha256"):
                open_bundle(folder)
        (folder / name).write_bytes(data)
    open_bundle(folder)


def test_b2_a_flipped_bit_of_the_manifest_is_refused_or_makes_another_bundle(tmp_path: Path) -> None:
    """The manifest cannot vouch for itself: its sha256 is the bundle's identity, and that always changes."""
    folder = write_good(tmp_path / "bundle")
    good = open_bundle(folder)
    data = (folder / "gransam.json").read_bytes()
    refused = 0
    for i, position in enumerate(np.linspace(0, len(data) - 1, 200).astype(int)):
        (folder / "gransam.json").write_bytes(flipped(data, int(position), i % 8))
        try:
            assert open_bundle(folder).digest != good.digest
        except BundleError:
            refused += 1
    assert refused > 120


@pytest.mark.parametrize("name", ["image", "prompt", "mask", "head"])
@pytest.mark.parametrize("sealed", [False, True], ids=["B3-truncated", "B3-truncated-and-rehashed"])
def test_b3_truncated(name: str, sealed: bool, tmp_path: Path) -> None:
    parts = good_parts()
    folder = parts.write(tmp_path / "bundle")
    whole = parts.graphs[name]
    for percent in range(1, 100):
        parts.graphs[name] = whole[: len(whole) * percent // 100]
        (folder / f"{name}.onnx").write_bytes(parts.graphs[name])
        if sealed:
            parts.seal()
            (folder / "gransam.json").write_text(json.dumps(parts.manifest), encoding="utf-8")
        with pytest.raises(BundleError, match=rf"{name}\.onnx"):
            open_bundle(folder)


def test_b3_truncated_manifest(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    data = (folder / "gransam.json").read_bytes()
    for percent in range(100):
        (folder / "gransam.json").write_bytes(data[: len(data) * percent // 100])
        with pytest.raises(BundleError, match=r"gransam\.json"):
            open_bundle(folder)


def test_b4_100_megabytes_and_b12_3_gigabytes_are_not_read(tmp_path: Path) -> None:
    for case in CASES:
        if case.id in {"B4-100-megabytes", "B12-undeclared"}:
            folder = tmp_path / case.id
            folder.mkdir()
            case.build(folder)
            tracemalloc.start()
            with pytest.raises(BundleError):
                open_bundle(folder)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
            tracemalloc.stop()


def test_b10_bombs_cost_nothing(tmp_path: Path) -> None:
    tracemalloc.start()
    for case in CASES:
        if case.row == "B10":
            (tmp_path / case.name).mkdir()
            with pytest.raises(BundleError):
                open_bundle(case.build(tmp_path / case.name))
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("head", ["same-shapes", "nan-at-run-time"])
def test_b19_b21_what_only_running_shows_is_seen_by_the_canary(head: str, tmp_path: Path) -> None:
    from gransam_sdk.runtime.load import load_model

    load_model(open_bundle(write_good(tmp_path / "good")), device="cpu").close()
    parts = good_parts()
    if head == "same-shapes":
        parts.graphs["head"] = head_model(make_weights(seed=1)).SerializeToString()
    else:
        parts.edit("head", _log_of_negative)
    bundle = open_bundle(parts.write(tmp_path / "bad"))
    with pytest.raises(BundleError, match="canary"):
        load_model(bundle, device="cpu")


def _log_of_negative(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "plain"
    for op, source, target in (("Abs", "plain", "abs"), ("Neg", "abs", "neg"), ("Log", "neg", "logits")):
        model.graph.node.append(helper.make_node(op, [source], [target]))


def test_b22_what_was_hashed_is_what_runs(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    hashed = (folder / "head.onnx").read_bytes()
    bundle = open_bundle(folder)
    (folder / "head.onnx").write_bytes(b"something else")
    shutil.rmtree(folder)
    assert bundle.graph_bytes("head") == hashed


def test_b22_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_good(tmp_path / "bundle")
    opened: list[str] = []
    real = os.open

    def counting(path: str, flags: int, **kwargs: int) -> int:
        opened.append(Path(path).name)
        return real(path, flags, **kwargs)

    monkeypatch.setattr(os, "open", counting)
    open_bundle(folder)
    names = ["gransam.json", "image.onnx", "prompt.onnx", "mask.onnx", "head.onnx", "model-card.md"]
    assert sorted(opened) == sorted(["bundle", *names])


def test_b22_a_folder_exchanged_between_two_reads_is_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are read relative to the folder that was opened, whatever its name means by then."""
    folder = write_good(tmp_path / "bundle")
    other = write_good(tmp_path / "other", seed=1)
    expected = open_bundle(folder).graph_bytes("head")
    real = gransam_sdk.bundle.parse_manifest

    def exchange(data: bytes, what: str) -> object:
        folder.rename(tmp_path / "away")
        other.rename(folder)
        return real(data, what)

    monkeypatch.setattr(gransam_sdk.bundle, "parse_manifest", exchange)
    assert open_bundle(folder).graph_bytes("head") == expected


def test_b24_a_read_only_folder_opens_and_nothing_is_written(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert isinstance(open_bundle(folder), Bundle)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    finally:
        folder.chmod(0o755)


def test_hard_links_are_allowed_only_in_the_packages_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_good(tmp_path / "bundles" / BUNDLED[0])
    (tmp_path / "cache.onnx").hardlink_to(folder / "head.onnx")
    with pytest.raises(BundleError, match="hard link"):
        open_bundle(folder)
    monkeypatch.setattr(gransam_sdk.bundle, "__file__", str(tmp_path / "bundle.py"))
    assert open_bundle(folder).name == "test-bundle"
    assert open_bundle(BUNDLED[0]).name == "test-bundle"


def test_a_message_says_expected_found_and_what_to_do(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    (folder / "head.onnx").write_bytes(b"x" * (folder / "head.onnx").stat().st_size)
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    lines = str(caught.value).splitlines()
    assert lines[0] == str(folder / "head.onnx")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["expected", "found", "do this"]


def test_the_manifest_may_be_written_in_any_order(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "bundle")
    manifest = json.loads((folder / "gransam.json").read_bytes())
    (folder / "gransam.json").write_text(json.dumps(dict(reversed(manifest.items())), indent=4), encoding="utf-8")
    assert open_bundle(folder).name == "test-bundle"


def test_the_canary_picture_never_changes() -> None:
    """Its bytes are part of every bundle: another picture would refuse all bundles in the world."""
    picture = canary_picture(64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert hashlib.sha256(picture.tobytes()).hexdigest() == (
        "e067eb0ac5ae3e37b833345bdf394223c80b5177678a95af082267eba2c4294e"
    )
    assert tuple(picture[280 // 16, 300 // 16]) == (235, 190, 60)  # the sun
    assert tuple(picture[500 // 16, 600 // 16]) == (170, 45, 40)  # the box
    assert len(np.unique(canary_picture(320).reshape(-1, 3), axis=0)) > 200
