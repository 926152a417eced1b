"""SAM by name, without weights: the one module that imports the segment-anything package.

The package (1.0) imports torchvision when it is imported, for its mask generator and its resizing. Where torchvision
cannot be imported, functions of the same contract stand in for the four that it names. Nothing here calls the package's
``apply_image_torch``, which takes the resized shape from the wrong axes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError, MissingExtraError
from .tiny_vit import TinyViT, TinyVitShape

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
WIDTH = 256
PATCH = 16
WINDOW = 14


@dataclass(frozen=True, kw_only=True)
class VitShape:
    """Sizes of SAM's own image encoder.

    Args:
        side: s, a multiple of 16.
        width: Channels of a cell.
        depth: Blocks.
        heads: Attention heads.
        global_blocks: Blocks that attend to the whole photo; the others to windows of 14 by 14 cells.

    Raises:
        InputError: Sizes do not fit together.
    """

    side: int = 1024
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks the sizes."""
        inside = all(0 <= block < self.depth for block in self.global_blocks)
        above_zero = min(self.side, self.width, self.depth, self.heads) > 0
        if not above_zero or self.side % PATCH or self.width % self.heads or not inside:
            raise InputError(
                "VitShape",
                expected="sizes above 0, a side that 16 divides, a width that the heads divide, blocks that exist",
                found=repr(self),
            )


ARCHITECTURES: Mapping[str, VitShape | TinyVitShape] = MappingProxyType(
    {
        "sam-vit-b": VitShape(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
        "sam-vit-l": VitShape(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
        "sam-vit-h": VitShape(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
        "mobile-sam": TinyVitShape(),
    }
)
"""What each official checkpoint holds; prompt encoder and mask decoder are the same in all."""


def build_sam(arch: str) -> nn.Module:
    """Builds an official architecture with untrained weights; see ``assemble_sam``.

    Raises:
        InputError: There is none of that name.
        MissingExtraError: segment-anything is not installed.
    """
    if arch not in ARCHITECTURES:
        raise InputError("SAM architecture", expected=f"one of {', '.join(ARCHITECTURES)}", found=repr(arch))
    return assemble_sam(ARCHITECTURES[arch])


def assemble_sam(shape: VitShape | TinyVitShape) -> nn.Module:
    """Builds the package's ``Sam`` with untrained weights, in evaluation mode, without gradients.

    Under ``torch.device("meta")`` it takes no memory, but has its keys and shapes.

    Args:
        shape: Sizes of the image encoder.

    Returns:
        ``image_encoder`` (b,3,s,s) to (b,256,e,e), ``prompt_encoder``, ``mask_decoder``.

    Raises:
        MissingExtraError: segment-anything is not installed.
    """
    package = import_package().modeling
    cells = shape.side // PATCH
    sam: nn.Module = package.Sam(
        image_encoder=TinyViT(shape) if isinstance(shape, TinyVitShape) else _vit(package, shape),
        prompt_encoder=package.PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=(cells, cells),
            input_image_size=(shape.side, shape.side),
            mask_in_chans=16,
        ),
        mask_decoder=package.MaskDecoder(
            transformer_dim=WIDTH,
            transformer=package.TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=8, mlp_dim=2048),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=WIDTH,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval().requires_grad_(False)


def _vit(package: Any, shape: VitShape) -> nn.Module:
    encoder: nn.Module = package.ImageEncoderViT(
        img_size=shape.side,
        patch_size=PATCH,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=4,
        out_chans=WIDTH,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=shape.global_blocks,
        window_size=WINDOW,
    )
    return encoder


@cache
def import_package() -> Any:
    """The ``segment_anything`` package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with _torchvision():
            return importlib.import_module("segment_anything")
    except ModuleNotFoundError as error:
        if error.name != "segment_anything":
            raise
        raise MissingExtraError("segment-anything is not installed", do='pip install "gransam-sdk[export]"') from error


@contextmanager
def _torchvision() -> Iterator[None]:
    """Torchvision itself where it can be imported, else stand-ins, taken away again so that nobody else meets them."""
    try:
        importlib.import_module("torchvision")
    except Exception:  # one built for another torch fails with RuntimeError or OSError
        stand_ins = _stand_ins()
        remains = {name: sys.modules[name] for name in stand_ins if name in sys.modules}  # of the failed import
        sys.modules.update(stand_ins)
        try:
            yield
        finally:
            for name in stand_ins:
                del sys.modules[name]
            sys.modules.update(remains)
    else:
        yield


def _stand_ins() -> dict[str, ModuleType]:
    functions = {
        "torchvision": (),
        "torchvision.ops": (),
        "torchvision.ops.boxes": (batched_nms, box_area),
        "torchvision.transforms": (),
        "torchvision.transforms.functional": (resize, to_pil_image),
    }
    modules = {name: ModuleType(name) for name in functions}
    for name, members in functions.items():
        for member in members:
            setattr(modules[name], member.__name__, member)
    return modules


def box_area(boxes: Tensor) -> Tensor:
    """(n,4) XYXY to areas (n,)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return size[:, 0] * size[:, 1]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression of boxes whose IoU with a better one of the same group is above the threshold.

    Args:
        boxes: (n,4) XYXY.
        scores: (n,).
        idxs: (n,) groups.
        iou_threshold: In [0,1].

    Returns:
        (kept,) int64 indices, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    area, kept = box_area(boxes), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        overlap = torch.minimum(boxes[best, 2:], boxes[rest, 2:]) - torch.maximum(boxes[best, :2], boxes[rest, :2])
        both = overlap.clamp(min=0).prod(dim=1)
        iou = both / (area[best] + area[rest] - both)
        order = rest[(iou <= iou_threshold) | (idxs[rest] != idxs[best])]
    return torch.stack(kept) if kept else order


def to_pil_image(picture: NDArray[np.uint8]) -> Image.Image:
    """(h,w,3) RGB or (h,w) grey to Pillow's image."""
    return Image.fromarray(picture)


def resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Pillow's bilinear filter, as torchvision uses it on Pillow's images; size is (h,w)."""
    height, width = size
    return picture.resize((width, height), Image.Resampling.BILINEAR)
