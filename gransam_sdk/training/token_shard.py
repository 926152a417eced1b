"""A shard: what the graphs said of a few pictures, in one safetensors file that is named by its own hash.

The name proves the bytes: a file that is short, torn or flipped is not what its name says, and is never read as tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import ImageError, OutputError
from ..runtime.model import Prompts
from ..runtime.select import STABLE_DELTA, stability
from ..shapes import AnyArray, Float, Int

SHARD_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_PICTURES = "pictures"
_PICTURE_HEADER = 67
"""Bytes that the header of a shard holds for each picture: its quoted digest and a comma."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureTokens:
    """What is kept of one picture; every choice of a prompt's mask can be made from it later.

    Attributes:
        tokens: (g,4·d) float16, token 0 to token 3.
        features: (g,4,f) float16, pooled under each of the four masks.
        iou: (g,4) float32 predicted IoU.
        stability: (g,) float32 stability of token 0 on the lattice (SAM 2's rule reads it).
        rim: (g,4) float16, share of the rim of the prompt's picture that each mask covers, see ``rim_share``.
    """

    tokens: NDArray[np.float16]
    features: NDArray[np.float16]
    iou: Float
    stability: Float
    rim: NDArray[np.float16]

    @classmethod
    def of(cls, chunks: Iterable[Prompts], areas: Int) -> PictureTokens:
        """Joins the prompts of one picture; of each chunk, only what is kept stays in memory.

        Args:
            chunks: The prompts.
            areas: (g,4) XYXY in lattice cells, the picture that each prompt is on: all of it, or its part of a scene.

        Raises:
            ImageError: ``non-finite``: a number is too large for 16 bits.
        """
        parts, start = [], 0
        for part in chunks:
            own = areas[start : start + len(part.points)]
            start += len(part.points)
            parts.append(
                (
                    _half("tokens", part.tokens.reshape(len(part.tokens), -1)),
                    _half("features", part.features),
                    part.iou,
                    stability(part.lattice[:, 0], STABLE_DELTA),
                    rim_share(part.lattice, own),
                )
            )
        tokens, features, iou, stable, rim = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(tokens=tokens, features=features, iou=iou, stability=stable, rim=rim)


def rim_share(lattice: Float, areas: Int) -> NDArray[np.float16]:
    """How much of a picture's outermost cells a mask covers: an object little, what surrounds it much.

    Args:
        lattice: (g,4,e,e) logits.
        areas: (g,4) XYXY in lattice cells, at least one cell each.

    Returns:
        (g,4) float16 in [0,1].
    """
    share = np.empty(lattice.shape[:2], dtype=np.float16)
    for area in np.unique(areas, axis=0):
        x0, y0, x1, y1 = area
        own = (areas == area).all(axis=1)
        masks = lattice[own, :, y0:y1, x0:x1] > 0
        rim = np.ones(masks.shape[2:], dtype=np.bool_)
        rim[1:-1, 1:-1] = False
        share[own] = masks[:, :, rim].mean(axis=2)
    return share


def _half(name: str, values: Float) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # looked for here
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ImageError("non-finite", name, expected="numbers up to 65504", found="larger ones")
    return half


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShape:
    """Sizes of one picture's arrays.

    Attributes:
        prompts: g.
        token_width: d.
        feature_width: f.
    """

    prompts: int
    token_width: int
    feature_width: int

    @classmethod
    def of(cls, bundle: Bundle) -> TokenShape:
        """Those of a bundle on its own grid."""
        grid = bundle.points_per_side**2
        return cls(prompts=grid, token_width=bundle.token_width, feature_width=bundle.feature_width)

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of one picture's arrays, by their names in ``PictureTokens`` and in a shard."""
        g = self.prompts
        return {
            "tokens": ((g, 4 * self.token_width), "float16"),
            "features": ((g, 4, self.feature_width), "float16"),
            "iou": ((g, 4), "float32"),
            "stability": ((g,), "float32"),
            "rim": ((g, 4), "float16"),
        }

    @property
    def picture_bytes(self) -> int:
        """Bytes of a picture on disk, within a few hundred a shard."""
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.arrays.values()]
        return sum(sizes) + _PICTURE_HEADER


def pack_shard(pictures: Mapping[str, PictureTokens]) -> tuple[str, bytes]:
    """File name and bytes of a shard.

    Args:
        pictures: By hex sha256 of their bytes; at least one.
    """
    from safetensors.numpy import save

    names = ("tokens", "features", "iou", "stability", "rim")
    arrays = {name: np.stack([getattr(picture, name) for picture in pictures.values()]) for name in names}
    data = save(arrays, metadata={_PICTURES: json.dumps(list(pictures), separators=(",", ":"))})
    return f"{hashlib.sha256(data).hexdigest()}.safetensors", data


def shard_pictures(path: Path) -> list[str] | None:
    """The hex sha256 of a shard's pictures, in the order of its rows; None for what is no shard.

    Only the header is read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as shard:
            pictures = json.loads((shard.metadata() or {})[_PICTURES])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return pictures if isinstance(pictures, list) else None


def is_whole(path: Path) -> bool:
    """Whether a shard's bytes are those that its name says; reads all of it."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == path.stem
    except OSError:
        return False


def read_shard(path: Path, shape: TokenShape) -> dict[str, AnyArray]:
    """The arrays of a shard, (p, ...) for its p pictures.

    Args:
        path: A shard that ``is_whole``.
        shape: What it has to hold.

    Raises:
        OutputError: It cannot be read (any more), or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, AnyArray] = load(path.read_bytes())
        found = {name: (array.shape[1:], array.dtype.name) for name, array in arrays.items()}
    except (SafetensorError, OSError) as error:
        raise _unusable(path, str(error)) from error
    if found != shape.arrays:
        raise _unusable(path, f"arrays {found}")
    return arrays


def _unusable(path: Path, found: str) -> OutputError:
    return OutputError(
        f"token cache {path}",
        expected="tokens that this version wrote",
        found=found,
        do="delete the file and run the same command again: its pictures are done once more",
    )
