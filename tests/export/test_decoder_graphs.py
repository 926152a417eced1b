"""Both forms of nano's decoder, as they are exported, against SAM's description in numpy float64 and each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import decoder_oracle as oracle
import numpy as np
import pytest
import torch
from nano_random import random_nano
from PIL import Image
from sample_photos import CHECKPOINT, SHARED, sample_path
from torch.utils.flop_counter import FlopCounterMode

from gransam_sdk.errors import InputError
from gransam_sdk.export import segmenter_graphs
from gransam_sdk.export.decoder_cost import DecoderSizes, decoder_cost
from gransam_sdk.export.decoder_form import open_graph, reads
from gransam_sdk.export.decoder_graphs import FORMS, DecoderGraphs, DecoderModules, Form, decoder_modules, run_module
from gransam_sdk.export.decoder_parts import nano_parts
from gransam_sdk.export.graph_cost import graph_cost
from gransam_sdk.export.graphs import LATTICE_OFFSET
from gransam_sdk.export.low_rank_graphs import LowRankHoist
from gransam_sdk.export.nano import deployed
from gransam_sdk.export.nano_graphs import nano_decoder_graphs, nano_example, nano_graphs
from gransam_sdk.export.onnx_file import OPSET
from gransam_sdk.models.nano import Nano
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.onnx_rules import check_rules
from gransam_sdk.runtime.onnxruntime_session import OrtSession

PHOTOS = SHARED / "data" / "voc2012_dev" / "JPEGImages"
CLICKS = torch.tensor([[0.3, 0.4], [0.8, 0.2], [0.5, 0.9]])
CHOSEN = torch.tensor([0, 3, 2])


def photo_input(photo: Path, side: int) -> torch.Tensor:
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy((pixels.transpose(2, 0, 1)[None] - 127.5) / 127.5)


@torch.no_grad()
def expected(nano: Nano, maps: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tokens (g,4,d), iou (g,4), logits (g,4,l,l) and features (g,4,f) of ``CLICKS``, from the description."""
    decoder = nano.mask_decoder
    weights = {name: value.double().numpy() for name, value in decoder.state_dict().items()}
    transformer = {name.removeprefix("transformer."): value for name, value in weights.items()}
    cells = maps["embedding"].shape[-1]
    keys = (maps["embedding"][0].flatten(1).T + nano.prompt_encoder.no_mask.weight).double().numpy()
    pe = nano.grid_encoding(cells).double().numpy()
    skips = (maps["skip8"][0].double().numpy(), maps["skip4"][0].double().numpy())
    out: dict[str, list[np.ndarray]] = {"tokens": [], "iou": [], "logits": [], "features": []}
    for prompt in nano.prompt_tokens(CLICKS).double().numpy():
        tokens, image = oracle.two_way(transformer, keys, pe, prompt)
        hyper = decoder.hyper(torch.from_numpy(tokens[None, 1:5]).float())[0].double().numpy()
        logits = oracle.low_res(
            (weights["upscale1.weight"], weights["upscale1.bias"]),
            weights["norm1.weight"],
            weights["norm1.bias"],
            1e-5,
            (weights["upscale2.weight"], weights["upscale2.bias"]),
            image,
            hyper,
            skips,
        )
        share = 1.0 / (1.0 + np.exp(-logits[:, LATTICE_OFFSET::4, LATTICE_OFFSET::4]))
        pooled = np.einsum("myx,cyx->mc", share, maps["features"][0].double().numpy())
        out["tokens"].append(tokens[1:5])
        out["iou"].append(decoder.iou_head(torch.from_numpy(tokens[:1]).float())[0].double().numpy())
        out["logits"].append(logits)
        out["features"].append(pooled / (share.sum((1, 2))[:, None] + 1e-4))
    return {name: np.stack(values) for name, values in out.items()}


