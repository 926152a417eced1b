"""Graphs in 8 bits: the arithmetic, which products are chosen, and what the embedded segmenter loses."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from sample_photos import sample_path
from small_graphs import NODE, small_graph

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.errors import InputError
from gransam_sdk.export.int8 import products, quantise
from gransam_sdk.export.int8_choice import choose, most_within
from gransam_sdk.export.onnx_run import open_graph
from gransam_sdk.export.precision import to_precision
from gransam_sdk.export.ranges import image_ranges
from gransam_sdk.onnx_model import read_onnx
from gransam_sdk.onnx_rules import check_rules
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.model import Model

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((2, 3, 6, 6)).astype(np.float32)
W = RANDOM.standard_normal((8, 3, 1, 1)).astype(np.float32)
B = RANDOM.standard_normal(8).astype(np.float32)
V = RANDOM.standard_normal((4, 8, 1, 1)).astype(np.float32)


def two_convolutions(halved: tuple[str, ...] = ()) -> bytes:
    """Convolution, ReLU, convolution; what lies between is read by an Exp as well."""
    nodes = [NODE("Conv", ["image", "w", "b"], ["p"]), NODE("Relu", ["p"], ["r"])]
    nodes += [NODE("Conv", ["r", "v"], ["h_a"]), NODE("Exp", ["r"], ["h_b"])]
    outputs = {"h_a": ("b", 4, 6, 6), "h_b": ("b", 8, 6, 6)}
    return small_graph(nodes, {"image": ("b", 3, 6, 6)}, outputs, {"w": W, "b": B, "v": V}, halved)


def to_levels(values: np.ndarray, largest: np.ndarray | float) -> np.ndarray:
    """Nearest of 255 levels from -largest to largest, as a float64 value."""
    step = np.asarray(largest, np.float64) / 127
    return np.clip(np.round(values / step), -127, 127) * step


def by_row(weight: np.ndarray) -> np.ndarray:
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    return to_levels(flat, np.abs(flat).max(1, keepdims=True))


def test_numbers_are_those_of_quantised_arithmetic_in_float64() -> None:
    data = two_convolutions()
    pixels = X.transpose(0, 2, 3, 1).reshape(-1, 3).astype(np.float64)
    exact = np.maximum(pixels @ W[:, :, 0, 0].T + B, 0)  # what the ranges are taken from
    result = np.maximum(to_levels(pixels, np.abs(X).max()) @ by_row(W).T + B, 0)
    between = to_levels(result, exact.max())
    expected = {"h_a": between @ by_row(V).T, "h_b": np.exp(result)}
    ranges = image_ranges(data, [X])
    found = open_graph(quantise(data, {"p", "h_a"}, ranges))({"image": X})
    plain = open_graph(data)({"image": X})
    for name, value in expected.items():
        rows = found[name].transpose(0, 2, 3, 1).reshape(len(value), -1)
        step = exact.max() / 127  # one level may fall on the other side of a tie
        assert np.abs(rows - value).max() <= 3 * step * max(1.0, value.max())
        assert np.isclose(rows, value, rtol=1e-3, atol=1e-4).mean() > 0.97
        same = np.isclose(plain[name], found[name], rtol=1e-3, atol=1e-4).mean()
        assert same < 0.75, "nothing was quantised; half of the numbers are zeros after ReLU"


def test_weights_are_stored_in_8_bits_and_only_where_chosen() -> None:
    data = two_convolutions(halved=("w", "v"))
    changed = onnx.load_from_string(quantise(data, {"p"}, image_ranges(data, [X]))).graph
    stored = {tensor.name: tensor for tensor in changed.initializer}
    assert numpy_helper.to_array(stored["w__q"]).dtype == np.int8 and list(stored["w__q"].dims) == [8, 3, 1, 1]
    assert stored["v_half"].data_type == TensorProto.FLOAT16 and "w_half" not in stored
    assert all(numpy_helper.to_array(stored[name]) == 0 for name in stored if name.endswith("__zero"))
    counts = Counter(node.op_type for node in changed.node)
    assert counts["QuantizeLinear"] == 1, "its input"
    read = {node.output[0]: list(node.input) for node in changed.node if node.op_type == "Conv"}
    assert read == {"p": ["image__dq", "w__dq", "b"], "h_a": ["r", "v"]}


def test_rows_of_a_weight_have_steps_of_their_own() -> None:
    weight = W.copy()
    weight[0] *= 1000.0
    graph = small_graph(
        [NODE("Conv", ["image", "w"], ["h_a"])], {"image": ("b", 3, 6, 6)}, {"h_a": ("b", 8, 6, 6)}, {"w": weight}
    )
    found = open_graph(quantise(graph, {"h_a"}, image_ranges(graph, [X])))({"image": X})["h_a"][:, 1:]
    expected = open_graph(graph)({"image": X})["h_a"][:, 1:]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.02


def test_what_cannot_be_quantised_is_no_product() -> None:
    nodes = [NODE("MatMul", ["image", "w"], ["p"]), NODE("Transpose", ["p"], ["q"]), NODE("MatMul", ["p", "q"], ["s"])]
    nodes += [NODE("MatMul", ["s", "p"], ["h_a"])]
    data = small_graph(nodes, {"image": ("b", 3)}, {"h_a": ("b", 8)}, {"w": W[:, :, 0, 0].T.copy()})
    assert [(item.name, item.weight, item.size) for item in products(data)] == [("p", "w", 24)]


def test_the_sensitive_product_stays() -> None:
    outlier = np.ones((2, 1, 1), np.float32)
    outlier[0] = 1e4  # one channel takes all levels of the other
    weights = {"v": np.abs(W[:, :2]) * np.array([0, 1], np.float32)[:, None, None], "w": W[:, :2], "scale": outlier}
    nodes = [NODE("Mul", ["image", "scale"], ["x"]), NODE("Conv", ["x", "v"], ["h_bad"])]
    nodes += [NODE("Conv", ["image", "w"], ["h_good"])]
    outputs = {"h_bad": ("b", 8, 6, 6), "h_good": ("b", 8, 6, 6)}
    data = small_graph(nodes, {"image": ("b", 2, 6, 6)}, outputs, weights)
    lines: list[str] = []
    choice = choose(data, [X[:1, :2], X[1:, :2]], log=lines.append)
    assert choice.chosen == {"h_good"} and choice.weights == 0.5
    assert choice.errors["h_bad"] > 0.5 > 0.02 > choice.errors["h_good"] > 0
    assert lines == ["int8: 1 of 2 products, 50% of their weights"]
    with pytest.raises(InputError, match="loses at most"):
        choose(data, [X[:1, :2]], budget=1e-9)
    with pytest.raises(InputError, match="calibration photos"):
        choose(data, [])


def test_the_most_that_a_budget_allows() -> None:
    lost = [0.0, 0.1, 0.2, 0.2, 0.3, 0.9]
    asked: list[int] = []

    def loss(count: int) -> float:
        asked.append(count)
        return lost[count]

    for budget, expected in ((0.05, 0), (0.1, 1), (0.25, 3), (0.3, 4), (5.0, 5)):
        assert most_within(5, budget, loss) == expected
    assert most_within(5, 1.0, lambda count: math.nan) == 0
    assert len(asked) <= 3 * 5


@cache
def bundle() -> Bundle:
    return open_bundle("nano-voc20")


def photo_input(name: str) -> np.ndarray:
    model = Model(bundle(), {})
    pixels = as_pixels(sample_path(name))
    return model.prepare(pixels, model.frame(pixels))


def test_an_embedded_graph_with_all_products_in_8_bits_keeps_its_contract_and_is_smaller() -> None:
    before = bundle().graph_bytes("image")
    ranges = image_ranges(before, [photo_input("coffee.png")])
    names = [item.name for item in products(before)]
    after = quantise(before, names, ranges)
    assert len(names) == 82 and len(after) < 0.65 * len(before)
    old, new = read_onnx(before, "image"), read_onnx(after, "image")
    assert (old.inputs, old.outputs) == (new.inputs, new.outputs)
    check_rules(new, bundle().opset)
    assert quantise(before, set(names), ranges) == after
    found = open_graph(after)({"image": photo_input("chelsea.png")})
    assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.slow
def test_the_chosen_8_bits_keep_the_embedded_features() -> None:
    graphs = {name: bundle().graph_bytes(name) for name in bundle().graphs}
    reduced = to_precision(graphs, "int8", [photo_input("coffee.png"), photo_input("astronaut.png")])
    assert {name for name in graphs if reduced[name] != graphs[name]} == {"image"}
    assert len(reduced["image"]) < 0.95 * len(graphs["image"])
    image = photo_input("chelsea.png")
    expected, found = (open_graph(each["image"])({"image": image}) for each in (graphs, reduced))
    for name, value in expected.items():
        assert np.linalg.norm(found[name] - value) / np.linalg.norm(value) < 0.03, name
