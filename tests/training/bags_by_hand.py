"""Small bags whose answer is known."""

from __future__ import annotations

import numpy as np

from gransam_sdk.training.tokens import Bags

CLASSES, INSTANCES, WIDTH, TOKENS = 4, 24, 20, 16


def noisy_bags(seed: int = 0, count: int = 120, strength: float = 2.0) -> Bags:
    """A quarter of a bag's instances carry the class, the rest come from a background shared by all.

    Args:
        seed: Of centres and noise.
        count: Pictures; every fifth is background.
        strength: Length of the centres over that of the noise.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, WIDTH)) * strength
    labels = np.arange(count) % (CLASSES + 1) - 1  # -1 is background
    instances = rng.normal(size=(count, INSTANCES, WIDTH))
    for bag, label in zip(instances, labels, strict=True):
        if label >= 0:
            bag[: INSTANCES // 4] += centres[label]
    names = tuple(f"class{i}" for i in range(CLASSES))
    return Bags(classes=names, instances=instances.astype(np.float16), labels=labels, token_width=TOKENS)
