"""A segmenter without an engine: masks by colour similarity, in plain arithmetic.

It speaks the session protocol for tests, soak runs and fault runs: deterministic, quick, and its masks look like masks
(a click selects what has the clicked colour). ``fake_model`` needs no files.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..bundle import Bundle
from ..errors import EnvironmentFault
from ..manifest import LABELLED_MASKS
from ..shapes import AnyArray, Float
from .model import Model
from .session import check_feeds

SCALES = np.array([4.0, 16.0, 8.0, 2.0], dtype=np.float32)
"""How strict each of the four masks is about colour."""
STEEPNESS = 8.0
"""Of mask logits, so that most masks are stable."""


class FakeSession:
    """One graph of a fake bundle (see ``fake_bundle.py``).

    Args:
        bundle: Declares the graph.
        name: image, prompt, mask or head.
    """

    provider = "FakeExecutionProvider"
    threads = 1

    def __init__(self, bundle: Bundle, name: str) -> None:
        self._bundle = bundle
        self._graph = bundle.graphs[name]
        self._compute = {"image": self._image, "prompt": self._prompt, "mask": self._mask, "head": self._head}[name]
        self.runs = 0
        self.closed = False

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the arithmetic once (see ``Session.run``)."""
        if self.closed:
            raise EnvironmentFault(self._graph.file, expected="an open session", found="a closed one")
        check_feeds(self._graph, feeds)
        self.runs += 1
        return self._compute(feeds)

    def close(self) -> None:
        """Refuses further runs."""
        self.closed = True

    def _image(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        image, side = feeds["image"], self._bundle.low_res_side
        step = self._bundle.input_side // side
        pooled = image.reshape(len(image), 3, side, step, side, step).mean(axis=(3, 5))
        return {"h_pixels": np.ascontiguousarray(pooled.transpose(0, 2, 3, 1), dtype=np.float32)}

    def _prompt(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        pixels, points = feeds["h_pixels"], feeds["points"]
        side = self._bundle.low_res_side
        column, row = np.minimum((points * side).astype(np.int64), side - 1).T
        color = pixels[row, column]  # (g,3)
        distance = np.square(pixels[None] - color[:, None, None]).sum(-1)  # (g,l,l)
        logits = (STEEPNESS * (2.0 - SCALES[None, :, None, None] * distance[:, None])).astype(np.float32)
        step = side // self._bundle.embedding_side
        offset = self._bundle.lattice_offset
        lattice = logits[:, :, offset::step, offset::step]
        return {
            "tokens": np.repeat(_widen(color, self._bundle.token_width)[:, None], 4, axis=1),
            "iou": np.clip(0.5 + (logits > 0).mean(axis=(2, 3)), 0, 0.99).astype(np.float32),
            "lattice": np.ascontiguousarray(lattice),
            "features": np.repeat(_widen(color, self._bundle.feature_width)[:, None], 4, axis=1),
            "m_logits": logits,
        }

    def _mask(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        return {"logits": feeds["m_logits"][np.arange(len(feeds["choice"])), feeds["choice"]]}

    def _head(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Background, where the bundle has it, is grey; of masks with a label each, mask 2 has the class after 1's."""
        color, head = feeds["tokens"][:, 0, :3], self._bundle.head
        named = (np.array([info.color for info in self._bundle.classes], dtype=np.float32) - 127.5) / 127.5
        grey = np.zeros((1, 3), dtype=np.float32)
        distance = np.square(color[:, None] - np.concatenate([named, grey])).sum(axis=-1)  # (g,k+1)
        logits = (-4.0 * distance).astype(np.float32)
        if head is not None and head.labels == "mask":
            shifted = [np.roll(logits[:, :-1], shift, axis=1) for shift in range(LABELLED_MASKS)]
            logits = np.stack([np.concatenate([part, logits[:, -1:]], axis=1) for part in shifted], axis=1)
        return {"logits": logits if head is not None and head.background else logits[..., :-1]}


def _widen(color: Float, width: int) -> Float:
    """(g,3) to (g,width) by repeating the three numbers."""
    return np.ascontiguousarray(np.resize(color.T, (width, len(color))).T, dtype=np.float32)


def fake_model(bundle: Bundle) -> Model:
    """A model of fake sessions for a bundle that declares the fake graphs."""
    return Model(bundle, {name: FakeSession(bundle, name) for name in bundle.graphs})
