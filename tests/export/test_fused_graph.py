"""The fused graph piece by piece: against the host's own arithmetic, and against ONNX's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import good_parts, initializer, write_good
from fused_pair import assert_alike, fused_pair
from narrow_sam import sam_bundle
from PIL import Image
from sample_photos import sample_pixels

from gransam_sdk.bundle import open_bundle
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import BundleError
from gransam_sdk.export.fused import fuse
from gransam_sdk.export.fused_labels import add_best, add_labels, add_score
from gransam_sdk.export.fused_photo import add_photo
from gransam_sdk.export.graph_builder import GraphBuilder
from gransam_sdk.export.static_shapes import check_static, value_shapes
from gransam_sdk.geometry import Frame
from gransam_sdk.onnx_model import Tensor, read_onnx
from gransam_sdk.onnx_rules import check_rules
from gransam_sdk.runtime.fused_answer import fused_feeds
from gransam_sdk.runtime.fused_spec import FusedSpec
from gransam_sdk.runtime.preprocess import preprocess
from gransam_sdk.runtime.select import label_masks
from gransam_sdk.types import ClassInfo, PointGrid, Settings


def run(model: onnx.ModelProto | bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def model_of(builder: GraphBuilder, inputs: Sequence[Tensor], outputs: Mapping[str, tuple[str, Tensor]]) -> bytes:
    values = {name: value for name, (value, _) in outputs.items()}
    model = builder.model(inputs, [tensor for _, tensor in outputs.values()], values, 20)
    check_static(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", ["nano-voc20", "tiny"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_every_shape_is_static_and_every_operator_allowed(name: str, chunk: int | None, tmp_path: Path) -> None:
    bundle = open_bundle(name if name != "tiny" else write_good(tmp_path / "bundle"))
    data = fuse(bundle, kept=12, chunk=chunk)
    assert data == fuse(bundle, kept=12, chunk=chunk)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    shapes = value_shapes(model)
    assert len(shapes) > len(model.graph.node) - 1 and None not in shapes.values()
    check_rules(read_onnx(data, "fused"), bundle.opset)
    spec = FusedSpec.of(bundle, select_classes(bundle.classes), Settings(), kept=12, chunk=chunk)
    for tensor in spec.outputs(bundle):
        assert shapes[tensor.name] == tensor.axes
    parts = sum(graph.bytes for graph in bundle.graphs.values())
    assert parts < len(data) < 1.25 * parts + 60_000, "weights are stored once, however many chunks read them"


def test_a_shape_that_is_fed_is_found(tmp_path: Path) -> None:
    bundle = open_bundle(write_good(tmp_path / "bundle"))
    with pytest.raises(BundleError, match="known only when it runs"):
        check_static(onnx.load_from_string(bundle.graph_bytes("prompt")))
    broken = onnx.load_from_string(fuse(bundle))
    broken.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
    with pytest.raises(BundleError, match="fit together"):
        check_static(broken)


def test_graphs_of_several_opsets_take_the_newest(tmp_path: Path) -> None:
    """But sums over named axes are written otherwise before 18."""
    parts = good_parts()
    parts.edit("head", lambda model: model.opset_import[0].__setattr__("version", 18))
    fused = onnx.load_from_string(fuse(open_bundle(parts.write(tmp_path / "bundle"))))
    assert [(entry.domain, entry.version) for entry in fused.opset_import] == [("", 20)]
    parts.edit("head", lambda model: model.opset_import[0].__setattr__("version", 17))
    with pytest.raises(BundleError, match="opsets 17, 20"):
        fuse(open_bundle(parts.write(tmp_path / "old")))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_the_beginning_is_what_the_host_does(resize: str, tmp_path: Path) -> None:
    """Bit for bit: image, points and valid cells, for sides that round up, down and to nothing."""
    parts = good_parts()
    parts.manifest["preprocess"] |= {
        "resize": resize,
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
    }
    bundle = open_bundle(parts.write(tmp_path / "bundle"))
    grid, builder = PointGrid(per_side=5), GraphBuilder()
    made = add_photo(builder, bundle, grid)
    inputs = (Tensor("photo", "uint8", (16, 16, 3)), Tensor("valid", "int64", (2,)))
    outputs = {
        "image": (made.image, Tensor("image", "float32", (1, 3, 16, 16))),
        "points": (made.points, Tensor("points", "float32", (25, 2))),
        "cells": (made.cells, Tensor("cells", "bool", (1, 4, 4))),
    }
    model, photo = model_of(builder, inputs, outputs), Image.fromarray(sample_pixels("coffee.png"))
    seen = set()
    for width, height in ((16, 16), (40, 7), (40, 9), (7, 40), (300, 2), (1, 500), (33, 21), (90, 77), (5, 13)):
        pixels = np.asarray(photo.resize((width, height)))
        frame = Frame.fit((height, width), 16, bundle.preprocess.resize)
        out = run(model, fused_feeds(pixels, frame))
        np.testing.assert_array_equal(out["image"], preprocess(pixels, bundle.preprocess, frame))
        np.testing.assert_array_equal(out["points"], frame.to_model(grid.points()))
        rows, columns = frame.valid(4)
        cells = np.zeros((1, 4, 4), dtype=bool)
        cells[:, :rows, :columns] = True
        np.testing.assert_array_equal(out["cells"], cells)
        seen.add((rows, columns))
    assert len(seen) == (1 if resize == "stretch" else 5)


@pytest.mark.parametrize("specs", [None, ["b"], ["ab=b,a", "d"]])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("floor", [None, 0.3])
def test_labels_and_their_order(specs: list[str] | None, background: bool, floor: float | None, tmp_path: Path) -> None:
    """Against ``label_masks``; ties included, where the first column or prompt wins."""
    classes = select_classes(
        [ClassInfo(id=i + 1, name=name, threshold=0.5) for i, name in enumerate("abcd")], specs, background=background
    )
    settings = Settings(points_per_side=20, record_floor=floor)
    bundle = open_bundle(write_good(tmp_path / "bundle"))
    spec = FusedSpec.of(bundle, classes, settings, kept=400)
    random = np.random.default_rng(1)
    logits = (2.0 * random.normal(size=(400, 4 + background))).astype(np.float32)
    logits[::50] = logits[0, ::-1]
    logits[1::50] = 0.25  # all equal
    iou = random.uniform(-0.2, 1.2, 400).astype(np.float32)
    iou[::50] = 0.5
    builder = GraphBuilder()
    made = add_labels(builder, "class_logits", spec)
    score = add_score(builder, made.confidence, "predicted_iou")
    inputs = (Tensor("class_logits", "float32", logits.shape), Tensor("predicted_iou", "float32", (400,)))
    columns = len(classes.column_names)
    outputs = {
        "probabilities": (made.probabilities, Tensor("probabilities", "float32", (400, columns))),
        "label": (made.label, Tensor("label", "int64", (400,))),
        "confidence": (made.confidence, Tensor("confidence", "float32", (400,))),
        "passed": (made.passed, Tensor("passed", "bool", (400,))),
        "recorded": (made.recorded, Tensor("recorded", "bool", (400,))),
        "score": (score, Tensor("score", "float32", (400,))),
        "best": (add_best(builder, made, score, 400), Tensor("best", "int64", (400,))),
    }
    out = run(model_of(builder, inputs, outputs), {"class_logits": logits, "predicted_iou": iou})
    expected = label_masks(logits, classes, settings)
    np.testing.assert_allclose(out["probabilities"], expected.probabilities, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(out["label"], expected.order[:, 0])
    np.testing.assert_allclose(out["confidence"], expected.confidence, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(out["passed"], expected.passed)
    np.testing.assert_array_equal(out["recorded"], expected.recorded)
    np.testing.assert_allclose(out["score"], expected.confidence * np.clip(iou, 0, 1), rtol=0, atol=1e-6)
    tier = np.where(out["passed"], 0, np.where(out["recorded"], 1, 2))
    assert set(tier) == ({0, 1, 2} if floor else {0, 2})
    order = np.lexsort((np.arange(400), -out["score"], tier))
    ranked = out["best"]
    np.testing.assert_array_equal(tier[ranked], tier[order])
    passed = int((tier == 0).sum())
    np.testing.assert_array_equal(ranked[:passed], order[:passed])
    np.testing.assert_allclose(out["score"][ranked], out["score"][order], rtol=0, atol=1e-6)


def _raise_logits(model: onnx.ModelProto) -> None:
    """Padding is zero in the tiny segmenter's masks, which is not above 0."""
    model.graph.node[-1].output[0] = "plain"
    model.graph.initializer.append(initializer("little", np.array(0.01, dtype=np.float32)))
    model.graph.node.add(op_type="Add", input=["plain", "little"], output=["logits"])


