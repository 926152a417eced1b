"""The rule of the choice by figures made by hand, and a choice between two graphs of which one is far cheaper."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.errors import InputError
from gransam_sdk.export.decoder_form import FormCost, cheaper, choose_form, count_photo
from gransam_sdk.export.decoder_graphs import DecoderGraphs, Form


@pytest.mark.parametrize(
    ("absorbed", "low_rank", "expected"),
    [
        ((10, 1.0), (20, 2.0), "absorbed"),
        ((20, 2.0), (10, 1.0), "low-rank"),
        ((10, 1.09), (20, 1.0), "absorbed"),  # they disagree, and the clock is not clear
        ((10, 1.2), (20, 1.0), "low-rank"),  # they disagree, and it is
        ((20, 1.0), (10, 1.2), "absorbed"),
    ],
)
def test_the_clock_decides_only_where_it_is_clear(
    absorbed: tuple[int, float], low_rank: tuple[int, float], expected: Form
) -> None:
    costs: dict[Form, FormCost] = {
        "absorbed": FormCost(multiply_adds=absorbed[0], milliseconds=absorbed[1]),
        "low-rank": FormCost(multiply_adds=low_rank[0], milliseconds=low_rank[1]),
    }
    assert cheaper(costs) == expected


def repeated(first: str, axes: list[int | str], output: str, times: int) -> bytes:
    """A tensor times a matrix of ones over 256, ``times`` times: the same result at another price."""
    names = [first, *(f"x{index}" for index in range(times - 1)), output]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(first, TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(np.full((256, 256), 1 / 256, dtype=np.float32), "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def toy(times: int) -> DecoderGraphs:
    """Hoisting, prompts and masks of ``times`` products each."""
    return DecoderGraphs(
        hoist=repeated("embedding", ["b", 512, 256], "h_a", times),
        prompt=repeated("h_a", [512, 256], "m_a", times),
        mask=repeated("m_a", [512, 256], "logits", times),
    )


def test_the_cheaper_graphs_are_taken_and_the_line_names_the_figures() -> None:
    """Forty times as many products cost more by any clock."""
    maps, small, large = {"embedding": np.ones((1, 512, 256), dtype=np.float32)}, toy(1), toy(40)
    assert count_photo(small) == 3 * 512 * 256 * 256 and count_photo(large) == 40 * count_photo(small)
    for candidates in ({"absorbed": small, "low-rank": large}, {"low-rank": small, "absorbed": large}):
        forms: dict[Form, DecoderGraphs] = dict(candidates)
        choice = choose_form(forms, maps, chunk=2, rounds=3)
        cheap, dear = forms
        assert choice.form == cheap
        assert choice.costs[dear].milliseconds > 2 * choice.costs[cheap].milliseconds > 0
        line = f"decoder: {cheap} ({cheap} 0.10 billion multiply-adds and "
        assert str(choice).startswith(line) and f"{dear} 4.03 billion multiply-adds and " in str(choice)
    with pytest.raises(InputError, match="two or more"):
        choose_form({"absorbed": small}, maps)
