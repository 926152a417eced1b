"""Bundles that must not be opened: rows of the table in docs/reliability.md, each with what the message must say.

Rows that need more than "open it and read the message" (bit flips, truncation, races, engines) are in the test itself.
"""

from __future__ import annotations

import bad_folders
import bad_graphs
import bad_manifests
from bundle_case import Case


def all_cases() -> list[Case]:
    """Every case, in the order of the table."""
    cases = [*bad_folders.cases(), *bad_manifests.cases(), *bad_graphs.cases()]
    return sorted(cases, key=lambda case: int(case.row[1:]))
