"""The profile: multiply-adds that agree with those counted from the graphs, and sentences about known times."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sample_photos import sample_path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import graph_profile
import roofline
from graph_profile import RUN, exact_convolutions, graph_shares, read_node, take_profile, unprofiled
from profile_report import Profile, Share, halving, table, total, verdict
from roofline import Roof

from gransam_sdk.bundle import open_bundle
from gransam_sdk.evaluation.timing import OTHER, STAGES, WHOLE

ROOF = Roof(threads=2, multiply_adds=100e9, bytes=20e9)


def event(operator: str, ts: int, dur: int, *shapes: list[int]) -> dict[str, Any]:
    """A kernel's event; the last shape is what it writes."""
    *read, written = ([{"float": shape}] for shape in shapes)
    ports = {"input_type_shape": [port for ports in read for port in ports], "output_type_shape": written}
    return {"name": f"n{ts}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": operator, **ports}}


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"name": RUN, "ts": ts, "dur": dur, "args": {}}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (event("MatMul", 0, 1, [2, 3, 5], [5, 7], [2, 3, 7]), 2 * 3 * 5 * 7),
        (event("MatMul", 0, 1, [2, 3, 5], [5], [2, 3]), 2 * 3 * 5),
        (event("FusedMatMul", 0, 1, [2, 5, 3], [2, 5, 7], [2, 3, 7]), 2 * 3 * 5 * 7),
        (event("FusedGemm", 0, 1, [3, 5], [7, 5], [7], [3, 7]), 3 * 5 * 7),
        (event("FusedConv", 0, 1, [1, 8, 6, 6], [4, 2, 3, 3], [4], [1, 4, 6, 6]), 4 * 36 * 2 * 9),
        (event("Softmax", 0, 1, [2, 3], [2, 3]), 0),
    ],
    ids=lambda value: value["args"]["op_name"] if isinstance(value, dict) else None,
)
def test_multiply_adds_of_a_kernel_by_arithmetic(one: dict[str, Any], expected: int) -> None:
    operator, share = read_node(one)
    assert operator == one["args"]["op_name"]
    assert (share.calls, share.seconds, share.multiply_adds) == (1, 1e-6, expected)


def test_runs_before_do_not_count() -> None:
    events = [
        *(run(0, 900), event("Softmax", 1, 800, [2], [2])),
        *(run(1000, 500), event("Softmax", 1001, 100, [2], [2]), event("MatMul", 1200, 200, [2, 3], [3, 4], [2, 4])),
        *(run(2000, 300), event("Softmax", 2001, 100, [2], [2])),
    ]
    shares = graph_shares(events, skipped=1, photos=2)
    assert {name: (share.calls, share.multiply_adds) for name, share in shares.items()} == {
        "Softmax": (1.0, 0.0),
        "MatMul": (0.5, 12.0),
    }
    assert [share.seconds for share in shares.values()] == pytest.approx([100e-6, 100e-6])


def test_what_profiling_costs_is_taken_off_by_calls() -> None:
    shares = {
        "MatMul": Share(calls=10, seconds=0.050, multiply_adds=7.0),
        "Add": Share(calls=30, seconds=0.040),
        "Reshape": Share(calls=60, seconds=0.030),
    }
    left = unprofiled(shares, 0.100)  # a millisecond a call, more than a Reshape takes
    assert [share.seconds for share in left.values()] == pytest.approx([0.040, 0.010, 0.0])
    assert left["MatMul"].multiply_adds == 7.0 and left["Reshape"].calls == 60
    assert unprofiled(shares, -0.010) == shares, "noise, no gain"


def test_padded_convolutions_get_the_multiply_adds_of_the_graph() -> None:
    shares = {
        "Conv": Share(calls=2, seconds=3.0, multiply_adds=60.0),
        "FusedConv": Share(calls=1, seconds=1.0, multiply_adds=20.0),
        "MatMul": Share(calls=1, seconds=1.0, multiply_adds=7.0),
    }
    exact = exact_convolutions(shares, 72.0)
    assert [share.multiply_adds for share in exact.values()] == [54.0, 18.0, 7.0]
    assert exact["Conv"].seconds == 3.0


@pytest.mark.parametrize(
    ("products", "least", "rest", "said"),
    [
        # a photo of 100 ms each time
        (0.03, 0.02, 0.07, "71% of it would have to vanish if the products stay as they are, 57% if they reached"),
        (0.08, 0.02, 0.02, "have to reach 40 GMAC/s, 40% of the roof, instead of 25"),
        (0.09, 0.06, 0.01, "only fewer of them would do"),
    ],
)
def test_what_half_the_time_would_need(products: float, least: float, rest: float, said: str) -> None:
    share = Share(calls=1, seconds=products, multiply_adds=least * ROOF.multiply_adds)
    assert said in halving(share, least, rest=rest, half=(products + rest) / 2)


