"""Messages of one line, what they suggest, and values in them as they are typed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dqn_jax.config import ConfigError, RunError, UnknownEnvError, exact, show, suggest, whole_number


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("adamm", ["sgd", "adam"], " Did you mean 'adam'?"),
        ("CARTPOLE", ["CartPole", "Acrobot"], " Did you mean 'CartPole'?"),
        ("xyz", ["CartPole", "Acrobot"], ""),
        ("xyz", [], ""),
    ],
)
def test_suggestions(name, choices, expected):
    assert suggest(name, choices) == expected


def test_messages_are_one_line_whatever_is_in_them():
    for kind in (ConfigError, RunError):
        assert str(kind("out: a\nb\r\x1b[31m does not exist")) == r"out: a\nb\r\x1b[31m does not exist"


def test_an_unknown_environment_remembers_what_it_may_have_been():
    error = UnknownEnvError("cartpol", ["CartPole", "Acrobot"])
    assert error.choices == ("CartPole", "Acrobot")
    assert str(error) == "env: there is no environment 'cartpol'. Did you mean 'CartPole'? 'dqn-jax list' shows all."


@pytest.mark.parametrize(("text", "number"), [("16", 16), ("1_000_000", 1_000_000), ("1e6", 1_000_000), ("-2", -2)])
def test_whole_numbers_as_people_write_them(text, number):
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.5", "nan", "inf", "1e31"])
def test_what_is_no_whole_number(text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        whole_number(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [((64, 32), "64x32"), (None, "none"), (math.nan, "none"), (True, "true"), (np.float32(0.001), "0.001"), (3, "3")],
)
def test_values_are_shown_as_they_are_typed(value, shown):
    assert show(value) == shown


@pytest.mark.parametrize("text", ["475", "0.01", "16926.55", repr(1 / 3)])
def test_exact_numbers_give_themselves_back(text):
    assert exact(float(text)) == text
