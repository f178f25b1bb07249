"""Which hyperparameters mattered."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dqn_jax.report.importance import importance_of
from dqn_jax.sweep.space import parse_space


def test_importance_finds_the_hyperparameter_that_matters():
    rng = np.random.default_rng(0)
    rates = 1e-4 * 100 ** rng.random(80)
    trials = pd.DataFrame(
        {"learning_rate": rates, "batch_size": rng.choice([32, 64], 80), "hidden": [(64, 64), (120, 84)] * 40}
    )
    space = parse_space(["learning_rate=log(1e-4,1e-2)", "batch_size=32,64", "hidden=64x64,120x84"])
    found = importance_of(space, trials, np.abs(np.log10(rates / 1e-3)))
    assert found.names[0] == "learning_rate"
    assert found.shares.sum() == pytest.approx(1.0)
    assert found.low[0] > 0.5
    assert np.all(found.low <= found.high)
    assert "at least 8" in importance_of(space, trials[:7], np.arange(7.0))
    assert "too few" in importance_of(space, trials, np.ones(80))
    assert "more than one value" in importance_of(space, trials.assign(batch_size=32, hidden=[(64, 64)] * 80), rates)
