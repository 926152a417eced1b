"""How close to its reference a bundle of each precision must be: the bars that its measured parity is held against.

A bundle is judged by its figures, never by a flag in it. What a figure means is said in ``evaluation.parity``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import BundleError

Kind = Literal["at most", "at least", "within"]
"""``within``: neither above the limit nor below its negative."""
_SIGNS = {"at most": "<=", "at least": ">=", "within": "+-"}
UNVERIFIED = "unverified"
"""What ``verdict`` says of a bundle whose precision could not be run where it was made."""
LEAST_MASKS = 1000
"""A reduced precision judged on fewer masks than this is not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One limit.

    Attributes:
        figure: Name of the figure that it limits.
        kind: On which side.
        limit: The limit itself.
        unless: A better figure for the same thing; where it was measured, this bar does not count.
        required: Whether a bundle without the figure (and without ``unless``) breaks the bar.
        count: Figure that counts what this one is a share of: a single one of them that differs never breaks the bar.
    """

    figure: str
    kind: Kind
    limit: float
    unless: str = ""
    required: bool = False
    count: str = ""

    def holds(self, found: float, count: float = 0) -> bool:
        """Whether a figure, perhaps a share of ``count``, keeps to the limit; NaN does not."""
        if self.kind == "at least":
            return found >= self.limit or (0 < (1 - found) * count < 1.5)
        return (abs(found) if self.kind == "within" else found) <= self.limit

    def __str__(self) -> str:
        """``<= 0.001``."""
        return f"{_SIGNS[self.kind]} {self.limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A bar that is broken; ``found`` is None where the figure is missing."""

    bar: Bar
    found: float | None

    def __str__(self) -> str:
        """``tokens_max_abs 0.2``."""
        return f"{self.bar.figure} {'missing' if self.found is None else f'{self.found:.6g}'}"


_FULL = (
    Bar(figure="tokens_max_abs", kind="at most", limit=1e-3),
    Bar(figure="tokens_p999_abs", kind="at most", limit=1e-4),
    Bar(figure="tokens_cosine_min", kind="at least", limit=0.99999),
    Bar(figure="sign_flips", kind="at most", limit=1e-4),
    Bar(figure="mask_iou_mean", kind="at least", limit=0.9995),
    Bar(figure="mask_iou_min", kind="at least", limit=0.98),
    Bar(figure="confident_iou_mean", kind="at least", limit=0.9995),
    Bar(figure="label_agreement", kind="at least", limit=0.999, count="confident"),
    Bar(figure="clear_label_agreement", kind="at least", limit=1.0),
    Bar(figure="kept_iou_mean", kind="at least", limit=0.9995),
    Bar(figure="kept_iou_p1", kind="at least", limit=0.99),
    Bar(figure="kept_f1", kind="at least", limit=0.999, count="kept"),
)
"""The same arithmetic in another engine. A mask of 100 low-res pixels may differ by two of them."""


def _reduced(
    *, cosine: float, norm: float | None, flips: float, mean: float, p1: float, labels: float, f1: float, miou: float
) -> tuple[Bar, ...]:
    """A row for arithmetic in fewer bits: judged by what comes out of it."""
    return (
        Bar(figure="masks", kind="at least", limit=LEAST_MASKS, required=True),
        Bar(figure="tokens_cosine_min", kind="at least", limit=cosine, required=True),
        *([Bar(figure="tokens_relative_norm", kind="at most", limit=norm, required=True)] if norm else []),
        Bar(figure="sign_flips", kind="at most", limit=flips, required=True),
        Bar(figure="mask_iou_mean", kind="at least", limit=mean, unless="kept_iou_mean", required=True),
        Bar(figure="mask_iou_p1", kind="at least", limit=p1, unless="kept_iou_p1", required=True),
        Bar(figure="confident_iou_mean", kind="at least", limit=mean),
        Bar(figure="confident_iou_p1", kind="at least", limit=p1),
        Bar(figure="label_agreement", kind="at least", limit=labels, count="confident"),
        Bar(figure="kept_iou_mean", kind="at least", limit=mean),
        Bar(figure="kept_iou_p1", kind="at least", limit=p1),
        Bar(figure="kept_f1", kind="at least", limit=f1, count="kept"),
        Bar(figure="miou_change", kind="within", limit=miou),
    )


_HALF = _reduced(cosine=0.999, norm=1e-2, flips=2e-3, mean=0.99, p1=0.95, labels=0.995, f1=0.99, miou=0.1)
_INT8 = _reduced(cosine=0.99, norm=None, flips=1e-2, mean=0.97, p1=0.85, labels=0.985, f1=0.97, miou=0.5)

BARS: Mapping[str, tuple[Bar, ...]] = {
    "fp32": _FULL,
    "fp32-w16": _FULL,
    "fp16": _HALF,
    "bf16": _HALF,
    "int8": _INT8,
}
"""Bars by precision."""
PRECISIONS = tuple(BARS)
"""``fp32-w16``: weights stored in 16 bits, computed in 32. What the others reduce is said in docs/parity.md."""
FULL_PRECISIONS = ("fp32", "fp32-w16")
"""Those whose graphs are the reference's own arithmetic."""


def broken_bars(precision: str, figures: Mapping[str, float | str | None]) -> list[Broken]:
    """The bars of a precision that measured figures break.

    Args:
        precision: One of ``PRECISIONS``.
        figures: By name; a figure that is missing or None breaks only the bars that require it.
    """
    broken = []
    for bar in BARS[precision]:
        found = _number(figures, bar.figure)
        if bar.unless and _number(figures, bar.unless) is not None:
            continue
        if found is None and bar.required:
            broken.append(Broken(bar=bar, found=None))
        elif found is not None and not bar.holds(found, _number(figures, bar.count) or 0):
            broken.append(Broken(bar=bar, found=found))
    return broken


def check_parity(what: str, precision: str, figures: Mapping[str, float | str | None]) -> None:
    """Refuses a bundle whose parity does not allow it to be run.

    Args:
        what: The bundle, for the message.
        precision: Its precision.
        figures: Its ``parity``.

    Raises:
        BundleError: A bar is broken, a required figure is missing, or the precision was never run.
    """
    do = "use a bundle of precision fp32-w16, or measure this one: gransam parity BUNDLE --reference CHECKPOINT"
    if figures.get("verdict") == UNVERIFIED:
        raise BundleError(what, expected=f"{precision} that was measured", found="parity verdict unverified", do=do)
    if broken := broken_bars(precision, figures):
        expected = f"parity within the bars of {precision}: {', '.join(f'{b.bar.figure} {b.bar}' for b in broken)}"
        raise BundleError(what, expected=expected, found=", ".join(map(str, broken)), do=do)


def _number(figures: Mapping[str, float | str | None], name: str) -> float | None:
    value = figures.get(name)
    return None if value is None or isinstance(value, str) else float(value)
