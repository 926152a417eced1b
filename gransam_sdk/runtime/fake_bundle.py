"""The bundle that fake sessions belong to: small sides, six colour classes, no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..bundle import Bundle, Canary, Graph, HeadInfo, Preprocess, Tensor
from ..types import ClassInfo

COLORS = {
    "red": (220, 40, 40),
    "yellow": (220, 200, 40),
    "green": (40, 160, 60),
    "cyan": (40, 190, 200),
    "blue": (40, 70, 210),
    "magenta": (200, 50, 180),
}
SIDE, EMBEDDING, LOW_RES, WIDTH, FEATURES = 64, 16, 64, 8, 6
PLAIN = HeadInfo(background=False, labels="prompt", calibration=None)


def fake_bundle(*, points_per_side: int = 6, head: HeadInfo = PLAIN, names: Sequence[str] = tuple(COLORS)) -> Bundle:
    """A bundle in memory whose graphs are declared but have no bytes.

    Args:
        points_per_side: Side of its prompt grid.
        head: What its logits mean.
        names: Its classes, of ``COLORS``.
    """
    pixels = Tensor("h_pixels", "float32", (LOW_RES, LOW_RES, 3))
    tokens = Tensor("tokens", "float32", ("g", 4, WIDTH))
    state = (4, LOW_RES, LOW_RES)
    graphs = {
        "image": _graph(
            "image",
            [Tensor("image", "float32", ("b", 3, SIDE, SIDE))],
            [Tensor(pixels.name, pixels.dtype, ("b", *pixels.axes))],
        ),
        "prompt": _graph(
            "prompt",
            [pixels, Tensor("points", "float32", ("g", 2))],
            [
                tokens,
                Tensor("iou", "float32", ("g", 4)),
                Tensor("lattice", "float32", ("g", 4, EMBEDDING, EMBEDDING)),
                Tensor("features", "float32", ("g", 4, FEATURES)),
                Tensor("m_logits", "float32", ("g", *state)),
            ],
        ),
        "mask": _graph(
            "mask",
            [Tensor("m_logits", "float32", ("n", *state)), Tensor("choice", "int64", ("n",))],
            [Tensor("logits", "float32", ("n", LOW_RES, LOW_RES))],
        ),
        "head": _graph("head", [tokens], [Tensor("logits", "float32", ("g", *head.axes(len(names))))]),
    }
    return Bundle(
        path=Path("fake"),
        digest="0" * 64,
        contents={},
        name="fake",
        version="1",
        description="colour similarity, for tests",
        precision="fp32",
        architecture="fake",
        input_side=SIDE,
        embedding_side=EMBEDDING,
        low_res_side=LOW_RES,
        token_width=WIDTH,
        feature_width=FEATURES,
        lattice_offset=1,
        preprocess=Preprocess(
            resize="stretch", interpolation="pillow-bilinear", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)
        ),
        points_per_side=points_per_side,
        prompt_chunk=16,
        opset=20,
        graphs=graphs,
        files={},
        head=head,
        classes=tuple(
            ClassInfo(id=i + 1, name=name, color=COLORS[name], threshold=0.5) for i, name in enumerate(names)
        ),
        canary=Canary(points=np.zeros((1, 2), dtype=np.float32), expected={}, tolerance=1.0),
        parity={},
        licence={"code": "Apache-2.0", "weights": "none"},
        provenance={"weights": "none", "training_data": ()},
    )


def _graph(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> Graph:
    return Graph(f"{name}.onnx", "0" * 64, 1, tuple(inputs), tuple(outputs))