@pytest.mark.parametrize(("seed", "floor"), [(5, 0.97), (9, 0.9)])
def test_rows_are_ordered_and_their_overlaps_counted(seed: int, floor: float, tmp_path: Path) -> None:
    """Kept rows follow the order of all 25 prompts; overlaps follow from the logits, counted in Python.

    The padded cells of every mask are positive, and must not count.
    """
    parts = good_parts(seed=seed)
    parts.manifest["preprocess"]["resize"] = "letterbox"
    parts.edit("mask", _raise_logits)
    bundle = open_bundle(parts.write(tmp_path / "bundle"))
    settings = Settings(points_per_side=5, conf=0.995, record_floor=floor)
    photo = np.asarray(Image.fromarray(sample_pixels("coffee.png")).resize((60, 40)))
    with (
        fused_pair(bundle, settings, kept=25) as (_, wide),
        fused_pair(bundle, settings, kept=9, chunk=4) as (_, narrow),
    ):
        whole, part = wide.run_fused(photo), narrow.run_fused(photo)
        rows, columns = wide.four_graphs.frame(photo).valid(4)
    assert (rows, columns) == (3, 4)
    assert sorted(whole["prompt"].tolist()) == list(range(25))
    assert 0 < whole["passed"].sum() < whole["recorded"].sum() < 25
    for name in ("prompt", "choice", "label", "passed", "recorded", "area"):
        np.testing.assert_array_equal(part[name], whole[name][:9])
    for name in ("logits", "confidence", "iou", "score", "probabilities", "tokens"):
        np.testing.assert_allclose(part[name], whole[name][:9], rtol=0, atol=1e-4)
    assert int(part["confident"]) == int(whole["confident"]) == whole["recorded"].sum()
    assert (whole["logits"][:, rows:] > 0).all()
    masks = [{int(i) for i in np.flatnonzero(mask[:rows, :columns] > 0)} for mask in whole["logits"]]
    assert whole["area"].tolist() == [len(mask) for mask in masks]
    for i, mask in enumerate(masks):
        assert whole["intersection"][i].tolist() == [len(mask & other) for other in masks]
        expected = [len(mask & other) / max(len(mask | other), 1) for other in masks]
        np.testing.assert_allclose(whole["mask_iou"][i], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_letterboxed_sam_with_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _ = sam_bundle(tmp_path, monkeypatch)
    # Random masks are not stable.
    settings = Settings(conf=0.3, stability_score_thresh=0.0, nms_iou=0.9, containment=1.0, points_per_side=6)
    masks, confident = 0, 0
    with fused_pair(bundle, settings, kept=36, chunk=20) as (plain, fused):
        for name in ("coffee.png", "astronaut.png", "motorcycle_left.png"):
            pixels = sample_pixels(name)
            answer, expected = fused.answer(pixels), plain.segment(pixels)
            assert_alike(answer.result, expected)
            masks += len(expected)
            confident += answer.confident
        strip = np.ascontiguousarray(sample_pixels("coffee.png")[100:130])
        assert fused.four_graphs.frame(strip).resized == (6, 128)
        assert_alike(fused.answer(strip).result, plain.segment(strip))
    assert masks > 20 and confident < 3 * 36 - 5, "background wins some clicks"
