"""Agents that learn from rollouts (PQN), on both kinds of environment: when, from what, and whether."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import scalars

import dqn_jax
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.presets import Preset
from dqn_jax.replay.rollout import shuffled

CONFIG = Config(
    env="ProbeLengths-test",
    max_episode_steps=4,  # of 1 to 6
    replay="rollout",
    rollout_length=5,
    num_envs=4,
    minibatch_size=10,
    updates_per_train=2,
    target_network=False,
    hidden=(16,),
    min_replay=0,
    eval_every=20,
    eval_episodes=2,
    total_steps=1200,
)
HPARAMS = HParams(learning_rate=1e-2, discount=0.8, trace_decay=0.7, epsilon_decay_steps=1000)
QUICK = {"xla_backend_optimization_level": 0}


def run(config, hparams, chunks):
    """The loop, and its lane after the warm-up and after each of so many chunks, with the metrics of these."""
    loop = make_loop(config)
    start, chunk = (jax.jit(f, compiler_options=QUICK) for f in (loop.start, loop.chunk))
    lane, _ = start(jnp.int32(0), scalars(hparams))
    lanes, metrics = [lane], []
    for i in range(chunks):
        lane, report = chunk(jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk), lane, scalars(hparams))
        lanes.append(lane)
        metrics.append(report)
    return loop, lanes, metrics


@pytest.mark.parametrize("target_network", [False, True])
def test_targets_are_made_once_for_all_passes_by_the_networks_of_before(target_network):
    """Two trainings by hand, from what is stored: two passes in two pieces each, the four steps one after another."""
    config = dataclasses.replace(CONFIG, target_network=target_network, min_replay=8)
    hparams = HPARAMS._replace(target_period=3)
    loop, lanes, metrics = run(config, hparams, chunks=2)
    update, traced = jax.jit(loop.agent.update, compiler_options=QUICK), scalars(hparams)
    returns_of = jax.vmap(functools.partial(lambda_targets, traced), 1, 1)
    for before, after, report in zip(lanes[:-1], lanes[1:], metrics, strict=True):
        step, ended = jax.tree.map(np.asarray, after.replay.storage)
        order = (int(after.replay.rows_added) + np.arange(5)) % 5
        step, ended = jax.tree.map(lambda x, order=order: x[order], (step, ended))
        network = before.agent.target_params if target_network else before.agent.params
        q = np.asarray(loop.agent.q_values(network, step.obs_t.reshape(20, -1))).max(axis=1).reshape(5, 4)
        targets = np.asarray(returns_of(step.r_t, step.discount_t, q, ended)).reshape(-1)
        # Whatever the order within a pass, its transitions come out of the loop as a set: follow the learner itself.
        learner = before.agent
        for places in passes_of(before, loop, order):
            for piece in places.reshape(2, 10):
                chosen = jax.tree.map(lambda x, piece=piece: x.reshape(20, *x.shape[2:])[piece], step)
                chosen = chosen._replace(r_t=targets[piece], discount_t=np.zeros(10, np.float32))
                learner, _ = update(learner, chosen, traced)
        for got, wanted in zip(jax.tree.leaves(after.agent), jax.tree.leaves(learner), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
        assert int(after.agent.updates) == int(report.updates[-1]) == int(before.agent.updates) + 4
        assert int(after.trainings) == int(before.trainings) + 1


def lambda_targets(hparams, r_t, discount_t, v_t, ended):
    """Of one environment, step by step from the last."""
    targets, after = [], v_t[-1]
    for k in range(len(r_t) - 1, -1, -1):
        after = jnp.where(ended[k], v_t[k], after)
        mixed = (1 - hparams.trace_decay) * v_t[k] + hparams.trace_decay * after
        after = r_t[k] + hparams.discount * discount_t[k] * mixed
        targets.append(after)
    return jnp.stack(targets[::-1])


def passes_of(lane, loop, order):
    """The two permutations of the rollout that ends five iterations later, as places in rows in their order."""
    key = jax.random.clone(lane.key)
    for _ in range(5):
        key, _, _, draw, _ = jax.random.split(key, 5)
    where = np.argsort(order)  # of a row of the ring, when it came
    for i in range(2):
        place = np.asarray(shuffled(jax.random.fold_in(draw, i), 20))
        yield where[place // 4] * 4 + place % 4


@pytest.mark.parametrize(
    ("env", "observations", "values"),
    [
        ("ProbePolicy-test", [[1.0], [-1.0]], [[-1.0, 1.0], [1.0, -1.0]]),
        ("ProbeTwoSteps-test", [[-1.0], [1.0]], [[0.8, 0.8], [1.0, 1.0]]),
        ("ProbeEndless-test", [[-1.0], [1.0]], [[4.0, 4.0], [5.0, 5.0]]),
    ],
)
def test_values_of_probes(env, observations, values):
    """Right only if every target is of its own step, and a time limit bootstraps where a termination does not."""
    config = dataclasses.replace(
        CONFIG,
        env=env,
        max_episode_steps=3 if env == "ProbeEndless-test" else None,
        rollout_length=8,
        minibatch_size=16,
        updates_per_train=4,
        eval_every=8_000,
    )
    hparams = HPARAMS._replace(learning_rate=5e-3, learning_rate_end=0.0, learning_rate_decay_updates=1_000)
    loop, lanes, (metrics,) = run(config, hparams, chunks=1)
    assert bool(metrics.finite)
    q = loop.agent.q_values(lanes[-1].agent.params, jnp.float32(observations))
    np.testing.assert_allclose(q, values, atol=0.05)


def test_over_a_pool_agents_learn_when_a_rollout_is_full_and_lanes_are_alone():
    """CartPole of EnvPool: two rollouts a chunk, each of two passes in four pieces."""
    config = dataclasses.replace(
        CONFIG,
        env="envpool:CartPole-v1",
        max_episode_steps=12,
        rollout_length=6,
        num_envs=2,
        minibatch_size=3,
        eval_every=24,
        total_steps=72,
        pool_threads=1,
    )
    together, alone = (
        dqn_jax.train(Preset("p", "", config, HPARAMS._replace(trace_decay=decay)), seed=seed, seeds=seeds)
        for seed, seeds, decay in ((3, 2, (0.7, 0.2)), (4, 1, 0.2))
    )
    curve = together.metrics[together.metrics.seed == 4]
    assert list(curve.env_steps) == [26, 50, 74]  # behind the one row that the first step was taken in
    assert list(curve.updates) == [16, 32, 48]
    assert np.isfinite(curve.loss).all()
    for got, wanted in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_array_equal(got[1], wanted[0])
    assert not np.array_equal(got[0], got[1])


def test_over_a_pool_agents_learn_to_catch():
    """EnvPool's Catch, where random play scores -0.6 and perfect play 1."""
    config = dataclasses.replace(
        CONFIG,
        env="envpool:Catch-v0",
        max_episode_steps=None,
        hidden=(64,),
        layer_norm=True,
        num_envs=16,
        rollout_length=16,
        minibatch_size=64,
        updates_per_train=4,
        eval_every=5_120,
        eval_episodes=20,
        total_steps=20_480,
    )
    hparams = HPARAMS._replace(learning_rate=3e-3, discount=0.99, epsilon_decay_steps=10_000)
    result = dqn_jax.train(Preset("catch", "", config, hparams), seeds=1)
    assert result.metrics.eval_return.iloc[-1] > 0.9


