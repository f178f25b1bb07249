"""Samplers that learn from what was found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recording import Place
from synthetic import curves_of, lane, lanes_table

from dqn_jax import ConfigError
from dqn_jax.sweep.records import Wave


def test_a_sampler_learns_and_a_resumed_sweep_asks_the_same(place):
    new = place.create(trials=0, vary={"learning_rate": "log(0.0001,0.01)", "batch_size": "32,64"})
    for batch in range(6):
        before = new.points()
        drawn = new.ask(8, "tpe", seed=3)
        assert [number for number, _ in drawn] == list(range(8 * batch, 8 * batch + 8))
        assert new.points() == [*before, *(point for _, point in drawn)]
        wave = Wave(batch, "search", tuple((number, seed) for number, _ in drawn for seed in (0, 1)))
        new.add_waves([wave])
        distance = {number: abs(np.log10(p["learning_rate"]) + 3) for number, p in drawn}
        rows = [lane(t, s, converged_env_steps=1_000 + 90_000 * distance[t]) for t, s in wave.lanes]
        new.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
    found = np.abs(np.log10([point["learning_rate"] for point in new.points()]) + 3)
    assert found[-16:].mean() < 0.5 * found[:16].mean()


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_the_same_records_are_asked_the_same(tmp_path, sampler):
    asked = []
    for name in ("one", "two"):
        where = Place(tmp_path / name, None)
        new = where.create(trials=0)
        drawn = new.ask(8, sampler, seed=1)
        rows = [lane(t, s, converged_env_steps=1000.0 * (t + 1)) for t in range(8) for s in (0, 1)]
        rows[3]["status"] = "pruned"
        new.add_waves([Wave(0, "search", tuple((row["trial"], row["seed"]) for row in rows))])
        new.record(0, "me", rows, curves_of(lanes_table(rows)))
        drawn += (where.open() if name == "two" else new).ask(8, sampler, seed=1)
        asked.append(drawn)
    assert asked[0] == asked[1]
    assert asked[0][:8] != asked[0][8:]


def test_cmaes_narrows_down(folder):
    new = folder.create(trials=0, seeds=[0], vary={"learning_rate": "log(0.0001,0.01)", "target_period": "int(1,100)"})
    spread = []
    for batch in range(8):
        drawn = new.ask(8, "cmaes", seed=0)
        rows = [
            lane(
                t, 0, converged_env_steps=1 + 1e4 * (np.log10(p["learning_rate"]) + 2.5) ** 2 + p["target_period"] ** 2
            )
            for t, p in drawn
        ]
        new.add_waves([Wave(batch, "search", tuple((t, 0) for t, _ in drawn))])
        new.record(batch, "me", rows, curves_of(lanes_table(rows)))
        spread.append(np.mean([row["converged_env_steps"] for row in rows]))
    assert spread[-1] < 0.2 * spread[0]
    with new.engine.connect() as connection:
        attributes = connection.exec_driver_sql("SELECT key, value_json FROM trial_system_attributes").all()
    attributes = [(key, value) for key, value in attributes if key != "constraints"]
    assert {key for key, _ in attributes} == {"dqn_jax:generation"}  # plain numbers, no pickled optimiser
    assert {json.loads(value) for _, value in attributes} == set(range(8))


def test_cmaes_needs_a_range(folder):
    new = folder.create(trials=0, vary={"batch_size": "32,64"})
    with pytest.raises(ConfigError, match="cmaes needs a setting that varies over a range; use tpe"):
        new.ask(4, "cmaes", seed=0)
