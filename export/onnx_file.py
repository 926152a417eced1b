"""One torch module to one self-contained ONNX file, weights stored in 16 bits where that loses nothing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import Tensor, nn

from gransam_sdk.errors import EnvironmentFault

OPSET = 20
"""First opset with Gelu; LayerNormalization is in from 17."""

Axes = Mapping[str, Sequence[str | int]]
"""Tensor name to axes: a letter where the size is free, a number where it is fixed."""

_ANY_SIZE = 1 << 62
_REGISTRY = "torch.onnx._internal.exporter._registration"
"""The exporter's logger that names every torchvision operator it does without; no graph of ours has one."""


def export_graph(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], free: str, *, fold: bool = False
) -> bytes:
    """Exports a module.

    Args:
        module: In evaluation mode; its ``forward`` takes ``inputs`` in order and returns ``outputs`` in order.
        inputs: Example tensors by name; an axis that is free must have a size of at least 2 here.
        outputs: Names of what ``forward`` returns.
        free: One letter: axis 0 of every input not starting with ``h_`` may have any size and is called this.
        fold: Store the results of what is computed from weights alone, instead of the weights: bundles allow no such
            computation at run time. The exporter on its own folds only small ones.

    Returns:
        Bytes of the ONNX model, checked, without external data.
    """
    axis = torch.export.Dim(free, min=1)
    dynamic = tuple(None if name.startswith("h_") else {0: axis} for name in inputs)
    with warnings.catch_warnings(), _without_torchvision_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise EnvironmentFault("torch.onnx.export", expected="an ONNX program", found="nothing")
    if fold:
        fold_constants(program.model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
        remove_unused_nodes(program.model)
    model = program.model_proto
    _name_free_axis(model, free)
    store_in_half(model)
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _without_torchvision_warnings() -> Iterator[None]:
    """Leaves out one kind of line of the exporter's log while a block runs; all others pass."""

    def passes(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger = logging.getLogger(_REGISTRY)
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _name_free_axis(model: onnx.ModelProto, free: str) -> None:
    """Names the one symbolic axis of inputs and outputs, whatever the exporter called it."""
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") or not dim.HasField("dim_value"):
                dim.dim_param = free


def store_in_half(model: onnx.ModelProto) -> None:
    """Stores float32 initializers that float16 represents exactly as float16 plus a Cast, in place.

    The runtime folds the Cast when it loads the graph, so nothing is computed in 16 bits and no result changes.
    """
    casts = []
    for index, initializer in enumerate(model.graph.initializer):
        if initializer.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(initializer)
        half = values.astype(np.float16)
        if values.size < 64 or not np.array_equal(half.astype(np.float32), values):
            continue
        stored = f"{initializer.name}_half"
        casts.append(
            helper.make_node("Cast", [stored], [initializer.name], name=f"{stored}_cast", to=TensorProto.FLOAT)
        )
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(half, stored))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _strip(model: onnx.ModelProto) -> None:
    """Drops what the exporter leaves for debugging: node metadata, doc strings, intermediate shapes."""
    model.doc_string = model.graph.doc_string = ""
    model.producer_name, model.producer_version = "gransam-sdk", ""
    model.graph.name = "graph"
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
