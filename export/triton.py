"""A bundle as a model repository of Triton Inference Server: one model a graph, each with its ``config.pbtxt``.

    DIR/<bundle>-<graph>/config.pbtxt
    DIR/<bundle>-<graph>/1/model.onnx   or   model.plan

The four graphs are four models: what lies between them (which prompts are confident, suppression, run lengths) is the
client's, as it is the SDK's. The fused graph is one model that answers a whole photo.

Source: ModelConfig of triton-inference-server/common, ``model_config.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from gransam_sdk.annotate.disk import operate, put_file
from gransam_sdk.bundle import Bundle, Tensor
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.engine_spec import FUSED, EngineSpec

from .pbtxt import Message, Word, to_text

Platform = Literal["onnxruntime_onnx", "tensorrt_plan"]
InstanceKind = Literal["auto", "cpu", "gpu"]

_FILES: Mapping[str, str] = {"onnxruntime_onnx": "model.onnx", "tensorrt_plan": "model.plan"}
_DTYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "float64": "TYPE_FP64",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}


def write_triton_repository(
    bundle: Bundle,
    folder: Path,
    *,
    platform: Platform,
    specs: Sequence[EngineSpec],
    plans: Mapping[str, bytes] | None = None,
    kind: InstanceKind = "auto",
    count: int = 1,
) -> list[Path]:
    """Writes a model repository; the same bundle gives the same bytes.

    Args:
        bundle: An opened bundle.
        folder: The repository. It may hold other models, but none of these names.
        platform: ``onnxruntime_onnx``: the graphs themselves. ``tensorrt_plan``: engines of this machine; the server
            must have the same GPU model and TensorRT.
        specs: The graphs to serve: ``engine_specs(bundle)``, or ``fused_engine_spec`` alone.
        plans: By graph name, engines from the engine cache; for ``tensorrt_plan`` only.
        kind: Where instances run; plans run on GPUs only.
        count: Instances a device.

    Returns:
        The models' folders.

    Raises:
        InputError: A name is taken, plans are missing or not wanted, or plans on the CPU.
        OutputError: The disk refused.
    """
    kind = _check(folder, platform, specs, plans, kind, count)
    written = []
    for spec in specs:
        model = folder / spec.title
        version = model / "1"
        operate(version, version.mkdir, parents=True)
        put_file(version / _FILES[platform], spec.onnx if plans is None else plans[spec.name])
        # Last: a server that watches the folder loads no model without its configuration in strict mode.
        put_file(model / "config.pbtxt", to_text(_config(bundle, spec, platform, kind, count)).encode("ascii"))
        written.append(model)
    return written


def _check(
    folder: Path,
    platform: Platform,
    specs: Sequence[EngineSpec],
    plans: Mapping[str, bytes] | None,
    kind: InstanceKind,
    count: int,
) -> InstanceKind:
    """The kind of instances, after everything that can be wrong was looked at and before anything is written."""
    if platform not in _FILES:
        raise InputError("Triton platform", expected=" or ".join(_FILES), found=repr(platform))
    if count < 1:
        raise InputError("instances", expected="a whole number from 1", found=str(count))
    names = {spec.name for spec in specs}
    if (platform == "tensorrt_plan") != (plans is not None) or not names <= (plans or dict.fromkeys(names)).keys():
        raise InputError(
            f"plans of a {platform} repository",
            expected="one a graph" if platform == "tensorrt_plan" else "none",
            found=", ".join(sorted(plans or {})) or "none",
        )
    if platform == "tensorrt_plan" and kind == "cpu":
        raise InputError("instances of TensorRT plans", expected="gpu", found="cpu")
    for spec in specs:
        if (folder / spec.title).exists() or (folder / spec.title).is_symlink():
            raise InputError(
                f"model folder {folder / spec.title}",
                expected="a path where nothing is",
                found="something is there",
                do="choose another repository, or remove that model",
            )
    return "gpu" if platform == "tensorrt_plan" else kind


def _config(bundle: Bundle, spec: EngineSpec, platform: Platform, kind: InstanceKind, count: int) -> Message:
    """ModelConfig: no batching by the server, because first axes here are prompts of one photo."""
    return {
        "name": spec.title,
        "platform": platform,
        "max_batch_size": 0,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [_port(tensor) for tensor in spec.graph.inputs],
        "output": [_port(tensor) for tensor in spec.graph.outputs],
        "instance_group": [{"count": count, "kind": Word(f"KIND_{kind.upper()}")}],
        "default_model_filename": _FILES[platform],
        "parameters": [
            {"key": name, "value": {"string_value": text}} for name, text in sorted(_about(bundle, spec).items())
        ],
    }


def _port(tensor: Tensor) -> Message:
    dims = [-1 if isinstance(axis, str) else axis for axis in tensor.axes]
    # Without a batch axis Triton takes no tensor without axes: a single number is declared as one, and reshaped.
    scalar: Message = {"dims": [1], "reshape": {}}
    port: Message = {"name": tensor.name, "data_type": Word(_DTYPES[tensor.dtype])}
    return {**port, **(scalar if not dims else {"dims": dims})}


def _about(bundle: Bundle, spec: EngineSpec) -> dict[str, str]:
    """What a client must know, and what the model was made of. Class names hold no commas."""
    about = {
        "gransam_bundle": f"{bundle.name} {bundle.version}",
        "gransam_bundle_sha256": bundle.digest,
        "gransam_graph_sha256": spec.graph.sha256,
        "gransam_precision": bundle.precision,
    }
    if spec.name in ("head", FUSED) and bundle.classes:
        about["gransam_classes"] = ",".join(info.name for info in bundle.classes)
    return about
