"""Nano's checkpoints: today's, those from before the encoder's later blocks, and the first sketch's, by other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError
from .nano import Nano

_RENAMES = (
    (r"^enc\.(stem|st\.\d+\.\d+\.f\.\d+|out\.0)\.0(\.1)?\.weight$", r"enc.\1.conv.weight"),
    (r"^enc\.(stem|st\.\d+\.\d+\.f\.\d+|out\.0)\.1\.", r"enc.\1.norm."),
    (r"^enc\.st\.(\d+)\.(\d+)\.f\.", r"enc.stages.\1.\2.layers."),
    (r"^enc\.l(16|32)\.", r"enc.lateral\1."),
    (r"^enc\.h([48])\.", r"enc.skip\1."),
    (r"^enc\.out\.", r"enc.smooth."),
    (r"^enc\.", "image_encoder."),
    (r"^dec\.G$", "prompt_encoder.gaussian"),
    (r"^dec\.point\.", "prompt_encoder.point."),
    (r"^dec\.nopoint\.", "prompt_encoder.not_a_point."),
    (r"^dec\.nomask\.", "prompt_encoder.no_mask."),
    (r"^dec\.tr\.", "dec.transformer."),
    (r"^dec\.u([12])\.", r"dec.upscale\1."),
    (r"^dec\.n1\.w$", "dec.norm1.weight"),
    (r"^dec\.n1\.b$", "dec.norm1.bias"),
    (r"^dec\.hyper\.(\d)\.l\.", r"dec.hypernetworks.\1.layers."),
    (r"^dec\.iou\.l\.", "dec.iou_head.layers."),
    (r"^dec\.", "mask_decoder."),
)


_LATER = tuple(f"image_encoder.{name}." for name in ("context", "narrow", "detail8", "detail4"))
"""Where the keys begin that the first checkpoints do not have."""


def rename_seed_key(key: str) -> str:
    """A key of the first training sketch's checkpoint to this module's name for the same tensor."""
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def load_nano(tensors: Mapping[str, Tensor]) -> Nano:
    """Builds the module in evaluation mode from a checkpoint's tensors.

    Args:
        tensors: The checkpoint's tensors, in any float width, with the sketch's or this module's keys. One from before
            ``Context`` and ``Detail`` gets them as they begin, adding nothing, always the same.

    Raises:
        RuntimeError: Keys or shapes do not fit (torch names them).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Nano()
    state = {rename_seed_key(key): value.float() for key, value in tensors.items()}
    if not any(key.startswith(_LATER) for key in state):
        state |= {key: value for key, value in model.state_dict().items() if key.startswith(_LATER)}
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def read_checkpoint(path: Path) -> Nano:
    """Reads a nano checkpoint.

    Args:
        path: A safetensors file.

    Raises:
        InputError: The file is missing, not safetensors, or holds another model.
    """
    try:
        return load_nano(load_file(path))
    except Exception as error:  # safetensors and torch raise their own kinds for damaged files and wrong keys
        raise InputError(
            f"checkpoint {path}",
            expected="a safetensors file with the nano segmenter's tensors",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            do="name a checkpoint that was trained for nano",
        ) from error
