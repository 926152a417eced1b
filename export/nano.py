"""Nano checkpoint to the image, prompt and mask graphs of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from gransam_sdk.errors import InputError
from gransam_sdk.models.nano import ConvNorm, Nano, load_nano
from gransam_sdk.types import PointGrid

from .graphs import MASK_INPUTS, PROMPT_INPUTS, Hoisted, ImageGraph, MaskGraph, PromptGraph
from .onnx_file import export_graph

ModuleT = TypeVar("ModuleT", bound=nn.Module)

PROMPT_OUTPUTS = ("tokens", "iou", "lattice", "features", "m_keys", "m_hyper")


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
            do="check the path and --arch",
        ) from error


def deployed(nano: Nano) -> Nano:
    """Folds BatchNorm into convolutions and rounds every weight to 16 bits, in place: what the graphs must equal.

    Folding comes first, so that what is stored in 16 bits is what is computed with.
    """
    for module in nano.modules():
        if isinstance(module, ConvNorm):
            module.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return round_to_half(nano).eval()


def round_to_half(module: ModuleT) -> ModuleT:
    """Rounds every parameter and buffer to the nearest float16, in place; they stay float32."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.data.half().float()
    return module.requires_grad_(False)


def nano_graphs(nano: Nano, side: int) -> dict[str, bytes]:
    """Exports the three graphs that need no head.

    Args:
        nano: ``deployed``.
        side: s, a multiple of 32.

    Returns:
        ONNX bytes by graph name: image, prompt, mask.
    """
    if side % 32 or not 32 <= side <= 2048:
        raise InputError("model side", expected="a multiple of 32 from 32 to 2048", found=str(side))
    image_graph, prompt_graph, mask_graph = ImageGraph(nano, side), PromptGraph(nano, side), MaskGraph(nano)
    # Real numbers in the example tensors: the exporter only looks at their shapes, a reader may look at their values.
    image = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side)
    points = torch.from_numpy(PointGrid(per_side=2).points())
    hoisted = {name: value[0].clone() for name, value in image_graph(image)._asdict().items()}
    prompt_inputs = {name: hoisted[name] for name in PROMPT_INPUTS} | {"points": points}
    outputs = dict(zip(PROMPT_OUTPUTS, prompt_graph(*prompt_inputs.values()), strict=True))
    mask_inputs = {name: hoisted[name] for name in MASK_INPUTS}
    mask_inputs |= {name: outputs[name] for name in PROMPT_OUTPUTS if name.startswith("m_")}
    mask_inputs["choice"] = torch.arange(len(points))
    return {
        "image": export_graph(image_graph.eval(), {"image": image}, Hoisted._fields, "b"),
        "prompt": export_graph(prompt_graph.eval(), prompt_inputs, PROMPT_OUTPUTS, "g"),
        "mask": export_graph(mask_graph.eval(), mask_inputs, ("logits",), "n"),
    }
