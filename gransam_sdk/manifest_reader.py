"""Reads ``gransam.json`` key by key: every key known, every value in range, every message with the path to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import get_args

import numpy as np

from .errors import BundleError
from .geometry import Resize
from .head_reader import MAX_COUNT, read_classes, read_head
from .manifest import GRAPHS, MANIFEST, Canary, FileEntry, Graph, Manifest, Preprocess
from .onnx_model import DTYPES, MAX_RANK, Tensor
from .onnx_rules import MAX_OPSET, MIN_OPSET
from .parity_bars import PRECISIONS, UNVERIFIED
from .shapes import AnyArray
from .strict_json import Field, parse_json
from .types import MAX_POINTS_PER_SIDE

SCHEMA = 1
MAX_MANIFEST_BYTES = 4 << 20
"""4,096 classes and 16 canary points take about 3 MB."""
MAX_FILE_BYTES = (1 << 31) - 1
"""protobuf cannot hold more in one file."""
MAX_FILES = 32
MAX_CANARY_POINTS = 16
INTERPOLATIONS = ("pillow-bilinear",)
FILE_SUFFIXES = (".md", ".txt", ".json", ".png", ".jpg")
"""Files beside the graphs: things to read and look at, nothing that any program runs."""

_FILE = (
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?",
    "a plain file name: letters, digits, dot, dash, underscore",
)
"""No separator, drive, NUL or leading dot: such a name cannot leave the folder."""
BUNDLE_NAME = (r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", "lower-case letters, digits, dot, dash, underscore")
MAX_NAME = 64
_KEY = (r"[a-z][a-z0-9_]*", "lower-case letters, digits, underscore")
_SHA256 = (r"[0-9a-f]{64}", "64 hex digits")

_KEYS = (
    *("schema", "name", "version", "description", "precision", "model", "preprocess", "grid", "prompt_chunk", "opset"),
    *("graphs", "files", "head", "classes", "canary", "parity", "licence", "provenance"),
)
_MODEL_KEYS = (
    *("architecture", "input_side", "embedding_side", "low_res_side", "token_width", "feature_width"),
    "lattice_offset",
)


def parse_manifest(data: bytes, what: str = MANIFEST) -> Manifest:
    """Reads ``gransam.json``.

    Args:
        data: Its bytes.
        what: Its name, for messages.

    Raises:
        BundleError: The first thing in it that breaks the format, with the path to it.
    """
    root = Field(parse_json(data, what), what)
    schema = root.table().get("schema")
    if schema is None or type(schema.value) is not int or schema.value != SCHEMA:
        found = "none" if schema is None else repr(schema.value)[:40]
        raise root.wrong(f"schema {SCHEMA}", f"schema {found}", "install the gransam-sdk that wrote this bundle")
    top = root.keys(_KEYS)
    model = top["model"].keys(_MODEL_KEYS)
    graphs = _graphs(top["graphs"])
    head = read_head(top["head"], has_graph="head" in graphs)
    classes = read_classes(top["classes"], head)
    manifest = Manifest(
        name=top["name"].text(MAX_NAME, *BUNDLE_NAME),
        version=top["version"].text(64),
        description=top["description"].text(1000),
        precision=top["precision"].one_of(PRECISIONS),
        architecture=model["architecture"].text(64),
        input_side=model["input_side"].whole(16, 8192),
        embedding_side=model["embedding_side"].whole(1, 1024),
        low_res_side=model["low_res_side"].whole(1, 4096),
        token_width=model["token_width"].whole(1, 1 << 16),
        feature_width=model["feature_width"].whole(1, 1 << 16),
        lattice_offset=model["lattice_offset"].whole(0, 4095),
        preprocess=_preprocess(top["preprocess"]),
        points_per_side=top["grid"].keys(("points_per_side",))["points_per_side"].whole(1, MAX_POINTS_PER_SIDE),
        prompt_chunk=top["prompt_chunk"].whole(1, MAX_POINTS_PER_SIDE**2),
        opset=top["opset"].whole(MIN_OPSET, MAX_OPSET),
        graphs=graphs,
        files=_files(top["files"]),
        head=head,
        classes=classes,
        canary=_canary(top["canary"], math.prod(head.axes(len(classes))) if head else 0),
        parity=_parity(top["parity"]),
        licence={key: field.text() for key, field in top["licence"].keys(("code", "weights")).items()},
        provenance=_provenance(top["provenance"]),
    )
    _check_sides(manifest, what)
    _check_file_names(manifest, what)
    return manifest


def _preprocess(field: Field) -> Preprocess:
    keys = field.keys(("resize", "interpolation", "mean", "std"))
    mean = [value.number(-1024, 1024) for value in keys["mean"].items(3, 3)]
    std = [value.number(0, 1024, above=True) for value in keys["std"].items(3, 3)]
    return Preprocess(
        resize="letterbox" if keys["resize"].one_of(get_args(Resize)) == "letterbox" else "stretch",
        interpolation=keys["interpolation"].one_of(INTERPOLATIONS),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _graphs(field: Field) -> dict[str, Graph]:
    required = [name for name in GRAPHS if name != "head"]
    return {name: _graph(graph) for name, graph in field.keys(required, ("head",)).items()}


def _graph(field: Field) -> Graph:
    keys = field.keys(("file", "sha256", "bytes", "inputs", "outputs"))
    file = keys["file"].text(100, *_FILE)
    if not file.endswith(".onnx"):
        raise keys["file"].wrong("a name that ends in .onnx")
    return Graph(
        file=file,
        sha256=keys["sha256"].text(64, *_SHA256),
        bytes=keys["bytes"].whole(1, MAX_FILE_BYTES),
        inputs=tuple(_tensor(tensor) for tensor in keys["inputs"].items(1, 256)),
        outputs=tuple(_tensor(tensor) for tensor in keys["outputs"].items(1, 256)),
    )


def _tensor(field: Field) -> Tensor:
    keys = field.keys(("name", "dtype", "axes"))
    axes = keys["axes"].items(0, MAX_RANK)
    return Tensor(
        name=keys["name"].text(64, *_KEY),
        dtype=keys["dtype"].one_of([str(dtype) for dtype in DTYPES.values()]),
        axes=tuple(
            axis.text(1, "[a-z]", "a lower-case letter") if isinstance(axis.value, str) else axis.whole(1, 1 << 31)
            for axis in axes
        ),
    )


def _files(field: Field) -> dict[str, FileEntry]:
    table = field.table()
    if len(table) > MAX_FILES:
        raise field.wrong(f"at most {MAX_FILES} files", str(len(table)))
    files = {}
    for name, entry in table.items():
        Field(name, f"{field.where}, a file's name").text(100, *_FILE)
        if PurePosixPath(name).suffix not in FILE_SUFFIXES or name == MANIFEST:
            raise entry.wrong(f"files that end in {' '.join(FILE_SUFFIXES)}", name)
        keys = entry.keys(("sha256", "bytes"))
        files[name] = FileEntry(keys["sha256"].text(64, *_SHA256), keys["bytes"].whole(0, MAX_FILE_BYTES))
    return files


def _canary(field: Field, head_width: int) -> Canary:
    """``head_width``: logits of a prompt, flattened; 0 without a head."""
    keys = field.keys(("points", "expected", "tolerance"))
    points = _matrix(keys["points"], MAX_CANARY_POINTS, 2, low=0.0, high=1.0)
    widths = {"tokens": 4, "iou": 4, "lattice": 4, "mask": 0} | ({"head": head_width} if head_width else {})
    expected = keys["expected"].keys(tuple(widths))
    return Canary(
        points=points.astype(np.float32),
        expected={name: _matrix(expected[name], len(points), width, exact=True) for name, width in widths.items()},
        tolerance=keys["tolerance"].number(0, 1, above=True),
    )


def _matrix(
    field: Field, rows: int, width: int, *, exact: bool = False, low: float = -1e30, high: float = 1e30
) -> AnyArray:
    """(rows, width) float64, or (rows,) where width is 0; read-only."""
    lines = field.items(rows if exact else 1, rows)
    if width:
        values = [[cell.number(low, high) for cell in line.items(width, width)] for line in lines]
        matrix = np.array(values, dtype=np.float64)
    else:
        matrix = np.array([line.number(low, high) for line in lines], dtype=np.float64)
    matrix.flags.writeable = False
    return matrix


def _parity(field: Field) -> dict[str, float | str]:
    """Figures for the bundle's precision, or the word that nobody could measure them; such a bundle is not run."""
    checks: dict[str, Callable[[Field], float | str]] = {
        "reference": Field.text,
        "photos": lambda value: value.whole(1, MAX_COUNT),
        "masks": lambda value: value.whole(1, MAX_COUNT),
        "tokens_max_abs": lambda value: value.number(0, 1e30),
        "mask_iou_mean": lambda value: value.number(0, 1),
        "mask_iou_min": lambda value: value.number(0, 1),
    }
    unverified = "verdict" in field.table()
    required = ("reference", "verdict") if unverified else tuple(checks)
    extra = [key for key in field.table() if key not in required]
    keys = field.keys(required, extra)
    for key in extra:
        Field(key, f"{field.where}, a key").text(64, *_KEY)
    checks["verdict"] = lambda value: value.one_of((UNVERIFIED,))
    return {key: checks.get(key, Field.number)(value) for key, value in keys.items()}


