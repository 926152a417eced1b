"""``gransam compile`` for SAM-shaped checkpoints, in small: narrow architectures under the official names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sam_random import NARROW_TINY, NARROW_VIT, random_sam
from sample_photos import sample_path, sample_pixels
from torch import nn

from gransam_sdk.bundle import open_bundle
from gransam_sdk.commands.compile import compile_
from gransam_sdk.errors import BundleError, InputError
from gransam_sdk.export import compile as compiling
from gransam_sdk.export import reference
from gransam_sdk.export.compile import compile_bundle
from gransam_sdk.export.sam import PlainSam, sam_manifest
from gransam_sdk.export.sam_graphs import deployed_sam
from gransam_sdk.models import sam_checkpoint, segment_anything
from gransam_sdk.models.catalogue import CATALOGUE
from gransam_sdk.runtime.load import load_model
from gransam_sdk.types import PointGrid

NARROW = {"sam-vit-b": NARROW_VIT, "mobile-sam": NARROW_TINY}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (segment_anything, sam_checkpoint, reference):
        monkeypatch.setattr(module, "ARCHITECTURES", NARROW)
    yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "card.md").write_text("# Random\n")
    torch.save(random_sam(NARROW_TINY, seed=7).state_dict(), tmp_path / "tiny.pt")
    (tmp_path / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png"):
        (tmp_path / "photos" / name).write_bytes(sample_path(name).read_bytes())
    return tmp_path


@pytest.mark.slow
def test_compiles_proves_and_opens(folder: Path) -> None:
    """The command itself; the bundle's canary and parity were measured on the exported graphs."""
    compile_(
        folder / "tiny.pt", folder / "bundle", photos=folder / "photos", card=folder / "card.md", arch="mobile-sam"
    )
    bundle = open_bundle(folder / "bundle")
    assert bundle.architecture == "mobile-sam"
    assert (bundle.input_side, bundle.embedding_side, bundle.low_res_side) == (128, 8, 32)
    assert bundle.preprocess.resize == "letterbox" and bundle.feature_width == 256 and not bundle.has_head
    assert bundle.parity["photos"] == 2 and bundle.parity["masks"] > 50
    assert 0 < bundle.parity["tokens_max_abs"] <= 1e-4
    assert bundle.licence["weights"] == "unknown", "random weights are no official file"
    with load_model(bundle, device="cpu") as model:
        pixels = sample_pixels("coffee.png")
        frame = model.frame(pixels)
        hoisted = model.hoist(model.prepare(pixels, frame))
        points = PointGrid(per_side=3).points()
        whole = next(iter(model.prompt(hoisted, frame, points, 9)))
        parts = list(model.prompt(hoisted, frame, points, 4))
    assert frame.resized == (85, 128), "a letterbox that pads"
    np.testing.assert_allclose(np.concatenate([part.tokens for part in parts]), whole.tokens, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_graphs_of_another_network_are_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar can fail: the plain module has one weight changed after the graphs were made."""
    made = compiling.sam_graphs

    def make_then_change(sam: nn.Module, decoder: str, log: Callable[[str], None]) -> dict[str, bytes]:
        graphs = made(sam, decoder, log)
        sam.get_parameter("mask_decoder.mask_tokens.weight").add_(0.1)
        return graphs

    monkeypatch.setattr(compiling, "sam_graphs", make_then_change)
    with pytest.raises(BundleError, match="parity"):
        compile_bundle(
            folder / "tiny.pt",
            folder / "out",
            arch="mobile-sam",
            name="out",
            photos=[sample_path("chelsea.png")],
            card=folder / "card.md",
        )
    assert not (folder / "out").exists()


def test_what_cannot_be_is_refused_before_any_work(folder: Path) -> None:
    def attempt(**changes: object) -> None:
        options = {"photos": folder / "photos", "card": folder / "card.md", **changes}
        compile_(folder / "tiny.pt", folder / "out", **options)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="nano, sam-vit-b, mobile-sam"):
        attempt(arch="sam2")
    with pytest.raises(InputError, match="fixed"):
        attempt(arch="mobile-sam", side=512)
    with pytest.raises(InputError, match="mobile-sam"):
        attempt(arch="sam-vit-b")  # the checkpoint says which it is
    assert not (folder / "out").exists()


def test_the_plain_form_does_not_depend_on_its_chunks() -> None:
    sam = deployed_sam(random_sam(NARROW_TINY, seed=8))
    plain, image = PlainSam(sam), torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    points = torch.from_numpy(PointGrid(per_side=3).points())
    with torch.no_grad():
        maps = {name: value[0] for name, value in plain.encode(image).items()}
        many, one = plain.decode(maps, points), plain.decode(maps, points[8:])
    assert [tuple(part.shape) for part in many] == [(9, 4, 256), (9, 4), (9, 4, 32, 32)]
    for whole, last in zip(many, one, strict=True):
        torch.testing.assert_close(whole[8:], last, rtol=0, atol=1e-5)
    assert not sam.get_submodule("mask_decoder.transformer")._forward_hooks


def test_an_official_file_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, official = tmp_path / "renamed.pt", next(one for one in CATALOGUE if one.name == "mobile-sam")
    path.write_bytes(b"weights")
    sam = random_sam(NARROW_TINY)
    assert sam_manifest("x", "mobile-sam", sam, path)["licence"]["weights"] == "unknown"

    class Digest:
        def hexdigest(self) -> str:
            return official.sha256

    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: Digest())
    manifest = sam_manifest("x", "mobile-sam", sam, path)
    assert manifest["licence"]["weights"] == "Apache-2.0" and "mobile_sam.pt" in manifest["provenance"]["weights"]
