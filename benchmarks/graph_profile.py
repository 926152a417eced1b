"""Where does the time of a photo go, operator by operator, and what would the next factor of two need?

python benchmarks/graph_profile.py --photos ../shared/data/voc2012_dev/JPEGImages [--count N] [--threads N]

The embedded bundle annotates each photo twice: as always, which gives the stages, and in sessions that write ONNX
Runtime's own profile, which gives the operators. Profiling costs time itself, and that is taken off again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from profile_report import COLUMNS, GRAPH_STAGES, Profile, Share, table, total, verdict
from result import write_result
from roofline import measure_roof

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.run import with_record_floor
from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.evaluation.timing import WHOLE, time_photo
from gransam_sdk.export.graph_cost import graph_cost
from gransam_sdk.runtime.load import load
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.runtime.session import check_feeds
from gransam_sdk.shapes import AnyArray
from gransam_sdk.types import Settings

WARM_UP = 3
"""Photos that count for nothing."""
NODE = "_kernel_time"
RUN = "model_run"
PRODUCTS = ("MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm")
CONVOLUTIONS = ("Conv", "FusedConv")


class ProfiledSession:
    """A graph with the options of ``OrtSession`` and ONNX Runtime's profile (see ``Session``)."""

    def __init__(self, bundle: Bundle, name: str, folder: Path, threads: int) -> None:
        self.threads, self._graph = threads, bundle.graphs[name]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / name)
        self._session = onnxruntime.InferenceSession(
            bundle.graph_bytes(name), options, providers=["CPUExecutionProvider"]
        )
        self.provider = self._session.get_providers()[0]
        self.runs = 0

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        check_feeds(self._graph, feeds)
        self.runs += 1
        names = [tensor.name for tensor in self._graph.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def close(self) -> None:
        pass

    def events(self) -> list[dict[str, Any]]:
        """All that was written; profiling ends."""
        found: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder; evenly spaced photos of it are taken")
    parser.add_argument("--count", type=int, default=40, help="photos")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write here instead of into benchmarks/results")
    options = parser.parse_args()
    every = sorted(options.photos.iterdir())
    photos = [every[i * len(every) // options.count] for i in range(min(options.count, len(every)))]
    profile = take_profile(photos, options.threads)
    roof = measure_roof(options.threads)
    write_result(
        "profile",
        title="Profile of a photo",
        question="Where does the time of a photo go with the embedded bundle, and what would the next factor of two "
        "need?",
        columns=COLUMNS,
        rows=table(profile, roof),
        notes=verdict(profile, roof, photos=len(photos)),
        path=options.json,
    )


def take_profile(photos: Sequence[Path], threads: int) -> Profile:
    """Annotates photos with and without a profile, in turns."""
    bundle = open_bundle("nano-voc20")
    settings = with_record_floor(Settings())
    with tempfile.TemporaryDirectory() as scratch, OutputFolder.open(Path(scratch) / "run") as out:
        sessions = {name: ProfiledSession(bundle, name, Path(scratch), threads) for name in bundle.graphs}
        background = bundle.head is not None and bundle.head.background
        classes = select_classes(bundle.classes, background=background)
        profiled = Segmenter(Model(bundle, sessions), classes, settings)
        with load(bundle, device="cpu", settings=settings, threads=threads) as plain:
            for photo in photos[:WARM_UP]:
                time_photo(plain, photo, out)
                time_photo(profiled, photo, out)
            before = {name: session.runs for name, session in sessions.items()}
            clocked: dict[Segmenter, list[Mapping[str, float]]] = {plain: [], profiled: []}
            for number, photo in enumerate(photos):
                for segmenter in (plain, profiled)[:: 1 if number % 2 else -1]:
                    clocked[segmenter].append(time_photo(segmenter, photo, out)[1])
        graphs = {name: graph_shares(session.events(), before[name], len(photos)) for name, session in sessions.items()}
    counted = graph_cost(bundle.graph_bytes("image"), {"b": 1}).by_operator["Conv"]  # no other graph convolves
    graphs["image"] = exact_convolutions(graphs["image"], counted)
    stages, longer = (
        {stage: float(np.mean([one[stage] for one in clocked[which]])) for stage in clocked[which][0]}
        for which in (plain, profiled)
    )
    return Profile(
        graphs={name: unprofiled(graphs[name], longer[stage] - stages[stage]) for name, stage in GRAPH_STAGES.items()},
        stages=stages,
        profiled=longer[WHOLE],
    )


def graph_shares(events: Sequence[Mapping[str, Any]], skipped: int, photos: int) -> dict[str, Share]:
    """A graph's operators in one photo.

    Args:
        events: Of the profile.
        skipped: Runs at its beginning that do not count.
        photos: That the other runs were for.
    """
    begun = sorted(float(event["ts"]) for event in events if event["name"] == RUN)[skipped]
    shares: dict[str, Share] = {}
    for event in events:
        if event["name"].endswith(NODE) and event["ts"] >= begun:
            operator, share = read_node(event)
            shares[operator] = shares.get(operator, Share()) + share * (1 / photos)
    return shares


def read_node(event: Mapping[str, Any]) -> tuple[str, Share]:
    """The operator of a kernel's event, as ONNX Runtime calls it after its own fusions, and what it took."""
    about = event["args"]
    operator = str(about["op_name"])
    ports: dict[str, list[list[int]]] = {
        way: [next(iter(port.values()), []) for port in about[f"{way}_type_shape"]] for way in ("input", "output")
    }
    count = 0
    if operator in PRODUCTS:
        left, written = ports["input"][0], ports["output"][0]
        # Whichever way the matrices are turned, the left one has rows times what is summed over. Against a vector, each
        # of its numbers is used once.
        against_vector = len(written) < len(left)
        count = math.prod(left) if against_vector else math.prod(written) * (left[-1] * left[-2] // written[-2])
    elif operator in CONVOLUTIONS:
        count = math.prod(ports["output"][0]) * math.prod(ports["input"][1][1:])
    return operator, Share(calls=1, seconds=event["dur"] / 1e6, multiply_adds=count)


def unprofiled(shares: Mapping[str, Share], cost: float) -> dict[str, Share]:
    """The same without what profiling costs, which is the same for every call: sizes are noted while the clock runs.

    Args:
        shares: Of one graph.
        cost: Seconds that the graph's stage takes longer with a profile.
    """
    each = max(cost, 0.0) / total(shares.values()).calls
    return {
        name: replace(share, seconds=max(share.seconds - each * share.calls, 0.0)) for name, share in shares.items()
    }


def exact_convolutions(shares: Mapping[str, Share], counted: float) -> dict[str, Share]:
    """The same, with convolutions' multiply-adds as the graph has them.

    ONNX Runtime pads channels to the processor's blocks, and its shapes are of what it pads.

    Args:
        shares: Of one graph.
        counted: Multiply-adds of its convolutions.
    """
    padded = sum(share.multiply_adds for name, share in shares.items() if name in CONVOLUTIONS)
    return {
        name: replace(share, multiply_adds=share.multiply_adds * counted / padded) if name in CONVOLUTIONS else share
        for name, share in shares.items()
    }


if __name__ == "__main__":
    main()
