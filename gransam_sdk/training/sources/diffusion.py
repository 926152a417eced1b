"""Example pictures from a diffusion model: one prompt a class, one seed a picture.

The paper's are 200 pictures a class by Stable Diffusion v1-4 with the prompt "a photo of a {c}" (arXiv 2312.02420);
it gives no sampler, steps, guidance, size or seeds: those here are the pipeline's own.

A picture's number decides its seed: ``seed + 1000 · place of its class + number``. A number whose picture was blanked
stays empty and the next one is tried instead; so does one whose picture was deleted later on, if one behind it is left.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..extra import require
from .source import (
    ClassReport,
    Progress,
    SourceReport,
    check_count,
    folder_names,
    made_pictures,
    open_class_folder,
    put_picture,
    taken_numbers,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from .painter import Log, Painter

DEFAULT_MODEL = "CompVis/stable-diffusion-v1-4"
DEFAULT_TEMPLATE = "a photo of a {c}"
SEEDS_PER_CLASS = 1000

_NAME = "diffusion"
_BLANKED_AT_LEAST = 8
"""So many pictures of a class, and a quarter of those wanted, may be blanked in one run before it is given up."""
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig:
    """How pictures are made.

    Attributes:
        model: Name on the hub, or a local folder in diffusers' layout.
        revision: Branch, tag or commit on the hub; None is the default branch, and all that a local folder has.
        template: Prompt; ``{c}`` stands for the class. Taken literally, as in the paper: "a photo of a aeroplane".
        steps: Denoising steps.
        guidance: Weight of the prompt (classifier-free guidance).
        seed: Added to every picture's seed.
        batch: Pictures made at a time; None goes by memory. It does not change what a seed starts from.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    template: str = DEFAULT_TEMPLATE
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    batch: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Reject values that no run can mean."""
        if not self.model.strip():
            raise InputError("model", expected="a name on the hub or a local folder", found=repr(self.model))
        if self.revision is not None and Path(self.model).is_dir():
            raise InputError("revision", expected="none: the model is a local folder", found=repr(self.revision))
        if self.template.count("{c}") != 1:
            raise InputError("template", expected="a prompt with one {c} for the class", found=repr(self.template))
        for name, value in {"steps": self.steps, "batch": 1 if self.batch is None else self.batch}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(name, expected="a whole number from 1", found=repr(value))
        if not math.isfinite(self.guidance) or self.guidance < 0:
            raise InputError("guidance", expected="a number from 0", found=repr(self.guidance))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError("seed", expected="a whole number from 0", found=repr(self.seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lot:
    """One class's share of the work.

    Attributes:
        name: The class.
        folder: Its folder.
        settings: What every picture's provenance says, whatever its number.
        first_seed: Seed of number 0.
        commits: The model's commits that its pictures were made with.
        kept: Its pictures that are there.
        numbers: Where new ones may go, in order.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    first_seed: int
    commits: frozenset[str | None]
    kept: int
    numbers: Sequence[int]


