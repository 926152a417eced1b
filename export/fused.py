"""A bundle's four graphs as one with fixed shapes, for engines that build for a GPU: a photo in, its best masks out.

The four graphs are taken in as they are; before, between and after them stands what the runtime does on the host.
Inputs, outputs and limits are in ``docs/fused.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from gransam_sdk.bundle import Bundle
from gransam_sdk.classes import ClassSet, select_classes
from gransam_sdk.errors import BundleError
from gransam_sdk.runtime.fused_spec import KEPT, FusedSpec
from gransam_sdk.types import PointGrid, Settings

from .fused_labels import add_best, add_labels, add_pick, add_score
from .fused_photo import add_photo
from .graph_builder import GraphBuilder
from .static_shapes import check_static

_FIXED_CHOICE = {"single": 0, "whole": 3}
_UPWARD = 18
"""In 17, reductions other than sums took their axes as attributes."""
_FINITE = np.finfo(np.float32).max


def fuse(
    bundle: Bundle,
    *,
    kept: int = KEPT,
    classes: ClassSet | None = None,
    settings: Settings | None = None,
    chunk: int | None = None,
) -> bytes:
    """Fuses a bundle's graphs.

    Args:
        bundle: With a head.
        kept: n, masks that come out.
        classes: The classes and groups to label, with their thresholds; None takes all of the bundle.
        settings: Of these the grid, the mask choice and the record floor are fixed in the graph; where ``classes`` is
            None, thresholds too.
        chunk: Prompts decoded at a time, which bounds the engine's memory; None decodes all at once.

    Returns:
        ONNX bytes, every shape in them static; the same arguments give the same bytes.

    Raises:
        BundleError: The bundle has no head, or graphs that cannot be joined.
        InputError: See ``FusedSpec.of``.
    """
    settings = settings or Settings()
    if classes is None:
        classes = select_classes(
            bundle.classes,
            conf=settings.conf,
            class_conf=settings.class_conf,
            background=bundle.head is not None and bundle.head.background,
        )
    spec = FusedSpec.of(bundle, classes, settings, kept=kept, chunk=chunk)
    graphs = {name: onnx.load_from_string(bundle.graph_bytes(name)) for name in bundle.graphs}
    builder = GraphBuilder()
    values = _Fusion(builder, bundle, spec, {name: model.graph for name, model in graphs.items()}).values()
    declared = spec.graph(bundle, b"")
    model = builder.model(declared.inputs, declared.outputs, values, _opset(graphs))
    check_static(model)
    return bytes(model.SerializeToString(deterministic=True))


def _opset(models: Mapping[str, onnx.ModelProto]) -> int:
    """The newest of the graphs' opsets: from 18 on, what bundles may use means the same in all later ones."""
    opsets = {model.opset_import[0].version for model in models.values()}
    if len(opsets) > 1 and min(opsets) < _UPWARD:
        raise BundleError(
            "graphs to fuse",
            expected=f"opset {_UPWARD} or later, or one opset in all of them",
            found=f"opsets {', '.join(map(str, sorted(opsets)))}",
            do="export the bundle again",
        )
    return int(max(opsets))


