"""Instances of labelled pictures, as training reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..shapes import Bool, Int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneBags:
    """Instances of scenes, where every picture in a scene is a bag of its own.

    Attributes:
        instances: (q,g,4·d + f) float16.
        parts: (q,p) int64 class index of each picture in the scene; -1 background, ``NO_PART`` none.
        part_of: (q,g) int64, the picture under each click.
        rim: (q,g) float16, share of that picture's rim under the chosen mask.
        folds: (q,) int64, see ``fold_numbers``.
    """

    instances: NDArray[np.float16]
    parts: Int
    part_of: Int
    rim: NDArray[np.float16]
    folds: Int

    @classmethod
    def none(cls, prompts: int, width: int) -> Self:
        """No scenes."""
        return cls(
            instances=np.zeros((0, prompts, width), dtype=np.float16),
            parts=np.zeros((0, 1), dtype=np.int64),
            part_of=np.zeros((0, prompts), dtype=np.int64),
            rim=np.zeros((0, prompts), dtype=np.float16),
            folds=np.zeros(0, dtype=np.int64),
        )

    def take(self, rows: Bool) -> Self:
        """The scenes of (q,) ``rows``."""
        return replace(
            self,
            instances=self.instances[rows],
            parts=self.parts[rows],
            part_of=self.part_of[rows],
            rim=self.rim[rows],
            folds=self.folds[rows],
        )

    def under(self) -> Int:
        """(q,g) class index of the picture under each click; -1 background."""
        return np.take_along_axis(self.parts, self.part_of, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bags:
    """Instances of labelled example pictures, and of scenes made of them.

    Attributes:
        classes: Names of the k classes, in the order of their labels.
        instances: (m,g,4·d + f) float16: mask tokens, then pooled features of the chosen mask.
        labels: (m,) int64 class index; -1 for background pictures.
        rim: (m,g) float16, share of the picture's rim under the chosen mask, see ``rim_share``.
        folds: (m,) int64, see ``fold_numbers``.
        scenes: May be none.
        token_width: 4·d, where the tokens end.
        skipped: (path, reason) of pictures that were left out: unreadable ones, and copies.
    """

    classes: tuple[str, ...]
    instances: NDArray[np.float16]
    labels: Int
    rim: NDArray[np.float16]
    folds: Int
    scenes: SceneBags
    token_width: int
    skipped: tuple[tuple[str, str], ...] = ()

    def take(self, pictures: Bool, scenes: Bool) -> Self:
        """The pictures of (m,) ``pictures`` and the scenes of (q,) ``scenes``."""
        return replace(
            self,
            instances=self.instances[pictures],
            labels=self.labels[pictures],
            rim=self.rim[pictures],
            folds=self.folds[pictures],
            scenes=self.scenes.take(scenes),
        )