def check(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> None:
    for name in ("tokens", "iou"):
        np.testing.assert_allclose(found[name], reference[name], rtol=0, atol=1e-3)
    i, logits = LATTICE_OFFSET, reference["logits"]
    assert logits.std() > 0.1, "flat logits would make any comparison pass"
    np.testing.assert_allclose(found["lattice"], logits[:, :, i::4, i::4], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["logits"], logits[range(len(CLICKS)), CHOSEN], rtol=1e-4, atol=1e-3)
    # Engines round a sigmoid to about 1e-7: under a mask of nearly no pixel that is all there is to pool with.
    there = (1.0 / (1.0 + np.exp(-logits[:, :, i::4, i::4]))).sum((2, 3)) > 0.1
    assert there.mean() > 0.5
    np.testing.assert_allclose(found["features"][there], reference["features"][there], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def encode(nano: Nano, photo: Path, side: int) -> dict[str, torch.Tensor]:
    names = ("embedding", "skip8", "skip4", "features")
    return dict(zip(names, nano.image_encoder(photo_input(photo, side)), strict=True))


@torch.no_grad()
def check_form(nano: Nano, form: Form, photo: Path, side: int) -> None:
    maps = encode(nano, photo, side)
    modules = decoder_modules(nano_parts(nano, side), form)
    known = {name: value[0] for name, value in run_module(modules.hoist, maps).items()}
    known |= {"points": CLICKS, "choice": CHOSEN}
    found = run_module(modules.prompt, known)
    found |= run_module(modules.mask, known | found)
    check({name: value.numpy() for name, value in found.items()}, expected(nano, maps))


@pytest.mark.parametrize("form", FORMS)
def test_forms_with_skips_equal_the_description(form: Form) -> None:
    check_form(deployed(random_nano(1)), form, sample_path("coffee.png"), 96)


@pytest.mark.shared
@pytest.mark.parametrize("form", FORMS)
def test_trained_weights_on_real_photos(form: Form) -> None:
    """Nano at 320: N = 400."""
    nano = deployed(read_checkpoint(CHECKPOINT))
    for photo in [*sorted(PHOTOS.iterdir())[:2], sample_path("chelsea.png")]:
        check_form(nano, form, photo, 320)


@cache
def exported(form: Form) -> DecoderGraphs:
    return nano_decoder_graphs(deployed(random_nano(1)), 96, form)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_exported_forms_equal_the_description(form: Form) -> None:
    nano, graphs = deployed(random_nano(1)), exported(form)
    maps = encode(nano, sample_path("coffee.png"), 96)
    sessions: dict[str, OrtSession] = {
        name: open_graph(getattr(graphs, name), name, 1) for name in ("hoist", "prompt", "mask")
    }
    both = {name: np.concatenate([value.numpy(), -value.numpy()]) for name, value in maps.items()}
    known = {name: value[0] for name, value in sessions["hoist"].run(both).items()}
    known |= {"points": CLICKS.numpy(), "choice": CHOSEN.numpy()}
    found = sessions["prompt"].run(reads(graphs.prompt, known))
    found |= sessions["mask"].run(reads(graphs.mask, known | found))
    check(found, expected(nano, maps))
    one = sessions["prompt"].run(reads(graphs.prompt, known | {"points": CLICKS.numpy()[:1]}))
    np.testing.assert_allclose(one["tokens"], found["tokens"][:1], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_exported_forms_keep_the_rules_of_bundles(form: Form) -> None:
    for name in ("hoist", "prompt", "mask"):
        check_rules(read_onnx(getattr(exported(form), name), name), OPSET)


@torch.no_grad()
def count_by_torch(form: Form, prompts: int) -> dict[str, int]:
    """Multiply-adds of hoisting, prompts and masks at side 96, as torch counts them."""
    modules, maps = decoder_modules(nano_parts(random_nano(), 96), form), nano_example(96, photos=1)
    known = {name: value[0] for name, value in run_module(modules.hoist, maps).items()}
    known |= {"points": torch.rand(prompts, 2), "choice": torch.arange(prompts) % 4}
    known |= run_module(modules.prompt, known)
    counts = {}
    for name, tensors in (("hoist", maps), ("prompt", known), ("mask", known)):
        with FlopCounterMode(display=False) as counter:
            run_module(getattr(modules, name), tensors)
        counts[name] = int(counter.get_total_flops()) // 2
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_exported_forms_cost_what_torch_and_the_sizes_say(form: Form) -> None:
    """Three independent counts: of the ONNX bytes, by torch of the modules, and from sizes."""
    prompts, n = 4, 36
    by_torch, cost = count_by_torch(form, prompts), decoder_cost(form, DecoderSizes(image=n, hidden=1024))
    letters = {"b": 1, "g": prompts, "n": prompts}
    found = {name: graph_cost(getattr(exported(form), name), letters).multiply_adds for name in by_torch}
    assert found == by_torch
    pooling, position, choice = 4 * n * 416, 2 * 128, 4 * 32
    assert found["hoist"] == cost.photo
    assert found["prompt"] == prompts * (cost.transformer + cost.heads + cost.lattice + pooling + position)
    assert found["mask"] == prompts * (cost.low_res + choice)


def test_another_side_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        nano_graphs(random_nano(), 100, "low-rank")
    with pytest.raises(InputError, match="auto, absorbed, low-rank"):
        nano_graphs(random_nano(), 96, "plain")


@pytest.mark.slow
def test_auto_exports_the_form_that_the_log_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def once_exported(modules: DecoderModules, maps: object) -> DecoderGraphs:
        return exported("low-rank" if isinstance(modules.hoist, LowRankHoist) else "absorbed")

    monkeypatch.setattr(segmenter_graphs, "export_decoder", once_exported)
    lines: list[str] = []
    graphs = nano_graphs(deployed(random_nano(1)), 96, "auto", lines.append)
    (line,) = lines
    form = line.removeprefix("decoder: ").split(" ")[0]
    state = {tensor.name for tensor in read_onnx(graphs["prompt"], "prompt").outputs}
    hoisted = {tensor.name for tensor in read_onnx(graphs["image"], "image").outputs}
    assert ("m_mix" in state) == ("h_norms" in hoisted) == (form == "low-rank")
    assert ("m_keys" in state) == ("h_keys" in hoisted) == (form == "absorbed")
    assert "multiply-adds" in line and "ms a photo" in line
