"""How far two models' answers for the same prompts are apart, photo by photo: numbers that bars can be put on.

The point grid is clicked in both models with the default settings. Of each prompt all four mask tokens are compared;
where there is a head, so are the labels, and what the segmenter keeps. Memory does not grow with the photos, but for
one number a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from ..errors import EnvironmentFault, ImageError, InputError
from ..runtime.decode import as_pixels
from ..runtime.model import Model
from ..shapes import Pixels
from .parity_answers import Answers, Recorder
from .parity_labels import LabelTally
from .parity_tally import MaskTally
from .parity_truth import Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far a model is from its reference. A share or mean of nothing is None, as is what needs a head.

    IoU is that of thresholded masks: low-res masks inside the valid area, but for ``kept``, whose masks are compared at
    the photo's size. ``p1`` is the first percentile.

    Attributes:
        photos: Photos compared.
        masks: Masks of all four tokens with at least 100 low-res pixels in the reference.
        tokens_max_abs: Largest difference of a mask token's channel.
        tokens_p999_abs: 99.9th percentile of these differences, from a histogram: at most 12 % too high.
        tokens_cosine_min: Least cosine between a token and the reference's.
        tokens_relative_norm: Norm of all differences over the norm of all the reference's tokens.
        iou_max_abs: Largest difference of a predicted IoU.
        sign_flips: Share of low-res logits of all four tokens that are on the other side of 0, valid area only.
        mask_iou_mean: Over ``masks``.
        mask_iou_p1: Over ``masks``.
        mask_iou_min: Over ``masks``.
        worst_photo: File name of the photo with the least mean mask IoU.
        worst_photo_iou: That mean.
        class_logits_max_abs: Largest difference of a class logit.
        confident: Prompts whose chosen mask passes its label's threshold in the reference, before suppression.
        confident_iou_mean: Of their chosen masks, prompt by prompt; a prompt may choose another mask.
        confident_iou_p1: Of the same.
        confident_iou_min: Of the same.
        label_agreement: Share of them with the same largest class.
        clear: Those of them whose largest class leads by more than 0.05.
        clear_label_agreement: Share of these with the same largest class.
        kept: Masks that the segmenter keeps in the reference.
        matched: How many of them pair with a kept mask at IoU 0.5 or more, one to one, best pairs first, whatever the
            label.
        kept_iou_mean: Over ``matched``.
        kept_iou_p1: Over ``matched``.
        kept_iou_min: Over ``matched``.
        kept_f1: F1 of the kept sets; a pair of ``matched`` with the same label is a hit.
        miou_change: mIoU less the reference's, in points of per cent; None without ground truth.
    """

    photos: int
    masks: int
    tokens_max_abs: float
    tokens_p999_abs: float
    tokens_cosine_min: float
    tokens_relative_norm: float
    iou_max_abs: float
    sign_flips: float
    mask_iou_mean: float
    mask_iou_p1: float
    mask_iou_min: float
    worst_photo: str
    worst_photo_iou: float
    class_logits_max_abs: float | None = None
    confident: int | None = None
    confident_iou_mean: float | None = None
    confident_iou_p1: float | None = None
    confident_iou_min: float | None = None
    label_agreement: float | None = None
    clear: int | None = None
    clear_label_agreement: float | None = None
    kept: int | None = None
    matched: int | None = None
    kept_iou_mean: float | None = None
    kept_iou_p1: float | None = None
    kept_iou_min: float | None = None
    kept_f1: float | None = None
    miou_change: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Every attribute; null where there is nothing."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``.

        Raises:
            InputError: A key is missing or unknown, or a value is not a number where one belongs.
        """
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            found = ", ".join(sorted(values.keys() ^ names))
            raise InputError("parity", expected="its keys, each once", found=f"missing or unknown: {found}")
        for field in fields(cls):
            value, kind = values[field.name], field.type
            good = isinstance(value, str) if kind == "str" else _is_number(value, whole="int" in str(kind))
            if not good and not (value is None and "None" in str(kind)):
                raise InputError(f"parity: {field.name}", expected=str(kind), found=repr(value)[:80])
        return cls(**values)

    def figures(self) -> dict[str, float]:
        """The numbers that there are, by name: what a bundle's manifest carries and bars are put on."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int | float)}


HEAD_FIGURES = ("class_logits_max_abs", "label_agreement", "clear", "clear_label_agreement", "kept_f1", "miou_change")
"""Figures that speak of a head's labels, and say nothing once the bundle has another head."""


def measure_parity(
    model: Model,
    reference: Model,
    photos: Sequence[Path],
    *,
    truth: Truth | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Parity:
    """Compares a model with its reference on the model's point grid.

    Args:
        model: What is judged.
        reference: Answers for the same square, tokens and classes; both have a head, or neither is asked for labels.
        photos: Real photos; each is decoded once.
        truth: Label maps of the photos, for ``miou_change``; needs a head.
        progress: Told how many photos are done.

    Raises:
        InputError: No photos, or models that cannot be compared.
        ImageError: A photo cannot be read.
        EnvironmentFault: A graph gave NaN or infinity, or no mask was large enough to compare.
    """
    if not photos:
        raise InputError("photos for parity", expected="real photos", found="none")
    check_comparable(model, reference)
    judged, told = Recorder(model), Recorder(reference)
    masks, labels = MaskTally(), LabelTally()
    for done, photo in enumerate(photos, start=1):
        pixels = as_pixels(photo)
        expected = _answers(told, pixels, model.bundle.points_per_side, photo, "the reference")
        found = _answers(judged, pixels, model.bundle.points_per_side, photo, f"bundle {model.bundle.name}")
        masks.add(photo.name, found, expected)
        labels.add(found, expected)
        if truth is not None:
            truth.add(photo, found.result, expected.result)
        progress(done)
    return Parity(**masks.figures(), **labels.figures(), miou_change=truth.change() if truth else None)


def check_comparable(model: Model, reference: Model) -> None:
    """Checks that two models answer the same questions.

    Raises:
        InputError: Another square, resize, mask side, token width or classes.
    """
    for name in ("input_side", "low_res_side", "token_width", "preprocess", "head", "classes"):
        ours, theirs = getattr(model.bundle, name), getattr(reference.bundle, name)
        if name == "classes":
            ours, theirs = ([info.name for info in each] for each in (ours, theirs))
        if name == "head":
            ours, theirs = (each and each.axes(0) for each in (ours, theirs))
        if ours != theirs:
            raise InputError(
                f"reference of bundle {model.bundle.name}",
                expected=f"{name} {ours}",
                found=f"{theirs}",
                do="compare a bundle with the checkpoint it was made of, or with a bundle of that checkpoint",
            )


def _answers(recorder: Recorder, pixels: Pixels, points_per_side: int, photo: Path, who: str) -> Answers:
    try:
        return recorder.answer(pixels, points_per_side)
    except ImageError as error:
        raise EnvironmentFault(
            f"parity on {photo.name}", expected="finite numbers", found=f"{error.found} from {who}: {error.what}"
        ) from error


def _is_number(value: object, *, whole: bool) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (not whole and isinstance(value, float))
