"""Bundles of random weights whose masks can be compared: the official architecture, a head, 20 to 40 masks a photo.

Random weights answer every click with nearly the same mask, and suppression would leave one of them. Tokens are
therefore made to attend to the click's place, what all clicks have in common is taken out of the weights that turn
tokens into masks, and predicted IoU is moved to where real models have it. The head is trained on this very model's
tokens; its threshold is the one from which about ``WANTED`` masks of a photo survive. All of it is made once and kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gransam_sdk.bundle import Bundle, HeadInfo, open_bundle
from gransam_sdk.export.assemble import add_head
from gransam_sdk.export.compile import compile_bundle
from gransam_sdk.export.sam import PlainSam
from gransam_sdk.models.segment_anything import PIXEL_MEAN, PIXEL_STD
from gransam_sdk.models.stand_in import random_sam
from gransam_sdk.runtime.decode import as_pixels
from gransam_sdk.runtime.load import load_model
from gransam_sdk.runtime.model import Model
from gransam_sdk.runtime.select import choose_masks, score, softmax, surviving
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.tokens import extract_bags
from gransam_sdk.types import ClassInfo, PointGrid, Settings

WANTED = 30
"""Masks of a photo that are to survive."""
PREDICTED_IOU = 0.7
SHARPER = 12.0
"""What queries are multiplied by: random ones attend to all of the image alike, trained ones to the click's place."""
LOWER = 0.8
"""Deviations by which logits are lowered, so that masks cover about a fifth of a photo."""
CLASSES = ("aeroplane", "boat", "cat", "person", "pottedplant", "sofa")
PICTURES = 2
"""Example pictures a class: a photo takes seconds, and the head need not be good."""
CARD = (
    "# Stand-in\n\nRandom weights in the architecture's exact shape. It measures time and parity, and finds nothing.\n"
)


def random_bundle(
    arch: str, work: Path, *, pictures: Path | None, photos: Sequence[Path], seed: int = 0
) -> tuple[Bundle, Path]:
    """The bundle and its checkpoint, made in ``work`` unless they are there.

    Args:
        arch: A name in ``models.segment_anything.ARCHITECTURES``.
        work: Folder that keeps them.
        pictures: Folder with class folders of example pictures, ``CLASSES`` among them; None leaves the head out.
        photos: A few photos, others than those to be measured, that weights and thresholds are set on.
        seed: Of the weights.
    """
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, base, out = work / f"{arch}-{seed}.pt", work / f"{arch}-{seed}-base", work / f"{arch}-{seed}"
    if not checkpoint.exists():
        sam = random_sam(arch, seed)
        recentre(PlainSam(sam), photos)
        torch.save(sam.state_dict(), checkpoint)
    if not base.exists():
        card = work / "card.md"
        card.write_text(CARD, encoding="utf-8")
        compile_bundle(checkpoint, base, arch=arch, name=base.name, photos=photos[:1], card=card, log=print)
    if pictures is None:
        return open_bundle(base), checkpoint
    if not out.exists():
        _add_head(open_bundle(base), out, work, pictures, photos)
    return open_bundle(out), checkpoint


@torch.no_grad()
def recentre(plain: PlainSam, photos: Sequence[Path]) -> None:
    """Makes masks differ between clicks, makes them smaller, and moves predicted IoU to 0.7; in place.

    Args:
        plain: Random weights.
        photos: What all clicks on them have in common is taken out.
    """
    decoder: Any = plain.sam.get_submodule("mask_decoder")
    transformer = decoder.transformer
    readers = [layer.cross_attn_token_to_image for layer in transformer.layers]
    for attention in (*readers, transformer.final_attn_token_to_image):
        attention.q_proj.weight *= SHARPER
        attention.q_proj.bias *= SHARPER
    maps = [{name: value[0] for name, value in plain.encode(_square(plain, photo)).items()} for photo in photos]
    points = torch.from_numpy(PointGrid(per_side=5).points())
    channels: list[Tensor] = []  # mean of each of the upscaled channels, of which a mask is a weighted sum
    hook = decoder.output_upscaling.register_forward_hook(lambda _, __, out: channels.append(out.mean(dim=(0, 2, 3))))
    answers = [plain.decode(one, points) for one in maps]
    hook.remove()
    for mask, network in enumerate(decoder.output_hypernetworks_mlps):
        _last(network).bias -= torch.stack([network(tokens[:, mask]).mean(dim=0) for tokens, _, _ in answers]).mean(0)
    deviation = torch.stack([plain.decode(one, points)[2].std() for one in maps]).mean()
    common = torch.stack(channels).mean(dim=0)
    for network in decoder.output_hypernetworks_mlps:
        _last(network).bias -= LOWER * deviation * common / common.square().sum()
    _last(decoder.iou_prediction_head).bias += PREDICTED_IOU - torch.cat([iou for _, iou, _ in answers]).mean(dim=0)