def test_the_table_adds_up_and_shows_rates() -> None:
    graphs = {
        "image": {"Conv": Share(calls=2, seconds=0.02, multiply_adds=1.2e9)},
        "prompt": {
            "MatMul": Share(calls=30, seconds=0.04, multiply_adds=3.1e9),
            "Softmax": Share(calls=10, seconds=0.01),
            "Shape": Share(calls=10, seconds=0.0001),
        },
    }
    stages = {"image graph": 0.025, "prompt graph": 0.06, "decode": 0.003, "rle": 0.01, OTHER: 0.002, WHOLE: 0.1}
    profile = Profile(graphs=graphs, stages=stages, profiled=0.125)
    rows = {row[:2]: row for row in table(profile, ROOF)}
    assert rows["prompt graph", "MatMul"][2:] == (30, 40.0, 40.0, 3100.0, 77.5, 78)
    assert rows["prompt graph", "1 other operators"][3] == 0.1
    assert rows["image graph", "outside of operators"][3] == 5.0
    milliseconds = [row[3] for key, row in rows.items() if key[0] != "all"]
    assert sum(value for value in milliseconds if isinstance(value, float)) == pytest.approx(100, abs=0.05)
    assert rows["all", WHOLE][3] == 100.0 and rows["all", WHOLE][6] == 43.0
    said = " ".join(verdict(profile, ROOF, photos=3))
    assert "would take 43.0 ms (43%): that is the roof" in said and "take 60.0 ms (60%), 72% of their rate" in said
    assert (
        "other operators 10.1 ms (10%), the graphs outside of operators 14.9 ms (15%), everything else 15.0 ms" in said
    )
    assert (
        "Softmax of the prompt graph (10.0 ms), MatMul of the prompt graph (9.0 ms), Conv of the image graph (8.0 ms)"
        in said
    )
    assert "10.00 photos a second" in said and "125 ms while a profile is written" in said


def test_kernels_multiply_as_often_as_the_graphs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's own shapes of what it ran, against the count from the ONNX files."""
    photos = [sample_path("coffee.png"), sample_path("chelsea.png")]
    padded: list[float] = []

    def remember(shares: Mapping[str, Share], counted: float) -> dict[str, Share]:
        padded.append(shares["Conv"].multiply_adds / counted)
        return exact_convolutions(shares, counted)

    monkeypatch.setattr(graph_profile, "exact_convolutions", remember)
    profile = take_profile(photos, threads=1)
    bundle = open_bundle("nano-voc20")
    grid, chunk = bundle.points_per_side**2, bundle.prompt_chunk
    for graph, rows, axis in (("image", 1, 1), ("prompt", grid, chunk), ("head", grid, chunk)):
        counted = roofline.runs_work(bundle, graph, rows, axis).multiply_adds
        assert total(profile.graphs[graph].values()).multiply_adds == pytest.approx(counted, rel=1e-9), graph
    assert 1 <= padded[0] < 1.1, "channels are padded to blocks of the processor, most are multiples of one"
    masks = total(profile.graphs["mask"].values()).multiply_adds
    one_mask = roofline.run_work(bundle, "mask", 1).multiply_adds
    assert masks / one_mask == pytest.approx(round(2 * masks / one_mask) / 2, rel=1e-9), "whole masks of two photos"
    assert set(profile.stages) == {*STAGES, OTHER, WHOLE}


def test_a_result_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = dict.fromkeys([*STAGES, OTHER], 0.01) | {WHOLE: 0.12}
    graphs = {
        name: {"MatMul": Share(calls=1, seconds=0.008, multiply_adds=1e8)}
        for name in ("image", "prompt", "head", "mask")
    }
    profile = Profile(graphs=graphs, stages=stages, profiled=0.13)
    monkeypatch.setattr(graph_profile, "take_profile", lambda photos, threads: profile)
    monkeypatch.setattr(graph_profile, "measure_roof", lambda threads: ROOF)
    file = tmp_path / "profile.json"
    script = str(Path(graph_profile.__file__))
    monkeypatch.setattr(sys, "argv", [script, "--photos", str(sample_path("coffee.png").parent), "--json", str(file)])
    graph_profile.main()
    found = json.loads(file.read_text(encoding="utf-8"))
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    assert found["notes"][-1].startswith("**A factor of two** has to take 60.0 ms away.")
