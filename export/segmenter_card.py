"""The model card of a segmenter for which nobody has written one: what its manifest says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RESIZE = {"letterbox": "the photo's long side resized to", "stretch": "the photo stretched to"}


def segmenter_card(manifest: Mapping[str, Any]) -> str:
    """Markdown for the manifest of a bundle without a head, as ``sam_manifest`` and ``nano_manifest`` give it."""
    model, origin = manifest["model"], manifest["provenance"]
    side, low = model["input_side"], model["low_res_side"]
    digest = f", sha256 `{origin['weights_sha256']}`" if "weights_sha256" in origin else ""
    return f"""\
# {manifest["name"]}

{manifest["description"]}, compiled by `gransam compile`. It segments what a click shows and knows no classes by itself.

- **Input**: {_RESIZE[manifest["preprocess"]["resize"]]} {side} pixels; points. **Output**: for each point four masks at
  {low}×{low}, predicted IoU, and mask tokens of width {model["token_width"]}.
- **Weights**: {origin["weights"]}{digest}. Licence: {manifest["licence"]["weights"]}.
- **Trained on**: {"; ".join(origin["training_data"])}.

## What it cannot do

- **Exact edges.** Masks are made at {low}×{low} and enlarged.
- What else this segmenter misses was not examined for this card: look at the least certain photos of the report first.
"""
