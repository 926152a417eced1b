"""Graphs in 16 bits: which operators, which numbers, and what the embedded segmenter loses."""

from __future__ import annotations

from collections import Counter
from functools import cache

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from sam_random import NARROW_TINY, random_sam
from sample_photos import sample_path
from small_graphs import NODE, runs_in, small_graph

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import InputError
from gransam_sdk.export.mixed import to_mixed
from gransam_sdk.export.onnx_run import open_graph
from gransam_sdk.export.precision import can_run_here, to_precision
from gransam_sdk.export.ranges import image_ranges, too_large
from gransam_sdk.export.rounding import with_rounding
from gransam_sdk.export.sam_graphs import deployed_sam, sam_graphs
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.onnx_rules import check_rules
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.onnxruntime_session import OrtSession
from gransam_sdk.types import PointGrid

RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((5, 16)).astype(np.float32)
W = RANDOM.standard_normal((16, 24)).astype(np.float32)
B = RANDOM.standard_normal(24).astype(np.float32)
NUMPY = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
BY = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


def linear(halved: tuple[str, ...] = ()) -> bytes:
    nodes = [NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["p", "b"], ["q"]), NODE("Relu", ["q"], ["y"])]
    return small_graph(nodes, {"x": ("b", 16)}, {"y": ("b", 24)}, {"w": W, "b": B}, halved)


@cache
def bundle() -> Bundle:
    return open_bundle("nano-voc20")


@cache
def photo_input(name: str) -> np.ndarray:
    """(1,3,320,320) as the runtime prepares it."""
    model = Model(bundle(), {})
    pixels = as_pixels(sample_path(name))
    return model.prepare(pixels, model.frame(pixels))


@cache
def reduced(precision: str) -> dict[str, bytes]:
    graphs = {name: bundle().graph_bytes(name) for name in bundle().graphs}
    return to_precision(graphs, precision, [photo_input("coffee.png")])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("halved", [(), ("w",)])
def test_every_result_is_rounded_as_numpy_rounds_it(precision: str, halved: tuple[str, ...]) -> None:
    kind = NUMPY[precision]

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(kind).astype(np.float64)

    weights = W.astype(np.float16).astype(np.float32) if halved else W
    product = rounded(rounded(X) @ rounded(weights))  # sums in more bits than 32
    expected = np.maximum(rounded(product + rounded(B)), 0)
    data, _ = to_mixed(linear(halved), precision)
    assert runs_in(data) == {"MatMul": {BY[precision]}, "Add": {BY[precision]}, "Relu": {BY[precision]}}
    found = open_graph(with_rounding(data))({"x": X})["y"]
    step = 2.0**-10 if precision == "fp16" else 2.0**-7
    np.testing.assert_allclose(found, expected, rtol=step, atol=1e-6)  # a sum near a tie may fall on the other side
    assert (found == expected.astype(np.float32)).mean() > 0.98
    assert np.abs(open_graph(linear(halved))({"x": X})["y"] - expected).max() > step / 8, "there was nothing to round"


def test_bfloat16_weights_round_to_nearest_even() -> None:
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3e38, 1e-40, 0.0, -0.0], dtype=np.float32)
    values = np.concatenate([ties, RANDOM.standard_normal(1000).astype(np.float32)])
    nodes = [NODE("MatMul", ["x", "w"], ["y"])]
    data, _ = to_mixed(small_graph(nodes, {"x": ("b", 1)}, {"y": ("b", 1007)}, {"w": values[None]}), "bf16")
    (stored,) = onnx.load_from_string(data).graph.initializer
    assert stored.data_type == TensorProto.BFLOAT16
    np.testing.assert_array_equal(
        np.frombuffer(stored.raw_data, "<u2"), values.astype(ml_dtypes.bfloat16).view(np.uint16)
    )


def test_stored_float16_is_used_as_it_is_and_casts_are_shared() -> None:
    nodes = [NODE("MatMul", ["x", "w"], ["p"]), NODE("MatMul", ["x", "w"], ["q"]), NODE("Exp", ["p"], ["r"])]
    nodes += [NODE("Softmax", ["p"], ["s"]), NODE("Add", ["r", "s"], ["t"]), NODE("Add", ["t", "q"], ["y"])]
    data, _ = to_mixed(small_graph(nodes, {"x": ("b", 16)}, {"y": ("b", 24)}, {"w": W}, ["w"]), "fp16")
    graph = onnx.load_from_string(data).graph
    assert [tensor.name for tensor in graph.initializer] == ["w_half"]
    casts = Counter((node.input[0], node.attribute[0].i) for node in graph.node if node.op_type == "Cast")
    assert casts == {("x", 10): 1, ("p__16", 1): 1, ("q__16", 1): 1}
    assert runs_in(data) == {"MatMul": {"FLOAT16"}, "Exp": {"FLOAT"}, "Softmax": {"FLOAT"}, "Add": {"FLOAT"}}


