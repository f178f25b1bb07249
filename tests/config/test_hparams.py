"""HParams: each has bounds, and counts something or is a float."""

from __future__ import annotations

import pytest

from dqn_jax.config import OPTIMIZERS, HParams, fields_of

FIELDS = fields_of(HParams)


@pytest.mark.parametrize("name", FIELDS)
def test_each_is_a_number_within_bounds(name):
    setting = FIELDS[name]
    assert setting.options in ((int,), (float,))
    assert setting.bounds is not None
    assert setting.bounds.hold(setting.default) if setting.default is not None else setting.optional


def test_what_counts_something_is_an_integer():
    counting = {"learning_rate_decay_updates", "epsilon_decay_steps", "importance_anneal_updates", "target_period"}
    assert {name for name, setting in FIELDS.items() if setting.counts} == counting


def test_those_of_optimisers_have_their_names_in_optax():
    names = {name: setting.optax for name, setting in FIELDS.items() if setting.optax is not None}
    assert names == {
        "optimizer_eps": "eps",
        "b1": "b1",
        "b2": "b2",
        "rms_decay": "decay",
        "momentum": "momentum",
        "weight_decay": "weight_decay",
    }
    assert {name for fields in OPTIMIZERS.values() for name in fields} == set(names)
