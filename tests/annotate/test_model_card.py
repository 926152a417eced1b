"""The limits that a model card names reach the report."""

from __future__ import annotations

import pytest

from gransam_sdk.annotate.model_card import NAME, card_limits
from gransam_sdk.bundle import open_bundle


def test_the_embedded_models_limits_are_found() -> None:
    card = open_bundle("nano-voc20").contents[NAME].decode()
    limits = card_limits(card)
    assert len(limits) >= 3
    assert all(limit and "\n" not in limit and "**" not in limit for limit in limits)
    words = " ".join(card.replace("**", "").split())
    assert all(limit in words for limit in limits)


@pytest.mark.parametrize(
    ("card", "limits"),
    [
        ("", []),
        ("# Card\n\n- a point\n\n## Use\n\n- another\n", []),
        ("## What it cannot do\n\nNothing in points.\n", []),
        ("## What it cannot do\n\n- Fly.\n- **Swim**\n  far.\n", ["Fly.", "Swim far."]),
        ("# Card\n\n## What it cannot do\nIn short:\n- Fly.\n\n## Head\n\n- Think.\n", ["Fly."]),
    ],
)
def test_points_of_that_section_alone(card: str, limits: list[str]) -> None:
    assert card_limits(card) == limits
