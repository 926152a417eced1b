"""What ``gransam.json`` says about a bundle, as frozen values (the format is in docs/bundle-format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .geometry import Resize
from .onnx_model import Tensor
from .shapes import AnyArray
from .types import ClassInfo

MANIFEST = "gransam.json"
GRAPHS = ("image", "prompt", "mask", "head")
"""Names of the graphs, in the order in which they run first; only ``head`` may be absent."""
LABELLED_MASKS = 3
"""Masks of a prompt that a head may label each on its own: tokens 1 to 3; token 0 is the single-mask mode's."""

LabelUnit = Literal["prompt", "mask"]
"""What has a label of its own: a prompt, whose masks share it, or each of tokens 1 to 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a photo becomes the image graph's input: resize, then (pixel - mean) / std, then zeros around a letterbox.

    Attributes:
        resize: ``stretch`` to the square, or ``letterbox``: the long side fits, the rest is padded right and below.
        interpolation: Always ``pillow-bilinear``.
        mean: By channel, in pixel values 0-255.
        std: By channel, in pixel values, above 0.
    """

    resize: Resize
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadCalibration:
    """How a head's confidences and thresholds were set on held-out example pictures.

    Attributes:
        temperature: Above 0; already folded into the head's graph.
        target: Precision that the thresholds aim at, in (0, 1].
        pictures: Held-out pictures of the classes.
        background_pictures: Held-out pictures of none of them.
    """

    temperature: float
    target: float
    pictures: int
    background_pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadInfo:
    """What the logits of a head mean.

    Attributes:
        background: Whether the last logit is background's; without, background is what no mask covers.
        labels: What has a label of its own.
        calibration: None where confidences are as the head gives them, and thresholds are defaults.
    """

    background: bool
    labels: LabelUnit
    calibration: HeadCalibration | None

    def axes(self, classes: int) -> tuple[int, ...]:
        """Axes of a prompt's logits, (c,) or (3,c); c is ``classes``, and one more with background's."""
        columns = classes + self.background
        return (LABELLED_MASKS, columns) if self.labels == "mask" else (columns,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canary:
    """What the graphs answered for the canary picture when the bundle was written.

    Attributes:
        points: (c,2) float32 XY in [0,1] of the model square.
        expected: float64 arrays by name: ``tokens`` (c,4) norms, ``iou`` (c,4), ``lattice`` (c,4) means, ``mask`` (c,)
            means of the low-res logits, and ``head`` logits, a flat row a point, where the bundle has a head.
        tolerance: Largest difference that rounding may make.
    """

    points: AnyArray
    expected: Mapping[str, AnyArray]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX file of a bundle.

    Attributes:
        file: Its name in the folder.
        sha256: Hex digest of its bytes.
        bytes: Its size.
        inputs: Declared inputs.
        outputs: Declared outputs.
    """

    file: str
    sha256: str
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle that is no graph: hex sha256 and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """The content of ``gransam.json``; sizes by the axis letters of ``shapes``.

    Attributes:
        name: The bundle's name.
        version: Its version.
        description: One line.
        precision: One of ``parity_bars.PRECISIONS``.
        architecture: Family of the segmenter, for people.
        input_side: s.
        embedding_side: e.
        low_res_side: l, a multiple of e.
        token_width: d.
        feature_width: f.
        lattice_offset: i of ``low_res[i::l/e, i::l/e]``.
        preprocess: How a photo becomes the image graph's input.
        points_per_side: Side of the default prompt grid.
        prompt_chunk: Prompts decoded at a time.
        opset: Newest ONNX operator set of the graphs.
        graphs: ``image``, ``prompt``, ``mask`` and perhaps ``head``.
        files: The other files by name.
        head: What the head's logits mean; None exactly where there is no head.
        classes: k classes, ids 1 to k; empty exactly where there is no head.
        canary: What the graphs must answer.
        parity: How close the graphs are to the reference they were exported from: figures by name as
            ``evaluation.parity`` measures them, the ``reference`` in words and, where nobody could run the precision,
            ``verdict``.
        licence: Of ``code`` and ``weights``.
        provenance: Where ``weights`` and ``training_data`` come from.
    """

    name: str
    version: str
    description: str
    precision: str
    architecture: str
    input_side: int
    embedding_side: int
    low_res_side: int
    token_width: int
    feature_width: int
    lattice_offset: int
    preprocess: Preprocess
    points_per_side: int
    prompt_chunk: int
    opset: int
    graphs: Mapping[str, Graph]
    files: Mapping[str, FileEntry]
    head: HeadInfo | None
    classes: tuple[ClassInfo, ...]
    canary: Canary
    parity: Mapping[str, float | str]
    licence: Mapping[str, str]
    provenance: Mapping[str, str | tuple[str, ...]]
