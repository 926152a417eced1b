"""Seeded random weights for an exact architecture: what stands in for a checkpoint that is not at hand.

Every parameter and saved buffer is drawn, none left at 0 or 1: SAM's constructors leave position tables at zero and
norms at one, and with them whole paths would go unseen. Weights are scaled so that activations keep their size. Such a
model answers like the real one in shape and cost, and in nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sam_checkpoint import unused_keys
from .segment_anything import ARCHITECTURES, VitShape, assemble_sam
from .tiny_vit import TinyVitShape

GAIN = 1.1
"""Between 1, which chains of GELUs shrink, and 1.4, which convolutions without GELU let grow."""


def random_sam(arch: str | VitShape | TinyVitShape, seed: int = 0) -> nn.Module:
    """An official architecture by name, or any shape, with random weights."""
    sam = assemble_sam(ARCHITECTURES[arch] if isinstance(arch, str) else arch)
    fill(sam, seed)
    return sam


def fill(module: nn.Module, seed: int = 0) -> None:
    """Draws every parameter and saved buffer, in the order of the keys."""
    generator = torch.Generator().manual_seed(seed)
    kinds = {f"{name}.weight": type(part) for name, part in module.named_modules()}
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():  # BatchNorm's count of batches
            tensor.fill_(int(torch.randint(2, 1000, (), generator=generator)))
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(_scaled(name, noise, kinds.get(name)))


def random_checkpoint(arch: str, seed: int = 0) -> dict[str, Tensor]:
    """What the official file holds: the module's tensors and, for MobileSAM, those that it does not use."""
    generator = torch.Generator().manual_seed(seed + 1)
    unused = {name: torch.randn(shape, generator=generator) for name, shape in unused_keys(arch).items()}
    return {**random_sam(arch, seed).state_dict(), **unused}


def _scaled(name: str, noise: Tensor, kind: type[nn.Module] | None) -> Tensor:
    if name.endswith("running_var"):
        return 0.5 + noise.abs()
    if name.endswith(("gaussian_matrix", "attention_biases")):
        return noise
    if "rel_pos" in name:  # enters scores as a dot product with a query
        row: Tensor = noise / noise.shape[1] ** 0.5
        return row
    if kind is nn.Embedding or name.endswith("pos_embed"):
        return 0.7 * noise
    if noise.ndim == 1:
        return 1.0 + 0.2 * noise if name.endswith("weight") else 0.1 * noise
    fan_in = noise.shape[0] if kind is nn.ConvTranspose2d else noise[0].numel()
    scaled: Tensor = noise * (GAIN / fan_in**0.5)
    return scaled
