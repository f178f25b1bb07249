"""Populations on the device: a lane has the same bits in any company, and programs are traced once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import assert_bit_identical, comparable, tiny

from dqn_jax.config import HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.lanes.population import make_population

LANE_CONFIG = tiny(
    env="CartPole-v1",
    max_episode_steps=60,
    batch_size=16,
    replay_capacity=200,
    min_replay=20,
    eval_every=80,
    eval_episodes=3,
    total_steps=180,
)
LANES = {  # name: seed, learning rate, discount, target period
    "a": (0, 1e-3, 0.99, 3),
    "b": (1, 1e-2, 0.9, 5),
    "c": (0, 1e-2, 0.5, 1),
    "d": (7, 3e-3, 0.95, 2),
    "e": (-5, 1e-4, 0.99, 4),
    "huge": (3, 1e30, 0.99, 1),
    "nan": (4, float("nan"), 0.99, 1),
}


def population_of(config, names, devices, loop=None, **traced):
    loop = loop or make_loop(config)
    seeds, rates, discounts, periods = (list(x) for x in zip(*(LANES[name] for name in names), strict=True))
    hparams = HParams(learning_rate=rates, discount=discounts, target_period=periods, **traced)
    population = make_population(config, loop, hparams, len(names), jax.devices()[:devices])
    return loop, population, seeds, hparams


@functools.cache
def run_lanes(optimizer, names, devices, lane_block=0, changes=(), traced=()):
    """Two chunks of a population: for each lane its final state and all its metrics."""
    config = dataclasses.replace(LANE_CONFIG, optimizer=optimizer, lane_block=lane_block, **dict(changes))
    loop, population, seeds, hparams = population_of(config, names, devices, **dict(traced))
    layout, count = population.layout, len(names)
    (lanes, _), reports = population.start(seeds, hparams), []
    placed, active = layout.place(stack_hparams(hparams, count)), layout.active(np.arange(count))
    for i in range(2):
        env_steps = jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk)
        lanes, metrics = population.chunk(env_steps, lanes, placed, active)
        reports.append(layout.fetch(metrics, np.arange(count)))
    results = comparable((layout.fetch(lanes, np.arange(count)), reports))
    return {name: jax.tree.map(lambda x, i=i: x[i], results) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("optimizer", "lane_block", "names", "devices"),
    [
        pytest.param("rmsprop", 0, ("c", "b", "a"), 1, id="another position"),
        pytest.param("rmsprop", 0, ("e", "c", "d", "b", "a"), 1, id="another block"),
        pytest.param("rmsprop", 0, ("b", "a"), 2, id="another device"),
        # Adam divides by a number per lane; XLA rewrites such divisions, and not in every program alike.
        pytest.param("adam", 0, ("e", "c", "d", "b", "a"), 1, id="adam, another block"),
        pytest.param("adam", 0, ("b", "a"), 2, id="adam, another device"),
        pytest.param("adam", 1, ("b", "a", "c"), 2, id="adam, lane by lane, another device"),
    ],
)
def test_a_lane_has_the_same_bits_whatever_its_company_place_and_devices(optimizer, lane_block, names, devices):
    alone = run_lanes(optimizer, ("a",), 1, lane_block)["a"]
    assert int(alone[0].agent.updates) == 40
    assert_bit_identical(run_lanes(optimizer, names, devices, lane_block)["a"], alone)


def test_a_lane_has_the_same_bits_in_company_with_layers_normalised_and_weights_averaged():
    options = (0, (("layer_norm", True),), (("average_decay", 0.95),))
    alone = run_lanes("adam", ("a",), 1, *options)["a"]
    assert_bit_identical(run_lanes("adam", ("e", "c", "d", "b", "a"), 2, *options)["a"], alone)
    state, _ = alone
    assert not np.array_equal(*(jax.tree.leaves(tree)[-1] for tree in (state.agent.params, state.agent.average_params)))


def test_a_lane_that_rests_in_its_own_time_has_the_same_bits_in_any_company_and_on_any_device():
    changes = {"total_episodes": 22, "minibatch_size": 4, "sampling": "without_replacement", "env": "ProbeLengths-test"}
    options = (0, tuple(changes.items()))
    alone, lanes = run_lanes("adam", ("a",), 1, *options), run_lanes("adam", ("e", "b", "a"), 2, *options)
    assert_bit_identical(lanes["a"], alone["a"])
    rests = []
    for state, reports in lanes.values():
        finished = np.sum(np.isfinite(np.concatenate([report.episode_return for report in reports])), axis=1)
        episodes = int(state.episodes) - np.sum(finished) + np.cumsum(finished)
        rests.append(int(np.argmax(episodes >= 22)) + 1)  # iterations until it has played them
        made = np.minimum(np.arange(1, 41), rests[-1])
        np.testing.assert_array_equal(np.concatenate([report.updates for report in reports]), 4 * made)
        assert np.all(episodes[rests[-1] :] == episodes[rests[-1] - 1])
    assert len(set(rests)) == 3  # each in its own time
    assert all(1 < rest < 40 for rest in rests)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_neighbours_do_not_change_a_lane_within_one_layout(optimizer):
    first, second = run_lanes(optimizer, ("a", "b", "c"), 1), run_lanes(optimizer, ("nan", "a", "b"), 1)
    for name in ("a", "b"):
        assert_bit_identical(first[name], second[name])


def test_a_lane_that_diverges_is_flagged_and_stays_alone():
    healthy = run_lanes("rmsprop", ("e", "c", "d", "b", "a"), 1)
    mixed = run_lanes("rmsprop", ("a", "nan", "huge", "b", "c"), 1)
    for name in ("a", "b", "c"):
        assert_bit_identical(mixed[name], healthy[name])
        assert all(bool(report.finite) for report in mixed[name][1])
    for name in ("nan", "huge"):
        assert not any(bool(report.finite) for report in mixed[name][1])
        assert not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(mixed[name][0].agent.params))


def test_lanes_with_other_hyperparameters_or_seeds_learn_differently():
    lanes = run_lanes("rmsprop", ("e", "c", "d", "b", "a"), 1)
    weights = {name: state.agent.params["params"]["Dense_0"]["kernel"].tobytes() for name, (state, _) in lanes.items()}
    assert len(set(weights.values())) == 5


def test_a_population_traces_its_programs_once_and_compiles_them_ahead():
    traces = {"start": 0, "chunk": 0}
    loop = make_loop(LANE_CONFIG)

    def counted(name):
        def function(*args):
            traces[name] += 1
            return getattr(loop, name)(*args)

        return function

    counting = loop._replace(start=counted("start"), chunk=counted("chunk"))
    _, population, seeds, hparams = population_of(LANE_CONFIG, ("c", "b", "a"), 1, counting)
    assert max(traces.values()) <= 2  # for its shapes, and for the program
    (lanes, _), built = population.start(seeds, hparams), dict(traces)
    placed, active = population.layout.place(stack_hparams(hparams, 3)), population.layout.active(np.arange(3))
    old = lanes
    for _ in range(2):
        lanes, _ = population.chunk(jnp.int32(loop.warmup_steps), lanes, placed, active)
    assert traces == built
    assert old.replay.storage.obs_tm1.is_deleted()  # the replay was donated, not copied
