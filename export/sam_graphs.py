"""Image, prompt and mask graphs of segment-anything's models (SAM ViT-B, L, H and MobileSAM).

The photo lies at the top left of the square, zeros right and below; points are XY in [0,1] of the square. Axes and
names are the contract of ``docs/bundle-format.md``; l = 4e, f = d = 256.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from gransam_sdk.errors import InputError
from gransam_sdk.models.segment_anything import PATCH, WIDTH
from gransam_sdk.models.tiny_vit import ConvNorm

from .decoder_graphs import DecoderGraphs, Form, decoder_modules, export_decoder
from .decoder_parts import sam_parts
from .segmenter_graphs import segmenter_graphs


def deployed_sam(sam: nn.Module) -> nn.Module:
    """Folds BatchNorm into convolutions and rounds weights to 16 bits, in place: what the graphs must equal.

    The random frequencies of positions stay as they are: they are few, and rounding them would move every point.

    Raises:
        InputError: A weight is too large for 16 bits.
    """
    for module in sam.modules():
        if isinstance(module, ConvNorm):
            conv, norm = cast("nn.Conv2d", module.c), cast("nn.BatchNorm2d", module.bn)
            module.c = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            module.bn = nn.Identity()
    for name, parameter in sam.named_parameters():
        parameter.data = parameter.data.half().float()
        if not parameter.isfinite().all():
            raise InputError(f"weight {name}", expected="numbers below 65,520", found="larger ones")
    return sam.eval().requires_grad_(False)


def sam_graphs(sam: nn.Module, decoder: str, log: Callable[[str], None] = lambda line: None) -> dict[str, bytes]:
    """Exports the three graphs that need no head.

    Args:
        sam: ``deployed_sam``.
        decoder: Its form, one of ``segmenter_graphs.DECODERS``.
        log: Told which form was chosen where that is ``auto``.

    Returns:
        ONNX bytes by graph name: image, prompt, mask.

    Raises:
        InputError: Another form.
    """
    parts, encoder = sam_parts(sam), sam.get_submodule("image_encoder")
    maps = partial(sam_example, parts.side)
    return segmenter_graphs(encoder, parts, maps, side=PATCH * parts.side, decoder=decoder, log=log)


def sam_decoder_graphs(sam: nn.Module, form: Form) -> DecoderGraphs:
    """Exports everything behind the encoder.

    Args:
        sam: ``deployed_sam``.
        form: Of the decoder.
    """
    parts = sam_parts(sam)
    return export_decoder(decoder_modules(parts, form), sam_example(parts.side, photos=2))


def sam_example(side: int, photos: int) -> dict[str, Tensor]:
    """Numbers in the place of what an encoder makes: embedding (b,256,e,e)."""
    values = torch.linspace(-1, 1, photos * WIDTH * side**2)
    return {"embedding": (1e3 * values).sin().reshape(photos, WIDTH, side, side)}
