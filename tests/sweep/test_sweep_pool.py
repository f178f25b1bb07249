"""Sweeps of environments in pools: the same lanes as in `train`, and fresh games after a kill."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from sweeping import CrashError, compiled, crash_after  # noqa: F401 - compiled is a fixture

import dqn_jax
from dqn_jax.cli.main import main
from dqn_jax.config import ConfigError
from dqn_jax.drive import Ears
from dqn_jax.envs import make_pool
from dqn_jax.lanes import pool_population
from dqn_jax.sweep import sweep

ENV = "envpool:CartPole-v1"
ASKED = dict(
    hidden=(8,),
    batch_size=8,
    replay_capacity=200,
    min_replay=20,
    num_envs=2,
    train_every=2,
    total_steps=200,
    eval_every=60,
    eval_episodes=4,
    epsilon_decay_steps=100,
    max_episode_steps=60,
    pool_threads=1,
)
VARY = ("learning_rate=0.001,0.01",)


@pytest.fixture
def ask(compiled):  # noqa: F811
    def asked(out, **more):
        given = dict(seeds=2, criteria=("eval>=1000",), **ASKED) | more
        return sweep(ENV, VARY, sampler="grid", out=out, **given)

    return asked


def test_a_lane_of_a_sweep_has_the_numbers_of_a_run(tmp_path, ask):
    data = ask(tmp_path / "sweep").data
    assert len(data.lanes) == 4
    assert set(data.lanes["status"]) == {"budget"}
    for trial, learning_rate in enumerate([0.001, 0.01]):
        run = dqn_jax.train(ENV, seeds=2, learning_rate=learning_rate, criteria=("eval>=1000",), **ASKED)
        for seed in (0, 1):
            curve = data.curves[(data.curves["trial"] == trial) & (data.curves["seed"] == seed)]
            own = run.metrics[run.metrics["seed"] == seed]
            for name in ("env_steps", "updates", "episodes", "eval_return", "train_return", "loss"):
                np.testing.assert_array_equal(curve[name].to_numpy(np.float32), own[name].to_numpy(np.float32))


def test_a_sweep_that_was_killed_goes_on_in_fresh_games_and_says_so(tmp_path, ask):
    out = tmp_path / "sweep"
    with pytest.raises(CrashError):
        ask(out, on_progress=crash_after(2))
    assert "fresh_games_after_env_steps" not in json.loads((out / "provenance.json").read_text())
    warnings = []
    data = ask(out, resume=True, warn=warnings.append).data
    assert warnings == ["emulators cannot be saved: going on in fresh games, with all else as it was"]
    noted = json.loads((out / "provenance.json").read_text())["fresh_games_after_env_steps"]
    first = int(data.curves["env_steps"].min())
    assert noted == [{"wave": 0, "env_steps": first + 60}]  # the crash came after the second chunk was saved
    assert len(data.lanes) == 4
    whole = ask(tmp_path / "whole").data
    before = [d.curves[d.curves["env_steps"] <= first + 60]["eval_return"].to_numpy() for d in (data, whole)]
    np.testing.assert_array_equal(*before)
    np.testing.assert_array_equal(data.curves["updates"], whole.curves["updates"])
    assert main(["report", str(out)]) == 0
    assert "fresh_games_after_env_steps" in (out / "report" / "report.html").read_text()


@pytest.mark.parametrize("how", ["a sweep", "a run"])
def test_games_end_with_whoever_plays_them_however_that_ends(tmp_path, monkeypatch, ask, how):
    pools = []

    def noted(*arguments, **options):
        pools.append(make_pool(*arguments, **options))
        return pools[-1]

    monkeypatch.setattr(pool_population, "make_pool", noted)

    def crash(history):
        raise CrashError

    begin = {
        "a sweep": lambda: ask(tmp_path / "sweep", on_progress=crash_after(1)),
        "a run": lambda: dqn_jax.train(ENV, seeds=1, trackers=[crash], **ASKED),
    }
    with pytest.raises(CrashError):
        begin[how]()
    assert pools
    assert not any(hasattr(pool, "_env") for pool in pools)


def test_a_lane_too_large_for_memory_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(
        ConfigError, match=r"memory: one lane takes 7\.\d+ GB and there are 5 GB; lower replay_capacity"
    ):
        sweep("pong", VARY, seeds=1, out=tmp_path / "sweep", memory_gb=5.0)


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_sweep_that_is_stopped_within_a_chunk_loses_nothing_of_it(tmp_path, monkeypatch, ask, where, capsys):
    """Ctrl-C is not answered with minutes of waiting, and the chunk goes on where it was."""
    monkeypatch.setattr(pool_population, "_SECONDS_BETWEEN", 0.0)
    out, asked, tell = tmp_path / "sweep", [], Ears._tell

    def stop(ears, phase, env_steps, games):
        if (phase == "evaluate" if where == "evaluation" else phase == "step") and env_steps > 100 and not asked:
            asked.append(env_steps)
            signal.raise_signal(signal.SIGTERM)
        tell(ears, phase, env_steps, games)

    monkeypatch.setattr(Ears, "_tell", stop)
    stopped = ask(out)
    assert not stopped.finished
    assert "stopping here, once all is saved; Ctrl-C again stops now" in capsys.readouterr().err
    assert [len(list((out / "units" / "00000").glob("*.npz")))] == [1]
    (saved,) = (int(path.stem) for path in (out / "units" / "00000").glob("*.npz"))
    assert asked[0] <= saved <= asked[0] + 2
    warnings = []
    data = ask(out, resume=True, warn=warnings.append).data
    assert warnings == ["emulators cannot be saved: going on in fresh games, with all else as it was"]
    assert json.loads((out / "provenance.json").read_text())["fresh_games_after_env_steps"] == [
        {"wave": 0, "env_steps": saved}
    ]
    whole = ask(tmp_path / "whole").data
    np.testing.assert_array_equal(data.curves["env_steps"], whole.curves["env_steps"])
    np.testing.assert_array_equal(data.curves["updates"], whole.curves["updates"])
    assert (data.curves.groupby(["trial", "seed"])["seconds"].diff().dropna() > 0).all()