def test_a_weight_that_float16_cannot_hold_is_an_error() -> None:
    data = small_graph([NODE("MatMul", ["x", "w"], ["y"])], {"x": ("b", 16)}, {"y": ("b", 24)}, {"w": W * 1e5})
    with pytest.raises(InputError, match="float16 can hold"):
        to_mixed(data, "fp16")
    assert runs_in(to_mixed(data, "bf16")[0]) == {"MatMul": {"BFLOAT16"}}


def test_products_of_a_variance_stay_and_tell_which_inputs_they_are_made_of() -> None:
    nodes = [
        NODE("LayerNormalization", ["x", "one"], ["n"]),
        NODE("MatMul", ["n", "w"], ["rows"]),  # made into squares: stays
        NODE("Mul", ["rows", "rows"], ["squares"]),
        NODE("ReduceSum", ["squares", "last"], ["sum"]),
        NODE("MatMul", ["n", "h_norms"], ["cross"]),  # so does this
        NODE("Add", ["sum", "cross"], ["variance"]),
        NODE("Sqrt", ["variance"], ["root"]),
        NODE("MatMul", ["n", "v"], ["other"]),  # not this
        NODE("Div", ["other", "root"], ["y"]),
    ]
    weights = {"one": np.ones(16, np.float32), "w": W, "v": W, "last": np.array([1])}
    data = small_graph(nodes, {"x": ("g", 16), "h_norms": (16, 1)}, {"y": ("g", 24)}, weights)
    mixed, reached = to_mixed(data, "fp16")
    assert reached == {"h_norms"}
    made = {node.output[0] for node in onnx.load_from_string(mixed).graph.node if node.op_type == "MatMul"}
    assert made == {"rows", "cross", "other"}, "a division by something computed keeps its numerator too"
    assert "FLOAT16" not in runs_in(mixed).get("MatMul", set())
    ordinary = [node for node in nodes if node.op_type not in ("Sqrt", "Div")]
    ordinary.append(NODE("Mul", ["other", "variance"], ["y"]))
    data = small_graph(ordinary, {"x": ("g", 16), "h_norms": (16, 1)}, {"y": ("g", 24)}, weights)
    mixed, reached = to_mixed(data, "fp16")
    assert reached == set() and runs_in(mixed)["MatMul"] == {"FLOAT16"}


def test_outputs_that_another_graph_makes_variances_of_are_made_in_32_bits() -> None:
    nodes = [NODE("MatMul", ["image", "w"], ["h_a"]), NODE("MatMul", ["image", "v"], ["h_b"])]
    data = small_graph(nodes, {"image": ("b", 16)}, {"h_a": ("b", 24), "h_b": ("b", 24)}, {"w": W, "v": W})
    mixed, _ = to_mixed(data, "fp16", outputs={"h_a"})
    made = {
        name for node in onnx.load_from_string(mixed).graph.node if node.op_type == "MatMul" for name in node.output
    }
    assert made == {"h_a", "h_b__16"}


def test_ranges_are_those_of_the_values_and_large_ones_stay() -> None:
    nodes = [NODE("MatMul", ["image", "w"], ["p"]), NODE("MatMul", ["p", "v"], ["h_a"])]
    v = RANDOM.standard_normal((24, 4)).astype(np.float32)
    data = small_graph(nodes, {"image": ("b", 16)}, {"h_a": ("b", 4)}, {"w": W * 1000, "v": v / 1000})
    images = [X[:2], X[2:] * 3]
    ranges = image_ranges(data, iter(images))
    every = np.concatenate(images)
    product = every.astype(np.float64) @ (W * 1000)
    assert ranges.keys() == {"image", "p", "h_a"}
    assert ranges["p"] == pytest.approx((product.min(), product.max()), rel=1e-5)
    assert ranges["image"] == (every.min(), every.max())
    assert product.max() > 65504 / 8 > np.abs(product @ (v / 1000)).max()
    kept, _ = to_mixed(data, "fp16", large={"p"})
    assert runs_in(kept) == {"MatMul": {"FLOAT"}}, "one makes it, the other reads it"
    with pytest.raises(InputError, match="calibration photos"):
        image_ranges(data, [])


