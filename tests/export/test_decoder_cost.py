"""The count against torch's own, operator by operator, of the modules that are exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nano_random import random_nano
from torch.utils.flop_counter import FlopCounterMode

from gransam_sdk.export import absorbed
from gransam_sdk.export.absorbed_graphs import AbsorbedDecoder
from gransam_sdk.export.decoder_cost import FORMS, NANO, DecoderSizes, decoder_cost
from gransam_sdk.export.decoder_parts import nano_parts
from gransam_sdk.export.low_rank import Hoisted, LowRankTransformer
from gransam_sdk.export.low_rank_graphs import LowRankDecoder, _spread
from gransam_sdk.models.two_way import TwoWayTransformer

ROOT = Path(__file__).parents[2]
SMALL = DecoderSizes(image=36, hidden=1024)
PROMPTS = 3


@torch.no_grad()
def count(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("sizes", [SMALL, DecoderSizes(image=25)])
def test_transformers_are_counted_as_torch_counts_them(sizes: DecoderSizes) -> None:
    plain = TwoWayTransformer(hidden=sizes.hidden).eval()
    keys, pe, tokens = torch.randn(1, sizes.image, 256), torch.randn(sizes.image, 256), torch.randn(PROMPTS, 7, 256)
    found = count(lambda: plain(keys.expand(PROMPTS, -1, -1), pe[None], tokens))
    assert found == PROMPTS * decoder_cost("plain", sizes).transformer
    first = absorbed.hoist(plain, keys, pe[None])
    assert count(lambda: absorbed.hoist(plain, keys, pe[None])) == decoder_cost("absorbed", sizes).photo
    once = (first[0][0], first[1][0], first[2][0])
    found = count(lambda: absorbed.decode(plain, keys[0], pe, once, tokens, sizes.read))
    assert found == PROMPTS * decoder_cost("absorbed", sizes).transformer
    with torch.no_grad():
        low_rank = LowRankTransformer(plain, pe)
        hoisted = Hoisted(*(part[0] for part in low_rank.hoist(keys)[0]))
    found = count(lambda: low_rank.decode(hoisted, tokens, sizes.read))
    assert found == PROMPTS * decoder_cost("low-rank", sizes).transformer


def test_masks_are_counted_as_torch_counts_them() -> None:
    nano, n = random_nano(), SMALL.image
    parts = nano_parts(nano, 96)
    keys, tokens = torch.randn(1, n, 256), torch.randn(PROMPTS, 7, 256)
    embedding = keys.transpose(1, 2).unflatten(2, (6, 6))
    with torch.no_grad():
        low_rank, plain = LowRankDecoder(parts), AbsorbedDecoder(parts)
        hoisted, up = low_rank.hoist(embedding)
        once = Hoisted(*(part[0] for part in hoisted))
        _, image = low_rank.transformer.decode(once, tokens)
        hyper = parts.hyper(tokens[:, 1:5])
    upscale, cost = low_rank.upscale, decoder_cost("low-rank", SMALL)
    assert count(lambda: low_rank.hoist(embedding)) == cost.photo
    spread = _spread(image, up[0, :, 3], upscale.lattice_kernel)
    found = count(lambda: upscale.lattice(_spread(image, up[0, :, 3], upscale.lattice_kernel), hyper, None))
    assert found == PROMPTS * cost.lattice and spread.shape == (PROMPTS, n, 64)
    assert count(lambda: low_rank.low_res(up[0], image, hyper[:, 0], None)) == PROMPTS * cost.low_res
    assert sum(part[0].numel() for part in (*image, hyper)) == cost.state
    assert count(lambda: (parts.hyper(tokens[:, 1:5]), parts.iou_head(tokens[:, 0]))) == PROMPTS * cost.heads

    cost, many = decoder_cost("absorbed", SMALL), keys.expand(PROMPTS, -1, -1)
    found = count(lambda: upscale.lattice(many @ upscale.lattice_kernel, hyper, None))
    assert found == PROMPTS * cost.lattice
    assert count(lambda: plain.low_res(many, hyper[:, 0], None)) == PROMPTS * cost.low_res
    skips = torch.zeros(64, 12, 12), torch.zeros(32, 24, 24)
    found = count(lambda: hyper @ nano.mask_decoder.upscale(many, *skips).flatten(2))
    assert found == PROMPTS * decoder_cost("plain", SMALL).low_res


def test_the_page_prints_these_numbers() -> None:
    """docs/decoder.md, SAM's table and then nano's, in millions."""
    lines = (ROOT / "docs" / "decoder.md").read_text(encoding="utf-8").splitlines()
    found = [
        line for line in lines if line.startswith(tuple(f"| {form} | " for form in FORMS)) and line.count("|") == 8
    ]
    expected = []
    for sizes in (DecoderSizes(), NANO):
        for form in FORMS:
            cost = decoder_cost(form, sizes)
            parts = [cost.photo, cost.transformer, cost.heads, cost.lattice, cost.low_res]
            cells = [f"{value / 1e6:,.1f}" if value else "0" for value in parts]
            total = cost.total(100, 100 if form == "plain" else 30)
            expected.append(f"| {form} | {' | '.join(cells)} | {total / 1e6:,.0f} |")
    assert found == expected
