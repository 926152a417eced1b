"""A tutor: another bundle that knows the same classes and answers every click of the example pictures.

Its segmenter may be larger, or see better; a head on a smaller one learns its answers (Hinton et al. 2015). Both see
the same clicks of the same pictures, so neither their masks nor their tokens need have anything in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import InputError
from ..runtime.model import Model
from ..runtime.select import softmax
from .bags import Bags
from .tokens import CachedPictures, load_bags


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
    what = f"tutor {tutor.name}"
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
            found=f"{len(known)}, of which only one side has {', '.join(different[:5])}",
            do="train the tutor on the same folders",
        )
    if tutor.head.background != background:
        raise InputError(
            what,
            expected="background as the head is to have it: " + ("a logit" if background else "no logit"),
            found="a logit" if tutor.head.background else "no logit",
        )


def with_answers(bags: Bags, pictures: CachedPictures, model: Model, taught: CachedPictures) -> Bags:
    """Gives bags the tutor's answers.

    Args:
        bags: Of ``pictures``.
        pictures: Whose tokens are the base segmenter's.
        model: The tutor's open sessions; see ``check_tutor``.
        taught: The same pictures, whose tokens are the tutor's segmenter's.

    Raises:
        InputError: One of both could not read a picture that the other could.
    """
    if _known(pictures) != _known(taught):
        raise InputError(
            f"tutor {model.bundle.name}",
            expected="answers to the pictures that the base's segmenter has tokens of",
            found=f"{len(taught.examples)} pictures and {len(taught.scenes)} scenes "
            f"instead of {len(pictures.examples)} and {len(pictures.scenes)}",
            do="leave out the pictures that were skipped",
        )
    own = load_bags(taught)
    return replace(
        bags,
        answers=_answers(model, bags.classes, own.instances, own.token_width),
        scenes=replace(bags.scenes, answers=_answers(model, bags.classes, own.scenes.instances, own.token_width)),
    )


def _known(pictures: CachedPictures) -> list[str]:
    return [picture.sha256 for picture in pictures.examples] + [scene.sha256 for scene in pictures.scenes]


def _answers(
    model: Model, classes: Sequence[str], instances: NDArray[np.float16], token_width: int
) -> NDArray[np.float16]:
    """(m,g,c) probabilities, columns in the order of ``classes``, background's last."""
    names = [known.name for known in model.bundle.classes]
    columns = [names.index(name) for name in classes]
    columns += range(len(names), len(names) + bool(model.bundle.head and model.bundle.head.background))
    answers = np.empty((*instances.shape[:2], len(columns)), dtype=np.float16)
    for row, instance in zip(answers, instances, strict=True):
        tokens, features = np.split(instance.astype(np.float32), [token_width], axis=1)
        logits = model.classify(tokens.reshape(len(tokens), 4, -1), features.copy())
        row[:] = softmax(logits[:, columns])
    return answers