def test_few_values_of_the_embedded_segmenter_are_too_large() -> None:
    """The fp16 graphs keep them in 32 bits; none is in the mask graph."""
    graphs = {name: bundle().graph_bytes(name) for name in ("image", "prompt", "mask")}
    large = too_large(graphs, [photo_input("chelsea.png")])
    assert large["mask"] == set() and len(large["image"]) + len(large["prompt"]) < 20


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_embedded_graphs_keep_their_contract(precision: str) -> None:
    for name, data in reduced(precision).items():
        before, after = read_onnx(bundle().graph_bytes(name), name), read_onnx(data, name)
        assert (before.inputs, before.outputs) == (after.inputs, after.outputs)
        check_rules(after, bundle().opset)
        if name == "head":
            assert data == bundle().graph_bytes(name)
            continue
        kinds = runs_in(data)
        never = {"LayerNormalization", "Softmax", "Sin", "Cos", "ReduceSum"} & kinds.keys()
        assert all(kinds[operator] == {"FLOAT"} for operator in never)
        assert BY[precision] in kinds["MatMul"]
    assert runs_in(reduced("fp16")["image"])["Conv"] == {"FLOAT16"}
    assert runs_in(reduced("bf16")["image"])["Conv"] == {"FLOAT"}, "ONNX defines no such Conv before opset 22"
    assert len(reduced("fp16")["image"]) < len(bundle().graph_bytes("image"))


def test_the_same_graphs_give_the_same_bytes() -> None:
    graphs = {name: bundle().graph_bytes(name) for name in bundle().graphs}
    again = to_precision(graphs, "fp16", [photo_input("coffee.png")])
    assert again == reduced("fp16")


def test_predicted_iou_is_computed_in_32_bits() -> None:
    graph = onnx.load_from_string(reduced("fp16")["prompt"]).graph
    makers = {name: node for node in graph.node for name in node.output}
    node, chain = makers["iou"], []
    while node.op_type in ("Gemm", "Relu"):
        chain.append(node.op_type)
        node = makers[node.input[0]]
    assert chain == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"], "a Cast would end the chain"


def test_float16_rounding_costs_the_embedded_segmenter_little_but_something() -> None:
    tokens = {}
    for kind in ("full", "rounded"):
        graphs = {name: bundle().graph_bytes(name) for name in ("image", "prompt")}
        if kind == "rounded":
            graphs = {name: with_rounding(reduced("fp16")[name]) for name in graphs}
        sessions = {name: OrtSession(data, bundle().graphs[name]) for name, data in graphs.items()}
        model = Model(bundle(), sessions)
        frame = model.frame(as_pixels(sample_path("chelsea.png")))
        hoisted = model.hoist(photo_input("chelsea.png"))
        (prompts,) = model.prompt(hoisted, frame, PointGrid(per_side=4).points(), 16)
        tokens[kind] = prompts.tokens.reshape(-1, 256).astype(np.float64)
    full, rounded = tokens["full"], tokens["rounded"]
    cosine = (full * rounded).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(rounded, axis=1)
    gap = np.linalg.norm(full - rounded) / np.linalg.norm(full)
    assert cosine.min() >= 0.999 and 1e-4 < gap <= 1e-2


@pytest.mark.slow
def test_the_low_rank_decoder_keeps_its_variances_in_both_graphs() -> None:
    graphs = sam_graphs(deployed_sam(random_sam(NARROW_TINY, seed=3)), "low-rank")
    prompt, variances = to_mixed(graphs["prompt"], "fp16")
    assert variances == {"h_norms", "h_cross1", "h_cross21", "h_cross22"}
    image, _ = to_mixed(graphs["image"], "fp16", outputs=variances)
    made = {name for node in onnx.load_from_string(image).graph.node for name in node.output}
    assert not {f"{name}__16" for name in variances} & made
    assert {"h_k1__16", "h_q3__16", "h_v2__16"} & made == {"h_k1__16", "h_v2__16"}, "there is no h_q3"
    for data in (image, prompt):
        kinds = runs_in(data)
        assert all(
            kinds[name] == {"FLOAT"} for name in kinds.keys() & {"Sqrt", "ReduceSum", "ReduceMean", "Exp", "Pow"}
        )
        assert "FLOAT16" in kinds["MatMul"] and kinds["LayerNormalization"] == {"FLOAT"}


def test_what_runs_here_is_found_out_by_running_it() -> None:
    assert can_run_here("fp16") and can_run_here("int8")
    data, _ = to_mixed(linear(), "bf16")
    try:
        open_graph(data)({"x": X})
        runs = True
    except Exception:
        runs = False
    assert can_run_here("bf16") == runs


def test_another_precision_is_refused() -> None:
    with pytest.raises(InputError, match="fp16, bf16, int8"):
        to_precision({}, "fp8", [])


@pytest.mark.parametrize("name", ["w_half", "w__16"])
def test_numbers_of_a_stored_weight_do_not_change(name: str) -> None:
    data, _ = to_mixed(linear(("w",) if name == "w_half" else ()), "fp16")
    stored = {tensor.name: tensor for tensor in onnx.load_from_string(data).graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(stored[name]), W.astype(np.float16))
