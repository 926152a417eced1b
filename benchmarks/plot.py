"""Line plots as SVG files for docs pages: linear or logarithmic axes, every line labelled at its end.

A file brings its own card, in light or dark as the reader's system is, and no script and no font.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

Kind = Literal["whole", "part", "bound"]
"""What a line is: the measured whole, a measured part of it, or what was computed, which is dashed."""

WIDTH, HEIGHT = 760, 420
TOP, BOTTOM = 74, 58
"""Pixels above the plotted area, for title and y label, and below it."""
_DIGIT, _LETTER = 7.0, 6.6
"""Pixels of a character of 12 pixel text; fonts differ, so rather too many."""
_GAP = 16
"""Least pixels between two labels at the right."""
_INK, _QUIET, _LINE, _CARD = ("#1b1d20", "#e9eaec"), ("#555b63", "#a8aeb6"), ("#e2e5e9", "#33383e"), ("#fff", "#1e2125")
_PARTS = (
    ("#2563a8", "#7db1ec"),
    ("#b4480e", "#f0995f"),
    ("#157a55", "#5cc797"),
    ("#8b3fa0", "#d29be3"),
    ("#80680a", "#d6b84a"),
    ("#c2255c", "#f783ac"),
)
"""Colours of parts, light and dark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        label: The quantity with its unit.
        log: Logarithmic; values at or below 0 have no place on it then.
        ticks: Where it is labelled; empty chooses round numbers.
    """

    label: str
    log: bool = False
    ticks: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line.

    Attributes:
        label: Written at its right end.
        points: (x, y), x rising.
        kind: See ``Kind``.
        colour: Of a part, its number from 0; None gives it that of its place among the parts. Plots that stand together
            give one quantity one colour.
    """

    label: str
    points: Sequence[Sequence[float]]
    kind: Kind = "part"
    colour: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One picture of a page.

    Attributes:
        name: Of its file, without suffix; no other plot has it.
        title: Above it.
        sentence: What it shows, under it on the page.
        x: Across.
        y: Upwards.
        lines: At least one, with at least one point each.
    """

    name: str
    title: str
    sentence: str
    x: Axis
    y: Axis
    lines: Sequence[Line]


def plot_of(value: Mapping[str, Any]) -> Plot:
    """A plot of its JSON values, as ``dataclasses.asdict`` gives them."""
    axes = {name: Axis(**value[name]) for name in ("x", "y")}
    return Plot(**{**value, **axes, "lines": [Line(**line) for line in value["lines"]]})


def draw(plot: Plot) -> str:
    """The plot as the text of an SVG file."""
    across, up = scales(plot)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(plot.title)}">',
        f"<title>{escape(plot.title)}</title>",
        f"<desc>{escape(plot.sentence)}</desc>",
        f"<style>{_style()}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        f'<text class="title" x="20" y="28">{escape(plot.title)}</text>',
        f'<text x="20" y="52">{escape(plot.y.label)}</text>',
        f'<text x="{across.middle:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{escape(plot.x.label)}</text>',
        *_grid(across, up),
        *_curves(plot.lines, across, up),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From values to pixels.

    Attributes:
        low: Value at ``start``.
        high: Value at ``end``.
        start: Pixel.
        end: Pixel.
        log: Whether equal ratios are equally long.
        ticks: Values that are labelled.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: Sequence[float]

    @property
    def middle(self) -> float:
        """Pixel half way."""
        return (self.start + self.end) / 2

    def __call__(self, value: float) -> float:
        """Pixel of a value, which is above 0 on a logarithmic axis."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def shows(self, value: float) -> bool:
        """Whether a value has a place on the axis."""
        return value > 0 or not self.log


def scales(plot: Plot) -> tuple[Scale, Scale]:
    """The axes in pixels: x spans the points, y ends at ticks and starts at 0 where it is linear."""
    xs, ys = (sorted({point[i] for line in plot.lines for point in line.points}) for i in (0, 1))
    low, high = _span(plot.x, xs)
    ticks_y = plot.y.ticks or _round_ticks(*_span(plot.y, ys), plot.y.log)
    left = 20 + 8 + _DIGIT * max(len(show(tick)) for tick in ticks_y)
    right = WIDTH - 34 - _LETTER * max(len(line.label) for line in plot.lines)
    ticks_x = plot.x.ticks or [tick for tick in _round_ticks(low, high, plot.x.log) if low <= tick <= high]
    across = Scale(low=low, high=high, start=left, end=right, log=plot.x.log, ticks=ticks_x)
    ends = (ticks_y[0], ticks_y[-1])
    up = Scale(low=ends[0], high=ends[1], start=HEIGHT - BOTTOM, end=TOP, log=plot.y.log, ticks=ticks_y)
    return across, up


def show(value: float) -> str:
    """A number at a tick."""
    return f"{value:,.10g}"


