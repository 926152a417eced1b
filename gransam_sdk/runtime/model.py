"""One photo through a bundle's graphs, array in, arrays out; no labels are decided here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from ..bundle import Bundle
from ..errors import ImageError
from ..geometry import Frame, reduction_between
from ..shapes import AnyArray, Float, Int, Pixels
from .chunks import Chunks
from .preprocess import normalise, preprocess
from .session import Session

Hoisted = Mapping[str, AnyArray]
"""The image graph's ``h_*`` for one photo, without the batch axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What the prompt graph says of g prompts.

    Attributes:
        points: (g,2) float32 XY in [0,1] of the photo.
        tokens: (g,4,d) float32 mask tokens.
        iou: (g,4) float32 predicted IoU.
        lattice: (g,4,e,e) float32 logits.
        features: (g,4,f) float32 pooled features.
        state: Those of ``m_*`` that the mask graph reads, first axis g.
    """

    points: Float
    tokens: Float
    iou: Float
    lattice: Float
    features: Float
    state: Mapping[str, AnyArray]


class Model:
    """A bundle with its sessions.

    Args:
        bundle: An opened bundle.
        sessions: One session a graph name: image, prompt, mask and, if the bundle has one, head.
    """

    def __init__(self, bundle: Bundle, sessions: Mapping[str, Session]) -> None:
        self.bundle = bundle
        self._sessions = dict(sessions)
        self._chunks = Chunks()

    @property
    def provider(self) -> str:
        """Where the graphs run, as the engine reports it."""
        return self._sessions["image"].provider

    @property
    def threads(self) -> int:
        """Threads that one run may use."""
        return self._sessions["image"].threads

    @property
    def reduced_chunks(self) -> dict[str, int]:
        """Prompts a run takes at most, of those graphs for whose chunk the device had no memory (see ``Chunks``)."""
        return self._chunks.reduced

    def frame(self, pixels: Pixels, size: tuple[int, int] | None = None) -> Frame:
        """How a photo lies in the model square.

        Args:
            pixels: (h,w,3) uint8.
            size: (h, w) of the whole photo where ``pixels`` were decoded to scale.

        Raises:
            InputError: ``pixels`` are not those of a photo of ``size``.
        """
        height, width = pixels.shape[:2]
        reduction = 1 if size is None else reduction_between(size, (height, width))
        return self._fit(size or (height, width), reduction)

    def least(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of a photo of (h,w) that decoding has to leave: two for each that the model is shown.

        The resize then still averages over what it shrinks; with fewer it would only pass on what the decoder made.
        """
        rows, columns = self._fit(size).resized
        return 2 * rows, 2 * columns

    def prepare(self, pixels: Pixels, frame: Frame) -> Float:
        """(h,w,3) uint8 upright RGB to the image graph's input (1,3,s,s) float32."""
        return preprocess(pixels, self.bundle.preprocess, frame)

    def normalise(self, resized: Pixels, frame: Frame) -> Float:
        """The same for a photo that was resized already, (rh,rw,3) uint8."""
        return normalise(resized, self.bundle.preprocess, frame)

    def hoist(self, image: Float) -> Hoisted:
        """(1,3,s,s) float32 to the hoisted tensors of that photo."""
        return {name: value[0] for name, value in self._run("image", {"image": image}).items()}

    def prompt(self, hoisted: Hoisted, frame: Frame, points: Float, chunk: int) -> Iterator[Prompts]:
        """Decodes prompts, ``chunk`` at a time so that a chunk's state stays in cache; fewer where memory runs out.

        Args:
            hoisted: Of this photo.
            frame: Of this photo.
            points: (g,2) float32 XY in [0,1] of the photo.
            chunk: Prompts a run.

        Yields:
            ``Prompts`` of each chunk, in order.

        Raises:
            ImageError: ``non-finite``: the graph gave NaN or infinity.
            OutOfMemoryError: The device has no memory for one prompt.
        """
        shared = self._read_by("prompt", hoisted)

        def decode(rows: slice) -> Prompts:
            part = points[rows]
            out = self._run("prompt", {**shared, "points": frame.to_model(part)})
            return Prompts(
                points=part,
                tokens=out["tokens"],
                iou=out["iou"],
                lattice=out["lattice"],
                features=out["features"],
                state=self._read_by("mask", out),
            )

        yield from self._chunks.run("prompt", len(points), chunk, decode)

    def masks(self, hoisted: Hoisted, state: Mapping[str, AnyArray], choice: Int, chunk: int) -> Float:
        """Low-res logits (n,l,l) of chosen masks.

        Args:
            hoisted: Of this photo.
            state: ``m_*`` rows of the n prompts.
            choice: (n,) int64 in 0..3: which of a prompt's masks.
            chunk: Prompts a run; fewer where memory runs out.

        Raises:
            OutOfMemoryError: The device has no memory for one mask.
        """
        side = self.bundle.low_res_side
        logits = np.empty((len(choice), side, side), dtype=np.float32)
        shared = self._read_by("mask", hoisted)

        def draw(rows: slice) -> None:
            feeds = {**shared, **{name: value[rows] for name, value in state.items()}, "choice": choice[rows]}
            logits[rows] = self._run("mask", feeds)["logits"]

        for _ in self._chunks.run("mask", len(choice), chunk, draw):
            pass
        return logits

    def classify(self, tokens: Float, features: Float) -> Float:
        """Class logits of mask tokens (g,4,d) and the chosen masks' features (g,f); needs a head.

        Returns:
            (g,c) of the prompts, or (g,3,c) of their masks 1 to 3, as ``bundle.head.labels`` says.
        """
        return self._run("head", self._read_by("head", {"tokens": tokens, "features": features}))["logits"]

    def close(self) -> None:
        """Frees all sessions."""
        for session in self._sessions.values():
            session.close()

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes on the way out."""
        self.close()

    def _fit(self, size: tuple[int, int], reduction: int = 1) -> Frame:
        return Frame.fit(size, self.bundle.input_side, self.bundle.preprocess.resize, reduction)

    def _read_by(self, graph: str, offered: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Those of the offered tensors that a graph has as inputs; it may leave some unread."""
        names = (tensor.name for tensor in self.bundle.graphs[graph].inputs)
        return {name: offered[name] for name in names if name in offered}

    def _run(self, graph: str, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        out = self._sessions[graph].run(feeds)
        for name, value in out.items():
            # What is handed on (h_*, m_*) is large, and shows in what the next graph makes of it.
            if not name.startswith(("h_", "m_")) and not np.isfinite(value).all():
                raise ImageError(
                    "non-finite",
                    f"{graph} graph, output {name}",
                    expected="finite numbers",
                    found="NaN or infinity",
                    do="report the photo; with a reduced-precision bundle use a full-precision one",
                )
        return out
