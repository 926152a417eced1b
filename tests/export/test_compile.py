"""``gransam compile`` with a head and with a precision; the graphs are exported once for all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundles import write_good
from nano_random import random_nano
from onnx import numpy_helper
from safetensors.torch import save_file
from sample_photos import sample_path

from gransam_sdk.bundle import Bundle, HeadInfo, open_bundle
from gransam_sdk.commands.compile import compile_
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.export import compile as compiling
from gransam_sdk.export.assemble import add_head
from gransam_sdk.export.compile import compile_bundle
from gransam_sdk.models.head import Head
from gransam_sdk.runtime.load import load, load_model
from gransam_sdk.types import ClassInfo

CLASSES = [ClassInfo(id=1, name="cat", threshold=0.5), ClassInfo(id=2, name="cup", aliases=("mug",), threshold=0.5)]
SIDE = 64


@dataclass(frozen=True)
class Made:
    """A checkpoint with photos and a card, its bundle without a head, and that with one."""

    folder: Path
    base: Bundle
    trained: Bundle

    def compile(self, out: Path, **options: Any) -> Bundle:
        """``compile_bundle`` on it."""
        given = {"arch": "nano", "name": out.name, "side": SIDE, "card": self.folder / "card.md"}
        given |= {"photos": sorted((self.folder / "photos").iterdir())}
        checkpoint = options.pop("checkpoint", self.folder / "nano.safetensors")
        return compile_bundle(checkpoint, out, **(given | options))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    save_file(random_nano(7).state_dict(), folder / "nano.safetensors")
    (folder / "card.md").write_text("# Random\n")
    (folder / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png", "astronaut.png", "motorcycle_left.png", "rocket.jpg"):
        (folder / "photos" / name).write_bytes(sample_path(name).read_bytes())
    base = Made(folder, None, None).compile(folder / "nano")  # type: ignore[arg-type]
    return Made(folder, base, train(base, folder / "trained"))


def train(base: Bundle, out: Path) -> Bundle:
    """A bundle with a random head."""
    torch.manual_seed(0)
    head = Head(4 * 256 + 416, 2, 0.5).eval()
    info = HeadInfo(background=False, labels="prompt", calibration=None)
    card, data = "Cats and cups.\n", ["pictures"]
    return add_head(base, head, out, name=out.name, classes=CLASSES, head_info=info, training_data=data, card=card)


@pytest.fixture
def exported(made: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The same without exporting again."""
    graphs = {name: made.base.graph_bytes(name) for name in ("image", "prompt", "mask")}
    monkeypatch.setattr(compiling, "nano_graphs", lambda nano, side, decoder, log: dict(graphs))
    return made


def test_a_head_is_taken_over_whole_and_its_labels_are_measured(exported: Made, tmp_path: Path) -> None:
    source = exported.trained
    bundle = exported.compile(tmp_path / "again", head=source)
    assert bundle.classes == source.classes and bundle.head == source.head
    for graph in ("image", "prompt", "mask", "head"):
        assert bundle.graph_bytes(graph) == source.graph_bytes(graph)
    assert bundle.provenance == source.provenance and bundle.file_bytes("model-card.md") == source.file_bytes(
        "model-card.md"
    )
    np.testing.assert_array_equal(bundle.canary.expected["head"], source.canary.expected["head"])
    assert bundle.parity["confident"] > 300 and bundle.parity["kept"] >= 5
    assert bundle.parity["label_agreement"] == 1.0 and bundle.parity["kept_f1"] == 1.0
    assert "label_agreement" not in source.parity and "confident" not in source.parity
    with load(bundle, device="cpu") as segmenter:
        assert segmenter([str(sample_path("coffee.png"))])[0].size == (400, 600)


def test_another_head_keeps_what_is_the_segmenters_in_parity(exported: Made, tmp_path: Path) -> None:
    measured = exported.compile(tmp_path / "measured", head=exported.trained)
    again = train(measured, tmp_path / "again")
    labels = {"class_logits_max_abs", "label_agreement", "clear", "clear_label_agreement", "kept_f1"}
    assert measured.parity.keys() - again.parity.keys() == labels
    assert all(again.parity[name] == measured.parity[name] for name in again.parity)


