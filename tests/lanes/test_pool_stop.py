"""Runs over pools that are stopped within a chunk or an evaluation, by a signal or by their minutes."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import sys
import types

import jax
import numpy as np
import pytest
from pools import CARTPOLE, PONG

import dqn_jax
from dqn_jax.config import HParams, RunError
from dqn_jax.lanes.lane import UNWATCHED, Watch, stack_hparams
from dqn_jax.lanes.pool import make_pool_loop
from dqn_jax.lanes.pool_population import PoolPopulation
from dqn_jax.presets import Preset

CONFIG = dataclasses.replace(CARTPOLE, eval_epsilon=0.3)
ASKED = {name: value for name, value in vars(CONFIG).items() if name != "env"} | {"seeds": 2, "criteria": ()}


@pytest.fixture(scope="module")
def loop():
    return make_pool_loop(CONFIG)


@pytest.fixture(autouse=True)
def no_films(monkeypatch):
    monkeypatch.setattr("dqn_jax.runs.recorder.Recorder.film", lambda *_: None)


def chunks(loop, *stops):
    """A chunk of two lanes that is stopped at these numbers of askings, and gone on with each time."""
    population = PoolPopulation(loop, HParams(epsilon_decay_steps=400), 2)
    placed = population.layout.place(stack_hparams(HParams(epsilon_decay_steps=400), 2))
    lanes, _ = population.start([3, 5], HParams(epsilon_decay_steps=400))
    unfinished = []
    for stop in stops:
        asked = itertools.count()
        population.watch = Watch(stop=lambda asked=asked, stop=stop: next(asked) >= stop)
        lanes, metrics = population.chunk(loop.rhythm.warmup_steps, lanes, placed, np.arange(2))
        assert metrics is None
        unfinished.append(population.unfinished["epsilon"].shape[1])
    population.watch = UNWATCHED
    lanes, metrics = population.chunk(loop.rhythm.warmup_steps, lanes, placed, np.arange(2))
    assert population.unfinished == {}
    population.close()
    return population.layout.fetch(lanes, np.arange(2)), metrics, unfinished


def test_a_chunk_that_is_stopped_within_goes_on_to_the_same_numbers(loop):
    whole, expected, _ = chunks(loop)
    lanes, metrics, unfinished = chunks(loop, 0, 10, 45 - 10 + 8)
    assert unfinished == [0, 10, 45]  # the last one in the evaluation
    for name in ("epsilon", "updates", "episode_return", "eval_returns", "eval_lengths", "finite"):
        np.testing.assert_array_equal(getattr(metrics, name), getattr(expected, name))
    for name in ("loss", "td_error", "q_mean"):
        np.testing.assert_allclose(getattr(metrics, name), getattr(expected, name), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, lanes.agent.params, whole.agent.params)


@pytest.mark.parametrize("where", ["step", "evaluate"])
def test_a_run_that_is_stopped_within_a_chunk_loses_nothing_of_it(tmp_path, monkeypatch, where, capsys):
    monkeypatch.setattr("dqn_jax.lanes.pool_population._SECONDS_BETWEEN", 0.0)
    asked = []

    def stop(progress):
        if progress.phase == where and progress.env_steps > 300 and not asked:
            asked.append(progress)
            signal.raise_signal(signal.SIGTERM)

    half = dqn_jax.train(CONFIG.env, out=tmp_path / "run", on_progress=stop, warn=lambda _: None, **ASKED)
    assert where == "step" or asked[0].games[1] == 6
    assert "stopping here, once all is saved; Ctrl-C again stops now" in capsys.readouterr().err
    assert half.interrupted
    assert half.history.env_steps == [232]
    result = dqn_jax.train(CONFIG.env, out=tmp_path / "run", resume=True, warn=lambda _: None, **ASKED)
    assert result.history.env_steps == [232, 412, 592, 772]
    assert result.summary["updates"] == [720 // 7 * 2] * 2
    assert (np.diff(result.history.seconds) > 0).all()


def clocked(monkeypatch, seconds_of_step):
    """A clock that each look at the minutes sets forward."""
    now = [0.0]

    def look():
        now[0] += seconds_of_step
        return now[0]

    monkeypatch.setattr("dqn_jax.drive.time", types.SimpleNamespace(perf_counter=look))
    return now


def test_minutes_that_are_over_within_a_chunk_end_it_there_and_more_of_them_go_on(tmp_path, monkeypatch):
    clocked(monkeypatch, 0.5)  # two looks a step, in the training and one in the evaluation
    said = []
    early = dqn_jax.train(CONFIG.env, out=tmp_path / "run", max_minutes=0.6, warn=said.append, **ASKED)
    assert "max_minutes: over before an evaluation had ended; --resume with more goes on there" in said
    assert early.history.env_steps == []
    assert not early.interrupted
    result = dqn_jax.train(CONFIG.env, out=tmp_path / "run", resume=True, max_minutes=np.inf, warn=said.append, **ASKED)
    assert result.history.env_steps == [232, 412, 592, 772]


def test_a_warm_up_that_takes_longer_than_the_minutes_is_one_line(monkeypatch):
    clocked(monkeypatch, 60.0)
    with pytest.raises(RunError, match=r"^max_minutes: they were over within the 52 environment steps before learning"):
        dqn_jax.train(CONFIG.env, max_minutes=2.0, **ASKED)


def test_a_chunk_that_is_cut_is_evaluated_and_the_next_one_ends_where_it_is_due(loop):
    population = PoolPopulation(loop, HParams(), 1)
    placed = population.layout.place(stack_hparams(HParams(), 1))
    lanes, _ = population.start([3], HParams())
    asked = itertools.count()
    population.watch = Watch(seconds_left=lambda: -1.0 if next(asked) >= 9 else 1e9)
    lanes, metrics = population.chunk(loop.rhythm.warmup_steps, lanes, placed, np.arange(1))
    assert metrics.epsilon.shape == (1, 10)
    assert np.isfinite(metrics.eval_returns).all()
    population.watch = UNWATCHED
    _, metrics = population.chunk(loop.rhythm.warmup_steps + 40, lanes, placed, np.arange(1))
    assert metrics.epsilon.shape == (1, 35)
    population.close()


RESUMED = {
    "prioritised-frames": dataclasses.replace(
        PONG, replay="prioritized", n_step=2, torso="mlp", frame_size=12
    ),
    # A chunk ends in the middle of a rollout.
    "rollout": dataclasses.replace(
        CARTPOLE, replay="rollout", rollout_length=6, minibatch_size=6, n_step=1, num_envs=2, min_replay=0,
        eval_every=30, total_steps=60,
    ),
}  # fmt: skip


@jax.debug_key_reuse(False)  # it takes most of the time, and these programs are checked elsewhere
@pytest.mark.parametrize("config", RESUMED.values(), ids=RESUMED)
def test_a_run_that_is_stopped_hard_goes_on_with_the_bits_of_one_whose_games_begin_anew(config, tmp_path, monkeypatch):
    """Priorities, frames, half a rollout, keys and optimiser come back: all but the games, which cannot be saved."""
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 1e9)  # after every chunk
    hparams = HParams(learning_rate=1e-2, epsilon_decay_steps=100, importance_anneal_updates=20)
    loop = make_pool_loop(config)
    steps = loop.rhythm.warmup_steps + loop.rhythm.steps_per_chunk

    def stop(progress):
        if progress.phase == "train":
            assert progress.env_steps == steps
            raise KeyboardInterrupt

    asked = {"seeds": 1, "seed": 3, "out": tmp_path / "run", "warn": lambda _: None}
    preset = Preset("stopped", "", config, hparams)
    with pytest.raises(KeyboardInterrupt):
        dqn_jax.train(preset, on_progress=stop, **asked)
    result = dqn_jax.train(preset, resume=True, **asked)
    assert result.history.env_steps == [steps, steps + loop.rhythm.steps_per_chunk]

    population = PoolPopulation(loop, hparams, 1)
    placed = population.layout.place(stack_hparams(hparams, 1))
    lanes, _ = population.start([3], hparams)
    lanes, _ = population.chunk(loop.rhythm.warmup_steps, lanes, placed, np.arange(1))
    before = jax.tree.map(np.array, population.layout.fetch(lanes, np.arange(1)).agent.params)
    population.close()
    lanes, metrics = population.chunk(steps, lanes, placed, np.arange(1))
    population.close()
    expected = population.layout.fetch(lanes, np.arange(1)).agent.params
    jax.tree.map(np.testing.assert_array_equal, result.params, expected)
    assert not np.array_equal(jax.tree.leaves(before)[0], jax.tree.leaves(expected)[0])
    np.testing.assert_array_equal(result.history.reading("eval_return")[:, 1], metrics.eval_returns.mean(axis=-1))