def test_on_the_device_lanes_are_alone_and_a_run_goes_on_within_a_rollout(tmp_path):
    """Chunks end between rollouts: what goes on is half a rollout, with the rectified moments of the optimiser."""
    config = dataclasses.replace(
        CONFIG,
        layer_norm=True,
        optimizer="radam",
        rollout_length=8,
        minibatch_size=8,
        eval_every=48,
        total_steps=144,
        max_episode_steps=5,
    )

    def preset(decay):
        return Preset("p", "", config, HPARAMS._replace(trace_decay=decay, max_grad_norm=1.0))

    whole = dqn_jax.train(preset((0.9, 0.1, 0.5)), seeds=3, seed=3)
    alone = dqn_jax.train(preset(0.1), seeds=1, seed=4)
    out = tmp_path / "run"
    dqn_jax.train(preset((0.9, 0.1, 0.5)), seeds=3, seed=3, total_steps=48, out=out)
    resumed = dqn_jax.train(preset((0.9, 0.1, 0.5)), seeds=3, seed=3, out=out, resume=True)
    leaves = (jax.tree.leaves(result.params) for result in (whole, alone, resumed))
    for got, lane, again in zip(*leaves, strict=True):
        np.testing.assert_array_equal(got[1], lane[0])
        np.testing.assert_array_equal(got, again)
    assert list(whole.metrics[whole.metrics.seed == 3].updates) == [8, 24, 32]
