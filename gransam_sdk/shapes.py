"""Axis letters and array aliases: the only letters that docstrings and annotations use.

| letter | meaning                      | SAM  | nano |
|--------|------------------------------|------|------|
| b      | images in a batch            |      |      |
| h, w   | original image height, width |      |      |
| s      | model input side             | 1024 | 320  |
| e      | embedding side               | 64   | 20   |
| g      | prompts of the point grid    | 100  | 100  |
| 4      | mask tokens per prompt       | 4    | 4    |
| d      | token width                  | 256  | 256  |
| l      | low-res mask side            | 256  | 80   |
| n      | masks kept                   |      |      |
| k      | classes                      |      | 20   |
| f      | width of pooled features     | 256  | 416  |

Boxes are XYXY in pixels of the original image unless a name says otherwise; points are XY; images are upright RGB.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float32]
"""float32 array."""
Bool: TypeAlias = NDArray[np.bool_]
"""Boolean array: masks are (n,l,l) or (h,w)."""
Int: TypeAlias = NDArray[np.int64]
"""int64 array: indices, class ids, choices."""
Pixels: TypeAlias = NDArray[np.uint8]
"""(h,w,3) uint8, upright RGB."""
AnyArray: TypeAlias = NDArray[Any]
"""An array whose dtype is checked by the code that takes it."""
