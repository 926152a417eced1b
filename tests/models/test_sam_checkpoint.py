"""Checkpoints of SAM: official layouts are read, everything else is refused by name, nothing is run."""

from __future__ import annotations

import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sam_random import NARROW_TINY, NARROW_VIT, random_checkpoint, random_sam
from torch import Tensor

from gransam_sdk.errors import InputError
from gransam_sdk.models import sam_checkpoint, segment_anything
from gransam_sdk.models.sam_checkpoint import read_layout, read_sam_checkpoint, unused_keys
from gransam_sdk.models.segment_anything import ARCHITECTURES, VitShape

Tensors = dict[str, Any]
MOBILE_SAM_BYTES = 40_728_226
"""Of the published mobile_sam.pt."""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small architectures under names of their own, beside the official ones."""
    twin = VitShape(side=256, width=64, depth=3, heads=2, global_blocks=(1,))
    known = {**ARCHITECTURES, "narrow-vit": NARROW_VIT, "narrow-twin": twin, "narrow-tiny": NARROW_TINY}
    for module in (sam_checkpoint, segment_anything):
        monkeypatch.setattr(module, "ARCHITECTURES", known)


def save(path: Path, what: object, **options: Any) -> Path:
    torch.save(what, path, **options)
    return path


def narrow_tensors() -> Tensors:
    return dict(random_sam(NARROW_VIT).state_dict())


def named_like(arch: str) -> Tensors:
    """A checkpoint's keys and shapes in a few bytes: every tensor is one number, repeated."""
    layout = {**read_layout(arch), **unused_keys(arch)}
    return {name: torch.full((), 0.5).expand(shape) for name, shape in layout.items()}


def test_the_official_mobile_sam_layout_is_read(tmp_path: Path) -> None:
    written = random_checkpoint("mobile-sam")
    path = save(tmp_path / "mobile_sam.pt", OrderedDict(written))
    # Tables of 49 x 49 or 196 x 196 offsets in the file would add 5 %: the official one holds none.
    assert path.stat().st_size == pytest.approx(MOBILE_SAM_BYTES, rel=0.002)
    read = read_sam_checkpoint(path, "mobile-sam").state_dict()
    unused = {f"image_encoder.{name}" for name in ("norm_head.weight", "norm_head.bias", "head.weight", "head.bias")}
    assert written.keys() - read.keys() == unused == unused_keys("mobile-sam").keys()
    assert all(torch.equal(value, written[name]) for name, value in read.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_the_module_owns_what_it_read(tmp_path: Path, narrow: None, legacy: bool) -> None:
    path = save(tmp_path / "vit.pth", narrow_tensors(), _use_new_zipfile_serialization=not legacy)
    sam = read_sam_checkpoint(path, "narrow-vit")
    path.write_bytes(b"")  # a mapped file would be gone with its bytes
    expected = random_sam(NARROW_VIT)
    image = torch.rand(1, 3, 256, 256)
    assert all(torch.equal(value, sam.state_dict()[name]) for name, value in expected.state_dict().items())
    assert torch.equal(sam.image_encoder(image), expected.image_encoder(image))  # type: ignore[operator]
    assert not sam.training and not any(p.requires_grad for p in sam.parameters())


@pytest.mark.parametrize("width", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_width_becomes_float32(tmp_path: Path, narrow: None, width: torch.dtype) -> None:
    tensors = {name: value.to(width) for name, value in narrow_tensors().items()}
    read = read_sam_checkpoint(save(tmp_path / "vit.pth", tensors), "narrow-vit").state_dict()
    assert all(
        value.dtype == torch.float32 and torch.equal(value, tensors[name].float()) for name, value in read.items()
    )


def test_without_its_classifier_mobile_sam_is_read_but_not_with_half_of_it(tmp_path: Path) -> None:
    tensors: Tensors = dict(random_sam("mobile-sam").state_dict())
    read_sam_checkpoint(save(tmp_path / "none.pt", tensors), "mobile-sam")
    tensors["image_encoder.head.weight"] = torch.ones(1000, 320)
    with pytest.raises(InputError, match=r"3 missing: image_encoder\.norm_head\.weight, .*head\.bias") as caught:
        read_sam_checkpoint(save(tmp_path / "half.pt", tensors), "mobile-sam")
    assert "not of this model" not in caught.value.found


@pytest.mark.parametrize("arch", ["sam-vit-l", "sam-vit-h", "mobile-sam"])
def test_another_official_architecture_is_named(tmp_path: Path, arch: str) -> None:
    with pytest.raises(InputError) as caught:
        read_sam_checkpoint(save(tmp_path / "other.pth", named_like(arch)), "sam-vit-b")
    assert caught.value.expected == "the 314 keys and shapes of sam-vit-b"
    assert caught.value.found == f"the checkpoint of {arch}"
    assert arch in caught.value.do


def test_another_depth_is_another_architecture(tmp_path: Path, narrow: None) -> None:
    with pytest.raises(InputError, match="the checkpoint of narrow-vit"):
        read_sam_checkpoint(save(tmp_path / "vit.pth", narrow_tensors()), "narrow-twin")


def changed(key: str, value: Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: {**tensors, key: value}


QKV = "image_encoder.blocks.0.attn.qkv.weight"
NECK = "image_encoder.neck.1.bias"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != NECK}, rf"1 missing: {NECK}$"),
        (
            changed("mask_decoder.hf_token.weight", torch.ones(1)),
            r"1 not of this model: mask_decoder\.hf_token\.weight",
        ),
        (changed(NECK, torch.ones(255)), rf"1 of another shape: {NECK} \(255,\) instead of \(256,\)"),
        (changed(QKV, torch.ones(64, 192)), r"of another shape: .* \(64, 192\) instead of \(192, 64\)"),
        (
            lambda t: {f"module.{k}": v for k, v in t.items()},
            r"missing: .* and \d+ more; \d+ not of this model: module\.",
        ),
        (lambda t: {}, r"\d+ missing: image_encoder\.pos_embed, .* and \d+ more"),
        (lambda t: {"model": t, "epoch": 3}, "a dict in which 'model', 'epoch' is no tensor"),
        (lambda t: {**t, 3: torch.ones(1)}, "a dict in which 3 is no tensor"),
        (lambda t: list(t.values()), "one list"),
        (lambda t: torch.ones(3), "one Tensor"),
        (changed(NECK, torch.ones(256, dtype=torch.int64)), f"{NECK}\n.*dense, floating point.*\n.*int64"),
        (changed(NECK, torch.ones(256, dtype=torch.complex64)), "complex64"),
        (changed(NECK, torch.full((256,), torch.nan)), f"{NECK}\n.*\n.*not a number"),
        (changed(NECK, torch.full((256,), torch.inf)), "infinite"),
        (changed(NECK, torch.ones(256).to_sparse()), "sparse_coo"),
        (changed(NECK, torch.ones(256, device="meta")), "on meta"),
    ],
)
def test_wrong_contents_are_refused(
    tmp_path: Path, narrow: None, make: Callable[[Tensors], object], message: str
) -> None:
    path = save(tmp_path / "vit.pth", make(narrow_tensors()))
    with pytest.raises(InputError, match=rf"(?sm)^checkpoint .*vit\.pth.*{message}") as caught:
        read_sam_checkpoint(path, "narrow-vit")
    assert caught.value.expected and caught.value.found and caught.value.do


