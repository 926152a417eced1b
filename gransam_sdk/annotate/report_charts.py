"""The small pictures of the report, as inline SVG and HTML that style sheets colour: histograms and bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _FOOT = 400, 120, 22


def histogram(labelled: Sequence[int], below: Sequence[int], what: str) -> str:
    """Masks by value from 0 to 1, those below their threshold stacked on top in a paler colour.

    Args:
        labelled: Count by bin.
        below: Count by bin, as many bins; all zero if there is no such thing.
        what: The quantity, for screen readers and the bars' titles.
    """
    highest = max(a + b for a, b in zip(labelled, below, strict=True))
    step = _WIDTH / len(labelled)
    parts = []
    for i, (kept, dropped) in enumerate(zip(labelled, below, strict=True)):
        if not kept + dropped:
            continue
        title = f"{what} {i / len(labelled):.2f} to {(i + 1) / len(labelled):.2f}: {kept:,} labelled"
        title += f", {dropped:,} below the threshold" if dropped else ""
        tall, taller = (_HEIGHT * count / highest for count in (kept, kept + dropped))
        x, width = i * step + 1, step - 2
        parts.append(
            f"<g><title>{escape(title)}</title>"
            f'<path class="below" d="M{x:.1f} {_HEIGHT - taller:.1f}h{width:.1f}V{_HEIGHT - tall:.1f}h-{width:.1f}z"/>'
            f'<path class="kept" d="M{x:.1f} {_HEIGHT - tall:.1f}h{width:.1f}V{_HEIGHT}h-{width:.1f}z"/></g>'
        )
    ticks = "".join(
        f'<text x="{place * _WIDTH:.0f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">{place:g}</text>'
        for place, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    label = f"Histogram of {what}, highest bar {highest:,} masks"
    return (
        f'<svg class="histogram" role="img" aria-label="{escape(label)}" viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}">'
        f'{"".join(parts)}<path class="axis" d="M0 {_HEIGHT}.5H{_WIDTH}"/>{ticks}</svg>'
    )


def sparkline(labelled: Sequence[int], below: Sequence[int], threshold: float, what: str) -> str:
    """The same in the height of a line of text, with a mark at the threshold."""
    highest = max(a + b for a, b in zip(labelled, below, strict=True))
    bars = []
    for i, (kept, dropped) in enumerate(zip(labelled, below, strict=True)):
        tall, taller = (24 * count / highest for count in (kept, kept + dropped))
        bars.append(
            f'<path class="below" d="M{6 * i + 1} {24 - taller:.1f}h4V{24 - tall:.1f}h-4z"/>' if dropped else ""
        )
        bars.append(f'<path class="kept" d="M{6 * i + 1} {24 - tall:.1f}h4V24h-4z"/>' if kept else "")
    width = 6 * len(labelled)
    at = threshold * width
    return (
        f'<svg class="sparkline" role="img" aria-label="{escape(what)}" viewBox="0 0 {width} 26">{"".join(bars)}'
        f'<path class="axis" d="M0 24.5H{width}"/><path class="mark" d="M{at:.1f} 0V26"/></svg>'
    )


def bar(share: float, color: tuple[int, int, int] | None = None) -> str:
    """A bar of a share of the column, in a class's colour or the page's."""
    style = f"width:{100 * share:.1f}%" + ("" if color is None else f";background:{rgb(color)}")
    return f'<span class="track"><span class="bar" style="{style}"></span></span>'


def rgb(color: tuple[int, int, int]) -> str:
    """A colour as style sheets write it."""
    return f"rgb({color[0]},{color[1]},{color[2]})"
