"""The same runtime on graphs without the product's algebra: encoder, batched decoder, all four masks of every prompt.

What the product gains over this row is what hoisting, the low-rank form and masks of chosen prompts alone are worth;
what this row gains over PyTorch is the runtime's.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gransam_sdk.bundle import Bundle, Graph
from gransam_sdk.bundle import Tensor as Declared
from gransam_sdk.classes import select_classes
from gransam_sdk.export.onnx_file import export_graph
from gransam_sdk.export.reference import Named, PlainSegmenter
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.models.segment_anything import import_package
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.session import Session
from gransam_sdk.shapes import AnyArray
from gransam_sdk.types import Settings

OPSET = 17


class _Image(nn.Module):
    """The encoder alone."""

    def __init__(self, plain: PlainSegmenter) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.plain.encode(image).values())


class _Prompt(nn.Module):
    """The decoder as published, and what the head reads."""

    def __init__(self, plain: PlainSegmenter, step: int, offset: int) -> None:
        super().__init__()
        self.plain, self.step, self.offset = plain, step, offset

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *maps, points = inputs
        named = dict(zip(self.plain.maps, maps, strict=True))
        tokens, iou, logits = self.plain.decode(named, points)
        lattice = logits[:, :, self.offset :: self.step, self.offset :: self.step]
        weight = lattice.sigmoid().flatten(2)
        pooled = weight @ named[self.plain.features].flatten(1).T
        return tokens, iou, lattice, pooled / (weight.sum(dim=2, keepdim=True) + 1e-4), logits


class _TraceableSam(nn.Module):
    """``PlainSam`` whose prompt encoder is the one that segment-anything exports: the other writes through a mask."""

    def __init__(self, plain: PlainSam) -> None:
        super().__init__()
        import_package()
        module = importlib.import_module("segment_anything.utils.onnx")
        self.maps, self.features, self.encode = plain.maps, plain.features, plain.encode
        self.sam: Any = plain.sam
        self.exported: Any = module.SamOnnxModel(plain.sam, return_single_mask=False)

    def decode(self, maps: Named, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PlainSegmenter.decode``."""
        prompt, decoder = self.sam.prompt_encoder, self.sam.mask_decoder
        pixels = torch.stack([points * prompt.input_image_size[0], torch.zeros_like(points)], dim=1)
        labels = torch.tensor([[1.0, -1.0]]).expand(len(points), 2)
        dense = prompt.no_mask_embed.weight.reshape(1, -1, 1, 1)
        seen: list[Tensor] = []
        hook = decoder.transformer.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        logits, iou = decoder.predict_masks(
            maps[self.features][None], prompt.get_dense_pe(), self.exported._embed_points(pixels, labels), dense
        )
        hook.remove()
        return seen[0][:, 1:5], iou, logits


class _Pick(Session):
    """Low-res logits of chosen masks, which are all there already."""

    provider, threads = "numpy", 1

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        return {"logits": feeds["m_logits"][np.arange(len(feeds["choice"])), feeds["choice"]]}

    def close(self) -> None:
        pass


def hoist_free(plain: PlainSegmenter, bundle: Bundle, threads: int) -> Segmenter:
    """A segmenter with the bundle's head, classes and settings whose graphs are the published ones.

    Args:
        plain: With the weights that the bundle was made of.
        bundle: Its ``prompt_chunk`` is the batch of prompts, and must divide their number: shapes are fixed.
        threads: Of ONNX Runtime.
    """
    if isinstance(plain, PlainSam):
        plain = _TraceableSam(plain)
    side, low, chunk = bundle.embedding_side, bundle.low_res_side, bundle.prompt_chunk
    maps = {name: (c, n * side, n * side) for name, (c, n) in plain.maps.items()}
    points = Declared("points", "float32", (chunk, 2))
    logits = Declared("m_logits", "float32", (chunk, 4, low, low))
    outputs = tuple(tensor for tensor in bundle.graphs["prompt"].outputs if not tensor.name.startswith("m_"))
    image = Declared("image", "float32", (1, 3, bundle.input_side, bundle.input_side))
    graphs = {
        "image": _declare("image", (image,), tuple(Declared(n, "float32", (1, *axes)) for n, axes in maps.items())),
        "prompt": _declare(
            "prompt", (*(Declared(name, "float32", axes) for name, axes in maps.items()), points), (*outputs, logits)
        ),
        "mask": _declare("mask", (Declared("m_logits", "float32", ("n", 4, low, low)),), ()),
        "head": bundle.graphs["head"],
    }
    prompt = _Prompt(plain, low // side, bundle.lattice_offset)
    sessions: dict[str, Session] = {
        "image": OrtSession(_encoder(plain, graphs["image"]), graphs["image"], threads=threads),
        "prompt": OrtSession(_trace(prompt, graphs["prompt"]), graphs["prompt"], threads=threads),
        "mask": _Pick(),
        "head": OrtSession(bundle.graph_bytes("head"), bundle.graphs["head"], threads=threads),
    }
    background = bundle.head is not None and bundle.head.background
    classes = select_classes(bundle.classes, background=background)
    return Segmenter(Model(replace(bundle, graphs=graphs), sessions), classes, Settings())


def _declare(name: str, inputs: tuple[Declared, ...], outputs: tuple[Declared, ...]) -> Graph:
    return Graph(f"{name} (as published)", "0" * 64, 1, inputs, outputs)


def _encoder(plain: PlainSegmenter, graph: Graph) -> bytes:
    """ONNX of the encoder, as the product exports its image graph."""
    side = int(graph.inputs[0].axes[-1])
    image = torch.linspace(-1, 1, 2 * 3 * side**2).reshape(2, 3, side, side)
    return bytes(export_graph(_Image(plain).eval(), {"image": image}, tuple(plain.maps), "b", fold=True))


def _trace(module: nn.Module, graph: Graph) -> bytes:
    """ONNX of fixed shapes, by tracing: the package's prompt encoder reads the number of points as a constant."""
    inputs = tuple(torch.rand(*(int(axis) for axis in tensor.axes)) for tensor in graph.inputs)
    target: Any = BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            target,
            input_names=[tensor.name for tensor in graph.inputs],
            output_names=[tensor.name for tensor in graph.outputs],
            opset_version=OPSET,
            dynamo=False,
        )
    return bytes(target.getvalue())
