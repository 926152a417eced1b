"""The published JSON schema says the same as the reader: what it rejects is refused, what is right passes both."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from bad_bundles import all_cases
from bundle_case import Case
from bundles import HeadKind, calibrated, good_parts

import gransam_sdk
from gransam_sdk.errors import BundleError
from gransam_sdk.manifest_reader import parse_manifest

SCHEMA = json.loads((Path(gransam_sdk.__file__).parent / "bundle.schema.json").read_bytes())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

BETWEEN_KEYS = {
    *("B6-same-file", "B6-case", "B17-duplicate", "B17-duplicate-case", "B17-alias-of-another", "B17-id-order"),
    *("B5-model.low_res_side-5", "B5-model.lattice_offset-2", "B5-canary.expected.tokens-[[1, 2, 3, 4]]"),
    "B5-canary.expected.head-[[1, 2], [1, 2]]",
}
"""Rules between several keys, which only the reader can state."""
BEYOND_PATTERNS = {"B17-right-to-left", "B17-surrogate"}
"""Unicode categories, which JSON schema's patterns do not have."""
SAME_TO_SCHEMA = {"B5-schema-1.0", "B5-model.input_side-16.0"}
"""JSON schema counts 1.0 as an integer; the reader wants it written as one."""


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_pages_example_has_the_keys_of_the_schema() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text(encoding="utf-8")
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    assert example.keys() == SCHEMA["properties"].keys()
    for key in ("model", "preprocess", "grid", "graphs", "canary", "parity", "licence", "provenance"):
        assert example[key].keys() == SCHEMA["properties"][key]["properties"].keys(), key
    tables = {"class": example["classes"][0], "evidence": example["classes"][0]["evidence"], "head": example["head"]}
    for name, table in tables.items():
        assert table.keys() == SCHEMA["$defs"][name]["properties"].keys(), name
    calibration = SCHEMA["$defs"]["head"]["properties"]["calibration"]["oneOf"][1]
    assert example["head"]["calibration"].keys() == calibration["properties"].keys()
    assert example["graphs"]["image"].keys() == SCHEMA["$defs"]["graph"]["properties"].keys()


@pytest.mark.parametrize("head", [True, False])
def test_a_good_manifest_passes_both(head: bool) -> None:
    parts = good_parts(head=head)
    parts.seal()
    VALIDATOR.validate(parts.manifest)
    parse_manifest(json.dumps(parts.manifest).encode())


@pytest.mark.parametrize("labels", ["prompt", "mask"])
@pytest.mark.parametrize(("background", "names"), [(False, "abc"), (True, "abc"), (True, "a")])
def test_every_kind_of_head_passes_both(labels: str, background: bool, names: str) -> None:
    parts = good_parts(kind=HeadKind(background=background, labels=labels, names=tuple(names)))
    parts.seal()
    for change in (dict, calibrated):
        manifest = change(parts.manifest)
        VALIDATOR.validate(manifest)
        parse_manifest(json.dumps(manifest).encode())


def manifest_cases() -> list[Case]:
    """Bad bundles whose fault is one of the manifest's structure."""
    rows = {"B5", "B6", "B17", "B20"}
    special = BETWEEN_KEYS | BEYOND_PATTERNS | SAME_TO_SCHEMA
    return [case for case in all_cases() if case.row in rows and case.id not in special and "literal" not in case.name]


@pytest.mark.parametrize("case", manifest_cases(), ids=lambda case: case.id)
def test_what_the_reader_refuses_the_schema_rejects(case: Case, tmp_path: Path) -> None:
    data = (Path(case.build(tmp_path)) / "gransam.json").read_bytes()
    with pytest.raises(BundleError):
        parse_manifest(data)
    assert not VALIDATOR.is_valid(json.loads(data))


@pytest.mark.parametrize("name", sorted(BETWEEN_KEYS | BEYOND_PATTERNS | SAME_TO_SCHEMA))
def test_the_exceptions_are_real(name: str, tmp_path: Path) -> None:
    case = next(case for case in all_cases() if case.id == name)
    assert VALIDATOR.is_valid(json.loads((Path(case.build(tmp_path)) / "gransam.json").read_bytes()))
