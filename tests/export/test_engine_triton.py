"""Triton model repositories: read back by protobuf's own parser."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from bundles import HeadKind, write_good
from google.protobuf import text_format
from triton_schema import parse_config

from gransam_sdk.bundle import Bundle, Graph, Tensor, open_bundle
from gransam_sdk.errors import InputError, OutputError
from gransam_sdk.export.pbtxt import Word, to_text
from gransam_sdk.export.triton import write_triton_repository
from gransam_sdk.runtime.engine_spec import EngineSpec, engine_specs

NAMES = ["test-bundle-image", "test-bundle-prompt", "test-bundle-mask", "test-bundle-head"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    kind = HeadKind(names=("cat", "dog", 'Köter "Rex" \\ Co'))
    return open_bundle(write_good(tmp_path_factory.mktemp("triton") / "good", kind=kind))


def write(bundle: Bundle, folder: Path, **settings: Any) -> list[Path]:
    values = {"platform": "onnxruntime_onnx", "specs": engine_specs(bundle), **settings}
    return write_triton_repository(bundle, folder, **values)


def config_of(model: Path) -> Any:
    return parse_config((model / "config.pbtxt").read_text(encoding="ascii"))


def ports(entries: Any) -> dict[str, tuple[int, list[int]]]:
    return {entry.name: (entry.data_type, list(entry.dims)) for entry in entries}


FP32, INT64 = 11, 9


def test_four_graphs_are_four_models(bundle: Bundle, tmp_path: Path) -> None:
    models = write(bundle, tmp_path / "repository")
    assert [model.name for model in models] == NAMES
    assert sorted(path.relative_to(models[1]).as_posix() for path in models[1].rglob("*")) == [
        "1",
        "1/model.onnx",
        "config.pbtxt",
    ]
    for model, name in zip(models, ("image", "prompt", "mask", "head"), strict=True):
        assert (model / "1" / "model.onnx").read_bytes() == bundle.graph_bytes(name)
        config = config_of(model)
        assert (config.name, config.platform, config.max_batch_size) == (model.name, "onnxruntime_onnx", 0)
        assert config.version_policy.latest.num_versions == 1
        assert [(group.count, group.kind) for group in config.instance_group] == [(1, 0)]
        assert config.default_model_filename == "model.onnx"


def test_inputs_and_outputs(bundle: Bundle, tmp_path: Path) -> None:
    image, prompt, mask, head = (config_of(model) for model in write(bundle, tmp_path / "repository"))
    assert ports(image.input) == {"image": (FP32, [-1, 3, 16, 16])}
    assert ports(prompt.input) == {"points": (FP32, [-1, 2]), "h_embedding": (FP32, [6, 2, 2])}
    assert ports(prompt.output)["lattice"] == (FP32, [-1, 4, 2, 2])
    assert ports(mask.input) == {"h_skip": (FP32, [6, 4, 4]), "m_state": (FP32, [-1, 4, 6]), "choice": (INT64, [-1])}
    assert ports(head.output) == {"logits": (FP32, [-1, 3])}


def test_what_the_model_was_made_of(bundle: Bundle, tmp_path: Path) -> None:
    image, *_, head = (config_of(model) for model in write(bundle, tmp_path / "repository"))
    about = {entry.key: entry.value.string_value for entry in head.parameters}
    assert about["gransam_bundle_sha256"] == bundle.digest
    assert about["gransam_graph_sha256"] == hashlib.sha256(bundle.graph_bytes("head")).hexdigest()
    assert about["gransam_classes"] == 'cat,dog,Köter "Rex" \\ Co'
    assert "gransam_classes" not in {entry.key for entry in image.parameters}


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        write(bundle, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        trees.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert trees[0] == trees[1] and len(trees[0]) == 8


def test_plans_are_served_on_gpus(bundle: Bundle, tmp_path: Path) -> None:
    plans = {name: f"plan of {name}".encode() for name in bundle.graphs}
    models = write(bundle, tmp_path / "repository", platform="tensorrt_plan", plans=plans, count=2)
    assert (models[2] / "1" / "model.plan").read_bytes() == b"plan of mask"
    config = config_of(models[2])
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 1)]


def test_a_number_without_axes_is_reshaped(bundle: Bundle, tmp_path: Path) -> None:
    graph = Graph("fused.onnx", "0" * 64, 4, (Tensor("photo", "uint8", (16, 16, 3)),), (Tensor("n", "int64", ()),))
    spec = EngineSpec(
        bundle=bundle.name,
        digest=bundle.digest,
        name="fused",
        graph=graph,
        onnx=b"onnx",
        precision="fp32",
        ranges={},
    )
    (model,) = write(bundle, tmp_path / "repository", specs=[spec])
    config = config_of(model)
    assert ports(config.input) == {"photo": (2, [16, 16, 3])} and ports(config.output) == {"n": (INT64, [1])}
    assert config.output[0].HasField("reshape") and not config.output[0].reshape.shape
    assert "gransam_classes" in {entry.key for entry in config.parameters}


@pytest.mark.parametrize(
    "settings",
    [
        {"platform": "pytorch_libtorch"},
        {"platform": "tensorrt_plan"},
        {"platform": "tensorrt_plan", "plans": {"image": b""}},
        {"plans": {}},
        {"count": 0},
        {"platform": "tensorrt_plan", "plans": dict.fromkeys(("image", "prompt", "mask", "head"), b""), "kind": "cpu"},
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    bundle: Bundle, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        write(bundle, tmp_path / "repository", **settings)
    assert not (tmp_path / "repository").exists()


def test_a_model_that_is_there_is_not_touched(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "test-bundle-mask").mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="test-bundle-mask"):
        write(bundle, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "test-bundle-mask"]
    (tmp_path / "test-bundle-mask").rmdir()
    assert len(write(bundle, tmp_path)) == 4


def test_a_repository_that_is_a_file(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write(bundle, tmp_path / "file")


def test_text_format_by_hand() -> None:
    message = {"name": 'a"\\\n', "kind": Word("KIND_GPU"), "dims": [-1, 3], "reshape": {}, "entry": [{"key": "é"}]}
    assert to_text(message) == (
        'name: "a\\042\\134\\012"\nkind: KIND_GPU\ndims: -1\ndims: 3\nreshape {\n}\nentry {\n  key: "\\303\\251"\n}\n'
    )


def test_the_schema_of_these_tests_refuses_what_is_no_configuration() -> None:
    with pytest.raises(text_format.ParseError):
        parse_config("max_batch: 3")
    with pytest.raises(text_format.ParseError):
        parse_config("input { data_type: TYPE_FP33 }")