def _span(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """Least and largest value, never the same; a linear axis starts at 0."""
    if axis.log:
        shown = [value for value in values if value > 0] or [1.0]
        return (shown[0], shown[-1]) if shown[0] < shown[-1] else (shown[0] / 2, shown[0] * 2)
    return (0.0, values[-1]) if values[-1] > 0 else (0.0, 1.0)


def _round_ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers from the one at or below ``low`` to the one at or above ``high``, nine at most."""
    if not log:
        step = next(step for step in _round_steps((high - low) / 8) if (high - low) / step <= 8)
        return [step * i for i in range(math.floor(low / step), math.ceil(high / step - 1e-9) + 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        first = max(i for i, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
        last = min((i for i, tick in enumerate(ticks) if tick >= high * (1 - 1e-9)), default=len(ticks) - 1)
        if last - first < 9:
            return ticks[first : last + 1]
    return ticks


def _round_steps(least: float) -> Iterator[float]:
    """1, 2 and 5 times powers of ten, from just below ``least``."""
    decade = math.floor(math.log10(least))
    while True:
        yield from (float(f"{digit}e{decade}") for digit in (1, 2, 5))
        decade += 1


def _grid(across: Scale, up: Scale) -> Iterator[str]:
    """Lines across with their numbers, and numbers below as far as there is room for them."""
    for tick in up.ticks:
        y = up(tick)
        yield f'<path class="grid" d="M{across.start:.1f} {y:.1f}H{across.end:.1f}"/>'
        yield f'<text x="{across.start - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{show(tick)}</text>'
    free = -math.inf
    for tick in across.ticks:
        x, half = across(tick), _DIGIT * len(show(tick)) / 2
        yield f'<path class="tick" d="M{x:.1f} {up.start:.1f}v5"/>'
        if x - half > free:
            yield f'<text x="{x:.1f}" y="{up.start + 20:.1f}" text-anchor="middle">{show(tick)}</text>'
            free = x + half + 6


def _curves(lines: Sequence[Line], across: Scale, up: Scale) -> Iterator[str]:
    """The lines, their points and their labels; bounds lie below what was measured."""
    styles = _styles(lines)
    ends = {}
    for line in sorted(lines, key=lambda line: line.kind != "bound"):
        places = [(across(x), up(y)) for x, y in line.points if across.shows(x) and up.shows(y)]
        if not places:
            continue
        ends[line.label] = places[-1]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        yield f'<path class="line {styles[line.label]}" d="M{path}"/>'
        if line.kind != "bound":
            yield from (f'<circle class="{styles[line.label]}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    order = sorted(ends, key=lambda label: ends[label][1])
    for label, y in zip(order, spread([ends[label][1] for label in order]), strict=True):
        x, at = ends[label]
        if abs(y - at) > 3 or x < across.end - 1:
            yield f'<path class="lead" d="M{x + 5:.1f} {at:.1f}L{across.end + 13:.1f} {y:.1f}"/>'
        yield f'<text class="{styles[label]}" x="{across.end + 16:.1f}" y="{y + 4:.1f}">{escape(label)}</text>'


def spread(places: Sequence[float]) -> list[float]:
    """Heights of labels, moved as little down or up as keeps them apart and inside.

    Args:
        places: Where they would be, rising.
    """
    low, high = TOP, HEIGHT - BOTTOM + 4
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + _GAP if moved else low))
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], moved[i + 1] - _GAP if i + 1 < len(moved) else high)
    return moved


def _styles(lines: Sequence[Line]) -> dict[str, str]:
    """Class of each label's line."""
    styles = {line.label: line.kind for line in lines if line.kind != "part"}
    parts = [line for line in lines if line.kind == "part"]
    numbers = (i if line.colour is None else line.colour for i, line in enumerate(parts))
    return {**styles, **{line.label: f"part{i % len(_PARTS)}" for line, i in zip(parts, numbers, strict=True)}}


def _style() -> str:
    """The style sheet, dark colours in a query of their own."""
    fixed = (
        'text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}'
        ".title{font-size:15px;font-weight:600}"
        ".line{fill:none;stroke-width:2;stroke-linejoin:round}.line.whole{stroke-width:2.6}"
        ".line.bound{stroke-width:1.5;stroke-dasharray:6 4}.lead,.grid,.tick{fill:none;stroke-width:1}"
    )
    light, dark = (_colours(which) for which in (0, 1))
    return f"{fixed}{light}@media (prefers-color-scheme:dark){{{dark}}}"


def _colours(which: int) -> str:
    ink, quiet, line = _INK[which], _QUIET[which], _LINE[which]
    rules = [f".card{{fill:{_CARD[which]};stroke:{line}}}text,text.bound{{fill:{quiet}}}.title{{fill:{ink}}}"]
    rules.append(f".grid{{stroke:{line}}}.tick,.lead,.line.bound{{stroke:{quiet}}}")
    for name, colour in [("whole", ink), *((f"part{i}", pair[which]) for i, pair in enumerate(_PARTS))]:
        rules.append(f".line.{name}{{stroke:{colour}}}circle.{name},text.{name}{{fill:{colour}}}")
    return "".join(rules)