def test_wrong_heads_are_refused(exported: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="without a head"):
        exported.compile(out, head=exported.base)
    with pytest.raises(InputError, match=r"tokens of width 256(.|\n)*tokens of width 8"):
        exported.compile(out, head=open_bundle(write_good(tmp_path / "tiny")))
    with pytest.raises(BundleError, match=r"trained on this checkpoint(.|\n)*off by"):
        exported.compile(out, head=open_bundle("nano-voc20"))  # the same widths, another segmenter
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("pickle", "safetensors"),
        ("cut", "safetensors"),
        ("sam", "nano segmenter"),
        ("bundle", "a folder"),
        ("", "none"),
    ],
)
def test_wrong_checkpoints_are_refused(content: str, says: str, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "none"
    if content == "pickle":
        torch.save(random_nano(7).state_dict(), path)
    elif content == "cut":
        path.write_bytes((made.folder / "nano.safetensors").read_bytes()[:5000])
    elif content == "sam":
        save_file({"image_encoder.pos_embed": torch.ones(1, 64, 64, 8)}, path)
    elif content == "bundle":
        path = made.base.path
    with pytest.raises(InputError, match=says) as refused:
        made.compile(tmp_path / "out", checkpoint=path)
    assert refused.value.expected and refused.value.found and refused.value.do
    assert not (tmp_path / "out").exists()


@pytest.fixture
def precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Stands in for the conversion of graphs: notes what it is asked, and hands on what ``change`` makes."""
    noted: dict[str, Any] = {"change": dict}

    def to_precision(
        graphs: Mapping[str, bytes], name: str, images: Iterator[np.ndarray], *, log: Callable[[str], None]
    ) -> dict[str, bytes]:
        noted.update(graphs=set(graphs), precision=name, images=list(images))
        return dict(noted["change"](graphs))

    module = ModuleType("gransam_sdk.export.precision")
    module.to_precision = to_precision  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return noted


def test_a_reduced_precision_is_judged_by_its_own_bars(
    exported: Made, precision: dict[str, Any], tmp_path: Path
) -> None:
    photos = sorted((exported.folder / "photos").iterdir())
    bundle = exported.compile(tmp_path / "int8", precision="int8", calibration=photos[:2], head=exported.trained)
    assert (bundle.precision, precision["precision"]) == ("int8", "int8")
    assert precision["graphs"] == {"image", "prompt", "mask", "head"}
    with load_model(exported.base, device="cpu") as model:
        pixels = np.asarray(model.prepare(_pixels(photos[0]), model.frame(_pixels(photos[0]))))
    assert len(precision["images"]) == 2
    np.testing.assert_array_equal(precision["images"][0], pixels)
    assert bundle.parity["masks"] >= 1000 and bundle.canary.tolerance > exported.base.canary.tolerance
    load(bundle, device="cpu").close()


def test_a_reduced_precision_that_is_too_far_off_is_not_written(
    exported: Made, precision: dict[str, Any], tmp_path: Path
) -> None:
    def coarse(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
        """Weights of the image encoder in steps of a tenth of their largest."""
        model = onnx.load_from_string(graphs["image"])
        for weight in model.graph.initializer:
            values = numpy_helper.to_array(weight)
            if values.dtype == np.float16 and values.size > 1000:
                step = np.abs(values).max() / 10
                weight.CopyFrom(
                    numpy_helper.from_array((np.round(values / step) * step).astype(np.float16), weight.name)
                )
        return dict(graphs) | {"image": model.SerializeToString()}

    precision["change"] = coarse
    with pytest.raises(BundleError, match=r"parity of int8(.|\n)*worst photo") as refused:
        exported.compile(tmp_path / "int8", precision="int8")
    assert ">= 0.97" in refused.value.expected
    assert not (tmp_path / "int8").exists()


def test_what_cannot_run_here_is_written_as_unverified_and_refused(
    exported: Made, precision: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_kernels(bundle: Bundle, device: str, threads: int | None) -> None:
        raise BundleError("image.onnx", expected="a graph that ONNX Runtime can load", found="no kernel for Conv(11)")

    monkeypatch.setattr(compiling, "open_sessions", no_kernels)
    lines: list[str] = []
    bundle = exported.compile(tmp_path / "bf16", precision="bf16", log=lines.append)
    assert bundle.parity["verdict"] == "unverified" and any("no kernel for Conv" in line for line in lines)
    np.testing.assert_allclose(bundle.canary.expected["tokens"], exported.base.canary.expected["tokens"])
    with pytest.raises(BundleError, match="unverified"):
        load_model(bundle, device="cpu")
    with pytest.raises(BundleError, match="no kernel"):
        exported.compile(tmp_path / "fp16", precision="fp16")


def test_options_that_do_not_fit_are_refused_before_any_work(made: Made, tmp_path: Path) -> None:
    def attempt(**options: Any) -> None:
        given = {"photos": made.folder / "photos", "card": made.folder / "card.md", "side": SIDE}
        compile_(made.folder / "nano.safetensors", tmp_path / "out", **(given | options))

    with pytest.raises(InputError, match="fp32, fp32-w16, fp16, bf16, int8"):
        attempt(precision="int4")
    with pytest.raises(InputError, match=r"5 in (.|\n)*--calibrate"):
        attempt(precision="int8")
    with pytest.raises(BundleError, match="BUNDLE"):
        attempt(head=tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


def _pixels(photo: Path) -> np.ndarray:
    from gransam_sdk.runtime.decode import as_pixels

    return as_pixels(photo)
