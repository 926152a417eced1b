"""A photo in, labelled masks out: the ten-line story of the SDK, and its bookkeeping."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

import numpy as np

from ..bundle import Bundle
from ..classes import ClassSet
from ..geometry import Frame, full_size_mask
from ..rle import rle_area, rle_box, rle_encode_crop
from ..shapes import Float, Pixels
from ..types import PointGrid, Rle, Settings
from .decode import ImageSource, as_pixels, decode_source
from .decode_scale import Least
from .found import Found
from .model import Hoisted, Model
from .result import Result
from .select import check_choice, choose_masks, chosen_logits, join_touching, label_masks, stability
from .steps import Inferred, Prepared, StageClock

RUNNERS_UP = 2


class Segmenter:
    """Labels photos with the classes of a bundle.

    Use ``gransam_sdk.load`` to make one. It keeps no state between photos, and one segmenter may be shared by
    threads as far as its engine allows (ONNX Runtime does).

    Args:
        model: A bundle with a head and its sessions; closed with the segmenter.
        classes: The classes and groups to label.
        settings: What else changes a result.
        at_once: Photos that its threads suffice for at a time; ``infer`` may be called by so many.

    Raises:
        InputError: The mask choice may choose masks that the bundle has no label for.
    """

    def __init__(self, model: Model, classes: ClassSet, settings: Settings, *, at_once: int = 1) -> None:
        check_choice(settings.mask_choice, model.bundle.head)
        self._model = model
        self.classes = classes
        self.settings = settings
        self.at_once = at_once
        self.grid = PointGrid(per_side=settings.points_per_side or model.bundle.points_per_side)
        self.chunk = settings.chunk or model.bundle.prompt_chunk

    @property
    def bundle(self) -> Bundle:
        """The bundle that is running."""
        return self._model.bundle

    @property
    def provider(self) -> str:
        """Where the graphs run, as the engine reports it."""
        return self._model.provider

    @property
    def threads(self) -> int:
        """Threads that one run may use."""
        return self._model.threads

    @property
    def reduced_chunks(self) -> dict[str, int]:
        """Prompts a run takes at most, of those graphs for whose chunk the device had no memory; mostly empty."""
        return self._model.reduced_chunks

    @property
    def least(self) -> Least | None:
        """What ``decode_photo`` has to leave of a photo; None without ``Settings.decode_to_scale``."""
        return self._model.least if self.settings.decode_to_scale else None

    @property
    def fingerprint(self) -> dict[str, object]:
        """Everything that changes a result, as JSON values: two equal fingerprints give equal records.

        The chunk in it is the one that was asked for. Where memory ran out ``reduced_chunks`` says so, and records
        may differ by rounding.
        """
        settings = self.settings
        return {
            "bundle": self.bundle.digest,
            "provider": self.provider,
            "precision": self.bundle.precision,
            "chunk": self.chunk,
            "points_per_side": self.grid.per_side,
            "mask_choice": settings.mask_choice,
            "record_floor": settings.record_floor,
            "pred_iou_thresh": settings.pred_iou_thresh,
            "stability_score_thresh": settings.stability_score_thresh,
            "nms_iou": settings.nms_iou,
            "class_aware": settings.class_aware,
            "containment": settings.containment,
            "join_fragments": settings.join_fragments,
            "decode_to_scale": settings.decode_to_scale,
            "classes": self.classes.to_json(),
        }

    def __call__(self, images: ImageSource | list[ImageSource] | tuple[ImageSource, ...]) -> list[Result]:
        """Labels photos.

        Args:
            images: One photo or a list or tuple of them: path, encoded bytes, PIL image, or (h,w,3) uint8 RGB array.

        Returns:
            One result a photo, in order; a single photo gives a list of one.

        Raises:
            ImageError: A file cannot be read as a photo.
            InputError: An array is not (h,w,3) uint8.
        """
        batch: Iterable[ImageSource] = images if isinstance(images, list | tuple) else [images]
        return list(self.stream(batch))

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Result]:
        """Labels photos one by one as the results are consumed; memory does not grow with their number."""
        for image in images:
            if isinstance(image, bytes | str | os.PathLike):
                photo = decode_source(image, self.least)
                yield self.segment(photo.pixels, size=photo.size)
            else:
                yield self.segment(as_pixels(image))

    def segment(self, pixels: Pixels, *, size: tuple[int, int] | None = None, keep_tokens: bool = False) -> Result:
        """Labels one photo: ``prepare``, ``infer`` and ``finish``, which threads may also do one after the other.

        Args:
            pixels: (h,w,3) uint8, upright RGB.
            size: (h, w) of the whole photo where ``pixels`` were decoded to scale; masks, boxes and points are of it.
            keep_tokens: Also return the mask tokens behind each mask.

        Raises:
            InputError: ``pixels`` are not those of a photo of ``size``.
        """
        return self.finish(self.infer(self.prepare(pixels, size=size)), keep_tokens=keep_tokens)

    def prepare(self, pixels: Pixels, *, size: tuple[int, int] | None = None) -> Prepared:
        """The first step of ``segment``: the photo as the model is shown it; no graph runs.

        Args:
            pixels: (h,w,3) uint8, upright RGB.
            size: (h, w) of the whole photo where ``pixels`` were decoded to scale.

        Raises:
            InputError: ``pixels`` are not those of a photo of ``size``.
        """
        clock, frame = StageClock(), self._model.frame(pixels, size)
        with clock.stage("preprocess"):
            image = self._model.prepare(pixels, frame)
        return Prepared(frame=frame, feeds={"image": image}, seconds=clock.seconds)

    def infer(self, prepared: Prepared) -> Inferred:
        """The second step: all that needs the graphs.

        Raises:
            ImageError: ``non-finite``: a graph gave NaN or infinity.
            EnvironmentFault: The engine failed.
        """
        clock, model, frame = StageClock(prepared.seconds), self._model, prepared.frame
        with clock.stage("image graph"):
            hoisted = model.hoist(prepared.feeds["image"])
        found = self._find(hoisted, frame, clock)
        with clock.stage("mask graph"):
            logits = model.masks(hoisted, found.state, found.choice, self.chunk)
        return Inferred(frame=frame, found=found.without_state(), logits=logits, seconds=clock.seconds)

    def finish(self, inferred: Inferred, *, keep_tokens: bool = False) -> Result:
        """The last step: suppression, fragments joined if asked for, run lengths; no graph runs.

        Args:
            inferred: Of this segmenter.
            keep_tokens: Also return the mask tokens behind each mask.
        """
        clock, frame = StageClock(inferred.seconds), inferred.frame
        rows, cols = frame.valid(self.bundle.low_res_side)
        with clock.stage("nms"):
            keep = inferred.surviving(self.settings)
            found, logits = inferred.found.take(keep), inferred.logits[keep]
            if self.settings.join_fragments and len(logits):
                logits, leaders = join_touching(logits, logits[:, :rows, :cols] > 0, found.label, found.passed)
                found = found.take(leaders)
            stable = stability(logits[:, :rows, :cols])
        with clock.stage("rle"):
            codes = [rle_encode_crop(*full_size_mask(low_res, frame), frame.size) for low_res in logits]
        # A mask smaller than a pixel at the photo's size is no mask.
        visible = np.array([rle_area(code) > 0 for code in codes], dtype=np.bool_)
        return self._result(
            frame,
            found.take(visible),
            masks=[code for code, shown in zip(codes, visible, strict=True) if shown],
            stable=stable[visible],
            timings=clock.seconds,
            keep_tokens=keep_tokens,
        )

    def close(self) -> None:
        """Frees the sessions."""
        self._model.close()

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes on the way out."""
        self.close()

    def _find(self, hoisted: Hoisted, frame: Frame, clock: StageClock) -> Found:
        """Decodes the grid and keeps what is confident enough, with the state its masks need."""
        parts: list[Found] = []
        chunks = self._model.prompt(hoisted, frame, self.grid.points(), self.chunk)
        while True:
            with clock.stage("prompt graph"):
                prompts = next(chunks, None)
            if prompts is None:
                return Found.join(parts)
            choice = choose_masks(self.settings.mask_choice, prompts.iou, prompts.lattice)
            with clock.stage("head"):
                features = prompts.features[np.arange(len(choice)), choice[:, 0]]
                logits = self._model.classify(prompts.tokens, features)
            with clock.stage("select"):
                labels = label_masks(chosen_logits(logits, choice), self.classes, self.settings)
                parts.append(Found.of(prompts, choice, labels))

    def _result(
        self,
        frame: Frame,
        found: Found,
        *,
        masks: list[Rle],
        stable: Float,
        timings: Mapping[str, float],
        keep_tokens: bool,
    ) -> Result:
        height, width = frame.size
        labels = [self.classes.labels[i] for i in found.label]
        names = self.classes.column_names
        return Result(
            size=frame.size,
            class_ids=np.array([label.id for label in labels], dtype=np.int64),
            names=tuple(label.name for label in labels),
            confidence=found.confidence,
            predicted_iou=found.iou,
            stability_score=stable,
            boxes=np.array([rle_box(code) for code in masks], dtype=np.float32).reshape(-1, 4),
            masks=tuple(masks),
            points=found.points * np.array([width, height], dtype=np.float32),
            runner_up=tuple(
                tuple((names[c], float(p[c])) for c in order[1 : 1 + RUNNERS_UP])
                for order, p in zip(found.order, found.probabilities, strict=True)
            ),
            passed=found.passed,
            timings=timings,
            tokens=found.tokens if keep_tokens else None,
        )
