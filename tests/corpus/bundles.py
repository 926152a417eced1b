"""Small bundles, good and broken, made at test time: nothing here is a file that somebody has to trust.

The good bundle is a tiny segmenter whose arithmetic is written twice: as ONNX graphs, and in numpy for its canary.
Sizes: s = 16, e = 2, l = 4, d = 8, f = 5, k = 3.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gransam_sdk.canary_picture import canary_picture

S, E, L, D, F, K = 16, 2, 4, 8, 5, 3
OPSET, IR_VERSION = 20, 10
CANARY_POINTS = ((0.25, 0.25), (0.7, 0.6))
NAMES = ("cat", "dog", "potted plant")


@dataclass(frozen=True)
class HeadKind:
    """What sort of head a bundle has; the tiny segmenter below it stays the same."""

    background: bool = False
    labels: str = "prompt"
    names: tuple[str, ...] = NAMES

    @property
    def columns(self) -> int:
        """c."""
        return len(self.names) + self.background

    @property
    def logit_axes(self) -> tuple[int | str, ...]:
        """As the head graph declares them."""
        return ("g", self.columns) if self.labels == "prompt" else ("g", 3, self.columns)


PLAIN = HeadKind()


@dataclass
class Parts:
    """A bundle before it is written: change anything, then ``write``."""

    manifest: dict[str, Any]
    graphs: dict[str, bytes]
    files: dict[str, bytes] = field(default_factory=lambda: {"model-card.md": b"# Test bundle\n"})

    def write(self, folder: Path, *, seal: bool = True) -> Path:
        """Writes the folder; ``seal`` brings hashes and sizes of the manifest up to date first."""
        folder.mkdir(parents=True, exist_ok=True)
        if seal:
            self.seal()
        for name, data in self.graphs.items():
            (folder / f"{name}.onnx").write_bytes(data)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        (folder / "gransam.json").write_text(json.dumps(self.manifest), encoding="utf-8")
        return folder

    def seal(self) -> None:
        """Enters every hash and size, as somebody who makes a hostile bundle would."""
        for name, data in self.graphs.items():
            self.manifest["graphs"][name].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        entries = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in self.files.items()
        }
        self.manifest["files"] = entries

    def edit(self, graph: str, change: Callable[[onnx.ModelProto], object]) -> None:
        """Changes one ONNX model in place."""
        model = onnx.load_from_string(self.graphs[graph])
        change(model)
        self.graphs[graph] = model.SerializeToString()


def good_parts(*, head: bool = True, seed: int = 0, kind: HeadKind = PLAIN) -> Parts:
    """A bundle that is right in every way."""
    weights = make_weights(seed, kind)
    models = {"image": image_model(weights), "prompt": prompt_model(weights), "mask": mask_model(weights)}
    if head:
        models["head"] = head_model(weights, kind.labels)
    graphs = {name: model.SerializeToString() for name, model in models.items()}
    return Parts(good_manifest(weights, kind if head else None), graphs)


def write_good(folder: Path, *, head: bool = True, seed: int = 0, kind: HeadKind = PLAIN) -> Path:
    """Writes the good bundle."""
    return good_parts(head=head, seed=seed, kind=kind).write(folder)


def make_weights(seed: int, kind: HeadKind = PLAIN) -> dict[str, np.ndarray]:
    """Random weights; those of the image graph are exact in float16, as they are stored."""
    rng = np.random.default_rng(seed)
    shapes = {"patch": (6, 3, 4, 4), "token": (2, 4 * D), "hoist": (6, 4 * D), "cell": (2, 4 * E * E)}
    shapes |= {"feature": (2, 4 * F), "state": (D, 6)}
    shapes["logit"] = (4 * D if kind.labels == "prompt" else D, kind.columns)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["patch"] = weights["patch"].astype(np.float16).astype(np.float32)
    return weights


def initializer(name: str, values: np.ndarray | Sequence[int]) -> onnx.TensorProto:
    """A stored tensor; lists become int64."""
    array = values if isinstance(values, np.ndarray) else np.array(values, dtype=np.int64)
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def value(name: str, axes: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A declared input or output."""
    return helper.make_tensor_value_info(name, dtype, list(axes))


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    stored: Sequence[onnx.TensorProto] = (),
    opset: int = OPSET,
) -> onnx.ModelProto:
    """One ONNX model."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(stored))
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", opset)])


def image_model(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Patches of 4 x 4 pixels to 6 channels, weights stored in half precision; the embedding is their 2 x 2 mean."""
    nodes = [
        helper.make_node("Cast", ["patch_half"], ["patch"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["image", "patch"], ["h_skip"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("AveragePool", ["h_skip"], ["h_embedding"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    outputs = [value("h_skip", ("b", 6, L, L)), value("h_embedding", ("b", 6, E, E))]
    stored = [initializer("patch_half", weights["patch"].astype(np.float16))]
    return model_of(nodes, [value("image", ("b", 3, S, S))], outputs, stored)


def prompt_model(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Everything is linear in the click, plus the mean embedding in the tokens."""
    nodes = [
        helper.make_node("Shape", ["points"], ["g"], start=0, end=1),
        helper.make_node("Concat", ["g", "token_shape"], ["token_axes"], axis=0),
        helper.make_node("ReduceMean", ["h_embedding", "sides"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "hoist"], ["hoisted"]),
        helper.make_node("MatMul", ["points", "token"], ["clicked"]),
        helper.make_node("Add", ["clicked", "hoisted"], ["flat"]),
        helper.make_node("Reshape", ["flat", "token_axes"], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens", "last"], ["mean_token"], keepdims=0),
        helper.make_node("Sigmoid", ["mean_token"], ["iou"]),
        helper.make_node("MatMul", ["points", "cell"], ["cells"]),
        helper.make_node("Reshape", ["cells", "cell_shape"], ["lattice"]),
        helper.make_node("MatMul", ["points", "feature"], ["flat_features"]),
        helper.make_node("Constant", [], ["feature_shape"], value=initializer("", [-1, 4, F])),
        helper.make_node("Reshape", ["flat_features", "feature_shape"], ["features"]),
        helper.make_node("MatMul", ["tokens", "state"], ["m_state"]),
    ]
    stored = [initializer(name, weights[name]) for name in ("token", "hoist", "cell", "feature", "state")]
    stored += [initializer("token_shape", [4, D]), initializer("cell_shape", [-1, 4, E, E])]
    stored += [initializer("sides", [1, 2]), initializer("last", [-1])]
    inputs = [value("h_embedding", (6, E, E)), value("points", ("g", 2))]
    outputs = [value("tokens", ("g", 4, D)), value("iou", ("g", 4)), value("lattice", ("g", 4, E, E))]
    outputs += [value("features", ("g", 4, F)), value("m_state", ("g", 4, 6))]
    return model_of(nodes, inputs, outputs, stored)


def mask_model(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The chosen token's state times the skip."""
    nodes = [
        helper.make_node("Unsqueeze", ["choice", "last"], ["column"]),
        helper.make_node("Equal", ["column", "four"], ["hot"]),
        helper.make_node("Cast", ["hot"], ["hot_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["hot_float", "last"], ["weight"]),
        helper.make_node("Mul", ["m_state", "weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["chosen"], keepdims=0),
        helper.make_node("Reshape", ["h_skip", "skip_shape"], ["pixels"]),
        helper.make_node("MatMul", ["chosen", "pixels"], ["flat"]),
        helper.make_node("Reshape", ["flat", "mask_shape"], ["logits"]),
    ]
    stored = [initializer("last", [-1]), initializer("four", [0, 1, 2, 3]), initializer("one", [1])]
    stored += [initializer("skip_shape", [6, L * L]), initializer("mask_shape", [-1, L, L])]
    inputs = [value("h_skip", (6, L, L)), value("m_state", ("n", 4, 6)), value("choice", ("n",), TensorProto.INT64)]
    return model_of(nodes, inputs, [value("logits", ("n", L, L))], stored)


def head_model(weights: dict[str, np.ndarray], labels: str = "prompt") -> onnx.ModelProto:
    """All four tokens, or each of tokens 1 to 3, linear."""
    if labels == "mask":
        return mask_head_model(weights)
    nodes = [
        helper.make_node("Reshape", ["tokens", "flat_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "logit"], ["logits"]),
    ]
    d, k = weights["logit"].shape[0] // 4, weights["logit"].shape[1]
    stored = [initializer("flat_shape", [-1, 4 * d]), initializer("logit", weights["logit"])]
    return model_of(nodes, [value("tokens", ("g", 4, d))], [value("logits", ("g", k))], stored)


def mask_head_model(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Tokens 1 to 3, each on its own."""
    nodes = [
        helper.make_node("Slice", ["tokens", "one", "four", "one"], ["own"]),
        helper.make_node("MatMul", ["own", "logit"], ["logits"]),
    ]
    d, c = weights["logit"].shape
    stored = [initializer("one", [1]), initializer("four", [4]), initializer("logit", weights["logit"])]
    return model_of(nodes, [value("tokens", ("g", 4, d))], [value("logits", ("g", 3, c))], stored)


def expected_canary(weights: dict[str, np.ndarray], kind: HeadKind | None) -> dict[str, Any]:
    """What the graphs answer for the canary picture."""
    points = np.array(CANARY_POINTS, dtype=np.float64)
    skip, tokens = tokens_of(weights, canary_picture(S), points)
    masks = np.einsum("gm,myx->gyx", tokens[:, 1] @ weights["state"], skip)
    expected = {
        "tokens": np.linalg.norm(tokens, axis=2),
        "iou": 1.0 / (1.0 + np.exp(-tokens.mean(axis=2))),
        "lattice": (points @ weights["cell"]).reshape(-1, 4, E * E).mean(axis=2),
        "mask": masks.mean(axis=(1, 2)),
    }
    if kind is not None:
        expected["head"] = logits_of(weights, tokens, kind).reshape(len(points), -1)
    return {name: values.tolist() for name, values in expected.items()}


def tokens_of(weights: dict[str, np.ndarray], pixels: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The graphs' arithmetic in numpy, float64: (16,16,3) photo and (g,2) points to skip (6,l,l) and tokens (g,4,d)."""
    image = pixels.astype(np.float64).transpose(2, 0, 1) / 127.5 - 1.0
    patches = image.reshape(3, L, 4, L, 4)
    skip = np.einsum("cyixj,ocij->oyx", patches, weights["patch"].astype(np.float64))
    return skip, (points @ weights["token"] + skip.mean(axis=(1, 2)) @ weights["hoist"]).reshape(-1, 4, D)


def logits_of(weights: dict[str, np.ndarray], tokens: np.ndarray, kind: HeadKind) -> np.ndarray:
    """The head's: (g,4,d) to (g,c) or (g,3,c)."""
    return (tokens.reshape(-1, 4 * D) if kind.labels == "prompt" else tokens[:, 1:]) @ weights["logit"]


def tensor(name: str, *axes: int | str, dtype: str = "float32") -> dict[str, Any]:
    """A tensor as the manifest declares it."""
    return {"name": name, "dtype": dtype, "axes": list(axes)}


def calibrated(manifest: dict[str, Any]) -> dict[str, Any]:
    """Enters what a calibrated head says of itself, in place."""
    numbers = {"temperature": 1.25, "target": 0.8, "pictures": 30, "background_pictures": 0}
    manifest["head"]["calibration"] = numbers
    for entry, basis in zip(manifest["classes"], ("target", "highest", "default"), strict=False):
        precision = None if basis == "default" else 0.75
        entry["evidence"] = {"precision": precision, "kept": 40 if precision else 0, "pictures": 10, "basis": basis}
    return manifest


def head_entry(kind: HeadKind) -> dict[str, Any]:
    """What the manifest says of a head that is not calibrated."""
    return {"background": "explicit" if kind.background else "implicit", "labels": kind.labels, "calibration": None}


def good_manifest(weights: dict[str, np.ndarray], kind: HeadKind | None) -> dict[str, Any]:
    """The manifest of the good bundle, written out by hand; hashes are entered by ``Parts.seal``."""
    skip, embedding = tensor("h_skip", "b", 6, L, L), tensor("h_embedding", "b", 6, E, E)
    tokens = tensor("tokens", "g", 4, D)
    prompt_outputs = [tokens, tensor("iou", "g", 4), tensor("lattice", "g", 4, E, E), tensor("features", "g", 4, F)]
    ports = {
        "image": ([tensor("image", "b", 3, S, S)], [skip, embedding]),
        "prompt": (
            [tensor("h_embedding", 6, E, E), tensor("points", "g", 2)],
            [*prompt_outputs, tensor("m_state", "g", 4, 6)],
        ),
        "mask": (
            [tensor("h_skip", 6, L, L), tensor("m_state", "n", 4, 6), tensor("choice", "n", dtype="int64")],
            [tensor("logits", "n", L, L)],
        ),
    }
    if kind is not None:
        ports["head"] = ([tokens], [tensor("logits", *kind.logit_axes)])
    manifest = {
        "schema": 1,
        "name": "test-bundle",
        "version": "1",
        "description": "A tiny segmenter for tests",
        "precision": "fp32-w16",
        "model": {
            "architecture": "linear",
            "input_side": S,
            "embedding_side": E,
            "low_res_side": L,
            "token_width": D,
            "feature_width": F,
            "lattice_offset": 0,
        },
        "preprocess": {
            "resize": "stretch",
            "interpolation": "pillow-bilinear",
            "mean": [127.5, 127.5, 127.5],
            "std": [127.5, 127.5, 127.5],
        },
        "grid": {"points_per_side": 4},
        "prompt_chunk": 8,
        "opset": OPSET,
        "graphs": {
            name: {"file": f"{name}.onnx", "sha256": "", "bytes": 0, "inputs": inputs, "outputs": outputs}
            for name, (inputs, outputs) in ports.items()
        },
        "files": {},
        "head": kind and head_entry(kind),
        "classes": [
            {
                "id": i + 1,
                "name": name,
                "aliases": [f"{name} alias"],
                "color": [i, 2 * i, 255],
                "threshold": 0.4,
                "evidence": None,
            }
            for i, name in enumerate(kind.names if kind else ())
        ],
        "canary": {
            "points": [list(point) for point in CANARY_POINTS],
            "expected": expected_canary(weights, kind),
            "tolerance": 0.01,
        },
        "parity": {
            "reference": "numpy",
            "photos": 1,
            "masks": 8,
            "tokens_max_abs": 1e-6,
            "mask_iou_mean": 1,
            "mask_iou_min": 1,
        },
        "licence": {"code": "Apache-2.0", "weights": "Apache-2.0"},
        "provenance": {"weights": "random numbers", "training_data": ["none"]},
    }
    return copy.deepcopy(manifest)
