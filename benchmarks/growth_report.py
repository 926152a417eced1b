"""What a sweep says: rows of the table, a plot with the roofline, and a sentence that its figures make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from plot import Axis, Line, Plot
from result import Cell
from roofline import measure_roof

from gransam_sdk.evaluation.timing import OTHER, WHOLE

GROUPS: Mapping[str, tuple[str, ...]] = {
    "read, decode": ("read", "decode"),
    "preprocess": ("preprocess",),
    "image graph": ("image graph",),
    "prompt graph": ("prompt graph",),
    "head, select": ("head", "select"),
    "mask graph": ("mask graph",),
    "nms": ("nms",),
    "rle": ("rle",),
    "write, other": ("write", OTHER),
}
"""Columns of the table, and the stages in each."""
COLOURS = ("prompt graph", "mask graph", "read, decode", "rle", "preprocess", "head, select")
"""Columns by the number of their colour in the plots; the others share the last one."""
GRAPHS = ("image graph", "prompt graph", "head", "mask graph")
"""Stages whose work is counted."""
ARITHMETIC, TRAFFIC = "multiply-adds need", "bytes need"
COLUMNS = ("what grows", "value", "masks kept", "ms a photo", *GROUPS, ARITHMETIC, TRAFFIC)
SHOWN_FROM, SHOWN = 0.1, 4
"""Parts with this share of the whole somewhere have a line of their own, so many at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The quantity that grows; with ``log`` both axes are logarithmic."""

    label: str
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One place of a sweep.

    Attributes:
        at: Value of what grows.
        seconds: A photo, by stage, with ``OTHER`` and ``WHOLE``.
        kept: Masks recorded of a photo, mean.
        roof: Seconds that the graphs' multiply-adds alone and their bytes alone need.
    """

    at: float
    seconds: Mapping[str, float]
    kept: float
    roof: tuple[float, float]

    @property
    def whole(self) -> float:
        """Milliseconds of a photo."""
        return 1e3 * self.seconds[WHOLE]

    def group(self, name: str) -> float:
        """Milliseconds of the stages of a column."""
        return self.sum(GROUPS[name])

    def sum(self, stages: Sequence[str]) -> float:
        """Milliseconds of stages; one that nothing went through took none."""
        return 1e3 * sum(self.seconds.get(stage, 0.0) for stage in stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A sweep: its axis and its places, in rising order."""

    axes: Axes
    places: Sequence[Measured]

    def rows(self, name: str) -> list[tuple[Cell, ...]]:
        """Rows of the table, in milliseconds."""
        return [
            (
                name,
                short(place.at),
                round(place.kept, 1),
                *(round(value, 1) for value in (place.whole, *map(place.group, GROUPS))),
                *(round(1e3 * seconds, 1) for seconds in place.roof),
            )
            for place in self.places
        ]

    def plot(self, name: str) -> Plot:
        """The whole photo, its larger parts, and dashed what the graphs need at the machine's rates."""
        ats = [place.at for place in self.places]
        x = Axis(label=self.axes.label, log=self.axes.log, ticks=[short(at) for at in ats])
        lines = [Line(label="whole photo", points=self.points([place.whole for place in self.places]), kind="whole")]
        for part in self.parts():
            points = self.points([place.group(part) for place in self.places])
            lines.append(Line(label=part, points=points, colour=colour_of(part)))
        for i, label in enumerate((ARITHMETIC, TRAFFIC)):
            points = self.points([1e3 * place.roof[i] for place in self.places])
            lines.append(Line(label=label, points=points, kind="bound"))
        return Plot(
            name=f"growth-{name}",
            title=f"Time of a photo by {self.axes.label.partition(',')[0]}",
            sentence=SENTENCES[name](self.places),
            x=x,
            y=Axis(label="milliseconds a photo", log=self.axes.log),
            lines=lines,
        )

    def points(self, values: Sequence[float]) -> list[tuple[float, float]]:
        """A line of the plot: a value a place."""
        return [(place.at, value) for place, value in zip(self.places, values, strict=True)]

    def parts(self) -> list[str]:
        """Columns with a line of their own, the largest first."""
        largest = {name: max(place.group(name) / place.whole for place in self.places) for name in GROUPS}
        return sorted((name for name in largest if largest[name] >= SHOWN_FROM), key=lambda name: -largest[name])[
            :SHOWN
        ]


def colour_of(part: str) -> int:
    """Its number."""
    return COLOURS.index(part) if part in COLOURS else len(COLOURS) - 1


def short(value: float) -> float:
    """Three digits at least, and whole where it is."""
    rounded = round(value, 2 if value < 1 else 1)
    return int(rounded) if rounded == int(rounded) else rounded


def fit(places: Sequence[Measured], values: Sequence[float]) -> tuple[float, float]:
    """(fixed, each): the straight line that is nearest to a value a place, in shares of the whole photo's time."""
    weights = [1.0 / place.whole for place in places]
    each, fixed = np.polyfit([place.at for place in places], values, 1, w=weights)
    return float(fixed), float(each)


def added(places: Sequence[Measured]) -> list[tuple[str, float]]:
    """Columns by their share of what the last place takes more than the first, the largest first."""
    first, last = places[0], places[-1]
    more = {name: last.group(name) - first.group(name) for name in GROUPS}
    whole = sum(more.values())
    return sorted(((name, value / whole) for name, value in more.items()), key=lambda pair: -pair[1])


def say_photo_size(places: Sequence[Measured]) -> str:
    fixed, each = fit(places, [place.whole for place in places])
    (most, share), (next_most, next_share) = added(places)[:2]
    return (
        f"{_ends(places, 'megapixels')}: about {fixed:.0f} ms whatever its size, and {each:.1f} ms a megapixel. Of "
        f"what pixels add, {share:.0%} is {most} and {next_share:.0%} {next_most}; the graphs never see them."
    )


def say_prompts(places: Sequence[Measured]) -> str:
    fixed, each = fit(places, [place.whole for place in places])
    _, needed = fit(places, [1e3 * place.roof[0] for place in places])
    return (
        f"{_ends(places, 'prompts')}: about {fixed:.0f} ms before the first prompt and {each:.2f} ms for each, masks "
        f"included. Multiply-adds alone would need {needed:.2f} ms for each, {needed / each:.0%} of it."
    )


def say_kept(places: Sequence[Measured]) -> str:
    fixed, each = fit(places, [place.whole for place in places])
    slopes = {name: fit(places, [place.group(name) for place in places])[1] for name in ("mask graph", "nms", "rle")}
    parts = ", ".join(f"{slope:.2f} ms {name}" for name, slope in slopes.items())
    return (
        f"{_ends(places, 'kept masks')}: about {fixed:.0f} ms without one and {each:.2f} ms for each ({parts}). A "
        "prompt that is not confident costs no mask."
    )


def say_threads(places: Sequence[Measured]) -> str:
    first, last = places[0], places[-1]
    graphs = first.sum(GRAPHS) / last.sum(GRAPHS)
    return (
        f"{_ends(places, 'threads')}, {first.whole / last.whole:.2f} times as fast; the graphs alone gain "
        f"{graphs:.2f} times, one large matrix product {first.roof[0] / last.roof[0]:.2f} times."
    )


def say_chunk(places: Sequence[Measured]) -> str:
    best = min(places, key=lambda place: place.whole)
    others = [place for place in (places[0], places[-1]) if place is not best]
    slower = " and ".join(f"{place.whole / best.whole:.2f} times with {place.at:g}" for place in others)
    return f"Fastest is a chunk of {best.at:g}, {best.whole:.0f} ms a photo; it takes {slower} at a time."


SENTENCES: Mapping[str, Callable[[Sequence[Measured]], str]] = {
    "photo-size": say_photo_size,
    "prompts": say_prompts,
    "kept": say_kept,
    "threads": say_threads,
    "chunk": say_chunk,
}


def _ends(places: Sequence[Measured], what: str) -> str:
    first, last = places[0], places[-1]
    return f"From {first.at:,.3g} to {last.at:,.4g} {what} a photo takes {first.whole:.0f} to {last.whole:.0f} ms"


def report_notes(photos: int, rounds: int, threads: Sequence[int]) -> list[str]:
    """How it was measured."""
    roofs = "; ".join(str(measure_roof(count)) for count in threads)
    return [
        f"{photos} photos; medians of {rounds} rounds in which all places of a sweep take turns, stages each by "
        "itself, so that they add up to the whole only nearly. From the file's bytes to the record on the disk, one "
        "photo after the other. Masks are recorded down to a confidence of 0.30, as `gransam annotate` does.",
        f"*{ARITHMETIC.capitalize()}*: those of the four graphs' matrix products and convolutions, counted, at the "
        f"rate of one large product in ONNX Runtime. *{TRAFFIC.capitalize()}*: operands and results of the same nodes, "
        f"at the rate at which memory is copied; what a cache holds moves faster. Rates of this run: {roofs}.",
        "Other photo sizes are the same photos resampled. Enlarged ones are smooth, so that a camera's JPEG of that "
        "size decodes more slowly. In the sweep of kept masks, thresholds let a share of the prompts through and "
        "suppression compares all of them but drops next to none; containment is off.",
    ]
