"""What a profile says: the table, and sentences that its figures make on what the next factor of two would need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from result import Cell
from roofline import Roof

from gransam_sdk.evaluation.timing import OTHER, STAGES, WHOLE

COLUMNS = ("where", "what", "times", "ms", "share %", "million multiply-adds", "GMAC/s", "of a large product's %")
GRAPH_STAGES = {"image": "image graph", "prompt": "prompt graph", "head": "head", "mask": "mask graph"}
"""Stage of each graph."""
SMALL = 0.01
"""Operators below this share of the whole are put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of a photo: how often, how long, and how many multiply-adds."""

    calls: float = 0.0
    seconds: float = 0.0
    multiply_adds: float = 0.0

    def __add__(self, other: Share) -> Share:
        """Both together."""
        return Share(
            calls=self.calls + other.calls,
            seconds=self.seconds + other.seconds,
            multiply_adds=self.multiply_adds + other.multiply_adds,
        )

    def __mul__(self, times: float) -> Share:
        """So many times as much."""
        return Share(calls=self.calls * times, seconds=self.seconds * times, multiply_adds=self.multiply_adds * times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A photo on average.

    Attributes:
        graphs: By graph, operators as ONNX Runtime names them, without what profiling costs.
        stages: Seconds by stage, as the runtime clocks them, with ``OTHER`` and ``WHOLE``, without a profile.
        profiled: Seconds of a whole photo with a profile.
    """

    graphs: Mapping[str, Mapping[str, Share]]
    stages: Mapping[str, float]
    profiled: float

    @property
    def whole(self) -> float:
        """Seconds of a photo."""
        return self.stages[WHOLE]

    def operators(self, counted: bool) -> Share:
        """Nodes of all graphs: those that multiply matrices, or the others."""
        every = (share for shares in self.graphs.values() for share in shares.values())
        return total(share for share in every if (share.multiply_adds > 0) == counted)

    def around(self, graph: str) -> float:
        """Seconds of a graph's stage outside of its operators: dispatch, checks, handing on."""
        return self.stages[GRAPH_STAGES[graph]] - total(self.graphs[graph].values()).seconds

    def host(self) -> float:
        """Seconds outside of the graphs' stages."""
        return self.whole - sum(self.stages[GRAPH_STAGES[graph]] for graph in self.graphs)


def total(shares: Iterable[Share]) -> Share:
    """All together."""
    return sum(shares, Share())


def table(profile: Profile, roof: Roof) -> list[tuple[Cell, ...]]:
    """Graph by graph, the largest operators first; then the stages around them."""

    def row(where: str, what: str, share: Share) -> tuple[Cell, ...]:
        rate = share.multiply_adds / share.seconds if share.multiply_adds else None
        return (
            where,
            what,
            round(share.calls, 1) if share.calls else None,
            round(1e3 * share.seconds, 2),
            round(100 * share.seconds / profile.whole, 1),
            round(share.multiply_adds / 1e6, 1) if share.multiply_adds else None,
            round(rate / 1e9, 1) if rate else None,
            round(100 * rate / roof.multiply_adds) if rate else None,
        )

    rows = []
    for graph, shares in profile.graphs.items():
        named = sorted(shares.items(), key=lambda pair: -pair[1].seconds)
        large = [pair for pair in named if pair[1].seconds >= SMALL * profile.whole]
        stage = GRAPH_STAGES[graph]
        rows += [row(stage, name, share) for name, share in large]
        if small := [share for name, share in named if (name, share) not in large]:
            rows.append(row(stage, f"{len(small)} other operators", total(small)))
        rows.append(row(stage, "outside of operators", Share(seconds=profile.around(graph))))
    for stage in (*STAGES, OTHER):
        if stage not in GRAPH_STAGES.values():
            rows.append(row("host", stage, Share(calls=1, seconds=profile.stages.get(stage, 0.0))))
    return [*rows, row("all", WHOLE, replace(profile.operators(True), calls=1, seconds=profile.whole))]


def verdict(profile: Profile, roof: Roof, *, photos: int) -> list[str]:
    """How it was measured, what is near the roof, what is not, and what half the time would take."""
    products, others = profile.operators(True), profile.operators(False)
    least = products.multiply_adds / roof.multiply_adds
    whole, half = profile.whole, profile.whole / 2
    around = sum(map(profile.around, profile.graphs))

    def part(seconds: float) -> str:
        return f"{1e3 * seconds:.1f} ms ({seconds / whole:.0%})"

    return [
        f"{photos} photos, mean; {roof}. A photo takes {1e3 * whole:.0f} ms, which is {1 / whole:.2f} photos a second "
        f"one after the other, and {1e3 * profile.profiled:.0f} ms while a profile is written. What the profile adds "
        "to a graph is taken off its operators by their calls; *outside of operators* is the rest of its stage: "
        "dispatch, checks, handing on. A *large product* is one of square matrices of side 1024 in ONNX Runtime, "
        "measured in the same run.",
        f"At the rate of a large product the multiply-adds of a photo would take {part(least)}: that is the roof. The "
        f"products and convolutions take {part(products.seconds)}, {least / products.seconds:.0%} of their rate there; "
        f"other operators {part(others.seconds)}, the graphs outside of operators {part(around)}, everything else "
        f"{part(profile.host())}. The largest parts above the roof are {largest(profile, roof)}.",
        halving(products, least, rest=whole - products.seconds, half=half),
    ]


def largest(profile: Profile, roof: Roof, count: int = 4) -> str:
    """Operators and their milliseconds above the roof."""
    above = [
        (share.seconds - share.multiply_adds / roof.multiply_adds, f"{name} of the {GRAPH_STAGES[graph]}")
        for graph, shares in profile.graphs.items()
        for name, share in shares.items()
    ]
    return ", ".join(f"{name} ({1e3 * seconds:.1f} ms)" for seconds, name in sorted(above, reverse=True)[:count])


def halving(products: Share, least: float, *, rest: float, half: float) -> str:
    """What a factor of two would need.

    Args:
        products: All matrix products and convolutions.
        least: Seconds that their multiply-adds need at the roof.
        rest: Seconds of everything else.
        half: Seconds of half a photo.
    """
    ms = {name: f"{1e3 * seconds:.1f} ms" for name, seconds in (("half", half), ("rest", rest), ("least", least))}
    said = f"**A factor of two** has to take {ms['half']} away. "
    if least > half:
        return said + (
            f"The multiply-adds alone need {ms['least']} at the roof: only fewer of them would do, in smaller graphs "
            "or in less than 32 bits."
        )
    if rest >= half:
        saved = products.seconds - least
        return said + (
            f"All but the products is {ms['rest']}: {half / rest:.0%} of it would have to vanish if the products stay "
            f"as they are, {max(half - saved, 0.0) / rest:.0%} if they reached the roof."
        )
    rate = products.multiply_adds / half
    return said + (
        f"All but the products is {ms['rest']}, so that would not do even if none of it were left: the products would "
        f"then still have to reach {rate / 1e9:.0f} GMAC/s, {least / half:.0%} of the roof, instead of "
        f"{products.multiply_adds / products.seconds / 1e9:.0f}, or be fewer."
    )
