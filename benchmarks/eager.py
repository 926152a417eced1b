"""Everything mode in eager PyTorch, as one writes it with segment-anything today: the path that the product is compared
with.

The order of work is ``SamAutomaticMaskGenerator``'s: prompts in batches of 64, of each all three masks resized to the
photo, then filtered and encoded batch by batch, and suppressed at the end. What is kept is decided by the product's
rule, so that the kept masks can be compared one to one: class from the mask tokens, threshold, the mask of the largest
predicted IoU if it is stable, suppression of low-res masks inside the valid area. Plain torch and pycocotools; the
photo's decoding and resizing are the product's own, so that both see the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from kept import Kept, as_rle, encode, suppress
from onnx import numpy_helper
from pycocotools import mask as coco
from torch import Tensor, nn
from torch.nn import functional as F

from gransam_sdk.bundle import Bundle
from gransam_sdk.export.reference import Named, PlainSegmenter
from gransam_sdk.geometry import Frame
from gransam_sdk.models.head import Head, HeadEnsemble
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.preprocess import preprocess
from gransam_sdk.shapes import Float
from gransam_sdk.types import PointGrid, Settings

BATCH = 64
"""``points_per_batch`` of the mask generator."""


@dataclass(kw_only=True)
class _Batch:
    """What a batch of prompts leaves: masks that passed their threshold."""

    codes: list[Any]
    low_res_codes: list[Any]
    low_res: Tensor
    label: Tensor
    score: Tensor


class EagerPath:
    """The path.

    Args:
        plain: The segmenter in its published form, with the weights that the bundle was made of.
        bundle: Its head, thresholds, grid and preprocessing are used; its graphs are not.
        device: Where torch computes; ``plain`` is there already.
    """

    def __init__(self, plain: PlainSegmenter, bundle: Bundle, device: str = "cpu") -> None:
        self.plain, self.bundle, self.head, self.device = plain, bundle, read_head(bundle).to(device), device
        self.thresholds = torch.tensor([info.threshold for info in bundle.classes], device=device)
        self.points = PointGrid(per_side=bundle.points_per_side).points()
        self.settings = Settings()

    @torch.no_grad()
    def __call__(self, photo: Path) -> Kept:
        """A photo's file to masks; ``extra`` is their low-res logits (n,l,l) and the frame."""
        pixels = as_pixels(photo)
        bundle = self.bundle
        frame = Frame.fit(size=pixels.shape[:2], side=bundle.input_side, resize=bundle.preprocess.resize)
        image = torch.from_numpy(preprocess(pixels, bundle.preprocess, frame)).to(self.device)
        maps = self.plain.encode(image)
        maps = {name: value[0] for name, value in maps.items()}
        points = torch.from_numpy(frame.to_model(self.points)).to(self.device)
        batches = [self._batch(maps, part, frame) for part in points.split(BATCH)]
        codes = [code for batch in batches for code in batch.codes]
        low_res_codes = [code for batch in batches for code in batch.low_res_codes]
        label = torch.cat([batch.label for batch in batches]).cpu()
        score = torch.cat([batch.score for batch in batches]).cpu()
        keep = suppress(low_res_codes, label.numpy(), score.numpy(), self.settings)
        keep = [i for i in keep if coco.area(codes[i]) > 0]  # smaller than a pixel of the photo is no mask
        low_res = torch.cat([batch.low_res for batch in batches])[keep]
        names = tuple(bundle.classes[int(label[i])].name for i in keep)
        return Kept(masks=tuple(as_rle(codes[i]) for i in keep), names=names, extra=(low_res, frame))

    def _batch(self, maps: Named, points: Tensor, frame: Frame) -> _Batch:
        tokens, iou, low_res = self.plain.decode(maps, points)
        masks = resize_masks(low_res[:, 1:], frame)  # (g,3,h,w)
        choice = iou[:, 1:].argmax(dim=1)
        rows = torch.arange(len(points), device=self.device)
        chosen = low_res[rows, choice + 1]
        unit = self.head(self._instances(maps, tokens, low_res, choice + 1)).softmax(dim=1)
        confidence, label = unit.max(dim=1)
        named = label < len(self.thresholds)  # behind the classes there may be background
        passed = named & (confidence >= self.thresholds[label.clamp(max=len(self.thresholds) - 1)])
        height, width = frame.valid(self.bundle.low_res_side)
        tight, loose = ((chosen[:, :height, :width] > offset).sum((1, 2)) for offset in (1.0, -1.0))
        passed &= tight >= self.settings.stability_score_thresh * loose.clamp(min=1)
        full = masks[rows, choice][passed] > 0
        return _Batch(
            codes=encode(full.cpu().numpy()),
            low_res_codes=encode((chosen[passed, :height, :width] > 0).cpu().numpy()),
            low_res=chosen[passed],
            label=label[passed],
            score=(confidence * iou[rows, choice + 1].clamp(0, 1))[passed],
        )

    def _instances(self, maps: Named, tokens: Tensor, low_res: Tensor, choice: Tensor) -> Tensor:
        """What the head reads of each prompt: its four tokens, the features pooled under its mask, or both."""
        width = len(self.head.get_buffer("mean"))
        flat = tokens.flatten(1)
        if width == flat.shape[1]:
            return flat
        step, offset = self.bundle.low_res_side // self.bundle.embedding_side, self.bundle.lattice_offset
        rows = torch.arange(len(choice), device=low_res.device)
        lattice = low_res[rows, choice, offset::step, offset::step].sigmoid().flatten(1)  # (g,N)
        features = maps[self.plain.features].flatten(1).T  # (N,f)
        pooled = lattice @ features / (lattice.sum(dim=1, keepdim=True) + 1e-4)
        return pooled if width == pooled.shape[1] else torch.cat([flat, pooled], dim=1)


