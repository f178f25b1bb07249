"""Populations over pools: what they remember, when they learn, and that lanes are alone."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from pools import CARTPOLE, PONG

from dqn_jax.config import Config, HParams
from dqn_jax.envs import make_pool
from dqn_jax.lanes import pool_population
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.lanes.pool import make_pool_loop
from dqn_jax.lanes.pool_population import PoolPopulation
from dqn_jax.prng import key_data


class Spy:
    """A pool that notes what passes through it."""

    def __init__(self, pool, log):
        self._pool, self.log = pool, log
        self.spec, self.frame_shape, self.close = pool.spec, pool.frame_shape, pool.close

    def reset(self):
        output = self._pool.reset()
        self.log.append(("recv", output))
        return output

    def recv(self):
        output = self._pool.recv()
        self.log.append(("recv", output))
        return output

    def send(self, actions):
        self.log.append(("send", np.array(actions)))
        self._pool.send(actions)


@pytest.fixture
def log(monkeypatch):
    """All that passes through the pools of training, and when something is learnt."""
    noted = []

    def spied(config, num_envs, seed, *, evaluation=False):
        pool = make_pool(config, num_envs, seed, evaluation=evaluation)
        return pool if evaluation else Spy(pool, noted)

    monkeypatch.setattr(pool_population, "make_pool", spied)
    return noted


def population_of(config, seeds, hparams=HParams(epsilon_decay_steps=400)):  # noqa: B008 - immutable
    population = PoolPopulation(make_pool_loop(config), hparams, len(seeds))
    placed = population.layout.place(stack_hparams(hparams, len(seeds)))
    return population, placed, population.start(seeds, hparams)


@pytest.mark.parametrize(
    ("config", "block_size"),
    [(CARTPOLE, 1), (CARTPOLE, 2), (PONG, 1), (PONG, 2), (dataclasses.replace(PONG, frame_stack=1), 1)],
    ids=["vectors", "vectors-2", "pixels", "pixels-2", "grey-alone"],
)
def test_the_replay_holds_what_the_pool_gave_and_the_actions_it_got(config, block_size, log):
    config = dataclasses.replace(config, lane_block=block_size)
    population, placed, (lanes, _) = population_of(config, [3, 5])
    lanes, _ = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, np.arange(2))
    pools = 2 // block_size
    assert [what for what, _ in log] == ["recv", "send"] * (len(log) // 2)
    passed = log[::2], log[1::2]
    count = (population.loop.rhythm.warmup_steps + population.loop.rhythm.steps_per_chunk) // config.num_envs
    assert [len(notes) for notes in passed] == [count * pools] * 2
    state = population.layout.fetch(lanes, np.arange(2))
    for lane in (0, 1):
        outputs, actions = ([x for _, x in notes[lane // block_size :: pools]] for notes in passed)
        own = slice(lane % block_size * config.num_envs, (lane % block_size + 1) * config.num_envs)
        assert state.replay.rows_added[lane] == count
        for name in ("frame", "reward", "terminated", "truncated", "first"):
            stored = getattr(state.replay.storage, name)[lane][:count]
            np.testing.assert_array_equal(stored, np.stack([getattr(output, name)[own] for output in outputs]))
        np.testing.assert_array_equal(
            state.replay.storage.action[lane][:count], np.stack([sent[own] for sent in actions])
        )
        assert any(output.first[1:].any() for output in outputs[1:])  # games ended and began
        assert len({tuple(sent) for sent in actions}) > 2


@pytest.mark.parametrize(("config", "seeds"), [(CARTPOLE, [3, 5]), (PONG, [3])], ids=["vectors", "pixels"])
def test_asynchronously_each_environment_fills_a_ring_of_its_own(config, seeds, log):
    config = dataclasses.replace(config, num_envs=5, pool_batch=3, pool_threads=2)
    everyone = np.arange(len(seeds))
    population, placed, (lanes, warmup) = population_of(config, seeds)
    loop = population.loop
    assert loop.rhythm.warmup_steps % 3 == loop.rhythm.steps_per_chunk % 3 == 0
    assert warmup.episode_return.shape == (len(seeds), loop.rhythm.warmup_steps // 3, 3)
    lanes, metrics = population.chunk(loop.rhythm.warmup_steps, lanes, placed, everyone)
    steps = loop.rhythm.warmup_steps + loop.rhythm.steps_per_chunk
    assert metrics.updates[0, -1] == loop.rhythm.steps_per_chunk // config.train_every * config.updates_per_train
    assert np.all(np.isfinite(metrics.loss))
    state = population.layout.fetch(lanes, everyone)
    for lane in everyone:
        outputs, actions = ([x for _, x in notes[lane :: len(seeds)]] for notes in (log[::2], log[1::2]))
        counts = np.zeros(5, int)
        for output, sent in zip(outputs, actions, strict=True):
            at = lane, counts[output.env_id], output.env_id
            for name in ("frame", "reward", "terminated", "truncated", "first"):
                np.testing.assert_array_equal(
                    getattr(state.replay.storage, name)[at].squeeze(), getattr(output, name).squeeze()
                )
            np.testing.assert_array_equal(state.replay.storage.action[at], sent)
            counts[output.env_id] += 1
        np.testing.assert_array_equal(state.replay.rows_added[lane], counts)
        assert counts.sum() == steps
        assert len(set(counts)) > 1  # or nothing was asynchronous
        # What it acted on last are the newest frames of each, at its own pace.
        newest = state.replay.storage.frame[lane, counts - 1, np.arange(5)]
        np.testing.assert_array_equal(state.obs[lane][..., -1] if config.frame_stack > 1 else state.obs[lane], newest)


def test_a_pool_that_waits_for_all_its_environments_is_not_asynchronous():
    def numbers(config):
        population, placed, (lanes, _) = population_of(config, [1])
        lanes, metrics = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, np.arange(1))
        return metrics, population.layout.fetch(lanes, np.arange(1)).agent

    jax.tree.map(np.testing.assert_array_equal, numbers(CARTPOLE), numbers(dataclasses.replace(CARTPOLE, pool_batch=4)))


@pytest.mark.parametrize(
    ("config", "seeds"),
    [(CARTPOLE, [3, 5]), (dataclasses.replace(CARTPOLE, lane_block=2), [3, 5]), (PONG, [3])],
    ids=["vectors", "a block of two", "pixels"],
)
def test_a_replay_in_the_memory_of_the_host_gives_the_same_numbers(config, seeds):
    everyone = np.arange(len(seeds))

    def numbers(config):
        population, placed, (lanes, warmup) = population_of(config, seeds)
        lanes, metrics = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, everyone)
        state = population.layout.fetch(lanes, everyone)
        again = population.layout.place(state)
        assert metrics.updates[0, -1] > 10
        for blocks in (lanes, again):
            for block, lane in enumerate(blocks):
                own, host = population.layout.device_of(block), jax.devices("cpu")[0]
                assert lane.replay.storage.frame.device == (host if config.replay_memory == "host" else own)
                assert {x.device for x in jax.tree.leaves(lane._replace(replay=()))} == {own}
        return state.replay, (warmup, metrics, state._replace(key=key_data(state.key)))

    (rows, rest), (rows_there, rest_there) = numbers(config), numbers(dataclasses.replace(config, replay_memory="host"))
    jax.tree.map(np.testing.assert_array_equal, rows, rows_there)
    rounding = 1e-5 if config.lane_block == 2 else 0.0  # batched, XLA compiles otherwise
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rounding, rounding), rest, rest_there)


def test_training_happens_while_the_pool_steps(log, monkeypatch):
    population, placed, (lanes, _) = population_of(CARTPOLE, [0])
    learn = population.learn
    monkeypatch.setattr(population, "learn", lambda *a: log.append(("learn", a[1])) or learn(*a))
    log.clear()
    lanes, metrics = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, np.arange(1))
    order = [what for what, _ in log]
    places = [i for i, what in enumerate(order) if what == "learn"]
    assert places
    assert all(order[i - 1] == "send" for i in places)
    assert all(order[i + 1] == "recv" for i in places if i + 1 < len(order))
    # As often as the steps since the warm-up cross a multiple of train_every, whatever divides what.
    steps = population.loop.rhythm.steps_per_chunk
    assert sum(n for what, n in log if what == "learn") == steps // CARTPOLE.train_every
    assert metrics.updates[0, -1] == steps // CARTPOLE.train_every * CARTPOLE.updates_per_train
    state = population.layout.fetch(lanes, np.arange(1))
    assert state.agent.updates[0] == metrics.updates[0, -1]
    np.testing.assert_array_equal(metrics.updates[0], np.sort(metrics.updates[0]))


def test_what_is_logged_are_whole_raw_games(log):
    config = PONG.__class__(**{**vars(PONG), "reward_scale": 0.1, "eval_every": 200, "total_steps": 220})
    population, placed, (lanes, _) = population_of(config, [1])
    log.clear()
    _, metrics = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, np.arange(1))
    outputs = [output for what, output in log if what == "recv"]
    over = np.stack([output.game_over for output in outputs])
    assert over.sum() >= 4
    np.testing.assert_array_equal(~np.isnan(metrics.episode_return[0]), over)
    raw = np.stack([output.episode_return for output in outputs])
    np.testing.assert_array_equal(metrics.episode_return[0][over], raw[over])
    assert metrics.eval_lengths.tolist() == [[80, 80]]  # frames, up to the cap


def test_a_seed_does_not_depend_on_its_neighbours():
    def numbers(seeds, lane, block_size=1):
        config = dataclasses.replace(CARTPOLE, lane_block=block_size)
        population, placed, (lanes, warmup) = population_of(config, seeds)
        lanes, metrics = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, np.arange(len(seeds)))
        state = population.layout.fetch(lanes, np.array([lane]))
        own = jax.tree.map(lambda x: np.asarray(x)[[lane]], (warmup, metrics))
        return *own, state.agent, state.replay

    alone, together = numbers([7], 0), numbers([2, 7, 4], 1)
    jax.tree.map(np.testing.assert_array_equal, alone, together)
    other = numbers([8], 0)
    assert not np.array_equal(alone[3].storage.frame, other[3].storage.frame)
    # Under one `vmap`, and in a block that is filled up: the same but for rounding, which acting does not see here.
    batched = numbers([2, 4, 7], 2, block_size=2)
    np.testing.assert_array_equal(alone[3].storage.action, batched[3].storage.action)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), alone[:3], batched[:3])


@pytest.mark.parametrize("block_size", [1, 2])
def test_lanes_that_have_left_cost_nothing_and_change_nothing(block_size, log):
    config = dataclasses.replace(CARTPOLE, lane_block=block_size)

    def rest_of(active):
        population, placed, (lanes, _) = population_of(config, [1, 2, 3])
        steps = population.loop.rhythm.warmup_steps
        lanes, _ = population.chunk(steps, lanes, placed, np.arange(3))
        log.clear()
        lanes, metrics = population.chunk(steps + population.loop.rhythm.steps_per_chunk, lanes, placed, active)
        state = population.layout.fetch(lanes, active)
        population.close()
        assert population.pools == {}
        return len(log), population.layout.fetch(metrics, active), state.agent, state.replay

    passed, *whole = rest_of(np.array([0, 1, 2]))
    blocks = {1: 3, 2: 2}[block_size]
    for active in (np.array([2]), np.array([0, 2])):
        fewer, *rest = rest_of(active)
        assert fewer == passed * len(np.unique(active // block_size)) // blocks
        for part, kept in zip(whole, rest, strict=True):
            jax.tree.map(lambda x, y, own=active: np.testing.assert_array_equal(x[own], y), part, kept)


def test_without_an_update_nothing_has_diverged():
    config = Config(**{**vars(CARTPOLE), "train_every": 1_000})
    population, placed, (lanes, _) = population_of(config, [0])
    _, metrics = population.chunk(population.loop.rhythm.warmup_steps, lanes, placed, np.arange(1))
    assert metrics.finite.tolist() == [True]
    assert np.isnan(metrics.loss).all()
    assert metrics.updates[0, -1] == 0


def test_exploration_follows_the_schedule():
    _, _, (_, warmup) = population_of(CARTPOLE, [0, 1])
    steps = 4 * np.arange(warmup.epsilon.shape[1])
    np.testing.assert_allclose(warmup.epsilon[0], 1 - 0.95 * steps / 400, rtol=1e-6)
