"""Values as a person reads them."""

from __future__ import annotations

import numpy as np

from dqn_jax.config import show
from dqn_jax.report.values import number


def test_values_read_as_they_are_given():
    values = (None, np.nan, (64, 64), [120, 84], True, 0.00012345, 32, np.float64(1.0), "adam")
    assert [show(value) for value in values] == [
        "none",
        "none",
        "64x64",
        "120x84",
        "true",
        "0.0001234",
        "32",
        "1",
        "adam",
    ]
    assert [number(x) for x in (0.0, 28_500.0, 0.12345, 99.0, 1e-5, np.nan)] == [
        "0", "28,500", "0.1235", "99", "1e-05", "-"
    ]  # fmt: skip
