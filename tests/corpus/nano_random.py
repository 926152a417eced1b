"""A nano whose every parameter and buffer is random, none left at 0 or 1: nothing a test should see stays untested."""

from __future__ import annotations

import torch

from gransam_sdk.models.nano import Nano


def random_nano(seed: int = 0) -> Nano:
    """Seeded; weights are scaled so that activations keep their size through the depth."""
    generator = torch.Generator().manual_seed(seed)
    nano = Nano()
    for name, tensor in nano.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif name.endswith("gaussian"):
            tensor.copy_(noise)
        elif tensor.ndim == 1:
            norm = "norm" in name and name.endswith("weight")
            tensor.copy_(1.0 + 0.2 * noise if norm else 0.1 * noise)
        else:
            fan_in = tensor[0].numel() if "upscale" not in name else tensor.shape[0]
            gain = 0.4 if ".project." in name else 1.6  # what is added to a map must not drown it
            tensor.copy_(noise * (gain / fan_in**0.5))
    return nano.eval().requires_grad_(False)