class _Fusion:
    """One fusing: each step adds to the builder and answers with names of values."""

    def __init__(
        self, builder: GraphBuilder, bundle: Bundle, spec: FusedSpec, graphs: Mapping[str, onnx.GraphProto]
    ) -> None:
        self.builder, self.bundle, self.spec, self.graphs = builder, bundle, spec, graphs

    def values(self) -> dict[str, str]:
        """The whole graph: its outputs by name."""
        add, spec = self.builder.add, self.spec
        photo = add_photo(self.builder, self.bundle, PointGrid(per_side=spec.points_per_side))
        hoisted = self._hoist(photo.image)
        prompts = self._decode(hoisted, photo.points)
        choice = self._choice(prompts["iou"])
        logits, chosen_logits = self._classify(prompts, choice)
        labels = add_labels(self.builder, chosen_logits, spec)
        iou = add_pick(self.builder, prompts["iou"], choice, (spec.prompts, 4))
        score = add_score(self.builder, labels.confidence, iou)
        best = add_best(self.builder, labels, score, spec.kept)
        whole = {"choice": choice, "label": labels.label, "confidence": labels.confidence, "iou": iou, "score": score}
        whole |= {"passed": labels.passed, "recorded": labels.recorded, "probabilities": labels.probabilities}
        whole["tokens"] = prompts["tokens"]
        values = {name: add("Gather", value, best) for name, value in whole.items()}
        state = {name: add("Gather", value, best) for name, value in prompts.items() if name.startswith("m_")}
        values |= {"prompt": best, "logits": self._masks(hoisted, state, values["choice"])}
        values |= self._overlaps(values["logits"], photo.cells)
        values["confident"] = self._count(labels.recorded)
        checked = [prompts[name] for name in ("tokens", "iou", "lattice", "features")]
        values["non_finite"] = self._non_finite([*checked, logits])
        values["spec"] = self._number(spec.number)
        return values

    def _hoist(self, image: str) -> dict[str, str]:
        """The image graph's outputs for the one photo, without the batch axis."""
        first = self.builder.integers(0)
        (outputs,) = self.builder.splice(self.graphs["image"], "image", {"image": image}, [{}])
        return {name: self.builder.add("Squeeze", value, first) for name, value in outputs.items()}

    def _decode(self, hoisted: Mapping[str, str], points: str) -> dict[str, str]:
        """The prompt graph's outputs for all g prompts."""
        shared = {name: hoisted[name] for name in self._inputs("prompt") if name in hoisted}
        parts = [{"points": part} for part in self._split(points, self.spec.prompts)]
        return self._join(self.builder.splice(self.graphs["prompt"], "prompt", shared, parts))

    def _choice(self, iou: str) -> str:
        """(g,) int64: which of a prompt's masks."""
        fixed = _FIXED_CHOICE.get(self.spec.mask_choice)
        if fixed is not None:
            return self.builder.store(np.full(self.spec.prompts, fixed, dtype=np.int64))
        one, four = self.builder.integers(1), self.builder.integers(4)
        tokens = self.builder.add("Slice", iou, one, four, one)  # (g,3): tokens 1 to 3
        return self.builder.add("Add", self.builder.add("ArgMax", tokens, axis=1, keepdims=0), one)

    def _classify(self, prompts: Mapping[str, str], choice: str) -> tuple[str, str]:
        """The head's logits as they are, and (g,c) those of the chosen masks."""
        head, g = self.bundle.head, self.spec.prompts
        features = add_pick(self.builder, prompts["features"], choice, (g, 4, self.bundle.feature_width))
        offered = {"tokens": prompts["tokens"], "features": features}
        feeds = {name: offered[name] for name in self._inputs("head")}
        logits = self.builder.splice(self.graphs["head"], "head", {}, [feeds])[0]["logits"]
        if head is None or head.labels == "prompt":
            return logits, logits
        own = self.builder.add("Sub", choice, self.builder.integers(1))
        return logits, add_pick(self.builder, logits, own, (g, *head.axes(len(self.bundle.classes))))

    def _masks(self, hoisted: Mapping[str, str], state: Mapping[str, str], choice: str) -> str:
        """(n,l,l) low-res logits."""
        read = self._inputs("mask")
        shared = {name: hoisted[name] for name in read if name in hoisted}
        offered = {**state, "choice": choice}
        columns = {name: self._split(offered[name], self.spec.kept) for name in sorted(read - set(shared))}
        parts = [dict(zip(columns, part, strict=True)) for part in zip(*columns.values(), strict=True)]
        return self._join(self.builder.splice(self.graphs["mask"], "mask", shared, parts))["logits"]

    def _overlaps(self, logits: str, cells: str) -> dict[str, str]:
        """Areas, common cells and IoU of masks. Products of 0 and 1 summed below 2²⁴ are exact in any precision."""
        add, n = self.builder.add, self.spec.kept
        zero, one = (self.builder.store(np.array(value, dtype=np.float32)) for value in (0.0, 1.0))
        mask = self.builder.cast(add("And", add("Greater", logits, zero), cells), "float32")
        flat = add("Reshape", mask, self.builder.integers(n, self.bundle.low_res_side**2))
        common = add("MatMul", flat, add("Transpose", flat, perm=[1, 0]))
        area = self.builder.sum(flat, 1)
        both = add("Add", *(add("Unsqueeze", area, self.builder.integers(axis)) for axis in (0, 1)))
        union = add("Max", add("Sub", both, common), one)
        return {
            "mask_iou": add("Div", common, union),
            "intersection": self.builder.cast(common, "int64"),
            "area": self.builder.cast(area, "int64"),
        }

    def _non_finite(self, values: list[str]) -> str:
        """() int64: how many numbers are NaN or infinite, as the host checks what the four graphs answer."""
        largest = self.builder.store(np.array(_FINITE, dtype=np.float32))
        counts = []
        for value in values:
            finite = self.builder.add("LessOrEqual", self.builder.add("Abs", value), largest)
            counts.append(self._count(self.builder.add("Not", finite)))
        total, *rest = counts
        for count in rest:
            total = self.builder.add("Add", total, count)
        return total

    def _count(self, flags: str) -> str:
        """() int64, how many are true; summed as float32 because that is what every engine sums."""
        return self.builder.cast(self.builder.sum(self.builder.cast(flags, "float32")), "int64")

    def _number(self, value: int) -> str:
        """() int64, always this. It reads an input, because not every engine may answer with a constant."""
        zero, number = (self.builder.store(np.array(stored, dtype=np.int64)) for stored in (0, value))
        height = self.builder.add("Gather", "valid", zero)  # ()
        return self.builder.add("Add", self.builder.add("Mul", height, zero), number)

    def _inputs(self, graph: str) -> set[str]:
        return {tensor.name for tensor in self.bundle.graphs[graph].inputs}

    def _split(self, value: str, rows: int) -> list[str]:
        """A value's rows, a chunk at a time; the last may be shorter."""
        chunk = self.spec.chunk
        if rows <= chunk:
            return [value]
        sizes = [min(chunk, rows - start) for start in range(0, rows, chunk)]
        lengths = self.builder.integers(*sizes)
        return self.builder.add_split("Split", value, lengths, outputs=len(sizes), axis=0)

    def _join(self, parts: list[dict[str, str]]) -> dict[str, str]:
        """The parts' outputs, one after another along their first axis."""
        if len(parts) == 1:
            return parts[0]
        return {name: self.builder.add("Concat", *(part[name] for part in parts), axis=0) for name in parts[0]}
