"""SAM by name: published keys, counts and operations, the package's own builder, and torchvision's stand-ins."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sam_random import NARROW_TINY, NARROW_VIT, random_sam
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gransam_sdk.errors import InputError, MissingExtraError
from gransam_sdk.models import segment_anything
from gransam_sdk.models.segment_anything import (
    VitShape,
    assemble_sam,
    batched_nms,
    box_area,
    build_sam,
    import_package,
)
from gransam_sdk.models.tiny_vit import TinyVitShape

PUBLISHED = {
    # width, blocks, heads, global blocks, parameters of the whole model, bytes of the checkpoint, GMAC of the encoder
    "sam-vit-b": (768, 12, 12, {2, 5, 8, 11}, 93_735_472, 375_042_383, 486.0),
    "sam-vit-l": (1024, 24, 16, {5, 11, 17, 23}, 312_342_832, 1_249_524_607, 1492.8),
    "sam-vit-h": (1280, 32, 16, {7, 15, 23, 31}, 641_090_608, 2_564_550_879, 2980.5),
}


def on_meta(arch: str) -> nn.Module:
    with torch.device("meta"):
        return build_sam(arch)


def layout_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def pair(name: str, *weight: int, bias: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": (bias,)}


def encoder_layout(width: int, depth: int, heads: int, global_blocks: set[int]) -> dict[str, tuple[int, ...]]:
    """Of the published ViT checkpoints: 64 cells a side, windows of 14."""
    layout = {"pos_embed": (1, 64, 64, width)} | pair("patch_embed.proj", width, 3, 16, 16, bias=width)
    for i in range(depth):
        offsets = 2 * (64 if i in global_blocks else 14) - 1
        layout |= {f"blocks.{i}.attn.rel_pos_{axis}": (offsets, width // heads) for axis in "hw"}
        layout |= pair(f"blocks.{i}.norm1", width, bias=width) | pair(f"blocks.{i}.norm2", width, bias=width)
        layout |= pair(f"blocks.{i}.attn.qkv", 3 * width, width, bias=3 * width)
        layout |= pair(f"blocks.{i}.attn.proj", width, width, bias=width)
        layout |= pair(f"blocks.{i}.mlp.lin1", 4 * width, width, bias=4 * width)
        layout |= pair(f"blocks.{i}.mlp.lin2", width, 4 * width, bias=width)
    layout |= {"neck.0.weight": (256, width, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return layout | pair("neck.1", 256, bias=256) | pair("neck.3", 256, bias=256)


def prompt_encoder_layout() -> dict[str, tuple[int, ...]]:
    tables = ["not_a_point_embed", "no_mask_embed", *(f"point_embeddings.{i}" for i in range(4))]
    layout: dict[str, tuple[int, ...]] = {f"{name}.weight": (1, 256) for name in tables}
    layout["pe_layer.positional_encoding_gaussian_matrix"] = (2, 128)
    layout |= pair("mask_downscaling.0", 4, 1, 2, 2, bias=4) | pair("mask_downscaling.1", 4, bias=4)
    layout |= pair("mask_downscaling.3", 16, 4, 2, 2, bias=16) | pair("mask_downscaling.4", 16, bias=16)
    return layout | pair("mask_downscaling.6", 256, 16, 1, 1, bias=256)


def decoder_layout() -> dict[str, tuple[int, ...]]:
    layout: dict[str, tuple[int, ...]] = {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)}

    def attention(name: str, inner: int) -> dict[str, tuple[int, ...]]:
        into = [pair(f"{name}.{part}_proj", inner, 256, bias=inner) for part in "qkv"]
        return into[0] | into[1] | into[2] | pair(f"{name}.out_proj", 256, inner, bias=256)

    for layer in ("transformer.layers.0", "transformer.layers.1"):
        layout |= attention(f"{layer}.self_attn", 256)
        layout |= attention(f"{layer}.cross_attn_token_to_image", 128)
        layout |= attention(f"{layer}.cross_attn_image_to_token", 128)
        for i in range(1, 5):
            layout |= pair(f"{layer}.norm{i}", 256, bias=256)
        layout |= pair(f"{layer}.mlp.lin1", 2048, 256, bias=2048) | pair(f"{layer}.mlp.lin2", 256, 2048, bias=256)
    layout |= attention("transformer.final_attn_token_to_image", 128)
    layout |= pair("transformer.norm_final_attn", 256, bias=256)
    layout |= pair("output_upscaling.0", 256, 64, 2, 2, bias=64) | pair("output_upscaling.1", 64, bias=64)
    layout |= pair("output_upscaling.3", 64, 32, 2, 2, bias=32)
    heads = {f"output_hypernetworks_mlps.{i}": 32 for i in range(4)} | {"iou_prediction_head": 4}
    for name, out in heads.items():
        layout |= pair(f"{name}.layers.0", 256, 256, bias=256) | pair(f"{name}.layers.1", 256, 256, bias=256)
        layout |= pair(f"{name}.layers.2", out, 256, bias=out)
    return layout


@pytest.mark.parametrize("arch", PUBLISHED)
def test_keys_shapes_and_counts_are_the_published_ones(arch: str) -> None:
    width, depth, heads, global_blocks, parameters, size, _ = PUBLISHED[arch]
    parts = {
        "image_encoder": encoder_layout(width, depth, heads, global_blocks),
        "prompt_encoder": prompt_encoder_layout(),
        "mask_decoder": decoder_layout(),
    }
    sam = on_meta(arch)
    assert layout_of(sam) == {f"{part}.{name}": shape for part, keys in parts.items() for name, shape in keys.items()}
    assert sum(p.numel() for p in sam.parameters()) == parameters
    around = size - 4 * sum(value.numel() for value in sam.state_dict().values())
    assert 0 < around < 400 * len(sam.state_dict()), "a zip entry takes about 300 bytes beside its numbers"
    assert not sam.training and not any(p.requires_grad for p in sam.parameters())


@pytest.mark.parametrize("arch", PUBLISHED)
def test_operations_are_as_many_as_published(arch: str) -> None:
    """At 1024. Windows and global blocks show here."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        embedding = on_meta(arch).image_encoder(torch.empty(1, 3, 1024, 1024, device="meta"))  # type: ignore[operator]
    assert embedding.shape == (1, 256, 64, 64)
    assert counter.get_total_flops() / 2e9 == pytest.approx(PUBLISHED[arch][6], abs=0.05)


