"""``gransam parity`` as a user meets it: the table, the file, the exit code, and what it refuses."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import good_parts, write_good
from nano_random import random_nano
from safetensors.torch import save_file
from sample_photos import CHECKPOINT, sample_path

from gransam_sdk.bundle import open_bundle
from gransam_sdk.commands.parity import table
from gransam_sdk.evaluation.parity import Parity

Gransam = Callable[..., Any]

FIGURES = Parity(
    photos=2, masks=1500, tokens_max_abs=3.0, tokens_p999_abs=0.5, tokens_cosine_min=0.995, tokens_relative_norm=0.02,
    iou_max_abs=0.1, sign_flips=0.004, mask_iou_mean=0.9, mask_iou_p1=0.5, mask_iou_min=0.1, worst_photo="b.jpg",
    worst_photo_iou=0.8, class_logits_max_abs=1.0, confident=300, confident_iou_mean=0.99, confident_iou_p1=0.9,
    confident_iou_min=0.7, label_agreement=0.98, clear=250, clear_label_agreement=1.0, kept=60, matched=59,
    kept_iou_mean=0.99, kept_iou_p1=0.9, kept_iou_min=0.8, kept_f1=0.975, miou_change=-0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for name in ("coffee.png", "motorcycle_left.png"):
        (folder / name).write_bytes(sample_path(name).read_bytes())
    return folder


def test_the_embedded_bundle_against_its_checkpoint(gransam: Gransam, two: Path, tmp_path: Path) -> None:
    """The whole way on real photos: PyTorch, ONNX Runtime, labels, kept masks."""
    file = tmp_path / "parity.json"
    done = gransam("parity", "nano-voc20", "--reference", CHECKPOINT, "--photos", two, "--json", file)
    assert (done.code, done.err) == (0, "")
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line.strip()}
    assert rows["kept_f1"] == ["kept_f1", ">=", "0.999", "1", "ok"] and rows["photos"][1] == "2"
    assert "BROKEN" not in done.out and "worst photo: " in done.out and "their shares say little" in done.out
    written = json.loads(file.read_text())
    assert written["passes"] and written["broken"] == [] and written["sha256"] == open_bundle("nano-voc20").digest
    assert Parity.from_json(written["parity"]).masks > 300


def test_another_checkpoint_is_seen(gransam: Gransam, two: Path, tmp_path: Path) -> None:
    save_file(random_nano(1).state_dict(), tmp_path / "other.safetensors")
    file = tmp_path / "parity.json"
    reference = ("--reference", tmp_path / "other.safetensors")
    done = gransam("parity", "nano-voc20", *reference, "--photos", two, "--limit", "1", "--json", file)
    assert done.code == 5 and "BROKEN" in done.out and "breaks the bars of fp32-w16" in done.err
    assert json.loads(file.read_text())["passes"] is False


def test_a_bundle_is_its_own_reference_even_where_the_runtime_refuses_it(
    gransam: Gransam, two: Path, tmp_path: Path
) -> None:
    source, folder = open_bundle("nano-voc20"), tmp_path / "half"
    folder.mkdir()
    for path in source.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / "gransam.json").read_text())
    manifest["precision"], manifest["parity"] = "fp16", {"reference": "none", "verdict": "unverified"}
    (folder / "gransam.json").write_text(json.dumps(manifest))
    done = gransam("parity", folder, "--reference", "nano-voc20", "--photos", two, "--limit", "1")
    assert "label_agreement" in done.out and "tokens_cosine_min" in done.out
    broken = [line.split()[0] for line in done.out.splitlines() if line.endswith("BROKEN")]
    assert (done.code, broken) == (5, ["masks"]), "the same graphs; one photo has too few masks for fp16"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nano-voc20", "--reference", "none.pt"], 2, "none.pt"),
        (["nano-voc20", "--reference", "PICKLE"], 2, "safetensors"),
        (["nano-voc20", "--reference", "CUT"], 2, "safetensors"),
        (["nano-voc20", "--reference", "PICKLE", "--arch", "mobile-sam"], 2, "it was not run"),
        (["nano-voc20", "--reference", "PICKLE", "--arch", "sam2"], 2, "--arch"),
        (["nano-voc20", "--reference", "nano-voc20", "--arch", "nano"], 2, "a bundle says what it is"),
        (["nano-voc20", "--reference", "TINY"], 2, "width 256"),
        (["BARE", "--reference", "nano-voc20"], 2, "input_side 16"),
        (["PICKLE", "--reference", "nano-voc20"], 5, "refusing executable format"),
        (["PHOTOS", "--reference", "nano-voc20"], 5, "gransam.json"),
        (["nano-voc20", "--reference", "PHOTOS"], 5, "gransam.json"),
        (["nano-voc20", "--reference", "nano-voc20", "--gt", "voc"], 2, "voc:DIR"),
        (["nano-voc20", "--reference", "nano-voc20", "--limit", "0"], 2, "--limit"),
        (["nano-voc20"], 2, "--reference"),
    ],
)
def test_wrong_files_are_refused(
    arguments: list[str], code: int, said: str, gransam: Gransam, two: Path, tmp_path: Path
) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "was-run"),))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Call(), protocol=2))
    torch.save({"weight": torch.zeros(100)}, tmp_path / "whole.pt")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.pt").read_bytes()[:300])
    write_good(tmp_path / "tiny")
    good_parts(head=False).write(tmp_path / "bare")
    places = {"PICKLE": "evil.pt", "CUT": "cut.safetensors", "TINY": "tiny", "BARE": "bare"}
    given = [
        str(two) if word == "PHOTOS" else str(tmp_path / places[word]) if word in places else word for word in arguments
    ]
    done = gransam("parity", *given, "--photos", two)
    assert (done.code, done.out) == (code, ""), done.err
    assert said in done.err and "Traceback" not in done.err and not (tmp_path / "was-run").exists()
    if "error: " in done.err:
        assert "expected:" in done.err and "found:" in done.err


def test_the_table_shows_every_bar_once() -> None:
    lines = {line.split()[0]: line.split() for line in table("int8", FIGURES) if line.strip()}
    assert lines["kept_iou_mean"][1:] == [">=", "0.97", "0.99", "ok"]
    assert lines["label_agreement"][-1] == "BROKEN" and lines["miou_change"][1:] == ["+-", "0.5", "-0.2", "ok"]
    assert lines["mask_iou_mean"] == ["mask_iou_mean", "0.9"], "kept masks are judged instead"
    assert lines["tokens_max_abs"] == ["tokens_max_abs", "3"], "no bar"
    assert lines["worst"][:3] == ["worst", "photo:", "b.jpg,"]