def resize_masks(logits: Tensor, frame: Frame) -> Tensor:
    """Low-res logits (g,m,l,l) to the photo (g,m,h,w): one bilinear step over the area that shows it."""
    low = logits.shape[-1]
    exact = [side * low / frame.side for side in frame.resized]
    rows, columns = (int(np.ceil(side)) for side in exact)
    part = logits[:, :, :rows, :columns]
    if [rows, columns] == exact:
        return F.interpolate(part, size=frame.size, mode="bilinear", align_corners=False)
    # The photo ends within a cell: the scale is the photo's, and past the last cell its value goes on.
    part = F.pad(part, (0, 1, 0, 1), mode="replicate")
    scale = tuple(size / side for size, side in zip(frame.size, exact, strict=True))
    whole = F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=False)
    return whole[:, :, : frame.size[0], : frame.size[1]]


def two_step(low_res: Tensor, frame: Frame) -> Tensor:
    """The package's way, (n,l,l) to (n,h,w): to the model's side, cut to the photo, then to the photo's size."""
    large = F.interpolate(low_res[:, None], (frame.side, frame.side), mode="bilinear", align_corners=False)
    cut = large[..., : frame.resized[0], : frame.resized[1]]
    return F.interpolate(cut, frame.size, mode="bilinear", align_corners=False)[:, 0]


def read_head(bundle: Bundle) -> nn.Module:
    """The bundle's head as a torch module, its weights read from the head graph.

    Raises:
        KeyError: It is none of ``Head`` and ``HeadEnsemble``.
    """
    model = onnx.load_from_string(bundle.graph_bytes("head"))
    weights = {
        each.name.removeprefix("head.").removesuffix("_half"): torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in model.graph.initializer
    }
    prefixes = sorted({".".join(name.split(".")[:2]) for name in weights if name.startswith("heads.")})
    members = [_member(weights, f"{prefix}.") for prefix in prefixes] or [_member(weights, "")]
    return members[0] if len(members) == 1 else HeadEnsemble(members).eval()


def _member(weights: dict[str, Tensor], prefix: str) -> Head:
    def find(name: str) -> Tensor:  # what members share is stored once, under the first one's name
        found = weights.get(f"{prefix}{name}")
        return (weights[f"heads.0.{name}"] if found is None else found).float()

    head = Head(len(find("mean")), len(find("fc3.bias")), dropout=0.0)
    head.load_state_dict({name: find(name) for name in head.state_dict()})
    return head.eval().requires_grad_(False)


def compare_resizing(low_res: Tensor, frame: Frame) -> Float:
    """IoU (n,) of masks resized in one step, the product's definition, with the same resized in the package's two."""
    one, two = resize_masks(low_res[:, None], frame)[:, 0] > 0, two_step(low_res, frame) > 0
    common, union = (one & two).sum(dim=(1, 2)), (one | two).sum(dim=(1, 2))
    return (common / union.clamp(min=1)).numpy()
