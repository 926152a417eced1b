"""The ONNX reader: what it accepts it reads as the onnx library does; everything else is a BundleError."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_graphs import fold_bombs
from bundles import IR_VERSION, OPSET, good_parts, initializer, model_of, value
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk import onnx_wire
from gransam_sdk.errors import BundleError
from gransam_sdk.onnx_model import DTYPES, OnnxModel, read_onnx
from gransam_sdk.onnx_rules import OPERATORS, check_rules
from gransam_sdk.onnx_wire import Refusal

GOOD = good_parts().graphs
DOCS = Path(__file__).parents[2] / "docs"


def read(model: onnx.ModelProto) -> OnnxModel:
    return read_onnx(model.SerializeToString(), "test.onnx")


def agrees(found: OnnxModel, model: onnx.ModelProto) -> bool:
    """The reader and the onnx library see the same model."""

    def ports(values: list[onnx.ValueInfoProto]) -> list[tuple[str, str, tuple[int | str, ...]]]:
        return [
            (
                v.name,
                str(helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)),
                tuple(dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim),
            )
            for v in values
        ]

    graph = model.graph
    return (
        found.ir_version == model.ir_version
        and list(found.opsets) == [(opset.domain, opset.version) for opset in model.opset_import]
        and [(t.name, t.dtype, t.axes) for t in found.inputs] == ports(graph.input)
        and [(t.name, t.dtype, t.axes) for t in found.outputs] == ports(graph.output)
        and found.initializers == {t.name: max(numpy_helper.to_array(t).size, 1) for t in graph.initializer}
        and [(n.op, n.domain, list(n.inputs), list(n.outputs)) for n in found.nodes]
        == [(n.op_type, n.domain, list(n.input), list(n.output)) for n in graph.node]
        and [dict(n.ints) for n in found.nodes] == [{a.name: a.i for a in n.attribute} for n in graph.node]
    )


@pytest.mark.parametrize("graph", sorted(GOOD))
def test_good_graphs_are_read_as_the_onnx_library_reads_them(graph: str) -> None:
    found = read_onnx(GOOD[graph], graph)
    assert agrees(found, onnx.load_from_string(GOOD[graph]))
    check_rules(found, OPSET)


@pytest.mark.parametrize("number", sorted(DTYPES))
def test_every_dtype_is_onnxs(number: int) -> None:
    assert DTYPES[number] == helper.tensor_dtype_to_np_dtype(number)
    stored = numpy_helper.from_array(np.ones((2, 3), DTYPES[number]), "w")
    assert read(model_of([], [], [], [stored])).initializers == {"w": 6}


def test_a_model_with_everything_that_is_allowed() -> None:
    nodes = [
        helper.make_node("Constant", [], ["a"], value_ints=[1, 2, 3]),
        helper.make_node("Constant", [], ["b"], value_floats=[0.5, -0.5]),
        helper.make_node("Constant", [], ["c"], value=initializer("", np.zeros((4, 5), np.float32))),
        helper.make_node("Clip", ["x", "", "c"], ["y"], name="clip", doc_string="text"),
        helper.make_node("Conv", ["x", "w"], ["z"], pads=[-1, 0, 1, 2], auto_pad="NOTSET"),
    ]
    model = model_of(nodes, [value("x", ("b", 3, 7, 7))], [value("z", ("b", 2, 1, 1))], [initializer("w", [])])
    model.doc_string, model.producer_name = "text", "producer"
    found = read(model)
    assert agrees(found, model)
    assert [node.elements for node in found.nodes][:3] == [3, 2, 20]


def test_debugging_information_is_refused_because_no_reader_here_looks_into_it() -> None:
    node = helper.make_node("Relu", ["tokens"], ["y"])
    for holder in ("model", "graph", "node", "tensor", "value"):
        model = model_of([node], [value("tokens", ("g", 4))], [], [initializer("w", [1])])
        places = {"model": model, "graph": model.graph, "node": model.graph.node[0]}
        places |= {"tensor": model.graph.initializer[0], "value": model.graph.input[0]}
        places[holder].metadata_props.add(key="a", value="b")
        with pytest.raises(BundleError, match="strip it"):
            read(model)
    model = model_of([node], [value("tokens", ("g", 4))], [])
    model.graph.value_info.append(value("y", ("g", 4)))
    with pytest.raises(BundleError, match="strip it"):
        read(model)


def test_packed_and_plain_lists_are_the_same() -> None:
    plain = b"\x08\x03\x08\x80\x01"  # dims: 3, then 128
    packed = b"\x0a\x03\x03\x80\x01"
    for data in (plain, packed):
        message = onnx_wire.read_message(memoryview(data), onnx_wire.TENSOR)
        assert list(onnx_wire.numbers(message, "dims")) == [3, 128]
        assert list(TensorProto.FromString(data).dims) == [3, 128]


def test_negative_numbers_take_ten_bytes() -> None:
    data = helper.make_attribute("axis", -2).SerializeToString()
    message = onnx_wire.read_message(memoryview(data), onnx_wire.ATTRIBUTE)
    assert onnx_wire.number(message, "i") == -2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x08", "cut off"),
        (b"\x08\xff", "cut off"),
        (b"\x08" + b"\xff" * 10, "64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "shortest form"),
        (b"\x08\x80\x00", "shortest form"),
        (b"\x88\x00\x01", "shortest form"),
        (b"\x0a\x05abc", "past its end"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "past its end"),
        (b"\x0d\x00\x00", "past its end"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x00", "field 0"),
        (b"\x08\x01\x08\x01", "ir_version once"),
        (b"\x0a\x00", "field 1 with wire type 2"),
        (b"\xf8\x3f\x01", "field 1023"),
    ],
    ids=lambda value: value.hex()[:24] if isinstance(value, bytes) else None,
)
def test_bytes_that_readers_could_take_differently_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        onnx_wire.read_message(memoryview(data), onnx_wire.MODEL)
    assert re.search(says, f"{caught.value.expected} {caught.value.found}")


def test_a_second_graph_which_protobuf_would_merge_is_refused() -> None:
    first, second = GOOD["head"], model_of([helper.make_node("Relu", ["tokens"], ["z"])], [], []).SerializeToString()
    merged = onnx.load_from_string(first + second)
    assert [node.op_type for node in merged.graph.node] == ["Reshape", "MatMul", "Relu"]
    with pytest.raises(BundleError, match="once"):
        read_onnx(first + second, "head.onnx")


def test_long_lists_and_names_are_refused() -> None:
    many = b"".join(b"\x42\x00" for _ in range(onnx_wire.MAX_FIELDS + 1))
    with pytest.raises(BundleError, match="200000 fields"):
        read_onnx(many, "many")
    packed = b"\x0a" + b"\x81\x80\x80\x01" + bytes((1 << 21) + 1)
    with pytest.raises(Refusal, match="1048576 bytes"):
        onnx_wire.read_message(memoryview(packed), onnx_wire.TENSOR)
    with pytest.raises(BundleError, match="names of at most"):
        read(model_of([helper.make_node("Relu", ["x" * 1025], ["y"])], [], []))


def test_8000_mutations_raise_nothing_but_bundle_errors_and_survivors_are_read_alike() -> None:
    rng = np.random.default_rng(20)
    survivors = 0
    for name in sorted(GOOD):
        for _ in range(2000):
            mutated = mutate(GOOD[name], rng)
            try:
                found = read_onnx(mutated, name)
            except BundleError:
                continue
            survivors += 1
            assert agrees(found, onnx.load_from_string(mutated)), mutated.hex()
    assert survivors > 1000  # mutated weights, names and attributes: the test reaches deep code


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes set, cut, copied or swapped: the structure survives often enough to reach deep code."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(changed)))
        kind = int(rng.integers(5))
        length = int(rng.integers(1, 9))
        if kind == 0:
            changed[at] = int(rng.integers(256))
        elif kind == 1:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        else:
            changed[at:at] = rng.bytes(length)
        if not changed:
            return b""
    return bytes(changed)


def test_random_bytes_raise_bundle_errors() -> None:
    rng = np.random.default_rng(21)
    for _ in range(1000):
        with pytest.raises(BundleError):
            read_onnx(rng.bytes(int(rng.integers(1, 200))), "random")


def refusal(nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto] | None = None) -> Refusal | None:
    """What the rules say to a graph with inputs ``points`` (g,2) and ``fixed`` (3,4)."""
    inputs = [value("points", ("g", 2)), value("fixed", (3, 4))]
    output = next(name for name in reversed(nodes[-1].output) if name)
    model = model_of(nodes, inputs, [value(output, ("g",))], stored or [])
    try:
        check_rules(read(model), OPSET)
    except Refusal as error:
        return error
    return None


def weight(name: str = "w", *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return initializer(name, np.ones(shape, dtype))


NODE: Callable[..., onnx.NodeProto] = helper.make_node


@pytest.mark.parametrize(
    ("nodes", "stored"),
    [
        ([NODE("Cast", ["w"], ["y"], to=TensorProto.FLOAT)], [weight("w", 512, 512, dtype=np.float16)]),
        ([NODE("Transpose", ["w"], ["y"], perm=[1, 0])], [weight("w", 300, 700)]),
        ([NODE("Mul", ["w", "c"], ["y"])], [weight("w", 300, 700), weight("c")]),
        ([NODE("Sqrt", ["w"], ["y"])], [weight("w", 300, 700)]),
        ([NODE("Split", ["w"], ["x", "y"], num_outputs=2)], [weight("w", 300, 700)]),
        ([NODE("Mul", ["v", "w"], ["y"])], [weight("v", 1, 256), weight("w", 256, 1)]),
        ([NODE("MatMul", ["points", "w"], ["y"])], [weight("w", 2, 4096)]),
        (
            [
                NODE("Shape", ["points"], ["g"], end=1),
                NODE("Concat", ["g", "c"], ["a"], axis=0),
                NODE("Expand", ["w", "a"], ["y"]),
            ],
            [initializer("c", [256]), weight("w", 1, 256)],
        ),
        (
            [NODE("Shape", ["points"], ["a"]), NODE("Gather", ["a", "i"], ["y"]), NODE("Expand", ["w", "a"], ["z"])],
            [initializer("i", [0]), weight("w", 1, 2)],
        ),
        ([NODE("Shape", ["fixed"], ["a"]), NODE("Reshape", ["points", "a"], ["y"])], []),
    ],
    ids=lambda value: "+".join(n.op_type for n in value) if value and isinstance(value[0], onnx.NodeProto) else "",
)
def test_what_exporters_write_is_allowed(nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto]) -> None:
    assert refusal(nodes, stored) is None


@pytest.mark.parametrize(
    ("nodes", "stored"),
    [
        ([NODE("Mul", ["v", "w"], ["y"])], [weight("v", 1, 257), weight("w", 257, 1)]),
        ([NODE("MatMul", ["w", "w"], ["y"])], [weight("w", 2, 2)]),
        ([NODE("Shape", ["fixed"], ["a"]), NODE("Expand", ["w", "a"], ["y"])], [weight("w", 1)]),
        ([NODE("Shape", ["points"], ["a"], start=1), NODE("Expand", ["w", "a"], ["y"])], [weight("w", 1)]),
        ([NODE("Shape", ["points"], ["a"], start=-1), NODE("Expand", ["w", "a"], ["y"])], [weight("w", 1)]),
        (
            [NODE("Relu", ["points"], ["r"]), NODE("Shape", ["r"], ["a"]), NODE("Expand", ["w", "a"], ["y"])],
            [weight("w", 1)],
        ),
        ([NODE("ReduceSum", ["w"], ["y"])], [weight("w", 5)]),
        ([NODE("Constant", [], ["w"], value_float=1.0), NODE("Pad", ["w", "p"], ["y"])], [initializer("p", [0, 9])]),
    ],
    ids=lambda value: "+".join(n.op_type for n in value) if value and isinstance(value[0], onnx.NodeProto) else "",
)
def test_constants_that_grow_are_refused(nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto]) -> None:
    error = refusal(nodes, stored)
    assert error is not None
    assert "constants" in error.expected


def test_copies_of_constants_have_a_budget() -> None:
    stored = [weight("w0", 1 << 20)]

    def chain(length: int) -> list[onnx.NodeProto]:
        return [NODE("Cast", [f"w{i}"], [f"w{i + 1}"], to=1 if i % 2 else 10) for i in range(length)]

    assert refusal(chain(17), stored) is None
    assert refusal(chain(18), stored) is not None


def test_every_bomb_is_a_model_that_the_reader_itself_accepts() -> None:
    """The rules refuse them, not some accident of how they are written."""
    for name, (nodes, stored) in fold_bombs().items():
        model = read(model_of(nodes, [value("tokens", ("g", 4, 8))], [], stored))
        assert len(model.nodes) == len(nodes), name
        with pytest.raises(Refusal):
            check_rules(model, OPSET)


def test_the_operators_are_onnxs_and_documented() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= OPERATORS
    page = (DOCS / "bundle-format.md").read_text(encoding="utf-8")
    listed = re.search(r"Operators\*\* \(\d+\): (.*?)\n\n", page, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == OPERATORS


def test_ir_version_and_opset_belong_together() -> None:
    assert helper.find_min_ir_version_for([helper.make_opsetid("", 21)]) == IR_VERSION
