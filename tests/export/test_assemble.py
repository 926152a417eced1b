"""From checkpoint and example pictures to bundles that load: the two commands behind ``make bundle``, in small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nano_random import random_nano
from PIL import Image
from safetensors.torch import save_file
from sample_photos import sample_path, sample_pixels
from torch import nn

from gransam_sdk.bundle import Bundle, HeadCalibration, HeadInfo, open_bundle
from gransam_sdk.commands.train import train
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.export import compile as compiling
from gransam_sdk.export.assemble import add_head
from gransam_sdk.export.compile import compile_bundle
from gransam_sdk.models.head import Head, PrototypeHead
from gransam_sdk.runtime.load import load
from gransam_sdk.types import ClassInfo, Evidence, Settings

CLASSES = [ClassInfo(id=1, name="cat"), ClassInfo(id=2, name="cup", aliases=("mug",), threshold=0.3)]


PLAIN = HeadInfo(background=False, labels="prompt", calibration=None)


def add(base: Bundle, head: nn.Module, out: Path, info: HeadInfo, classes: Sequence[ClassInfo]) -> Bundle:
    return add_head(base, head, out, name="out", classes=classes, head_info=info, training_data=[], card="")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("compiled")
    save_file(random_nano(7).state_dict(), folder / "nano.safetensors")
    (folder / "card.md").write_text("# Random\n")
    lines: list[str] = []
    bundle = compile_bundle(
        folder / "nano.safetensors",
        folder / "nano",
        arch="nano",
        name="nano",
        side=64,
        photos=[sample_path("chelsea.png"), sample_path("coffee.png")],
        card=folder / "card.md",
        log=lines.append,
    )
    assert any("PyTorch on 2 photos" in line for line in lines)
    return bundle


def test_compiled_bundle_carries_its_proof(base: Bundle) -> None:
    assert not base.has_head and base.input_side == 64
    assert base.parity["photos"] == 2 and base.parity["masks"] > 50
    assert 0 < base.parity["tokens_max_abs"] <= 1e-3, "measured, not assumed: two engines never agree to the last bit"
    assert base.parity["mask_iou_p1"] > 0.99 and "kept_f1" not in base.parity, "no head, no labels"
    assert np.abs(base.canary.expected["tokens"]).min() > 0


def test_head_is_added_and_replaced(base: Bundle, tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = base
    for dropout, name in ((0.5, "one"), (0.9, "two")):
        head = Head(4 * 256 + 416, 2, dropout).eval()
        bundle = add_head(
            base,
            head,
            tmp_path / name,
            name=name,
            classes=CLASSES,
            head_info=PLAIN,
            training_data=[f"pictures {name}"],
            card=f"{name}\n",
        )
        base = bundle  # the second replaces the first's head
    assert bundle.name == "two" and [info.aliases for info in bundle.classes] == [(), ("mug",)]
    card = bundle.file_bytes("model-card.md").decode()
    assert card.startswith("# Random") and "two" in card and "one" not in card
    *segmenters, last = bundle.provenance["training_data"]
    assert last == "head: pictures two" and tuple(segmenters) == compiled.provenance["training_data"]
    with load(bundle, device="cpu") as segmenter, Image.open(sample_path("coffee.png")) as photo:
        assert segmenter(photo)[0].size == (400, 600)


def test_what_a_calibrated_head_says_is_in_the_bundle(base: Bundle, tmp_path: Path) -> None:
    """Explicit background and a label a mask: 2 + 1 logits of each of the tokens 1 to 3."""
    torch.manual_seed(0)
    calibration = HeadCalibration(temperature=1.3, target=0.8, pictures=12, background_pictures=3)
    info = HeadInfo(background=True, labels="mask", calibration=calibration)
    evidence = (
        Evidence(precision=0.81, kept=40, pictures=6, basis="target"),
        Evidence(precision=None, kept=0, pictures=6, basis="default"),
    )
    classes = [replace(one, evidence=found) for one, found in zip(CLASSES, evidence, strict=True)]
    bundle = add(base, Head(256, 3, 0.5).eval(), tmp_path / "out", info, classes)
    assert bundle.head == info and bundle.classes == tuple(classes)
    assert bundle.canary.expected["head"].shape == (4, 3 * 3)
    with load(bundle, device="cpu", settings=Settings(conf=0.01)) as segmenter:
        assert segmenter.segment(sample_pixels("coffee.png")).size == (400, 600)
    with pytest.raises(InputError, match="labels prompts"):
        load(bundle, device="cpu", settings=Settings(mask_choice="single"))


def test_one_class_and_prototypes(base: Bundle, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(2, 8, 1024, generator=generator)
    head = PrototypeHead(prototypes, torch.zeros(1024), torch.ones(1024)).eval()
    info = HeadInfo(background=True, labels="prompt", calibration=None)
    bundle = add(base, head, tmp_path / "out", info, CLASSES[:1])
    assert [one.name for one in bundle.classes] == ["cat"]
    assert bundle.graphs["head"].outputs[0].axes == ("g", 2)
    with load(bundle, device="cpu") as segmenter:
        assert segmenter.classes.column_names == ("cat", "_background")


@pytest.mark.parametrize(
    ("info", "outputs", "evidence", "says"),
    [
        (PLAIN, 3, None, r"\[g, 2\]\n.*\[g, 3\]"),
        (replace(PLAIN, background=True), 2, None, r"\[g, 3\]\n.*\[g, 2\]"),
        (PLAIN, 2, Evidence(precision=1.0, kept=9, pictures=3, basis="target"), r"classes\[0\]\.evidence"),
    ],
)
def test_a_head_that_its_description_does_not_fit_is_not_written(
    base: Bundle, tmp_path: Path, info: HeadInfo, outputs: int, evidence: Evidence | None, says: str
) -> None:
    classes = [replace(one, evidence=evidence) for one in CLASSES]
    with pytest.raises(BundleError, match=says):
        add(base, Head(1024, outputs, 0.5).eval(), tmp_path / "out", info, classes)
    assert list(tmp_path.iterdir()) == []


def test_graphs_that_compute_something_else_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Bundle
) -> None:
    """The bar can fail: graphs of one network compared with the module of another."""
    save_file(random_nano(8).state_dict(), tmp_path / "nano.safetensors")
    (tmp_path / "card.md").write_text("# Random\n")
    graphs = {name: base.graph_bytes(name) for name in ("image", "prompt", "mask")}
    monkeypatch.setattr(compiling, "nano_graphs", lambda nano, side, decoder, log: graphs)
    with pytest.raises(BundleError, match="parity"):
        compile_bundle(
            tmp_path / "nano.safetensors",
            tmp_path / "out",
            arch="nano",
            name="nano",
            side=64,
            photos=[sample_path("chelsea.png")],
            card=tmp_path / "card.md",
        )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_is_refused_before_any_work(base: Bundle, tmp_path: Path) -> None:
    """Not after minutes of exporting or training: nothing else that is given here can even be opened."""
    none = tmp_path / "none"
    with pytest.raises(InputError, match="something is there"):
        compile_bundle(none, base.path, arch="nano", name="nano", side=64, photos=[], card=none)
    with pytest.raises(InputError, match="something is there"):
        train(none, base.path, base="no-such-bundle")
    with pytest.raises(InputError, match="lower-case"):
        train(none, tmp_path / "My Classes", base="no-such-bundle")


def test_bundle_is_written_whole_or_not_at_all(base: Bundle, tmp_path: Path) -> None:
    head = Head(1024, 2, 0.5).eval()
    head.fc3.weight.data[0, 0] = float("nan")
    with pytest.raises(BundleError):
        add(base, head, tmp_path / "out", PLAIN, CLASSES)
    assert list(tmp_path.iterdir()) == []
    assert open_bundle(base.path).digest == base.digest
