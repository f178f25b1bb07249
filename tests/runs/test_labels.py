"""What runs that are drawn or compared together are called."""

from __future__ import annotations

import pytest

from dqn_jax.config import ConfigError
from dqn_jax.runs.labels import literal, ranges, telling_labels


def test_runs_of_one_name_are_called_by_what_sets_them_apart():
    settings = [{"learning_rate": 1e-3, "discount": 0.99}, {"learning_rate": 1e-2, "discount": 0.99}, {}]
    assert telling_labels(["a", "a", "b"], settings, ["1", "2", "3"]) == [
        "a, learning_rate 0.001", "a, learning_rate 0.01", "b"
    ]  # fmt: skip
    assert telling_labels(["a", "a"], settings[:1] * 2, ["monday", "tuesday"]) == ["a, monday", "a, tuesday"]
    assert telling_labels(["a", "a"], settings[:1] * 2, ["x", "x"]) == ["a, x (1)", "a, x (2)"]
    many = [{f"f{i}": i + own for i in range(9)} for own in (0, 100)]
    assert telling_labels(["a", "a"], many, ["", ""])[0] == "a, f0 0, f1 1, f2 2"
    assert telling_labels(["a", "a"], settings[:2], ["", ""], ["one", "two"]) == ["one", "two"]
    with pytest.raises(ConfigError, match=r"label: 1 for 2 folders; give --label once for each"):
        telling_labels(["a", "a"], settings[:2], ["", ""], ["one"])


def test_seeds_that_follow_one_another_are_a_range():
    assert ranges([0, 1, 2, 3]) == "0-3"
    assert ranges([100, 2, 1, 0, 7]) == "0-2, 7, 100"
    assert ranges([]) == ""


def test_names_are_no_formulas_and_stay_in_the_legend():
    assert literal("a$b$\nc") == r"a\$b\$ c"
    assert literal("_hidden") == " _hidden"
