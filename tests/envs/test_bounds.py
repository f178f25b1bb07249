"""What no Q-value can be, and who says so when one is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from synthetic import lane, sweep_of

from dqn_jax.cli.tables import in_short
from dqn_jax.config import Config, HParams
from dqn_jax.envs.bounds import value_bound
from dqn_jax.lanes.history import History
from dqn_jax.presets import resolve_preset
from dqn_jax.sweep.records.curves import Part, read_part, to_parquet
from dqn_jax.sweep.results import above_bound


@pytest.mark.parametrize(
    ("settings", "discount", "bound"),
    [
        ({}, 0.99, 100.0),
        ({"env": "cartpole"}, 0.99, 100.0),
        ({"env": "envpool:CartPole-v1"}, 0.9, 10.0),
        ({"reward_scale": 0.1}, 0.998, 50.0),
        ({"reward_scale": -0.1, "n_step": 3}, 0.9, 1.0),
        ({"terminal_reward": -10.0}, 0.95, 20.0),
        ({"terminal_reward": -30.0}, 0.95, 30.0),
        ({"terminal_reward": -10.0, "reward_scale": 0.5, "reward_clip": 2.0}, 0.5, 2.0),
        ({"reward_shift": -1.0, "terminal_reward": -1.0}, 0.998, 1.0),
        ({"reward_shift": -1.5, "reward_scale": 2.0}, 0.9, 10.0),
        ({"env": "Acrobot-v1", "reward_shift": 1.0}, 0.9, 20.0),
        ({"env": "MountainCar-v0", "action_repeat": 4, "terminal_reward": 0.0}, 0.9, 40.0),
        ({"env": "MountainCar-v0", "env_params": (("gravity", 0.002),)}, 0.9, 10.0),
        ({"env": "Pendulum-v1", "action_bins": 5}, 0.5, 2 * (math.pi**2 + 6.4 + 0.004)),
        ({"env": "Pendulum-v1", "action_bins": 5, "env_params": (("max_speed", 9.0),)}, 0.5, math.nan),
        ({"env": "Seaquest-MinAtar"}, 0.5, math.nan),
        ({"env": "Seaquest-MinAtar", "reward_clip": 1.0}, 0.5, 2.0),
        ({"env": "Pong-v5", "action_repeat": 4, "reward_clip": 1.0}, 0.99, 100.0),
        ({"env": "Pong-v5"}, 0.99, math.nan),
        ({"env": "Taxi-v3"}, 0.9, 200.0),
        ({}, 1.0, math.nan),
    ],
)
def test_bound_is_the_largest_reward_over_one_minus_the_discount(settings, discount, bound):
    np.testing.assert_allclose(value_bound(Config(**settings), HParams(discount=discount), 2), [bound] * 2, rtol=1e-6)


def test_no_sequence_of_rewards_is_worth_more_than_the_bound():
    config, discount, rng = Config(terminal_reward=-7.0), 0.8, np.random.default_rng(0)
    bound = value_bound(config, HParams(discount=discount), 1)[0]
    worth = []
    for steps in range(1, 60):
        rewards = np.append(rng.choice([-1.0, 1.0], steps - 1), -7.0)
        worth.append(np.sum(rewards * discount ** np.arange(steps)))
    assert bound == 7.0
    assert np.max(np.abs(worth)) == bound


def test_bound_is_each_lanes_own():
    hparams = HParams(discount=np.array([0.9, 0.99], np.float32))
    np.testing.assert_allclose(value_bound(Config(), hparams, 2), [10.0, 100.0], rtol=1e-4)
    preset = resolve_preset("cartpole")
    np.testing.assert_allclose(value_bound(preset.config, preset.hparams, 1), [1.0])  # that of the fall


def test_a_chunk_beyond_the_bound_is_remembered():
    history = History([0, 1, 2, 3], num_envs=1)
    assert not history.above_bound(np.ones(4)).any()
    history.env_steps = [10, 20]
    history.readings["q_mean"] = [np.array([0.5, -1.5, np.nan, 9.0]), np.array([0.5, 0.1, 0.2, 9.0])]
    assert history.above_bound(np.array([1.0, 1.0, 1.0, np.nan])).tolist() == [False, True, False, False]


def test_what_a_run_saysin_short():
    summary = {
        "seeds": [0, 1, 2],
        "criteria": [{"name": "eval>=475x3", "converged": 1.0}],
        "fell_back": [],
        "above_bound": [],
        "value_bound": [50.0, 50.0, None],
        "q_mean": [49.0, -49.0, None],
    }
    assert in_short(summary) == []
    summary |= {"fell_back": [2], "above_bound": [0, 1], "q_mean": [49.0, -906.4, None]}
    first, second = in_short(summary)
    assert first == "converged 3 of 3, 1 of them ended below 475"
    assert second.startswith(
        "mean Q above its bound in 2 of 3 seeds: up to 906.4, where no policy is worth more than 50"
    )
    assert in_short(summary | {"criteria": []}) == [second]


def test_lanes_of_a_sweep_beyond_their_trials_bound():
    lanes = [lane(trial, seed) for trial in range(2) for seed in range(2)]
    data = sweep_of(lanes, {"discount": [0.5, 0.9]}, config=dataclasses.asdict(Config(reward_scale=0.1)))
    data = dataclasses.replace(data, curves=data.curves.assign(q_mean=-0.5))  # bounds are 0.2 and 1
    assert above_bound(data).tolist() == [True, True, False, False]
    data.curves.loc[data.curves["seed"] == 0, "q_mean"] = np.nan  # sweeps from before there was the column
    assert above_bound(data).tolist() == [False, True, False, False]
    run = dataclasses.replace(
        sweep_of(lanes[:2], {}, config={"env": "CartPole-v1"}, hparams={"discount": [0.5, 0.9]}, seeds=[1, 0]),
    )
    run.curves["q_mean"] = 3.0  # bounds are 2 for seed 1 and 10 for seed 0
    assert above_bound(run).tolist() == [False, True]


def test_curves_from_before_there_were_q_values_are_read(tmp_path):
    curves = sweep_of([lane(0, 0)]).curves
    curves.drop(columns="q_mean").to_parquet(tmp_path / "old.parquet")
    for source, wanted in ((to_parquet(curves), curves), (tmp_path / "old.parquet", curves.assign(q_mean=np.nan))):
        pd.testing.assert_frame_equal(read_part(Part(0, source, None)), wanted, check_dtype=False)
