"""segment-anything's own ONNX decoder: exported as its script does, and cut to fewer outputs."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from gransam_sdk.models.segment_anything import import_package
from gransam_sdk.shapes import AnyArray, Float

MASKS, IOU, LOW_RES, TOKENS = "masks", "iou_predictions", "low_res_masks", "tokens"
"""Its outputs: masks at the photo's size, and what comes before them; the tokens (g,7,256) it keeps to itself."""
SIDE, MASK_INPUT_SIDE = 1024, 256
_LAST_NORM = "norm_final_attn"


def export_official(sam: nn.Module, batched: bool) -> onnx.ModelProto:
    """``scripts/export_onnx_model.py`` of the package, with the options that it has without flags.

    Args:
        sam: The package's model.
        batched: Its prompts are free as well as a prompt's points, which the script does not do.
    """
    import_package()
    module = importlib.import_module("segment_anything.utils.onnx")
    official = module.SamOnnxModel(sam, return_single_mask=False)
    example = {
        "image_embeddings": torch.randn(1, 256, 64, 64),
        "point_coords": torch.randint(0, 1024, (1, 5, 2)).float(),
        "point_labels": torch.randint(0, 4, (1, 5)).float(),
        "mask_input": torch.randn(1, 1, MASK_INPUT_SIDE, MASK_INPUT_SIDE),
        "has_mask_input": torch.tensor([1.0]),
        "orig_im_size": torch.tensor([1500.0, 2250.0]),
    }
    free = {0: "g", 1: "num_points"} if batched else {1: "num_points"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "decoder.onnx"
        warnings.simplefilter("ignore")  # the tracer's, and that it is the old one
        torch.onnx.export(
            official,
            tuple(example.values()),
            file,
            opset_version=17,
            input_names=list(example),
            output_names=[MASKS, IOU, LOW_RES],
            dynamic_axes={"point_coords": free, "point_labels": free},
            dynamo=False,
        )
        model = onnx.load(file)
    _name_tokens(model, "g" if batched else 1)
    return model


def _name_tokens(model: onnx.ModelProto, prompts: str | int) -> None:
    """Makes the tokens after the last attention an output; graphs without it are ``cut`` from this one."""
    inside = next(
        node.output[0]
        for node in model.graph.node
        if node.op_type == "LayerNormalization" and _LAST_NORM in node.output[0]
    )
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == inside:
                    names[index] = TOKENS
    axes = [prompts, "tokens", 256]
    model.graph.output.append(onnx.helper.make_tensor_value_info(TOKENS, onnx.TensorProto.FLOAT, axes))


def cut(model: onnx.ModelProto, outputs: Sequence[str]) -> bytes:
    """The same graph with these outputs, and without what only the others need."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    known = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.output}
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    kept = (
        (graph.node, nodes[::-1]),
        (graph.input, [value for value in model.graph.input if value.name in needed]),
        (graph.output, [known[name] for name in outputs]),
        (graph.initializer, [weight for weight in model.graph.initializer if weight.name in needed]),
    )
    for target, values in kept:
        del target[:]
        target.extend(values)
    return bytes(part.SerializeToString())


def feeds(embedding: Float, points: Float) -> dict[str, AnyArray]:
    """Inputs for (1,256,e,e) and points (g,2) in [0,1] of the square: one click each, and the padding that it needs."""
    clicks = np.stack([points * SIDE, np.zeros_like(points)], axis=1)
    return {
        "image_embeddings": embedding,
        "point_coords": clicks,
        "point_labels": np.tile(np.array([[1.0, -1.0]], dtype=np.float32), (len(points), 1)),
        "mask_input": np.zeros((1, 1, MASK_INPUT_SIDE, MASK_INPUT_SIDE), dtype=np.float32),
        "has_mask_input": np.zeros(1, dtype=np.float32),
        "orig_im_size": np.array([SIDE, SIDE], dtype=np.float32),
    }