def test_mobile_sam_is_tiny_vit_and_the_same_decoder() -> None:
    mobile, vit = layout_of(on_meta("mobile-sam")), layout_of(on_meta("sam-vit-b"))
    rest = {name: shape for name, shape in vit.items() if not name.startswith("image_encoder.")}
    assert {name: shape for name, shape in mobile.items() if not name.startswith("image_encoder.")} == rest
    classifier = 321_640
    assert sum(p.numel() for p in on_meta("mobile-sam").parameters()) + classifier == 10_130_092


def test_equals_the_packages_own_builder() -> None:
    """Windows, global blocks, heads and eps have no keys: the same weights in the package's own model must agree."""
    shape = VitShape(width=32, depth=2, heads=2, global_blocks=(1,))
    ours = random_sam(shape)
    import_package()
    theirs = importlib.import_module("segment_anything.build_sam")._build_sam(
        encoder_embed_dim=32, encoder_depth=2, encoder_num_heads=2, encoder_global_attn_indexes=[1]
    )
    theirs.load_state_dict(ours.state_dict())
    photo = torch.rand(1, 3, 768, 1024, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        expected = segment(theirs, photo, 1024)
        found = segment(ours, photo, 1024)
    for ours_out, theirs_out in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_out, theirs_out)


def segment(sam: Any, photo: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embedding, low-res logits and predicted IoU at four points."""
    points = torch.tensor([[0.1, 0.2], [0.5, 0.5], [0.9, 0.3], [0.4, 0.7]])[:, None] * side
    embedding = sam.image_encoder(sam.preprocess(photo))
    sparse, dense = sam.prompt_encoder(points=(points, torch.ones(4, 1)), boxes=None, masks=None)
    logits, iou = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True)
    return embedding, logits, iou


@pytest.mark.parametrize("shape", [NARROW_VIT, NARROW_TINY])
def test_random_stand_ins_use_every_path(shape: VitShape | TinyVitShape) -> None:
    sam = random_sam(shape)
    for name, value in sam.state_dict().items():
        assert not ((value == 0) | (value == 1)).any(), name
        assert value.ndim == 0 or value.std() > 0, name
    spreads: dict[str, float] = {}
    for name, part in sam.named_modules():
        if not list(part.children()):
            part.register_forward_hook(lambda _, __, out, name=name: spreads.update({name: float(out.std())}))
    with torch.no_grad():
        embedding, logits, iou = segment(sam, torch.rand(1, 3, shape.side, shape.side) * 255, shape.side)
    assert embedding.shape == (1, 256, shape.side // 16, shape.side // 16)
    assert logits.shape == (4, 3, shape.side // 4, shape.side // 4)
    assert min(spreads.values()) > 0.05 and max(spreads.values()) < 20, "activations neither vanish nor explode"
    assert 0.02 < (logits > 0).float().mean() < 0.98
    assert (iou.std(dim=0) > 0.01).all() and (logits.std(dim=0).mean() > 0.01), "the point matters"


def test_stand_ins_come_from_their_seed() -> None:
    one, same, other = (random_sam(NARROW_TINY, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not any(torch.equal(value, other[name]) for name, value in one.items() if value.ndim)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="mobile-sam"):
        build_sam("vit_b")


@pytest.mark.parametrize(
    "changes", [{"side": 1000}, {"width": 65}, {"depth": 0}, {"heads": 0}, {"global_blocks": (2,)}, {"side": 0}]
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="VitShape"):
        replace(NARROW_VIT, **changes)  # type: ignore[arg-type]


@pytest.fixture
def unimported() -> Iterator[None]:
    """As if nobody had imported the package or torchvision yet; put back afterwards."""

    def ours() -> dict[str, ModuleType]:
        return {name: m for name, m in sys.modules.items() if name.split(".")[0] in ("segment_anything", "torchvision")}

    before = ours()
    for name in before:
        del sys.modules[name]
    import_package.cache_clear()
    yield
    import_package.cache_clear()
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def test_the_packages_tools_run_on_the_stand_ins(unimported: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # what a failed import is made of
    package = import_package()
    assert sys.modules["torchvision"] is None and "torchvision.ops.boxes" not in sys.modules
    picture = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    resized = package.utils.transforms.ResizeLongestSide(50).apply_image(picture)
    assert np.array_equal(resized, np.asarray(Image.fromarray(picture).resize((50, 30), Image.Resampling.BILINEAR)))
    generator = package.SamAutomaticMaskGenerator(
        random_sam(NARROW_TINY), points_per_side=3, pred_iou_thresh=-100, stability_score_thresh=0, box_nms_thresh=0.9
    )
    records = generator.generate(picture)
    assert records and all(record["segmentation"].shape == (60, 100) for record in records)


class _Broken:
    """A torchvision whose binary does not fit torch."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "torchvision":
            sys.modules["torchvision.ops"] = REMAINS
            raise RuntimeError("operator torchvision::nms does not exist")


REMAINS = ModuleType("torchvision.ops")


def test_a_broken_torchvision_counts_as_none(unimported: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [_Broken(), *sys.meta_path])
    assert import_package().automatic_mask_generator.batched_nms is batched_nms
    assert sys.modules["torchvision.ops"] is REMAINS, "what was there stays"
    assert "torchvision" not in sys.modules and "torchvision.transforms" not in sys.modules


def test_a_working_torchvision_is_used(unimported: None, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = segment_anything._stand_ins()

    def their_nms() -> None: ...

    modules["torchvision.ops.boxes"].batched_nms = their_nms  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert import_package().automatic_mask_generator.batched_nms is their_nms
    assert sys.modules["torchvision.ops.boxes"] is modules["torchvision.ops.boxes"]


def test_a_missing_package_names_the_extra(unimported: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(MissingExtraError, match=r"gransam-sdk\[export\]"):
        assemble_sam(NARROW_TINY)


def test_suppression_equals_pairs_counted_on_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 12, (40, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(1, 9, (40, 2), generator=generator)], dim=1).float()
    scores, groups = torch.rand(40, generator=generator), torch.randint(0, 2, (40,), generator=generator)
    pixels = np.zeros((40, 20, 20), bool)
    for mask, (x0, y0, x1, y1) in zip(pixels, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    assert box_area(boxes).tolist() == pixels.sum((1, 2)).tolist()
    kept: list[int] = []
    for i in sorted(range(40), key=lambda i: -float(scores[i])):
        rivals = [j for j in kept if groups[j] == groups[i]]
        if all((pixels[i] & pixels[j]).sum() / (pixels[i] | pixels[j]).sum() <= 0.3 for j in rivals):
            kept.append(i)
    assert batched_nms(boxes, scores, groups, 0.3).tolist() == kept
    assert 5 < len(kept) < 35
    assert batched_nms(boxes[:0], scores[:0], groups[:0], 0.3).tolist() == []
