"""A segmenter without a card of its own gets one that says what its manifest says."""

from __future__ import annotations

from pathlib import Path

from sam_random import NARROW_TINY, random_sam

from gransam_sdk.annotate.model_card import card_limits
from gransam_sdk.export.nano import nano_manifest
from gransam_sdk.export.sam import sam_manifest
from gransam_sdk.export.segmenter_card import segmenter_card


def test_the_card_of_an_unknown_file_claims_nothing(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mobile_sam.pt"
    checkpoint.write_bytes(b"somebody's weights")
    manifest = sam_manifest("my-sam", "mobile-sam", random_sam(NARROW_TINY), checkpoint)
    card = segmenter_card(manifest)
    assert card.startswith("# my-sam\n") and manifest["provenance"]["weights_sha256"] in card
    assert "no official file" in card and "Licence: unknown" in card and "**Trained on**: unknown" in card
    assert "long side resized to 128 pixels" in card and "32×32" in card


def test_every_card_has_limits_that_the_report_can_show() -> None:
    limits = card_limits(segmenter_card(nano_manifest("mine", 352)))
    assert len(limits) == 2 and "88×88" in limits[0]
