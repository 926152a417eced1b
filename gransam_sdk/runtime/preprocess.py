"""A photo into the model's square: resize, normalise, pad; the one definition that every bundle names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..geometry import Frame
from ..shapes import Float, Pixels

if TYPE_CHECKING:
    from ..bundle import Preprocess


def preprocess(pixels: Pixels, spec: Preprocess, frame: Frame) -> Float:
    """The image graph's input for one photo: ``normalise`` of ``resize``.

    Args:
        pixels: (h,w,3) uint8, upright RGB, or as ``frame.at_hand`` says.
        spec: The bundle's ``mean`` and ``std``, per channel in units of 0-255.
        frame: Where the photo lies in the square.

    Returns:
        (1,3,s,s) float32.

    Raises:
        InputError: ``frame`` was made for a photo of another size.
    """
    return normalise(resize(pixels, frame), spec, frame)


def normalise(resized: Pixels, spec: Preprocess, frame: Frame) -> Float:
    """(rh,rw,3) uint8 to (1,3,s,s) float32: (x - mean) / std, then zeros right and below up to the square.

    Padding is added after normalisation, as ``segment_anything.modeling.Sam.preprocess`` does.
    """
    rh, rw = frame.resized
    mean, std = np.asarray(spec.mean, dtype=np.float32), np.asarray(spec.std, dtype=np.float32)
    normal = (resized.astype(np.float32) - mean) / std  # (rh,rw,3)
    square = np.zeros((1, 3, frame.side, frame.side), dtype=np.float32)
    square[0, :, :rh, :rw] = normal.transpose(2, 0, 1)
    return square


def resize(pixels: Pixels, frame: Frame) -> Pixels:
    """(h,w,3) uint8, or as ``frame.at_hand`` says, to (rh,rw,3) uint8, by Pillow's BILINEAR.

    That averages over what it shrinks.

    Raises:
        InputError: ``frame`` was made for a photo of another size.
    """
    from PIL import Image

    if pixels.shape != (*frame.at_hand, 3):
        raise InputError("photo", expected=f"{(*frame.at_hand, 3)} as in its frame", found=str(pixels.shape))
    rh, rw = frame.resized
    return np.asarray(Image.fromarray(pixels).resize((rw, rh), Image.Resampling.BILINEAR))
