"""The door to both kinds of environment: which driver a configuration has, and what playing needs of it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.lanes import device, pool
from dqn_jax.lanes.driver import DeviceDriver, PoolDriver, driver_for
from dqn_jax.prng import make_key

TINY = Config(hidden=(4,), num_envs=2, batch_size=4, replay_capacity=40, min_replay=20, eval_every=30, eval_episodes=2)
ON_DEVICE = dataclasses.replace(TINY, env="CartPole-v1", total_steps=50)
OVER_POOL = dataclasses.replace(TINY, env="envpool:CartPole-v1", total_steps=50, pool_threads=1)


@pytest.mark.parametrize(("config", "kind"), [(ON_DEVICE, DeviceDriver), (OVER_POOL, PoolDriver)])
def test_a_configuration_has_the_driver_of_its_environment(config, kind):
    driver = driver_for(config)
    assert type(driver) is kind
    assert driver.spec.obs_shape == (4,)
    assert driver.rhythm.last_step >= config.total_steps
    assert driver.restarts_games == driver.stops_within == driver.rows_apart == (kind is PoolDriver)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (dataclasses.replace(ON_DEVICE, frame_stack=2), "frame_stack"),
        (dataclasses.replace(ON_DEVICE, freeze_when="eval>1"), "freeze_when"),
        (dataclasses.replace(OVER_POOL, clear_replay=True), "clear_replay"),
    ],
)
def test_what_its_environment_does_not_have_is_refused_at_once(config, field):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        driver_for(config)


@pytest.mark.parametrize("config", [ON_DEVICE, OVER_POOL])
def test_to_play_and_film_it_takes_neither_a_replay_nor_a_population(config, monkeypatch):
    monkeypatch.setattr(device, "make_memory", pytest.fail)
    monkeypatch.setattr(pool, "make_memory", pytest.fail)
    driver = driver_for(config)
    params = driver.agent.init(make_key(0), HParams()).params
    both = jax.tree.map(lambda x: np.stack([x, x]), params)
    played = driver.play(both, episodes=3, epsilon=0.0, seed=5)
    assert played.returns.shape == played.lengths.shape == (2, 3)
    np.testing.assert_array_equal(played.returns[0], played.returns[1])
    assert driver.can_film()
    film = driver.film(params, start=5, title="who", suffix=driver.film_suffix, q_values=True)
    assert film.length == len(list(film.frames)) == film.episode_return + 1
    assert driver.film(None, start=5, title="chance", suffix=driver.film_suffix).episode_return > 0


@pytest.mark.parametrize("config", [ON_DEVICE, OVER_POOL])
def test_shapes_and_sizes_are_known_before_anything_runs(config):
    driver = driver_for(config)
    lanes = driver.lane_shapes(3, HParams())
    assert lanes.agent.updates.shape == lanes.key.shape == (3,)
    assert lanes.obs.shape == (3, 2, 4)
    assert driver.lane_bytes(HParams()) > 0
    more = driver_for(dataclasses.replace(config, replay_capacity=400))
    assert more.lane_bytes(HParams()) > driver.lane_bytes(HParams())
    assert 0 < driver.evaluation_bytes(1, 2) < driver.evaluation_bytes(1, 200) < driver.run_bytes(HParams()) * 1000


def test_who_trains_again_with_other_values_has_the_programs():
    first, again, other = (
        driver_for(ON_DEVICE).population(HParams(discount=discount, max_grad_norm=norm), 2)
        for discount, norm in ((0.9, None), (0.8, None), (0.9, 1.0))
    )
    assert again.chunk is first.chunk is not other.chunk
    assert again.start is first.start is not other.start
    assert again.compile_seconds < 0.1 < first.compile_seconds
