"""What a model says of one photo, noted while a segmenter uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..bundle import Bundle
from ..classes import ClassSet, select_classes
from ..geometry import Frame
from ..runtime.model import Hoisted, Model, Prompts
from ..runtime.result import Result
from ..runtime.segmenter import Segmenter
from ..runtime.select import Labels, choose_masks, chosen_logits, label_masks
from ..shapes import AnyArray, Bool, Float, Int, Pixels
from ..types import PointGrid, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A model's answers for all g prompts of one photo.

    Attributes:
        tokens: (g,4,d) float32.
        iou: (g,4) float32, predicted.
        masks: (g,4,y,x) bool, low-res masks inside the valid area.
        choice: (g,) int64, the mask that the segmenter takes.
        class_logits: (g,c) or (g,3,c) float32; None without a head.
        labels: Of the chosen masks; None without a head.
        result: What the segmenter keeps; None without a head.
    """

    tokens: Float
    iou: Float
    masks: Bool
    choice: Int
    class_logits: Float | None
    labels: Labels | None
    result: Result | None


class Recorder(Model):
    """A model that notes its answers on their way to whoever runs it; the sessions stay the other model's.

    Args:
        model: Does the work.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model.bundle, {})
        self._model = model
        self._tokens: list[Float] = []
        self._iou: list[Float] = []
        self._choice: list[Int] = []
        self._masks: list[Bool] = []
        self._class_logits: list[Float] = []

    @property
    def provider(self) -> str:
        """The other model's."""
        return self._model.provider

    @property
    def threads(self) -> int:
        """The other model's."""
        return self._model.threads

    def hoist(self, image: Float) -> Hoisted:
        """See ``Model.hoist``."""
        return self._model.hoist(image)

    def prompt(self, hoisted: Hoisted, frame: Frame, points: Float, chunk: int) -> Iterator[Prompts]:
        """See ``Model.prompt``; all four masks of each prompt are made and noted."""
        rows, cols = frame.valid(self.bundle.low_res_side)
        for prompts in self._model.prompt(hoisted, frame, points, chunk):
            count = len(prompts.points)
            every = [
                self.masks(hoisted, prompts.state, np.full(count, mask), chunk)[:, :rows, :cols] > 0
                for mask in range(prompts.iou.shape[1])
            ]
            self._tokens.append(prompts.tokens)
            self._iou.append(prompts.iou)
            self._masks.append(np.stack(every, axis=1))
            self._choice.append(choose_masks("best_iou", prompts.iou, prompts.lattice)[:, 0])
            yield prompts

    def masks(self, hoisted: Hoisted, state: Mapping[str, AnyArray], choice: Int, chunk: int) -> Float:
        """See ``Model.masks``."""
        return self._model.masks(hoisted, state, choice, chunk)

    def classify(self, tokens: Float, features: Float) -> Float:
        """See ``Model.classify``."""
        logits = self._model.classify(tokens, features)
        self._class_logits.append(logits)
        return logits

    def answer(self, pixels: Pixels, points_per_side: int) -> Answers:
        """Segments one photo (h,w,3) with the default settings and hands over what was noted.

        Raises:
            ImageError: A graph gave NaN or infinity.
        """
        for parts in (self._tokens, self._iou, self._masks, self._choice, self._class_logits):
            parts.clear()
        settings = Settings(points_per_side=points_per_side)
        result, labels, classes = None, None, all_classes(self.bundle)
        if self.bundle.has_head:
            result = Segmenter(self, classes, settings).segment(pixels)
        else:
            frame = self.frame(pixels)
            points = PointGrid(per_side=points_per_side).points()
            for _ in self.prompt(self.hoist(self.prepare(pixels, frame)), frame, points, self.bundle.prompt_chunk):
                pass
        choice = np.concatenate(self._choice)
        class_logits = np.concatenate(self._class_logits) if self._class_logits else None
        if class_logits is not None:
            labels = label_masks(chosen_logits(class_logits, choice[:, None]), classes, settings)
        return Answers(
            tokens=np.concatenate(self._tokens),
            iou=np.concatenate(self._iou),
            masks=np.concatenate(self._masks),
            choice=choice,
            class_logits=class_logits,
            labels=labels,
            result=result,
        )


def all_classes(bundle: Bundle) -> ClassSet:
    """Every class of a bundle with its own threshold."""
    return select_classes(bundle.classes, background=bundle.head is not None and bundle.head.background)
