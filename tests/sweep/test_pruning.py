"""Rungs, brackets, and who goes on from a rung."""

from __future__ import annotations

import numpy as np
import pytest
from sweeping import compiled as compiled  # a fixture
from sweeping import (
    prune,
)

from dqn_jax.config import ConfigError
from dqn_jax.sweep.pruning import Prune


def test_rungs_are_those_of_the_papers():
    assert prune(budget=416).rungs(5) == [104, 208]  # 52 would be before the first evaluation
    assert prune(eta=3, budget=416).rungs(0) == [139]
    assert prune(eta=4, first=104, budget=416).rungs(0) == [104]
    brackets = [tuple(prune("hyperband", 2, 40, 400).rungs(trial)) for trial in range(4)]
    assert sorted(brackets) == [(), (50, 100, 200), (100, 200), (200,)]
    for wrong in ({"rule": "median"}, {"eta": 1}):
        with pytest.raises(ConfigError, match="prune"):
            Prune(**wrong)


def test_a_bracket_is_no_hyperparameter():
    """In a grid whose last list is as long as there are brackets, each value is in all brackets alike."""
    drawn = prune("hyperband", 2, 40, 400, seed=3)
    assert [drawn.rungs(trial) for trial in range(80)] == [drawn.rungs(trial) for trial in range(80)]
    bracket = np.array([len(drawn.rungs(trial)) for trial in range(400)]).reshape(100, 4)  # rows, values of the list
    assert (np.sort(bracket, axis=1) == np.arange(4)).all()  # as many in each, at any time
    for value in range(4):
        assert (np.bincount(bracket[:, value], minlength=4) > 12).all()
    other = np.array([len(prune("hyperband", 2, 40, 400, seed=4).rungs(trial)) for trial in range(400)])
    assert (other != bracket.ravel()).mean() > 0.5


def test_a_trial_is_compared_with_those_of_earlier_waves():
    scores = {0: 5.0, 1: 4.0, 2: 3.0}
    rule = prune(eta=3)
    assert rule.go_on(scores, []) == {0}
    assert rule.go_on(scores, [9.0, 9.0, 9.0]) == set()  # of six the best two, and both were earlier
    assert rule.go_on(scores, [0.0] * 6) == {0, 1, 2}
    assert rule.go_on(scores, [5.0, 0.0, 0.0]) == {0}  # of equal ones the earlier are better
    assert rule.go_on({0: np.inf, 1: np.inf}, [9.0]) == {0}
