"""Bundles whose ONNX files are wrong, though every hash is right: what a hostile maker would try."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bundle_case import Case, in_graph, in_manifest, set_at
from bundles import D, F, HeadKind, K, good_parts, head_model, initializer, model_of, tensor, value, write_good
from onnx import TensorProto, helper


def cases() -> list[Case]:
    """All of this file."""
    makers = (
        external_data_cases,
        fold_bomb_cases,
        operators_cases,
        ports_cases,
        versions_cases,
        weights_cases,
        exchanged_cases,
    )
    return [case for maker in makers for case in maker()]


def external_data_cases() -> Iterator[Case]:
    def external(location: str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            stored = model.graph.initializer[0]
            stored.ClearField("raw_data")
            stored.data_location = TensorProto.EXTERNAL
            stored.external_data.add(key="location", value=location)

        return change

    for name, location in {"beside": "head.onnx", "parent": "../w", "absolute": "/etc/passwd"}.items():
        yield Case("B8", name, in_graph("prompt", external(location)), "external data")
    yield Case("B9", "memory-address", in_graph("prompt", external("*/_ORT_MEM_ADDR_/*")), "external data")

    def only_location(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL

    def only_entries(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].external_data.add(key="location", value="head.onnx")

    def in_constant(model: onnx.ModelProto) -> None:
        constant = next(node for node in model.graph.node if node.op_type == "Constant")
        constant.attribute[0].t.external_data.add(key="location", value="head.onnx")

    def sparse(model: onnx.ModelProto) -> None:
        values = initializer("sparse", np.ones(1, np.float32))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, initializer("at", [0]), [1 << 40]))

    yield Case("B8", "location-flag", in_graph("prompt", only_location), "external data")
    yield Case("B8", "entries-without-flag", in_graph("prompt", only_entries), "external data")
    yield Case("B8", "in-constant", in_graph("prompt", in_constant), "external data")
    yield Case("B8", "sparse", in_graph("prompt", sparse), "sparse tensor")


def fold_bombs() -> dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]]:
    """Small graphs that cost an engine gigabytes when it evaluates their constants."""
    node = helper.make_node
    huge, ones = initializer("huge", [1 << 27]), initializer("ones", np.ones(60_000, np.float32))
    axes = [initializer("row", [1, 60_000]), initializer("column", [60_000, 1])]
    empty = initializer("empty", np.zeros((0,), np.float32))
    scale = initializer("scale", np.array([1 << 27], np.float32))
    single = initializer("single", np.ones(1, np.float32))
    limits = [initializer(name, np.array(number, np.int64)) for name, number in (("a", 0), ("b", 1 << 28), ("c", 1))]
    row, column = node("Reshape", ["ones", "row"], ["r"]), node("Reshape", ["ones", "column"], ["q"])
    doubled = [node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=0) for i in range(30)]
    empty_sum = [node("Reshape", ["empty", "wide"], ["e"], allowzero=1), node("ReduceSum", ["e", "last"], ["y"])]
    shape_of_inner = [node("Reshape", ["tokens", "huge_axes"], ["inner"]), node("Shape", ["inner"], ["axes"])]
    return {
        "constant-of-shape": ([node("ConstantOfShape", ["huge"], ["y"])], [huge]),
        "range": ([node("Range", ["a", "b", "c"], ["y"])], limits),
        "tile": ([node("Tile", ["single", "huge"], ["y"])], [single, huge]),
        "expand": ([node("Expand", ["single", "huge"], ["y"])], [single, huge]),
        "pad": ([node("Pad", ["single", "pads"], ["y"])], [single, initializer("pads", [0, 1 << 27])]),
        "resize": ([node("Resize", ["single", "", "scale"], ["y"])], [single, scale]),
        "matmul": ([row, column, node("MatMul", ["q", "r"], ["y"])], [ones, *axes]),
        "multiply": ([row, column, node("Mul", ["q", "r"], ["y"])], [ones, *axes]),
        "gather": ([node("Gather", ["ones", "many"], ["y"])], [ones, initializer("many", [0] * 60_000)]),
        "doubling": ([node("Identity", ["ones"], ["x0"]), *doubled, node("Identity", ["x30"], ["y"])], [ones]),
        "empty-sum": (empty_sum, [empty, initializer("wide", [1 << 28, 0]), initializer("last", [-1])]),
        "expand-to-inner-shape": (
            [*shape_of_inner, node("Expand", ["single", "axes"], ["y"])],
            [single, initializer("huge_axes", [1 << 14, -1])],
        ),
        "expand-to-fixed-shape": (
            [node("Shape", ["tokens"], ["axes"], start=1), node("Expand", ["single", "axes"], ["y"])],
            [single],
        ),
        "expand-constant-node": (
            [node("Constant", [], ["axes"], value_ints=[1 << 27]), node("Expand", ["single", "axes"], ["y"])],
            [single],
        ),
    }


def fold_bomb_cases() -> Iterator[Case]:
    for name, (nodes, stored) in fold_bombs().items():

        def change(model: onnx.ModelProto, nodes: Any = nodes, stored: Any = stored) -> None:
            model.graph.node.extend(nodes)
            model.graph.initializer.extend(stored)

        yield Case("B10", name, in_graph("head", change), "constants|operator of the list")

    def empty_plane(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(initializer("plane", np.zeros((1 << 30, 0), np.float32)))

    def short_of_bytes(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(TensorProto(name="liar", data_type=1, dims=[1 << 30], raw_data=b"\0" * 4))

    yield Case("B10", "empty-plane", in_graph("head", empty_plane), "empty tensors")
    yield Case("B10", "fewer-bytes-than-axes", in_graph("head", short_of_bytes), "4294967296 bytes")


def operators_cases() -> Iterator[Case]:
    def added(node: onnx.NodeProto) -> Callable[[Path], Path]:
        return in_graph("head", lambda model: model.graph.node.append(node))

    def function(model: onnx.ModelProto) -> None:
        relu = helper.make_node("Relu", ["x"], ["y"])
        opsets = [helper.make_opsetid("", 20)]
        model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [relu], opsets))

    def second_domain(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))

    node = helper.make_node
    yield Case("B13", "domain", added(node("Relu", ["logits"], ["z"], domain="com.microsoft")), "com.microsoft")
    yield Case("B13", "python", added(node("PyOp", ["logits"], ["z"])), "'PyOp'")
    yield Case("B13", "random", added(node("RandomNormalLike", ["logits"], ["z"])), "'RandomNormalLike'")
    yield Case("B13", "cast-to-string", added(node("Cast", ["logits"], ["z"], to=TensorProto.STRING)), "data type 8")
    yield Case("B13", "overload", added(node("Relu", ["logits"], ["z"], overload="mine")), "local function")
    yield Case("B13", "function", in_graph("head", function), "local functions")
    yield Case("B13", "import", in_graph("head", second_domain), "ai.onnx.ml")
    graph = model_of([node("Relu", ["logits"], ["z"])], [], [value("z", ("g", K))]).graph
    for op, attributes in {
        "If": {"then_branch": graph, "else_branch": graph},
        "Loop": {"body": graph},
        "Scan": {"body": graph, "num_scan_inputs": 1},
        "Relu": {"hidden": graph},
    }.items():
        yield Case("B14", op, added(node(op, ["logits"], ["z"], **attributes)), "a subgraph")
    yield Case("B14", "If-bare", added(node("If", ["logits"], ["z"])), "'If'")
    yield Case("B14", "graph-list", added(node("Relu", ["logits"], ["z"], hidden=[graph])), "a subgraph")

    def forward(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, node("Relu", ["later"], ["z"]))
        model.graph.node.append(node("Relu", ["logits"], ["later"]))

    yield Case("B13", "unordered", in_graph("head", forward), "reads 'later'")
    yield Case("B13", "made-twice", added(node("Relu", ["flat"], ["logits"])), "'logits' again")
    yield Case("B13", "input-with-default", in_graph("head", _stored_input), "'tokens'")


def _stored_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(initializer("tokens", np.zeros((1, 4, D), np.float32)))


def ports_cases() -> Iterator[Case]:
    """The manifest declares something else than the graph has, tensor by tensor, and the reverse."""
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "name": lambda port: port.update(name="h_other"),
        "rank": lambda port: port["axes"].append(1),
        "dtype": lambda port: port.update(dtype="float16"),
        "size": lambda port: port["axes"].__setitem__(-1, 31) if len(port["axes"]) > 1 else port.update(axes=[7]),
        "letter": lambda port: port["axes"].__setitem__(0, "z"),
    }
    for graph, entry in good_parts().manifest["graphs"].items():
        for side in ("inputs", "outputs"):
            for i, port in enumerate(entry[side]):
                for name, change in changes.items():
                    build = in_manifest(lambda m, g=graph, s=side, i=i, c=change: c(m["graphs"][g][s][i]))
                    yield Case(
                        "B15", f"{graph}-{port['name']}-{name}", build, "(image|prompt|mask|head) graph, (in|out)puts"
                    )

    def renamed(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "mask_tokens"
        model.graph.node[0].input[0] = "mask_tokens"

    def resized(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = K + 1

    def fixed(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    def retyped(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    def unshaped(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.ClearField("shape")

    def nameless(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].Clear()

    yield Case("B15", "graph-renamed", in_graph("head", renamed), r"head\.onnx, inputs\n.*tokens float32 \[g, 4, 8\]")
    yield Case("B15", "graph-resized", in_graph("head", resized), r"logits float32 \[g, 3\]\n.*\[g, 4\]")
    yield Case("B15", "graph-fixed", in_graph("head", fixed), r"\[g, 4, 8\]\n.*\[1, 4, 8\]")
    yield Case("B15", "graph-retyped", in_graph("head", retyped), r"float32 \[g, 4, 8\]\n.*float16")
    yield Case("B15", "graph-unshaped", in_graph("head", unshaped), "a shape in 'tokens'")
    yield Case("B15", "graph-nameless-axis", in_graph("head", nameless), "every axis of 'tokens'")
    yield Case("B15", "no-hoisted", in_manifest(set_at("graphs.image.outputs", [tensor("x", "b", 1)])), r"h_\*")


def versions_cases() -> Iterator[Case]:
    def opset(version: int) -> Callable[[onnx.ModelProto], None]:
        return lambda model: model.opset_import[0].__setattr__("version", version)

    for version in (22, 99, 1 << 40):
        yield Case("B16", f"opset-{version}", in_graph("head", opset(version)), "install a newer gransam-sdk")
    yield Case("B16", "opset-16", in_graph("head", opset(16)), "opset 17 to 21")
    yield Case("B16", "newer-than-manifest", in_graph("head", opset(21)), "opset 20 or older")
    yield Case("B16", "file-version", in_graph("head", lambda m: m.__setattr__("ir_version", 99)), "newer gransam-sdk")
    yield Case("B16", "none", in_graph("head", lambda m: m.ClearField("opset_import")), "none")
    yield Case("B16", "manifest", in_manifest(set_at("opset", 22)), "17 to 21")


def weights_cases() -> Iterator[Case]:
    def poisoned(graph: str, index: int, number: float, dtype: type) -> Callable[[Path], Path]:
        def change(model: onnx.ModelProto) -> None:
            stored = model.graph.initializer[index]
            values = np.frombuffer(stored.raw_data, dtype).copy()
            values[len(values) // 2] = number
            stored.raw_data = values.tobytes()

        return in_graph(graph, change)

    for name, number in {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}.items():
        yield Case("B19", f"{name}-float32", poisoned("head", 1, number, np.float32), "NaN or infinity in 'logit'")
        yield Case(
            "B19", f"{name}-float16", poisoned("image", 0, number, np.float16), "NaN or infinity in 'patch_half'"
        )

    def constant(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Constant", [], ["z"], value=initializer("", np.array([np.nan]))))

    def attribute(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Constant", [], ["z"], value_floats=[1.0, float("inf")]))

    yield Case("B19", "nan-constant", in_graph("head", constant), "NaN or infinity")
    yield Case("B19", "inf-attribute", in_graph("head", attribute), "NaN or infinity in 'value_floats'")


def exchanged_cases() -> Iterator[Case]:
    def swapped(*, ports: bool) -> Callable[[Path], Path]:
        def build(folder: Path) -> Path:
            parts = good_parts()
            graphs, entries = parts.graphs, parts.manifest["graphs"]
            graphs["image"], graphs["prompt"] = graphs["prompt"], graphs["image"]
            if ports:
                for side in ("inputs", "outputs"):
                    entries["image"][side], entries["prompt"][side] = entries["prompt"][side], entries["image"][side]
            return parts.write(folder)

        return build

    def other_head(d: int, k: int, *, declared: bool) -> Callable[[Path], Path]:
        def build(folder: Path) -> Path:
            parts = good_parts()
            logit = np.zeros((4 * d, k), np.float32)
            parts.graphs["head"] = head_model({"logit": logit}).SerializeToString()
            if declared:
                ports = {"inputs": [tensor("tokens", "g", 4, d)], "outputs": [tensor("logits", "g", k)]}
                parts.manifest["graphs"]["head"].update(ports)
            return parts.write(folder)

        return build

    def other_features(name: str, *axes: int | str) -> Callable[[Path], Path]:
        """A head that reads no tokens."""

        def build(folder: Path) -> Path:
            parts, width = good_parts(), int(axes[-1])
            nodes, logit = [helper.make_node("MatMul", [name, "logit"], ["logits"])], np.zeros((width, K), np.float32)
            ports = [value(name, axes)], [value("logits", ("g", K))]
            parts.graphs["head"] = model_of(nodes, *ports, [initializer("logit", logit)]).SerializeToString()
            parts.manifest["graphs"]["head"]["inputs"] = [tensor(name, *axes)]
            return parts.write(folder)

        return build

    def other_file(folder: Path) -> Path:
        write_good(folder)
        good_parts(seed=1).write(folder.with_name("other"))
        shutil.copy(folder.with_name("other") / "head.onnx", folder / "head.onnx")
        return folder

    def other_kind(kind: HeadKind) -> Callable[[Path], Path]:
        def build(folder: Path) -> Path:
            parts, plain = good_parts(kind=kind), good_parts()
            parts.graphs["head"] = plain.graphs["head"]
            parts.manifest["graphs"]["head"] = plain.manifest["graphs"]["head"]
            return parts.write(folder)

        return build

    wide = r"tokens float32 \[g, 4, 8\]\n.*tokens float32 \[g, 4, 16\]"
    yield Case("B18", "declared", other_head(16, K, declared=True), f"head graph, inputs\n.*{wide}")
    yield Case("B18", "undeclared", other_head(16, K, declared=False), f"head.onnx, inputs\n.*{wide}")
    yield Case("B21", "graphs-swapped", swapped(ports=False), "image.onnx, inputs")
    yield Case("B21", "graphs-and-ports-swapped", swapped(ports=True), "image graph, inputs")
    yield Case("B21", "head-of-other-classes", other_head(D, 5, declared=True), r"\[g, 3\]\n.*\[g, 5\]")
    yield Case("B21", "head-of-other-bundle", other_file, "sha256")
    yield Case("B21", "head-without-background", other_kind(HeadKind(background=True)), r"\[g, 4\]\n.*\[g, 3\]")
    neither = r"head graph, inputs\n.*tokens float32 \[g, 4, 8\]\n.*pooled"
    yield Case("B21", "head-of-neither", other_features("pooled", "g", F), neither)
    one = r"head graph, inputs\n.*features float32 \[g, 5\]\n.*features float32 "
    yield Case("B18", "head-of-other-features", other_features("features", "g", F + 1), rf"{one}\[g, 6\]")
    yield Case("B21", "head-of-all-features", other_features("features", "g", 4, F), rf"{one}\[g, 4, 5\]")
    yield Case("B21", "head-of-prompts", other_kind(HeadKind(labels="mask")), r"\[g, 3, 3\]\n.*\[g, 3\]")
