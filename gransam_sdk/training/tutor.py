"""A tutor: another bundle that knows the same classes and answers every click of the example pictures.

Its segmenter may be larger, or see better; a head on a smaller one learns its answers (Hinton et al. 2015). Both see
the same clicks of the same pictures, so neither their masks nor their tokens need have anything in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import InputError
from ..runtime.model import Model
from ..runtime.select import softmax
from .bags import Bags
from .tokens import CachedPictures, load_bags

SHOWN = 5
"""Pictures or classes that a message lists at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """A tutor's probabilities, columns in the order of the folders' classes, background's last.

    Attributes:
        pictures: (m,g,c) float16.
        scenes: (q,g,c) float16.
    """

    pictures: NDArray[np.float16]
    scenes: NDArray[np.float16]

    def beside(self, bags: Bags) -> Bags:
        """The bags of the same pictures and scenes, with the answers."""
        return replace(bags, answers=self.pictures, scenes=replace(bags.scenes, answers=self.scenes))


def check_tutor(tutor: Bundle, base: Bundle, classes: Sequence[str], *, background: bool) -> None:
    """Rejects a tutor whose answers a head could not learn.

    Args:
        tutor: The bundle that answers.
        base: The bundle whose segmenter the head is for.
        classes: Names of the k classes to learn.
        background: Whether the head is to have a logit for background.

    Raises:
        InputError: The tutor has no head, labels masks instead of prompts, has other clicks or other classes, or has
            background where the head has not.
    """
    what = f"tutor {tutor.path}"
    if tutor.head is None:
        raise InputError(what, expected="a bundle with a trained head", found="graphs without a head")
    if tutor.head.labels != "prompt":
        raise InputError(what, expected="a head that labels prompts", found="one that labels masks")
    if tutor.points_per_side != base.points_per_side:
        raise InputError(
            what,
            expected=f"the base's clicks, {base.points_per_side} a side",
            found=f"{tutor.points_per_side} a side",
        )
    known = {known.name for known in tutor.classes}
    if known != set(classes):
        different = sorted(known.symmetric_difference(classes))
        raise InputError(
            what,
            expected=f"the {len(classes)} classes of the folders",
            found=f"{len(known)}, of which only one side has {', '.join(different[:SHOWN])}",
            do="train the tutor on the same folders",
        )
    if tutor.head.background != background:
        raise InputError(
            what,
            expected="background as the head is to have it: " + ("a logit" if background else "no logit"),
            found="a logit" if tutor.head.background else "no logit",
        )


def answers_of(model: Model, taught: CachedPictures, pictures: CachedPictures) -> Answers:
    """What a tutor says of every click.

    Args:
        model: The tutor's open sessions; see ``check_tutor``.
        taught: The pictures, whose tokens are the tutor's segmenter's.
        pictures: The same, whose tokens are those that the head is to be for.

    Raises:
        InputError: One segmenter has no tokens of a picture that the other has.
        OutputError: See ``load_bags``.
    """
    _check_same(model, taught, pictures)
    bags = load_bags(taught)
    names = [known.name for known in model.bundle.classes]
    columns = [names.index(name) for name in taught.classes]
    columns += range(len(names), len(names) + bool(model.bundle.head and model.bundle.head.background))

    def answer(instances: NDArray[np.float16]) -> NDArray[np.float16]:
        answers = np.empty((*instances.shape[:2], len(columns)), dtype=np.float16)
        for row, instance in zip(answers, instances, strict=True):
            tokens, features = np.split(instance.astype(np.float32), [bags.token_width], axis=1)
            row[:] = softmax(model.classify(tokens.reshape(len(tokens), 4, -1), features.copy())[:, columns])
        return answers

    return Answers(pictures=answer(bags.instances), scenes=answer(bags.scenes.instances))


def _check_same(model: Model, taught: CachedPictures, pictures: CachedPictures) -> None:
    there = [{example.sha256: example.name for example in one.examples} for one in (taught, pictures)]
    if there[0].keys() == there[1].keys() and _scenes(taught) == _scenes(pictures):
        return
    one_sided = [(there[0] | there[1])[sha256] for sha256 in sorted(there[0].keys() ^ there[1].keys())]
    raise InputError(
        f"tutor {model.bundle.path}",
        expected="tokens of the same pictures and scenes from both segmenters",
        found=f"only one could take {', '.join(one_sided[:SHOWN]) or 'a scene'}",
        do="leave these pictures out and train again; all other tokens are kept",
    )


def _scenes(pictures: CachedPictures) -> list[str]:
    return [scene.sha256 for scene in pictures.scenes]
