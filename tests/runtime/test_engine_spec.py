"""What an engine is of: ranges, options and keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_race import head_spec
from engine_site import HERE

from gransam_sdk.errors import InputError
from gransam_sdk.runtime.engine_spec import AxisRange, BuildOptions, engine_key


@pytest.mark.parametrize(("least", "best", "most"), [(0, 1, 1), (2, 1, 3), (1, 4, 3)])
def test_a_range_that_is_none_is_refused(least: int, best: int, most: int) -> None:
    with pytest.raises(InputError):
        AxisRange(least=least, best=best, most=most)


def test_a_free_axis_without_a_range_is_refused() -> None:
    with pytest.raises(InputError, match="range of every free axis"):
        head_spec(ranges={})


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="1 MiB"):
        BuildOptions(workspace_bytes=100)
    with pytest.raises(InputError, match="0 to 5"):
        BuildOptions(optimization_level=6)


def test_two_gpus_of_one_model_share_a_key() -> None:
    assert engine_key(head_spec().facts(HERE)) == engine_key(head_spec().facts(replace(HERE)))
