"""Seeds as people give them."""

from __future__ import annotations

import numpy as np
import pytest

from dqn_jax.config import ConfigError, check_seed, seeds_from


def one_line(error):
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "seeds", [0, -1, 2.5, "3", [], [1, 1], [-1], [2**31], ["x"], None, True, 10**9, object(), [[1]], b"12"]
)
def test_seeds_that_are_none(seeds):
    with pytest.raises(ConfigError, match="seed") as error:
        seeds_from(seeds)
    one_line(error)


@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, "x", None, 2**31 - 1])
def test_first_seeds_that_are_none(seed):
    with pytest.raises(ConfigError, match="seed: ") as error:
        seeds_from(2, seed)
    one_line(error)
    if seed != 2**31 - 1:
        with pytest.raises(ConfigError, match="start: "):
            check_seed("start", seed)


def test_seeds_of_any_kind():
    assert seeds_from(3, 5) == (5, 6, 7)
    assert seeds_from(np.arange(2)) == seeds_from(np.int64(2)) == seeds_from(2.0) == (0, 1)
