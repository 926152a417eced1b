"""Learning rates, budgets and the running mean, against their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from gransam_sdk.errors import InputError
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.ema import Average
from gransam_sdk.training.nano.fit import Budget
from gransam_sdk.training.nano.schedule import rate_at, share_steps, steps_in

CONFIG = SegmenterConfig()


def test_warm_up_then_cosine() -> None:
    rates = [rate_at(step, 4000, CONFIG) for step in range(4000)]
    assert rates[0] == pytest.approx(1 / 200) and rates[99] == pytest.approx(0.5, abs=0.01)
    assert max(rates) == rates[199] > 0.99
    assert rates[2000] == pytest.approx(0.02 + 0.98 / 2)
    assert rates[1000] == pytest.approx(0.02 + 0.98 * (1 + math.sqrt(0.5)) / 2)
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)
    assert all(later < earlier for earlier, later in pairwise(rates[199:]))
    assert rate_at(0, 1, CONFIG) == 1.0 and rate_at(0, 30, CONFIG) == pytest.approx(1 / 3)


def test_budgets() -> None:
    assert steps_in(60.0, 0.5) == 120 and steps_in(0.1, 5.0) == 1
    assert share_steps(1000, CONFIG) == (150, 200, 650)
    for steps in (1, 2, 3, 7, 101):
        shares = share_steps(steps, CONFIG)
        assert min(shares) >= 1 and sum(shares) == max(3, steps)
    for wrong in ({}, {"minutes": 1.0, "steps": 1}, {"minutes": 0.0}, {"steps": -1}, {"minutes": math.nan}):
        with pytest.raises(InputError, match="budget"):
            Budget(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"sides": ()}, {"sides": (100,)}, {"sides": (32,)}, {"crop": 0.0}, {"shares": (0.5, 0.5, 0.5)}, {"clicks": 0}],
)
def test_settings_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_running_mean() -> None:
    module = nn.BatchNorm1d(1)
    average = Average(module, 0.5)
    expected, values = 1.0, [3.0, -2.0, 5.0, 5.0]
    for step, value in enumerate(values, start=1):
        module.weight.data.fill_(value)
        module.running_var.fill_(value)  # type: ignore[union-attr]
        module.num_batches_tracked.fill_(step)  # type: ignore[union-attr]
        average.update(module)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    for name in ("weight", "running_var"):
        assert float(average.state[name]) == pytest.approx(expected, rel=1e-6)
    assert int(average.state["num_batches_tracked"]) == 4
    other = Average(nn.BatchNorm1d(1), 0.5)
    other.restore(average.state, average.steps)
    for one in (average, other):
        one.update(module)
    assert torch.equal(average.state["weight"], other.state["weight"])
    assert average.state["weight"] is not module.weight
