"""Small bags whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gransam_sdk.training.bags import Bags, SceneBags
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.folds import FOLDS, fold_numbers

CLASSES, INSTANCES, WIDTH, TOKENS = 4, 24, 20, 16
PARTS = 4
Rim = float | Sequence[float] | NDArray[np.float16]


def noisy_bags(seed: int = 0, count: int = 120, strength: float = 2.0, rim: Rim = 0.0) -> Bags:
    """A quarter of a bag's instances carry the class, the rest come from a background shared by all; no scenes.

    Args:
        seed: Of centres and noise.
        count: Pictures; every fifth is background.
        strength: Length of the centres over that of the noise.
        rim: Of the masks: of all, by instance or by picture and instance.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, WIDTH)) * strength
    labels = np.arange(count) % (CLASSES + 1) - 1  # -1 is background
    instances = rng.normal(size=(count, INSTANCES, WIDTH))
    for bag, label in zip(instances, labels, strict=True):
        if label >= 0:
            bag[: INSTANCES // 4] += centres[label]
    return Bags(
        classes=tuple(f"class{i}" for i in range(CLASSES)),
        instances=instances.astype(np.float16),
        labels=labels,
        rim=rims(rim, count),
        folds=fold_numbers(labels),
        scenes=SceneBags.none(INSTANCES, WIDTH),
        token_width=TOKENS,
    )


def noisy_scenes(seed: int = 0, count: int = 60, strength: float = 2.0, noise: int = 1, rim: Rim = 0.0) -> SceneBags:
    """Four pictures a scene, side by side; a class picture's first half carries the class, the rest is background.

    Args:
        seed: Of the centres: the same as in ``noisy_bags`` give the same.
        count: Scenes; fold by fold, in turn.
        strength: As in ``noisy_bags``.
        noise: Seed of the noise and of which pictures there are; every fourth scene or so has background in it.
        rim: As in ``noisy_bags``.
    """
    centres = np.random.default_rng(seed).normal(size=(CLASSES, WIDTH)) * strength
    rng = np.random.default_rng(1000 + noise)
    parts = rng.integers(-1, CLASSES, size=(count, PARTS))
    parts[:, 0] = np.arange(count) % CLASSES
    part_of = np.tile(np.arange(INSTANCES) * PARTS // INSTANCES, (count, 1))
    instances = rng.normal(size=(count, INSTANCES, WIDTH))
    own = INSTANCES // PARTS
    for scene, shown in zip(instances, parts, strict=True):
        for place, label in enumerate(shown):
            if label >= 0:
                scene[own * place : own * place + own // 2] += centres[label]
    return SceneBags(
        instances=instances.astype(np.float16),
        parts=parts,
        part_of=part_of,
        rim=rims(rim, count),
        folds=np.arange(count) % FOLDS,
    )


def rims(rim: Rim, count: int) -> NDArray[np.float16]:
    """(count,INSTANCES) of one number or more."""
    return np.broadcast_to(np.asarray(rim, dtype=np.float16), (count, INSTANCES)).copy()


def one_head(**switches: Any) -> HeadConfig:
    """A config of one head on all of an instance, with as many steps as its epochs have, unless told otherwise."""
    return HeadConfig(**{"members": 1, "inputs": "fused", "least_steps": 1, **switches})
