"""What a bundle's model card says that its model cannot do."""

from __future__ import annotations

import re

NAME = "model-card.md"

_SECTION = re.compile(r"^## What it cannot do\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_POINT = re.compile(r"^- ", re.MULTILINE)


def card_limits(card: str) -> list[str]:
    """The bullet points of the section "What it cannot do", one line each; none if the card has no such section.

    Args:
        card: The model card, Markdown.
    """
    section = _SECTION.search(card)
    points = _POINT.split(section[1])[1:] if section else []
    return [" ".join(point.replace("**", "").split()) for point in points]