def _square(plain: PlainSam, photo: Path) -> Tensor:
    """(1,3,s,s): the photo, stretched; only its colours matter here."""
    side = int(plain.sam.get_submodule("image_encoder").img_size)
    pixels = torch.from_numpy(np.array(as_pixels(photo))).permute(2, 0, 1)[None].float()
    square = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bilinear")
    return (square - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


def _last(network: Any) -> Any:
    return network.layers[-1]


def _add_head(base: Bundle, out: Path, work: Path, pictures: Path, photos: Sequence[Path]) -> None:
    with load_model(base, device="cpu") as model:
        bags = extract_bags(model, _few(pictures, work / "pictures"), scenes=False, cache=work / "tokens")
        head = train_head(bags)
        threshold, survivors = choose_threshold(model, head, photos)
    print(f"threshold {threshold:.4f}: {survivors:.1f} masks of a photo survive")
    add_head(
        base,
        head,
        out,
        name=out.name,
        classes=[
            ClassInfo(id=i + 1, name=name, color=(40 * i, 128, 200), threshold=threshold)
            for i, name in enumerate(bags.classes)
        ],
        head_info=HeadInfo(background=False, labels="prompt", calibration=None),
        training_data=[f"{len(bags.labels)} example pictures"],
        card="Trained on tokens of random weights.\n",
    )


def _few(pictures: Path, to: Path) -> Path:
    """The first pictures of a few classes, copied: training takes whole folders."""
    for name in CLASSES:
        (to / name).mkdir(parents=True, exist_ok=True)
        for picture in sorted((pictures / name).iterdir())[:PICTURES]:
            shutil.copy(picture, to / name)
    return to


def train_head(bags: Bags) -> nn.Module:
    """A head on mask tokens; its logits are divided by their deviation, so that confidences differ between clicks."""
    fitted = fit_head(bags, HeadConfig(inputs="tokens", members=1, scenes=False, least_steps=10, batch=8))
    head = fitted.head
    tokens = torch.from_numpy(bags.instances[:, :, : bags.token_width].astype(np.float32))
    with torch.no_grad():
        head.fold_temperature(float(head(tokens).std()))
    return head


def choose_threshold(model: Model, head: nn.Module, photos: Sequence[Path]) -> tuple[float, float]:
    """The confidence from which the mean number of masks that survive is nearest to ``WANTED``, and that number."""
    answers = [_answers(model, head, photo) for photo in photos]
    every = np.sort(np.concatenate([confidence for confidence, *_ in answers]))
    best = (0.0, -1e9)
    for share in np.arange(0.2, 1.0, 0.05):
        # Between two confidences, so that rounding decides nothing.
        place = len(every) - round(share * len(every))
        threshold = float(every[max(place - 1, 0) : place + 1].mean())
        survivors = float(np.mean([_survivors(answer, threshold) for answer in answers]))
        if abs(survivors - WANTED) < abs(best[1] - WANTED):
            best = (threshold, survivors)
    return best


def _answers(model: Model, head: nn.Module, photo: Path) -> tuple[Any, Any, Any, Any]:
    """Confidence (g,), label (g,), predicted IoU (g,) and chosen low-res masks (g,rows,columns) of a photo's clicks."""
    pixels = as_pixels(photo)
    frame = model.frame(pixels)
    hoisted = model.hoist(model.prepare(pixels, frame))
    rows, columns = frame.valid(model.bundle.low_res_side)
    parts = []
    points = PointGrid(per_side=model.bundle.points_per_side).points()
    for prompts in model.prompt(hoisted, frame, points, model.bundle.prompt_chunk):
        choice = choose_masks("best_iou", prompts.iou, prompts.lattice)[:, 0]
        masks = model.masks(hoisted, prompts.state, choice, model.bundle.prompt_chunk)[:, :rows, :columns] > 0
        with torch.no_grad():
            unit = softmax(head(torch.from_numpy(prompts.tokens).flatten(1)).numpy())
        parts.append((unit.max(axis=1), unit.argmax(axis=1), prompts.iou[np.arange(len(choice)), choice], masks))
    confidence, label, iou, masks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return confidence, label, iou, masks


def _survivors(answer: tuple[Any, Any, Any, Any], threshold: float) -> int:
    confidence, label, iou, masks = (part[answer[0] >= threshold] for part in answer)
    passed = np.ones(len(label), dtype=np.bool_)
    return len(surviving(masks, label, score(confidence, iou), passed, Settings()))