class DiffusionSource:
    """Makes example pictures with a diffusers pipeline.

    Args:
        config: How.
        log: Told what the user should know, a line at a time.
    """

    name = _NAME

    def __init__(self, config: DiffusionConfig | None = None, *, log: Log | None = None) -> None:
        self.config = config or DiffusionConfig()
        self._log = log or (lambda line: None)

    def collect(
        self, classes: Sequence[str], out: Path, *, per_class: int = 200, progress: Progress | None = None
    ) -> SourceReport:
        """Sees to it that every class has its pictures; loads the model only if some are to be made.

        Args:
            classes: Class names; a class's place among them is in its seeds, so add new ones at the end.
            out: Folder to fill; one folder a class is made in it. Pictures of others in there are left alone, and
                not counted.
            per_class: Pictures wanted of each, 1 to 1000. A class for which more than 8 + ``per_class`` / 4 pictures
                are blanked is given up for this run.
            progress: See ``Progress``.

        Raises:
            InputError: A class name or number that cannot be; or pictures in ``out`` that were made in another way.
            MissingExtraError: A package is missing.
            EnvironmentFault: The model or the device cannot be had, or there is not enough memory.
            OutputError: The disk refused; what was written stays.
        """
        check_count(per_class)
        if per_class > SEEDS_PER_CLASS:
            raise InputError("pictures per class", expected=f"at most {SEEDS_PER_CLASS}", found=str(per_class))
        folders = folder_names(classes)
        if self.config.seed + SEEDS_PER_CLASS * len(folders) > _LARGEST_SEED:
            raise InputError("seed", expected="a number whose seeds fit into 63 bits", found=str(self.config.seed))
        lots = [self._plan(index, name, out / folder) for index, (name, folder) in enumerate(folders.items())]
        left = sum(max(0, per_class - lot.kept) for lot in lots)
        painter = self._load(lots) if left else None
        reports: list[ClassReport] = []
        for lot in lots:
            if painter is None or lot.kept >= per_class:
                reports.append(ClassReport(name=lot.name, wanted=per_class, kept=lot.kept))
            else:
                first = not any(report.made or report.skipped for report in reports)
                reports.append(self._fill(lot, painter, per_class, progress, left if first else None))
        return SourceReport(out=out, classes=tuple(reports))

    def _plan(self, index: int, name: str, folder: Path) -> _Lot:
        """What is there and what may be made, checked against the settings before any work is done."""
        config = self.config
        settings = {
            "source": _NAME,
            "model": Path(config.model).resolve().name if Path(config.model).is_dir() else config.model,
            "prompt": config.template.replace("{c}", folder.name),
            "steps": config.steps,
            "guidance": float(config.guidance),
        }
        first_seed = config.seed + SEEDS_PER_CLASS * index
        made = {n: found for n, found in made_pictures(folder).items() if found[1].get("source") == _NAME}
        for number, (path, provenance) in made.items():
            _check_same(path, provenance, {**settings, "seed": first_seed + number})
            if config.revision not in (provenance.get("revision"), provenance.get("commit")):
                raise _made_otherwise(path, "revision", provenance.get("revision"), config.revision)
        taken = taken_numbers(folder)
        return _Lot(
            name=name,
            folder=folder,
            settings={**settings, "revision": config.revision},
            first_seed=first_seed,
            commits=frozenset(provenance.get("commit") for _, provenance in made.values()),
            kept=len(made),
            numbers=[n for n in range(max(made, default=-1) + 1, SEEDS_PER_CLASS) if n not in taken],
        )

    def _load(self, lots: Sequence[_Lot]) -> Painter:
        require("train", "torch", "diffusers", "transformers", "accelerate")
        from .painter import load_painter

        config = self.config
        painter = load_painter(config.model, config.revision, device=config.device, batch=config.batch, log=self._log)
        for lot in lots:
            for commit in lot.commits - {painter.commit}:
                raise _made_otherwise(lot.folder, "commit", commit, painter.commit)
        return painter

    def _fill(
        self, lot: _Lot, painter: Painter, wanted: int, progress: Progress | None, left: int | None
    ) -> ClassReport:
        """One class; ``left`` is how many pictures of all classes are to be made, if the pace is to be told."""
        folder = open_class_folder(lot.folder.parent, lot.folder.name)
        numbers = iter(lot.numbers)
        there = lot.kept
        blanked: list[tuple[str, str]] = []
        while there < wanted and len(blanked) <= _BLANKED_AT_LEAST + wanted // 4:
            some = list(islice(numbers, min(painter.batch, wanted - there)))
            if not some:
                break
            begun = time.monotonic()
            pictures = painter.paint(
                lot.settings["prompt"],
                [lot.first_seed + number for number in some],
                steps=self.config.steps,
                guidance=self.config.guidance,
            )
            if left is not None:
                self._log(_pace(time.monotonic() - begun, len(some), left - len(some)))
                left = None
            for number, picture in zip(some, pictures, strict=True):
                seed = lot.first_seed + number
                if picture is None:
                    blanked.append((f"seed {seed}", "blanked"))
                    continue
                provenance = {**lot.settings, **painter.made_with, "seed": seed, "size": list(picture.size)}
                put_picture(folder, number, _png(picture), ".png", provenance)
                there += 1
                if progress:
                    progress(lot.name, there, wanted)
        return ClassReport(name=lot.name, wanted=wanted, made=there - lot.kept, kept=lot.kept, skipped=tuple(blanked))


def _check_same(path: Path, provenance: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for what, now in settings.items():
        if provenance.get(what) != now:
            raise _made_otherwise(path, what, provenance.get(what), now)


def _made_otherwise(path: Path, what: str, before: object, now: object) -> InputError:
    advice = f"use the same {what} as before, or another folder with -o"
    if what == "seed":
        advice = "keep the seed and the order of the classes, new ones at the end; or use another folder with -o"
    elif what == "commit":
        advice = f"add --revision {before} to go on with the model as it was, or use another folder with -o"
    return InputError(
        f"pictures in {path}", expected=f"{what} {now!r}, as asked for now", found=f"{before!r}", do=advice
    )


def _pace(seconds: float, pictures: int, left: int) -> str:
    """Such as ``95.2 s a picture: about 5.3 hours for the 199 left``."""
    each = seconds / pictures
    rest = each * left
    told = f"{rest / 3600:.1f} hours" if rest >= 3600 else f"{rest / 60:.0f} minutes" if rest >= 90 else f"{rest:.0f} s"
    return f"{each:.1f} s a picture" + (f": about {told} for the {left} left" if left else "")


def _png(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