def test_a_count_of_batches_that_is_no_integer_is_refused(tmp_path: Path, narrow: None) -> None:
    tensors = dict(random_sam(NARROW_TINY).state_dict())
    tensors["image_encoder.patch_embed.seq.0.bn.num_batches_tracked"] = torch.tensor(2.0)
    with pytest.raises(InputError, match="num_batches_tracked\n  expected: dense int64"):
        read_sam_checkpoint(save(tmp_path / "tiny.pt", tensors), "narrow-tiny")


class Payload:
    """What a pickle may hold: a call."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_calls_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    target = tmp_path / "ran"
    path = save(tmp_path / "evil.pth", {"a": Payload(target)}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"calls (posix|nt|os)\.mkdir; it was not run") as caught:
        read_sam_checkpoint(path, "sam-vit-b")
    assert not target.exists()
    assert "weights_only" not in str(caught.value), "no advice to turn the protection off"


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calls torch\.nn\.modules\.linear\.Linear; it was not run"):
        read_sam_checkpoint(save(tmp_path / "module.pth", torch.nn.Linear(2, 2)), "sam-vit-b")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, narrow: None, share: float) -> None:
    path = save(tmp_path / "vit.pth", narrow_tensors())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut off|EOFError") as caught:
        read_sam_checkpoint(path, "narrow-vit")
    assert "sha256" in caught.value.do


def write_page(path: Path) -> None:
    path.write_text("<!doctype html><title>Not found</title>")


def write_other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors here")


def write_safetensors(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path)


@pytest.mark.parametrize("write", [write_page, write_other_zip, write_safetensors, Path.mkdir, lambda path: None])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "sam_vit_b_01ec64.pth"
    write(path)
    with pytest.raises(InputError, match=r"sam_vit_b_01ec64\.pth\n  expected: the state dict of sam-vit-b") as caught:
        read_sam_checkpoint(path, "sam-vit-b")
    assert len(caught.value.found) < 250 and "\n" not in caught.value.found


def test_an_unknown_name_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of sam-vit-b, .*\n.*'sam2'"):
        read_sam_checkpoint(tmp_path / "none", "sam2")
