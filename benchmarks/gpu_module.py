"""A bundle's graphs as one torch module on a device: what the fused graph answers, behind the same session protocol.

Where ONNX Runtime has no CUDA, this is what can be timed there: the modules that ``export/`` traces into the graphs,
joined as ``export/fused.py`` joins them. Every shape is fixed and nothing is asked of the host on the way, so that one
photo can be compiled, or captured as a CUDA graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gransam_sdk.bundle import Bundle, Graph
from gransam_sdk.bundle import Tensor as Declared
from gransam_sdk.errors import InputError
from gransam_sdk.export.decoder_graphs import ImageGraph, decoder_modules, run_module
from gransam_sdk.export.decoder_parts import nano_parts, sam_parts
from gransam_sdk.export.nano import PlainNano
from gransam_sdk.export.reference import PlainSegmenter
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.models.segment_anything import import_package
from gransam_sdk.runtime.fused_spec import FusedSpec
from gransam_sdk.runtime.session import check_feeds
from gransam_sdk.shapes import AnyArray
from gransam_sdk.types import PointGrid

NEVER = 2.0
"""Threshold of columns that nobody asked for."""
WARM_UP = 3
"""Runs before a graph is captured: libraries choose their kernels and allocate in them."""


class FusedModule(nn.Module):
    """A photo to what ``FusedSpec.outputs`` names, in the low-rank form.

    Args:
        plain: The segmenter with the weights that the bundle was made of; it is left as it is.
        bundle: Its sizes and preprocessing; its head labels prompts.
        head: The bundle's, as a module.
        spec: Of the run, all prompts decoded at once.
        encoder: Opens the context that the encoder runs in; the decoder runs outside it.

    Raises:
        InputError: A head that labels masks, or another mask choice than ``best_iou``.
    """

    mean: Tensor
    deviation: Tensor
    pixels: Tensor
    centres: Tensor
    grid: Tensor
    members: Tensor
    thresholds: Tensor
    floors: Tensor
    rows: Tensor
    number: Tensor

    def __init__(
        self,
        plain: PlainSegmenter,
        bundle: Bundle,
        head: nn.Module,
        spec: FusedSpec,
        encoder: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        super().__init__()
        if bundle.head is None or bundle.head.labels != "prompt" or spec.mask_choice != "best_iou":
            raise InputError("torch module", expected="a head that labels prompts, best_iou", found=spec.mask_choice)
        image: nn.Module
        if isinstance(plain, PlainNano):
            parts, image = nano_parts(plain.nano, bundle.input_side), plain.nano.image_encoder
        elif isinstance(plain, PlainSam):
            parts, image = sam_parts(plain.sam), plain.sam.get_submodule("image_encoder")
        else:
            raise InputError("segmenter", expected="nano or SAM", found=type(plain).__name__)
        modules = decoder_modules(parts, "low-rank")
        self.image, self.prompt, self.mask = ImageGraph(image, modules.hoist), modules.prompt, modules.mask
        self.head, self.bundle, self.spec, self.encoder = head, bundle, spec, encoder
        side, low = bundle.input_side, bundle.low_res_side
        centres = (2 * np.arange(low) + 1) * side
        centres[0] = 0  # the first cell shows the photo however small it is
        most = max(map(len, spec.groups))
        columns = sum(map(len, spec.groups))
        rest = [NEVER] * (len(spec.groups) - len(spec.thresholds))
        constants = {
            "mean": torch.tensor(bundle.preprocess.mean, dtype=torch.float32),
            "deviation": torch.tensor(bundle.preprocess.std, dtype=torch.float32),
            "pixels": torch.arange(side),
            "centres": torch.from_numpy(centres),
            "grid": torch.from_numpy(PointGrid(per_side=spec.points_per_side).points()),
            "members": torch.tensor([[*group, *[columns] * (most - len(group))] for group in spec.groups]),
            "thresholds": torch.tensor([*spec.thresholds, *rest]),
            "floors": torch.tensor([*spec.floors, *rest]),
            "rows": torch.arange(spec.prompts),
            "number": torch.tensor(spec.number),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, photo: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """(s,s,3) uint8 and (2,) int64, as ``fused_feeds`` makes them, to ``FusedSpec.outputs`` in order."""
        inside = (self.pixels < valid[0])[:, None] & (self.pixels < valid[1])[None]
        image = torch.where(inside[..., None], (photo.float() - self.mean) / self.deviation, 0.0)
        points = self.grid * (valid.flip(0).float() / self.bundle.input_side)
        hoisted = self._hoist(image.permute(2, 0, 1)[None])
        answers = run_module(self.prompt, hoisted | {"points": points})
        choice = answers["iou"][:, 1:4].argmax(dim=1) + 1
        logits = self.head(self._instances(answers, choice))
        out = self._label(logits, answers["iou"][self.rows, choice])
        key = out["score"] + torch.where(out["passed"], 0.0, torch.where(out["recorded"], -2.0, -4.0))
        best = torch.sort(key, descending=True, stable=True).indices[: self.spec.kept]
        confident = out["recorded"].sum()
        out |= {"choice": choice, "tokens": answers["tokens"]}
        kept = {name: value[best] for name, value in out.items()}
        state = {name: value[best] for name, value in answers.items() if name.startswith("m_")}
        kept["logits"] = run_module(self.mask, hoisted | state | {"choice": kept["choice"]})["logits"]
        kept |= self._overlaps(kept["logits"], valid) | {"prompt": best, "confident": confident, "spec": self.number}
        checked = [answers[name] for name in ("tokens", "iou", "lattice", "features")]
        kept["non_finite"] = torch.stack([(~value.isfinite()).sum() for value in (*checked, logits)]).sum()
        return tuple(kept[tensor.name] for tensor in self.spec.outputs(self.bundle))

    def _hoist(self, image: Tensor) -> dict[str, Tensor]:
        with self.encoder():
            maps = self.image.encoder(image)
        maps = maps if isinstance(maps, tuple) else (maps,)
        out = self.image.hoist(*(value.float() for value in maps))
        return {name: value[0] for name, value in zip(self.image.hoist.outputs, out, strict=True)}

    def _instances(self, answers: Mapping[str, Tensor], choice: Tensor) -> Tensor:
        """What the head reads of each prompt, as its graph does."""
        offered = {"tokens": answers["tokens"].flatten(1), "features": answers["features"][self.rows, choice]}
        return torch.cat([offered[tensor.name] for tensor in self.bundle.graphs["head"].inputs], dim=1)

    def _label(self, logits: Tensor, iou: Tensor) -> dict[str, Tensor]:
        """``runtime.select.label_masks`` of class logits (g,c)."""
        padded = torch.nn.functional.pad(logits.softmax(dim=1), (0, 1))
        probabilities = padded[:, self.members].sum(dim=-1).clamp(max=1.0)
        confidence, label = probabilities.max(dim=1)
        return {
            "probabilities": probabilities,
            "label": label,
            "confidence": confidence,
            "iou": iou,
            "score": confidence * iou.clamp(0.0, 1.0),
            "passed": confidence >= self.thresholds[label],
            "recorded": confidence >= self.floors[label],
        }

    def _overlaps(self, logits: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Areas and common cells: products of 0 and 1 are exact in any arithmetic."""
        limits = 2 * self.bundle.low_res_side * valid
        cells = (self.centres < limits[0])[:, None] & (self.centres < limits[1])[None]
        flat = ((logits > 0) & cells).float().flatten(1)
        common, area = flat @ flat.T, flat.sum(dim=1)
        union = (area[:, None] + area[None] - common).clamp(min=1.0)
        return {"mask_iou": common / union, "intersection": common.long(), "area": area.long()}


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a module is run.

    Attributes:
        compiled: By ``torch.compile`` first.
        captured: As a CUDA graph, replayed once a photo.
    """

    compiled: bool = False
    captured: bool = False


class TorchFusedSession:
    """``FusedModule`` behind the session protocol.

    Outputs lie in buffers that the next run fills again: whoever wants to keep them copies them.

    Args:
        module: On its device.
        graph: ``FusedSpec.graph``.
        device: Of the module.
        how: Compiled, captured, or as it is.

    Raises:
        InputError: A CUDA graph elsewhere than on CUDA.
    """

    threads = 0

    def __init__(self, module: FusedModule, graph: Graph, device: str, how: How) -> None:
        if how.captured and not device.startswith("cuda"):
            raise InputError("CUDA graph", expected="a CUDA device", found=device)
        words = ("compiled" if how.compiled else "eager", *(["CUDA graph"] if how.captured else []))
        self.provider = f"PyTorch {device} {', '.join(words)}"
        self._graph, self._cuda = graph, device.startswith("cuda")
        self._inputs = {tensor.name: made_for(tensor).to(device) for tensor in graph.inputs}
        self._inputs["valid"] += module.bundle.input_side
        self._host = {tensor.name: made_for(tensor, pinned=self._cuda) for tensor in graph.outputs}
        call = torch.compile(module) if how.compiled else module
        self._call: Callable[[], tuple[Tensor, ...]] = lambda: call(*self._inputs.values())
        if how.captured:
            self._capture()

    @torch.no_grad()
    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the module once (see ``Session.run``): the device is waited for once, at the end."""
        check_feeds(self._graph, feeds)
        for name, value in feeds.items():
            self._inputs[name].copy_(torch.from_numpy(value))
        for held, found in zip(self._host.values(), self._call(), strict=True):
            held.copy_(found, non_blocking=True)
        if self._cuda:
            torch.cuda.synchronize()
        return {name: held.numpy() for name, held in self._host.items()}

    def close(self) -> None:
        """Lets module, graph and buffers go."""
        self._call = lambda: ()
        self._inputs.clear()
        self._host.clear()

    @torch.no_grad()
    def _capture(self) -> None:
        call = self._call
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            outputs = call()

        def replay() -> tuple[Tensor, ...]:
            recorded.replay()
            return outputs

        self._call = replay


def made_for(tensor: Declared, *, pinned: bool = False) -> Tensor:
    """Zeros of a declared tensor's dtype and fixed axes, on the host."""
    axes = [axis for axis in tensor.axes if isinstance(axis, int)]
    return torch.zeros(axes, dtype=getattr(torch, tensor.dtype), pin_memory=pinned)


@contextmanager
def positions_on_the_device() -> Iterator[None]:
    """segment-anything's ViT makes indices of relative positions on the host, which no CUDA graph can hold."""
    import_package()  # with what it needs where there is no torchvision
    package: Any = importlib.import_module("segment_anything.modeling.image_encoder")
    published = package.get_rel_pos

    def get_rel_pos(q_size: int, k_size: int, rel_pos: Tensor) -> Tensor:
        if q_size != k_size or rel_pos.shape[0] != 2 * q_size - 1:
            found: Tensor = published(q_size, k_size, rel_pos)
            return found
        places = torch.arange(q_size, device=rel_pos.device)
        return rel_pos[places[:, None] - places[None] + q_size - 1]

    package.get_rel_pos = get_rel_pos
    try:
        yield
    finally:
        package.get_rel_pos = published