def _provenance(field: Field) -> dict[str, str | tuple[str, ...]]:
    extra = [key for key in field.table() if key not in ("weights", "training_data")]
    keys = field.keys(("weights", "training_data"), extra)
    for key in extra:
        Field(key, f"{field.where}, a key").text(64, *_KEY)
    data = tuple(source.text(1000) for source in keys.pop("training_data").items(0, 64))
    return {key: value.text(1000) for key, value in keys.items()} | {"training_data": data}


def _check_sides(manifest: Manifest, what: str) -> None:
    step, rest = divmod(manifest.low_res_side, manifest.embedding_side)
    if rest or not manifest.lattice_offset < step:
        found = f"low_res_side {manifest.low_res_side}, embedding_side {manifest.embedding_side}"
        raise BundleError(
            f"{what}: model",
            expected="a low_res_side that is a multiple of embedding_side, and lattice_offset below their quotient",
            found=f"{found}, lattice_offset {manifest.lattice_offset}",
        )


def _check_file_names(manifest: Manifest, what: str) -> None:
    names = [graph.file for graph in manifest.graphs.values()] + list(manifest.files)
    folded = [name.casefold() for name in names]
    if len(set(folded)) != len(folded):
        raise BundleError(f"{what}: files", expected="file names that differ in more than case", found=", ".join(names))
