"""Bundles whose gransam.json is wrong: JSON, keys, names, classes, thresholds, ranges."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bundle_case import Case, in_manifest, on_disk, raw_manifest, set_at
from bundles import CANARY_POINTS, calibrated, good_parts


def cases() -> list[Case]:
    """All of this file."""
    makers = (json_cases, keys_cases, file_names_cases, class_tables_cases, head_cases, thresholds_cases, ranges_cases)
    return [case for maker in makers for case in maker()]


def json_cases() -> Iterator[Case]:
    yield Case("B4", "empty", raw_manifest(b""), "Expecting value")
    yield Case("B4", "no-json", raw_manifest(b"schema: 1\n"), "Expecting value")
    yield Case("B4", "trailing", raw_manifest(lambda text: text + "{}"), "Extra data")
    yield Case("B4", "array", raw_manifest(b"[]"), "an object")
    yield Case("B4", "number", raw_manifest(b"1"), "an object")
    yield Case("B4", "bom", raw_manifest(lambda text: "\ufeff" + text), "BOM")
    yield Case("B4", "latin-1", raw_manifest(b'{"schema": "\xe9"}'), "utf-8")
    duplicate = raw_manifest(lambda text: text.replace('{"schema": 1', '{"schema": 1, "schema": 1', 1))
    yield Case("B4", "duplicate-key", duplicate, "key 'schema' twice")
    nested = raw_manifest(lambda text: text.replace('"input_side": 16', '"input_side": 16, "input_side": 16', 1))
    yield Case("B4", "duplicate-nested-key", nested, "key 'input_side' twice")
    for name in ("NaN", "Infinity", "-Infinity"):
        text = raw_manifest(lambda text, n=name: text.replace('"tolerance": 0.01', f'"tolerance": {n}', 1))
        yield Case("B4", name, text, name)
    yield Case("B4", "infinite-number", raw_manifest(lambda t: t.replace("0.01", "1e999", 1)), "tolerance")
    yield Case("B4", "long-integer", raw_manifest(lambda t: t.replace("0.01", "1" * 5000, 1)), "4300 digits")
    yield Case("B4", "100-megabytes", on_disk(lambda f: os.truncate(f / "gransam.json", 100 << 20)), "at most")
    for depth in (10_000, 1_000_000):
        yield Case("B4", f"depth-{depth}", raw_manifest(b"[" * depth + b"]" * depth), "nested brackets")
    yield Case("B4", "depth-in-objects", raw_manifest(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested brackets")


def keys_cases() -> Iterator[Case]:
    for schema in (0, 2, "1", 1.0, True, None, [1]):
        yield Case("B5", f"schema-{schema!r}", in_manifest(set_at("schema", schema)), "schema 1")
    yield Case("B5", "schema-missing", in_manifest(lambda m: m.pop("schema")), "schema none")
    good = good_parts().manifest
    for path in ("", "model", "preprocess", "grid", "graphs", "graphs.head", "graphs.mask.inputs.0", "classes.1"):
        yield Case("B5", f"unknown-in-{path or 'root'}", in_manifest(set_at(f"{path}.tuned".strip("."), 1)), "tuned")
    for path in ("canary", "canary.expected", "licence", "head"):
        yield Case("B5", f"unknown-in-{path}", in_manifest(set_at(f"{path}.tuned", 1)), "tuned")
    yield Case("B5", "unknown-file-key", in_manifest(lambda m: m["files"]["model-card.md"].update(tuned=1)), "tuned")
    yield Case("B5", "parity-word", in_manifest(set_at("parity.tuned", "yes")), "parity.tuned")
    yield Case("B5", "parity-none", in_manifest(set_at("parity", {})), "mask_iou_mean")
    yield Case("B5", "provenance-number", in_manifest(set_at("provenance.tuned", 1)), "provenance.tuned")
    for key in good:
        if key != "schema":
            yield Case("B5", f"missing-{key}", in_manifest(lambda m, k=key: m.pop(k)), f"no '{key}'")


def file_names_cases() -> Iterator[Case]:
    bad = {"parent": "../head.onnx", "absolute": "/tmp/head.onnx", "backslash": "a\\head.onnx", "drive": "C:head.onnx"}
    bad |= {"nul": "head.onnx\0.onnx", "folder": "a/head.onnx", "hidden": ".head.onnx", "dots": "..", "empty": ""}
    bad |= {"long": "a" * 200 + ".onnx", "newline": "head\n.onnx", "suffix": "head.engine", "dot-end": "head.onnx."}
    for name, file in bad.items():
        yield Case("B6", name, in_manifest(set_at("graphs.head.file", file)), r"graphs\.head\.file")
        entry = {"sha256": "0" * 64, "bytes": 1}
        text = file.replace(".onnx", ".md")
        yield Case("B6", f"{name}-beside", in_manifest(lambda m, t=text, e=entry: m["files"].update({t: e})), "files")
    yield Case("B6", "same-file", in_manifest(set_at("graphs.head.file", "mask.onnx")), "differ in more than case")
    yield Case("B6", "case", in_manifest(set_at("graphs.head.file", "MASK.onnx")), "differ in more than case")
    entry = {"sha256": "0" * 64, "bytes": 1}
    yield Case("B6", "itself", in_manifest(lambda m: m["files"].update({"gransam.json": entry})), "gransam.json")


def class_tables_cases() -> Iterator[Case]:
    def classes(count: int) -> list[dict[str, Any]]:
        one = {"aliases": [], "color": [0, 0, 0], "threshold": 0.5, "evidence": None}
        return [{"id": i + 1, "name": f"class {i}", **one} for i in range(count)]

    for count in (0, 1, 4097, 10_000):
        yield Case("B17", f"{count}-classes", in_manifest(set_at("classes", classes(count))), "2 to 4096")
    for name, text, says in (
        ("empty-name", "", "1 to 100 characters"),
        ("megabyte-name", "x" * (1 << 20), "1 to 100 characters"),
        ("newline", "cat\n", "control characters"),
        ("escape", "cat\x1b[2J", "control characters"),
        ("right-to-left", "cat\u202egod", "control characters"),
        ("surrogate", "\ud800", "control characters"),
        ("blank-end", "cat ", "control characters"),
        ("equals", "cat=dog", "'='"),
        ("comma", "cat,dog", "','"),
        ("number", 7, "a string"),
        ("duplicate", "dog", "'dog' twice"),
        ("alias-of-another", "dog alias", "'dog alias' twice"),
    ):
        yield Case("B17", name, in_manifest(set_at("classes.0.name", text)), says)
    for name, path, new in (
        ("duplicate-case", "classes.1.name", "CAT"),
        ("id-zero", "classes.0.id", 0),
        ("id-order", "classes.0.id", 2),
        ("id-bool", "classes.0.id", True),
        ("color-256", "classes.0.color", [0, 0, 256]),
        ("color-float", "classes.0.color", [0, 0, 0.5]),
        ("color-short", "classes.0.color", [0, 0]),
        ("aliases-text", "classes.0.aliases", "kitten"),
        ("alias-control", "classes.0.aliases", ["\x00"]),
    ):
        yield Case("B17", name, in_manifest(set_at(path, new)), path.split(".")[-1])

    def headless(manifest: dict[str, Any]) -> None:
        del manifest["graphs"]["head"]
        manifest["head"] = None

    yield Case("B17", "classes-without-head", in_manifest(headless), "an array of 0")
    yield Case("B17", "no-classes-beside-background", in_manifest(with_background([])), "1 to 4096")


def with_background(classes: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Another background, and perhaps other classes, beside the same graphs."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["head"]["background"], manifest["classes"] = "explicit", classes

    return change


def head_cases() -> Iterator[Case]:
    """What a head says of its logits, and what thresholds rest on."""

    def in_calibrated(path: str, new: object) -> Callable[[Path], Path]:
        return in_manifest(lambda manifest: set_at(path, new)(calibrated(manifest)))

    yield Case("B17", "head-null", in_manifest(set_at("head", None)), "head\n.*an object")
    yield Case("B17", "head-without-graph", in_manifest(lambda m: m["graphs"].pop("head")), "null, as there is no head")
    for path, new in (("head.background", True), ("head.background", "none"), ("head.labels", "token")):
        yield Case("B17", f"{path}-{new}", in_manifest(set_at(path, new)), f": {path}")
    for path in ("head.background", "head.labels", "head.calibration", "classes.0.evidence"):
        last = path.rpartition(".")[2]
        yield Case("B17", f"{path}-missing", in_manifest(removed(path)), f"no '{last}'")
    evidence = {"precision": 0.8, "kept": 30, "pictures": 9, "basis": "target"}
    uncalibrated = in_manifest(set_at("classes.2.evidence", evidence))
    yield Case("B20", "evidence-without-calibration", uncalibrated, r"classes\[2\]\.evidence\n.*null")
    unproven = in_calibrated("classes.2.evidence", None)
    yield Case("B20", "calibration-without-evidence", unproven, r"classes\[2\]\.evidence\n.*an object")
    yield Case("B20", "evidence-empty", in_calibrated("classes.0.evidence", {}), r"classes\[0\]\.evidence")
    yield Case("B20", "evidence-unknown", in_calibrated("classes.0.evidence.tuned", 1), "tuned")
    yield Case("B20", "calibration-empty", in_calibrated("head.calibration", {}), r"head\.calibration")
    yield Case("B20", "calibration-unknown", in_calibrated("head.calibration.tuned", 1), "tuned")
    for key, wrong in (
        ("temperature", (0, -1.5, None, "1", 1e40)),
        ("target", (0, 1.01, None, True)),
        ("pictures", (0, 2.5, None, 1 << 40)),
        ("background_pictures", (-1, None)),
    ):
        for new in wrong:
            build = in_calibrated(f"head.calibration.{key}", new)
            yield Case("B20", f"{key}-{new!r}", build, rf"head\.calibration\.{key}")
    for key, wrong in (
        ("precision", (-0.1, 1.1, "0.8", True)),
        ("kept", (-1, None, 1.5)),
        ("pictures", (-1, None)),
        ("basis", ("luck", None)),
    ):
        for new in wrong:
            build = in_calibrated(f"classes.1.evidence.{key}", new)
            yield Case("B20", f"evidence-{key}-{new!r}", build, rf"classes\[1\]\.evidence\.{key}")


def removed(path: str) -> Callable[[dict[str, Any]], None]:
    """Removes ``classes.0.name`` from a manifest."""

    def change(manifest: dict[str, Any]) -> None:
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        node: Any = manifest
        for key in parents:
            node = node[key]
        del node[last]

    return change


def thresholds_cases() -> Iterator[Case]:
    for threshold in ("NaN", "0.5", None, True, [0.5], -0.1, 0, 0.0, 1.0001, 1e308):
        yield Case("B20", f"{threshold!r}", in_manifest(set_at("classes.1.threshold", threshold)), "above 0 to 1")
    for number in ("NaN", "1e999", "-1e999"):
        build = raw_manifest(lambda text, n=number: text.replace('"threshold": 0.4', f'"threshold": {n}', 1))
        yield Case("B20", f"literal-{number}", build, "NaN|above 0 to 1")


def ranges_cases() -> Iterator[Case]:
    """Numbers and words of the manifest outside their ranges; they belong to row B5's "unknown"."""
    for path, new in (
        ("name", "../nano"),
        ("name", "Nano"),
        ("version", ""),
        ("description", "two\nlines"),
        ("precision", "int4"),
        ("model.input_side", 0),
        ("model.input_side", 16.0),
        ("model.input_side", "16"),
        ("model.lattice_offset", -1),
        ("model.token_width", 1 << 40),
        ("preprocess.resize", "crop"),
        ("preprocess.interpolation", "nearest"),
        ("preprocess.mean", [1, 2]),
        ("preprocess.std", [1, 0, 1]),
        ("grid.points_per_side", 129),
        ("grid.points_per_side", True),
        ("prompt_chunk", 0),
        ("graphs.mask.sha256", "A" * 64),
        ("graphs.mask.sha256", "0" * 63),
        ("graphs.mask.bytes", -1),
        ("graphs.mask.inputs", []),
        ("canary.points", []),
        ("canary.points", [[0.5, 1.5], [0, 0]]),
        ("canary.points", [list(CANARY_POINTS[0])] * 17),
        ("canary.expected.tokens", [[1, 2, 3, 4]]),
        ("canary.expected.head", [[1, 2]] * 2),
        ("canary.expected.mask", [None, 1]),
        ("canary.tolerance", 0),
        ("parity.photos", 0),
        ("parity.mask_iou_min", 1.5),
        ("licence.weights", ""),
        ("provenance.training_data", "everything"),
    ):
        shown = json.dumps(new)[:24]
        yield Case("B5", f"{path}-{shown}", in_manifest(set_at(path, new)), path.split(".")[0])
    for path, new in (("model.low_res_side", 5), ("model.lattice_offset", 2)):
        yield Case("B5", f"{path}-{new}", in_manifest(set_at(path, new)), "multiple of embedding_side")
