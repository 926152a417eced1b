"""Do TensorRT engines of a bundle answer what ONNX Runtime answers on the CPU, and how fast are they? Needs a GPU.

python benchmarks/engine.py --bundle nano-voc20 --photos ../shared/data/voc2012_dev/JPEGImages [--count N] [--chunk N]

Builds engines of the four graphs (or takes them from the cache), checks the canary, compares outputs on real photos,
and times the runs of both, photo by photo, one after the other.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from result import write_result

from gransam_sdk.bundle import open_bundle
from gransam_sdk.errors import GranSAMError
from gransam_sdk.export.engine import build_plan
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.load import load_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.tensorrt_engine import EngineSource, load_engines
from gransam_sdk.runtime.tensorrt_library import describe_machine
from gransam_sdk.shapes import AnyArray
from gransam_sdk.training.token_cache import default_cache
from gransam_sdk.types import PointGrid

TOKENS_BAR, FLIPS_BAR, IOU_BAR, LABELS_BAR = 5e-3, 2e-4, 0.999, 0.998
"""Bars of fp32 on TensorRT with TF32 off: tokens max abs, sign flips of low-res logits, mask IoU mean, equal labels."""
LEAST_MASKS = 1000
LEAST_PIXELS = 100
"""Masks that are smaller at low resolution are not compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="nano-voc20")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cache", type=Path, default=None)
    options = parser.parse_args()
    try:
        run(options)
    except GranSAMError as error:
        sys.exit(f"engine.py cannot run here: {error}")


def run(options: argparse.Namespace) -> None:
    """Builds, compares and times; raises what the SDK raises."""
    machine = describe_machine(options.device)
    bundle = open_bundle(options.bundle)
    chunk = options.chunk or bundle.prompt_chunk
    source = EngineSource(
        home=options.cache or default_cache(),
        device=options.device,
        build=build_plan,
        log=lambda line: print(line, file=sys.stderr),
    )
    photos = sorted(options.photos.iterdir())[: options.count]
    began = time.perf_counter()
    with load_engines(bundle, source, chunk=chunk) as engines, load_model(bundle, device="cpu") as graphs:
        loading = time.perf_counter() - began
        compared = [compare(graphs, engines, photo, chunk) for photo in photos]
    masks = np.concatenate([entry["mask_iou"] for entry in compared])
    worst = min(zip(compared, photos, strict=True), key=lambda pair: pair[0]["mask_iou"].min(initial=1.0))[1]
    summary = {
        "tokens max abs": max(float(entry["tokens"]) for entry in compared),
        "logits max abs": max(float(entry["logits"]) for entry in compared),
        "sign flips": float(np.mean([entry["flips"] for entry in compared])),
        "mask IoU mean": float(masks.mean()),
        "mask IoU 1 %": float(np.quantile(masks, 0.01)),
        "labels equal": float(np.mean([entry["labels"] for entry in compared])),
    }
    seconds = {side: np.median([float(entry[f"{side} s"]) for entry in compared[1:] or compared]) for side in SIDES}
    kept = (
        summary["tokens max abs"] <= TOKENS_BAR
        and summary["sign flips"] <= FLIPS_BAR
        and summary["mask IoU mean"] >= IOU_BAR
        and summary["labels equal"] >= LABELS_BAR
    )
    write_result(
        "engine",
        title="TensorRT engines",
        question="Do engines of the four graphs answer what ONNX Runtime answers on the CPU, and how fast?",
        columns=("bundle", "photos", "masks", *summary, "bars kept", *(f"{side}, ms a photo" for side in SIDES)),
        rows=[
            (
                f"{bundle.name} {bundle.precision}",
                len(photos),
                len(masks),
                *(f"{value:.3g}" for value in summary.values()),
                "void" if len(masks) < LEAST_MASKS else "yes" if kept else "no",
                *(f"{value * 1000:.1f}" for value in seconds.values()),
            )
        ],
        notes=[
            f"{machine.gpu}, TensorRT {machine.tensorrt}, driver {machine.driver}, CUDA {machine.cuda}; "
            f"{chunk} prompts a run; loading with canary took {loading:.1f} s. Worst mask IoU on {worst.name}.",
            "A time is one photo through all graphs, three masks of every third prompt; medians without the first "
            "photo, both in turn; every run copies between host and GPU.",
            f"Bars: tokens within {TOKENS_BAR:g}, sign flips at most {FLIPS_BAR:g}, mask IoU at least {IOU_BAR:g} on "
            f"average, labels equal at least {LABELS_BAR:g}; void below {LEAST_MASKS:,} masks.",
        ],
    )


SIDES = ("ONNX Runtime CPU", "TensorRT")


def compare(graphs: Model, engines: Model, photo: Path, chunk: int) -> dict[str, AnyArray]:
    """Differences of all masks of all prompts of a photo, and the seconds that both took."""
    pixels = as_pixels(photo)
    seconds: dict[str, float] = {}
    answers = []
    for side, model in zip(SIDES, (graphs, engines), strict=True):
        began = time.perf_counter()
        answers.append(answer(model, pixels, chunk))
        seconds[f"{side} s"] = time.perf_counter() - began
    (tokens, logits, labels), (their_tokens, their_logits, their_labels) = answers
    masks, their_masks = logits > 0, their_logits > 0
    area = masks.sum(axis=(1, 2))
    joint = (masks & their_masks).sum(axis=(1, 2)) / np.maximum((masks | their_masks).sum(axis=(1, 2)), 1)
    return {
        "tokens": np.abs(tokens - their_tokens).max(),
        "logits": np.abs(logits - their_logits).max(),
        "flips": (masks != their_masks).mean(),
        "mask_iou": joint[area >= LEAST_PIXELS],
        "labels": (labels == their_labels).mean(),
        **{name: np.asarray(value) for name, value in seconds.items()},
    }


def answer(model: Model, pixels: AnyArray, chunk: int) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Tokens (g,4,d), low-res logits (m,l,l) of masks 1 to 3 of every third prompt, and labels."""
    frame, tokens, logits, labels = model.frame(pixels), [], [], []
    hoisted = model.hoist(model.prepare(pixels, frame))
    points = PointGrid(per_side=model.bundle.points_per_side).points()
    for prompts in model.prompt(hoisted, frame, points, chunk):
        tokens.append(prompts.tokens)
        for choice in (1, 2, 3):
            state = {name: value[::3] for name, value in prompts.state.items()}
            picked = np.full(len(prompts.tokens[::3]), choice, dtype=np.int64)
            logits.append(model.masks(hoisted, state, picked, chunk))
        if model.bundle.has_head:
            labels.append(model.classify(prompts.tokens, prompts.features[:, 1]).argmax(axis=-1))
    return np.concatenate(tokens), np.concatenate(logits), np.concatenate(labels) if labels else np.zeros(0)


if __name__ == "__main__":
    main()
