"""A decoder in one of its forms as ONNX graphs: hoisting, prompts and masks, apart from the image encoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gransam_sdk.types import PointGrid

from .absorbed_graphs import (
    AbsorbedDecoder,
    AbsorbedHoist,
    AbsorbedMask,
    AbsorbedPrompt,
    AbsorbedSkipHoist,
    AbsorbedSkipMask,
    AbsorbedSkipPrompt,
)
from .decoder_parts import DecoderParts
from .low_rank_graphs import (
    LowRankDecoder,
    LowRankHoist,
    LowRankMask,
    LowRankPrompt,
    LowRankSkipHoist,
    LowRankSkipMask,
    LowRankSkipPrompt,
)
from .onnx_file import export_graph

Form = Literal["absorbed", "low-rank"]
FORMS: tuple[Form, ...] = get_args(Form)
"""How a bundle's graphs may compute the decoder; the plain form is what they are compared with."""

Maps = Mapping[str, Tensor]
"""What an image encoder makes: ``embedding`` (b,d,e,e) and, with skips, ``skip8``, ``skip4`` and ``features``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderModules:
    """Modules of one form; ``forward`` takes tensors by the names of its parameters, ``outputs`` names its results.

    Attributes:
        hoist: The encoder's maps to ``h_*``, all with a first axis b.
        prompt: One photo's ``h_*`` and points (g,2) to the prompt graph's outputs.
        mask: ``h_*``, ``m_*`` and choice (n,) to logits (n,l,l).
    """

    hoist: AbsorbedHoist | LowRankHoist
    prompt: AbsorbedPrompt | LowRankPrompt
    mask: AbsorbedMask | LowRankMask


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderGraphs:
    """ONNX bytes of one form; inputs and outputs are those of ``DecoderModules``."""

    hoist: bytes
    prompt: bytes
    mask: bytes


class ImageGraph(nn.Module):
    """Photo to hoisted tensors.

    Args:
        encoder: (b,3,s,s) to one map or several, in the order of ``hoist``'s inputs.
        hoist: Of a ``DecoderModules``.
    """

    def __init__(self, encoder: nn.Module, hoist: AbsorbedHoist | LowRankHoist) -> None:
        super().__init__()
        self.encoder = encoder
        self.hoist = hoist

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(b,3,s,s) normalised photo to ``hoist.outputs``."""
        maps = self.encoder(image)
        out: tuple[Tensor, ...] = self.hoist(*(maps if isinstance(maps, tuple) else (maps,)))
        return out


def decoder_modules(parts: DecoderParts, form: Form) -> DecoderModules:
    """Builds one form of a decoder."""
    modules: DecoderModules
    if form == "low-rank":
        low_rank = LowRankDecoder(parts)
        kinds = (LowRankSkipHoist, LowRankSkipPrompt, LowRankSkipMask)
        hoist, prompt, mask = kinds if parts.skips else (LowRankHoist, LowRankPrompt, LowRankMask)
        modules = DecoderModules(hoist=hoist(low_rank), prompt=prompt(low_rank), mask=mask(low_rank))
    else:
        plain = AbsorbedDecoder(parts)
        others = (AbsorbedSkipHoist, AbsorbedSkipPrompt, AbsorbedSkipMask)
        first, second, third = others if parts.skips else (AbsorbedHoist, AbsorbedPrompt, AbsorbedMask)
        modules = DecoderModules(hoist=first(plain), prompt=second(plain), mask=third(plain))
    for module in (modules.hoist, modules.prompt, modules.mask):
        module.eval()
    return modules


def export_decoder(modules: DecoderModules, maps: Maps) -> DecoderGraphs:
    """Exports hoisting, prompt and mask graphs.

    Args:
        modules: ``decoder_modules``.
        maps: Example of what the encoder makes of two photos.
    """
    points = torch.from_numpy(PointGrid(per_side=2).points())
    with torch.no_grad():
        hoisted = run_module(modules.hoist, maps)
        photo = {name: value[0].clone() for name, value in hoisted.items()} | {"points": points}
        answers = run_module(modules.prompt, photo)
        state = {name: value.clone() for name, value in answers.items()}
    state |= photo | {"choice": torch.arange(len(points))}
    return DecoderGraphs(
        hoist=export_graph(modules.hoist, inputs_of(modules.hoist, maps), modules.hoist.outputs, "b", fold=True),
        prompt=export_graph(modules.prompt, inputs_of(modules.prompt, photo), modules.prompt.outputs, "g", fold=True),
        mask=export_graph(modules.mask, inputs_of(modules.mask, state), modules.mask.outputs, "n", fold=True),
    )


def export_image(encoder: nn.Module, modules: DecoderModules, side: int) -> bytes:
    """Exports the image graph: an encoder and what is hoisted.

    Args:
        encoder: (b,3,s,s) to maps.
        modules: ``decoder_modules``.
        side: s.
    """
    # Real numbers in the example: the exporter only looks at their shapes, a reader may look at their values.
    image = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side)
    graph = ImageGraph(encoder, modules.hoist).eval()
    return export_graph(graph, {"image": image}, modules.hoist.outputs, "b", fold=True)


def run_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Runs one of ``DecoderModules`` on the tensors that it asks for by name; outputs by name."""
    found = module(*inputs_of(module, tensors).values())
    return dict(zip(module.outputs, found if isinstance(found, tuple) else (found,), strict=True))  # type: ignore[arg-type]


def inputs_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a module's ``forward`` asks for, in its order."""
    return {name: tensors[name] for name in inspect.signature(module.forward).parameters}
