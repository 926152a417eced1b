"""Image, prompt and mask graphs of nano; points are XY in [0,1] of the square, which is the stretched photo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gransam_sdk.errors import InputError
from gransam_sdk.models.nano import FEATURES, WIDTH, Nano

from .decoder_graphs import DecoderGraphs, Form, decoder_modules, export_decoder
from .decoder_parts import nano_parts
from .segmenter_graphs import segmenter_graphs


def nano_graphs(
    nano: Nano, side: int, decoder: str, log: Callable[[str], None] = lambda line: None
) -> dict[str, bytes]:
    """Exports the three graphs that need no head.

    Args:
        nano: ``nano.deployed``.
        side: s, a multiple of 32.
        decoder: Its form, one of ``segmenter_graphs.DECODERS``.
        log: Told which form was chosen where that is ``auto``.

    Returns:
        ONNX bytes by graph name: image, prompt, mask.

    Raises:
        InputError: Another side or form.
    """
    _check_side(side)
    parts, maps = nano_parts(nano, side), partial(nano_example, side)
    return segmenter_graphs(nano.image_encoder, parts, maps, side=side, decoder=decoder, log=log)


def nano_decoder_graphs(nano: Nano, side: int, form: Form) -> DecoderGraphs:
    """Exports everything behind the encoder.

    Args:
        nano: ``nano.deployed``.
        side: s, a multiple of 32.
        form: Of the decoder.

    Raises:
        InputError: Another side.
    """
    _check_side(side)
    return export_decoder(decoder_modules(nano_parts(nano, side), form), nano_example(side, photos=2))


def nano_example(side: int, photos: int) -> dict[str, Tensor]:
    """Numbers in the place of what the encoder makes.

    Returns:
        ``embedding`` (b,256,e,e), ``skip8`` (b,64,2e,2e), ``skip4`` (b,32,4e,4e), ``features`` (b,f,e,e).
    """
    cells = side // 16
    shapes = {"embedding": (WIDTH, 1), "skip8": (64, 2), "skip4": (32, 4), "features": (FEATURES, 1)}
    return {
        name: (1e3 * torch.linspace(-1, 1, photos * width * (times * cells) ** 2))
        .sin()
        .reshape(photos, width, times * cells, times * cells)
        for name, (width, times) in shapes.items()
    }


def _check_side(side: int) -> None:
    if side % 32 or not 32 <= side <= 2048:
        raise InputError("model side", expected="a multiple of 32 from 32 to 2048", found=str(side))
