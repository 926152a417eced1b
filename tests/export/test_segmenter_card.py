"""A segmenter without a card of its own gets one that says what its manifest says."""

from __future__ import annotations

from pathlib import Path

from sam_random import NARROW_TINY, random_sam
from sample_photos import CHECKPOINT

from gransam_sdk.annotate.model_card import card_limits
from gransam_sdk.bundle import open_bundle
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


def test_a_nano_checkpoint_is_not_ours_by_its_name(tmp_path: Path) -> None:
    checkpoint = tmp_path / "nano-seed.safetensors"
    checkpoint.write_bytes(b"somebody's weights")
    manifest = nano_manifest("mine", 320, checkpoint)
    assert manifest["provenance"]["training_data"] == ["unknown"] and manifest["licence"]["weights"] == "unknown"


def test_our_own_checkpoint_is_known_by_its_hash() -> None:
    manifest = nano_manifest("mine", 320, CHECKPOINT)
    assert "trained for GranSAM SDK" in manifest["provenance"]["weights"]
    embedded = open_bundle("nano-voc20")
    assert embedded.provenance["weights_sha256"] == manifest["provenance"]["weights_sha256"]


def test_every_card_has_limits_that_the_report_can_show(tmp_path: Path) -> None:
    checkpoint = tmp_path / "some.safetensors"
    checkpoint.write_bytes(b"")
    limits = card_limits(segmenter_card(nano_manifest("mine", 352, checkpoint)))
    assert len(limits) == 2 and "88×88" in limits[0]
