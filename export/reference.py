"""The plain torch module behind the runtime's own interface: what exported graphs are compared with.

Nothing is hoisted but the embedding, nothing is absorbed, and a prompt's masks are computed whole, so that none of the
algebra of the exported graphs is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from gransam_sdk.bundle import Bundle, Graph
from gransam_sdk.bundle import Tensor as Declared
from gransam_sdk.errors import EnvironmentFault, InputError
from gransam_sdk.models.nano_checkpoint import read_checkpoint
from gransam_sdk.models.sam_checkpoint import read_sam_checkpoint
from gransam_sdk.models.segment_anything import ARCHITECTURES
from gransam_sdk.parity_bars import PRECISIONS
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.runtime.session import Session, check_feeds
from gransam_sdk.shapes import AnyArray

from .nano import PlainNano, deployed
from .sam import PlainSam
from .sam_graphs import deployed_sam

CHUNK = 8
"""Prompts that the plain form decodes at a time: each has image tokens of its own, several times over."""

Named = Mapping[str, Tensor]


class PlainSegmenter(Protocol):
    """A segmenter in two steps, as published.

    Attributes:
        maps: What ``encode`` makes, by name: channels, and cells a side in cells of the embedding.
        features: Which of the maps is pooled under a mask.
    """

    maps: Mapping[str, tuple[int, int]]
    features: str

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """(1,3,s,s) float32, normalised, to the maps (1,channels,rows,columns)."""
        ...

    def decode(self, maps: Named, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes prompts.

        Args:
            maps: (channels,rows,columns) each, of one photo.
            points: (g,2) float32 XY in [0,1] of the square.

        Returns:
            Mask tokens (g,4,d), predicted IoU (g,4), low-res logits (g,4,l,l).
        """
        ...


def architectures() -> tuple[str, ...]:
    """Names that ``read_plain`` knows."""
    return ("nano", *ARCHITECTURES)


def read_plain(checkpoint: Path, arch: str, precision: str) -> PlainSegmenter:
    """Reads a checkpoint as the reference of a bundle.

    Args:
        checkpoint: The file.
        arch: One of ``architectures``.
        precision: The bundle's. Only ``fp32`` has the checkpoint's own weights; all others are made of weights rounded
            to 16 bits, and what rounding costs is not theirs.

    Raises:
        InputError: There is no such architecture or precision, or the checkpoint is of another kind.
    """
    if arch not in architectures():
        raise InputError("--arch", expected=", ".join(architectures()), found=repr(arch))
    if precision not in PRECISIONS:
        raise InputError("precision", expected=", ".join(PRECISIONS), found=repr(precision))
    if checkpoint.is_dir():
        raise InputError(
            f"checkpoint {checkpoint}",
            expected=f"a file with the weights of {arch}",
            found="a folder",
            do="give the checkpoint that the bundle was made of; a bundle's graphs are compiled already",
        )
    if arch == "nano":
        nano = read_checkpoint(checkpoint)
        return PlainNano(nano if precision == "fp32" else deployed(nano))
    sam = read_sam_checkpoint(checkpoint, arch)
    return PlainSam(sam if precision == "fp32" else deployed_sam(sam))


def reference_model(bundle: Bundle, plain: PlainSegmenter) -> Model:
    """A model whose segmenter is the plain module and whose head, if the bundle has one, is the bundle's own graph.

    Args:
        bundle: Whose sizes, preprocessing, grid and head are used.
        plain: The module with the weights that the bundle was made of.

    Raises:
        BundleError: ONNX Runtime refuses the head.
    """
    side = bundle.embedding_side
    maps = [Declared(name, "float32", (c, n * side, n * side)) for name, (c, n) in plain.maps.items()]
    logits = (4, bundle.low_res_side, bundle.low_res_side)
    old = bundle.graphs
    graphs = {
        "image": _graph("image", old["image"].inputs, [Declared(m.name, m.dtype, ("b", *m.axes)) for m in maps]),
        "prompt": _graph(
            "prompt",
            [*maps, Declared("points", "float32", ("g", 2))],
            [
                *(tensor for tensor in old["prompt"].outputs if not tensor.name.startswith("m_")),
                Declared("m_logits", "float32", ("g", *logits)),
            ],
        ),
        "mask": _graph(
            "mask",
            [Declared("m_logits", "float32", ("n", *logits)), Declared("choice", "int64", ("n",))],
            old["mask"].outputs,
        ),
    }
    step, offset = bundle.low_res_side // side, bundle.lattice_offset
    sessions: dict[str, Session] = {
        "image": TorchSession(graphs["image"], lambda feeds: plain.encode(feeds["image"])),
        "prompt": TorchSession(graphs["prompt"], lambda feeds: _prompt(plain, feeds, step, offset)),
        "mask": TorchSession(graphs["mask"], _pick),
    }
    if bundle.has_head:
        graphs["head"] = old["head"]
        sessions["head"] = OrtSession(bundle.graph_bytes("head"), old["head"])
    return Model(replace(bundle, graphs=graphs, prompt_chunk=CHUNK), sessions)


class TorchSession:
    """A graph that torch computes, one photo at a time.

    Args:
        graph: Its declared inputs and outputs.
        compute: Outputs by name from inputs by name.
    """

    provider = "PyTorch"
    threads = 0

    def __init__(self, graph: Graph, compute: Callable[[Named], Named]) -> None:
        self._graph = graph
        self._compute: Callable[[Named], Named] | None = compute

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs it once (see ``Session.run``)."""
        check_feeds(self._graph, feeds)
        if self._compute is None:
            raise EnvironmentFault(self._graph.file, expected="an open session", found="a closed one")
        with torch.no_grad():
            out = self._compute({name: torch.from_numpy(value) for name, value in feeds.items()})
        return {tensor.name: out[tensor.name].numpy() for tensor in self._graph.outputs}

    def close(self) -> None:
        """Lets the module go."""
        self._compute = None


def _prompt(plain: PlainSegmenter, feeds: Named, step: int, offset: int) -> dict[str, Tensor]:
    tokens, iou, logits = plain.decode(feeds, feeds["points"])
    lattice = logits[:, :, offset::step, offset::step]
    weight = lattice.sigmoid()
    # The mean of the dense features under the mask; 1e-4 keeps an empty mask from dividing by zero.
    pooled = torch.einsum("gmyx,fyx->gmf", weight, feeds[plain.features])
    return {
        "tokens": tokens.contiguous(),
        "iou": iou,
        "lattice": lattice.contiguous(),
        "features": pooled / (weight.sum(dim=(2, 3)) + 1e-4)[..., None],
        "m_logits": logits,
    }


def _pick(feeds: Named) -> dict[str, Tensor]:
    return {"logits": feeds["m_logits"][torch.arange(len(feeds["choice"])), feeds["choice"]]}


def _graph(name: str, inputs: Iterable[Declared], outputs: Iterable[Declared]) -> Graph:
    return Graph(f"{name} (PyTorch)", "0" * 64, 1, tuple(inputs), tuple(outputs))
