"""Messages of one line, what they suggest, and values in them as they are typed."""

from __future__ import annotations

import pytest

from dqn_jax.config import ConfigError, RunError, UnknownEnvError, suggest


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
