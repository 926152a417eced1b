"""From checkpoint and example pictures to bundles that load: the two commands behind ``make bundle``, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from nano_random import random_nano
from PIL import Image
from safetensors.torch import save_file
from sample_photos import sample_path

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.commands.train import train
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.export import assemble
from gransam_sdk.export.assemble import add_head, compile_nano
from gransam_sdk.export.head import head_graph
from gransam_sdk.models.head import Head
from gransam_sdk.runtime.load import load
from gransam_sdk.types import ClassInfo

CLASSES = [ClassInfo(id=1, name="cat"), ClassInfo(id=2, name="cup", aliases=("mug",), threshold=0.3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("compiled")
    save_file(random_nano(7).state_dict(), folder / "nano.safetensors")
    (folder / "card.md").write_text("# Random\n")
    lines: list[str] = []
    bundle = compile_nano(
        folder / "nano.safetensors",
        folder / "nano",
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


@pytest.mark.parametrize("width", [1024, 1024 + 416])
def test_head_graph_equals_the_module(width: int) -> None:
    torch.manual_seed(1)
    head = Head(width, 5, 0.9).eval()
    head.mean.normal_()
    head.deviation.uniform_(0.5, 2.0)
    session = onnxruntime.InferenceSession(head_graph(head, 256, 416), providers=["CPUExecutionProvider"])
    tokens, features = torch.randn(9, 4, 256), torch.randn(9, 416)
    feeds = {"tokens": tokens.numpy(), "features": features.numpy()}
    found = session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})[0]
    with torch.no_grad():
        expected = head(torch.cat([tokens.flatten(1), features], dim=1)[:, :width])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_graphs_that_compute_something_else_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Bundle
) -> None:
    """The bar can fail: graphs of one network compared with the module of another."""
    save_file(random_nano(8).state_dict(), tmp_path / "nano.safetensors")
    (tmp_path / "card.md").write_text("# Random\n")
    graphs = {name: base.graph_bytes(name) for name in ("image", "prompt", "mask")}
    monkeypatch.setattr(assemble, "nano_graphs", lambda nano, side: graphs)
    with pytest.raises(BundleError, match="parity"):
        compile_nano(
            tmp_path / "nano.safetensors",
            tmp_path / "out",
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
        compile_nano(none, base.path, name="nano", side=64, photos=[], card=none)
    with pytest.raises(InputError, match="something is there"):
        train(none, base.path, base="no-such-bundle")
    with pytest.raises(InputError, match="lower-case"):
        train(none, tmp_path / "My Classes", base="no-such-bundle")


def test_bundle_is_written_whole_or_not_at_all(base: Bundle, tmp_path: Path) -> None:
    head = Head(1024, 2, 0.5).eval()
    head.fc3.weight.data[0, 0] = float("nan")
    with pytest.raises(BundleError):
        add_head(base, head, tmp_path / "out", name="out", classes=CLASSES, training_data=[], card="")
    assert list(tmp_path.iterdir()) == []
    assert open_bundle(base.path).digest == base.digest
