"""What is fixed when a bundle's graphs are fused: sizes, grid, classes and thresholds, and a number for all of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from ..bundle import Bundle
from ..classes import ClassSet
from ..errors import BundleError, InputError
from ..manifest import Graph
from ..onnx_model import Tensor
from ..types import MaskChoice, PointGrid, Settings
from .select import check_choice

KEPT = 64
"""n where nobody says otherwise."""
FUSED_FILE = "fused.onnx"
CHOICES: tuple[MaskChoice, ...] = ("best_iou", "single", "whole")
"""Mask choices that a fused graph can hold: one mask a prompt, known without its lattice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedSpec:
    """What a fused graph holds as constants.

    Attributes:
        bundle: Digest of the bundle whose graphs were fused.
        kept: n, masks that come out of a photo, at most g.
        points_per_side: Of the prompt grid.
        chunk: Prompts decoded at a time.
        mask_choice: One of ``CHOICES``.
        groups: Columns of the head's logits that are summed, one tuple for each of ``ClassSet.column_names``.
        thresholds: By label, what passes.
        floors: By label, what is recorded; never above the threshold.
    """

    bundle: str
    kept: int
    points_per_side: int
    chunk: int
    mask_choice: MaskChoice
    groups: tuple[tuple[int, ...], ...]
    thresholds: tuple[float, ...]
    floors: tuple[float, ...]

    @classmethod
    def of(
        cls, bundle: Bundle, classes: ClassSet, settings: Settings, *, kept: int = KEPT, chunk: int | None = None
    ) -> Self:
        """The spec of a run.

        Args:
            bundle: With a head.
            classes: The classes and groups to label, with their thresholds.
            settings: Grid, mask choice and record floor are fixed in the graph; the rest stays with the host.
            kept: n; more than the grid has prompts is as many as it has.
            chunk: Prompts decoded at a time, which bounds the engine's memory; None decodes all at once.

        Raises:
            BundleError: The bundle has no head.
            InputError: ``kept`` or ``chunk`` below 1, or a mask choice that a fused graph cannot hold.
        """
        if bundle.head is None:
            raise BundleError(
                f"bundle {bundle.name}",
                expected="a bundle with a trained head",
                found="graphs without a head",
                do=f"gransam train PICTURES --base {bundle.path} -o my-classes",
            )
        if settings.mask_choice not in CHOICES:
            raise InputError(
                "mask choice of a fused graph",
                expected=" | ".join(CHOICES),
                found=settings.mask_choice,
                do="use the bundle's four graphs for it",
            )
        check_choice(settings.mask_choice, bundle.head)
        grid = PointGrid(per_side=settings.points_per_side or bundle.points_per_side)
        prompts = grid.per_side**2
        thresholds = classes.thresholds
        floor = settings.record_floor
        floors = thresholds if floor is None else np.minimum(thresholds, np.float32(floor))
        return cls(
            bundle=bundle.digest,
            kept=_count("kept", kept, prompts),
            points_per_side=grid.per_side,
            chunk=prompts if chunk is None else _count("chunk", chunk, prompts),
            mask_choice=settings.mask_choice,
            groups=_groups(classes),
            thresholds=tuple(thresholds.tolist()),
            floors=tuple(floors.tolist()),
        )

    @property
    def prompts(self) -> int:
        """g."""
        return self.points_per_side**2

    @property
    def number(self) -> int:
        """31 bits of a sha256 of everything here: the graph answers with it, so that no other's answer is taken."""
        data = json.dumps(asdict(self), sort_keys=True).encode()
        return int.from_bytes(hashlib.sha256(data).digest()[:4], "big") >> 1

    def outputs(self, bundle: Bundle) -> tuple[Tensor, ...]:
        """The graph's outputs, in order; what they mean is in docs/fused.md."""
        n, low = self.kept, bundle.low_res_side
        return (
            Tensor("logits", "float32", (n, low, low)),
            Tensor("prompt", "int64", (n,)),
            Tensor("choice", "int64", (n,)),
            Tensor("label", "int64", (n,)),
            Tensor("confidence", "float32", (n,)),
            Tensor("iou", "float32", (n,)),
            Tensor("score", "float32", (n,)),
            Tensor("passed", "bool", (n,)),
            Tensor("recorded", "bool", (n,)),
            Tensor("probabilities", "float32", (n, len(self.groups))),
            Tensor("tokens", "float32", (n, 4, bundle.token_width)),
            Tensor("mask_iou", "float32", (n, n)),
            Tensor("intersection", "int64", (n, n)),
            Tensor("area", "int64", (n,)),
            Tensor("confident", "int64", ()),
            Tensor("non_finite", "int64", ()),
            Tensor("spec", "int64", ()),
        )

    def graph(self, bundle: Bundle, data: bytes) -> Graph:
        """The graph as sessions want it declared.

        Args:
            bundle: The one whose digest this is.
            data: The fused graph's bytes.
        """
        s = bundle.input_side
        inputs = (Tensor("photo", "uint8", (s, s, 3)), Tensor("valid", "int64", (2,)))
        return Graph(FUSED_FILE, hashlib.sha256(data).hexdigest(), len(data), inputs, self.outputs(bundle))


def _count(name: str, value: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(name, expected="a whole number from 1", found=repr(value))
    return min(value, most)


def _groups(classes: ClassSet) -> tuple[tuple[int, ...], ...]:
    """Labels first, then every column of the head that no label has, as ``ClassSet.group`` orders them."""
    groups = [label.members for label in classes.labels]
    asked = {column for members in groups for column in members}
    columns = len(classes.names) + classes.background
    return (*groups, *((column,) for column in range(columns) if column not in asked))
