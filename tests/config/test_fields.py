"""What stands beside a setting's type, and its reader."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pytest

from dqn_jax.config import SETTINGS, Bounds, Config, HParams, OnlyWhere, Setting, fields_of


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [
        (Bounds(0, 1), (0, 0.5, 1), (-0.1, 1.1, math.nan, math.inf), "use a number at least 0 and at most 1"),
        (Bounds(0, open=True), (1e-9, 1e9), (0, -1, math.inf), "use a number greater than 0"),
        (Bounds(1, 2**31 - 1), (1, 2**31 - 1), (0, 2**31), "use a number at least 1 and at most 2.14748e+09"),
        (Bounds(1, remedy="use one"), (1,), (0,), "use one"),
    ],
)
def test_bounds(bounds, inside, outside, words):
    assert all(bounds.hold(x) for x in inside)
    assert not any(bounds.hold(x) for x in outside)
    assert bounds.words == words


@pytest.mark.parametrize(
    ("mark", "inside", "outside", "words"),
    [
        (OnlyWhere("loss", "huber"), ("huber",), ("squared", 0.0), "huber"),
        (OnlyWhere("life_loss", "bootstrap", "episode"), ("episode",), ("ignore",), "bootstrap or episode"),
        (OnlyWhere("target_network", True), (True,), (False, 0.0), "on"),
        (OnlyWhere("learning_rate_end"), (0.0, 1e-3), (None,), "given"),
    ],
)
def test_where_a_setting_matters(mark, inside, outside, words):
    assert all(mark.holds(x) is True for x in inside)
    assert not any(mark.holds(x) for x in outside)
    assert mark.words == words


def test_a_setting_is_read_with_all_that_stands_beside_it():
    period = SETTINGS["target_period"]
    assert period == Setting("target_period", int, 50, Bounds(1, 2**31 - 1), OnlyWhere("target_network", True))
    assert (period.counts, period.optional, period.options) == (True, False, (int,))
    b1 = SETTINGS["b1"]
    assert (b1.counts, b1.optional, b1.options, b1.optax, b1.default) == (False, True, (float,), "b1", None)
    assert SETTINGS["hidden"].kind == tuple[int, ...]
    assert not SETTINGS["hidden"].counts
    assert SETTINGS["sampling"].options == (Literal["with_replacement", "without_replacement", "latest"],)


def test_all_settings_are_those_of_both_classes_in_their_order():
    assert list(SETTINGS) == [*(field.name for field in dataclasses.fields(Config)), *HParams._fields]
    assert list(fields_of(HParams)) == list(HParams._fields)
    for name, setting in SETTINGS.items():
        where = setting.only_where
        assert where is None or where.other in SETTINGS, name
        assert setting.default == (getattr(Config, name) if hasattr(Config, name) else HParams._field_defaults[name])
