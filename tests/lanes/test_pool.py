"""The loop over a pool: what it acts on, stores, learns from and reports, with real games of EnvPool."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest
from pools import CARTPOLE, PONG

import dqn_jax
from dqn_jax.cli.main import main
from dqn_jax.config import Config, ConfigError
from dqn_jax.envs import make_pool
from dqn_jax.lanes import pool_population
from dqn_jax.lanes.pool import make_pool_loop
from dqn_jax.runs.recorder import Recorder


@pytest.mark.parametrize(("min_replay", "warmup_steps"), [(0, 18), (17, 18), (18, 18), (19, 21)])
def test_learning_waits_until_some_environment_has_a_whole_window(min_replay, warmup_steps):
    """Five environments with three rows each, which make no window of four, are 15 rows; the next step makes one."""
    config = dataclasses.replace(CARTPOLE, num_envs=5, pool_batch=3, min_replay=min_replay)
    assert make_pool_loop(config).rhythm.warmup_steps == warmup_steps


def test_an_asynchronous_run_is_saved_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 1e9)
    config = dataclasses.replace(CARTPOLE, num_envs=5, pool_batch=3, pool_threads=2, replay_memory="host")
    asked = {name: value for name, value in vars(config).items() if name != "env"} | {
        "seeds": 2,
        "out": tmp_path / "run",
    }
    half = dqn_jax.train(CARTPOLE.env, **asked | {"total_steps": 300})
    result = dqn_jax.train(CARTPOLE.env, resume=True, warn=lambda line: None, **asked)
    assert result.history.env_steps == [51 + 180 * chunk for chunk in (1, 2, 3, 4)]
    assert result.history.episodes_table()["env_steps"].max() <= 51 + 720
    np.testing.assert_array_equal(result.history.reading("loss")[:, :2], half.history.reading("loss"))
    assert result.summary["updates"] == [4 * 180 // 7 * 2] * 2


@pytest.mark.quick
def test_a_run_is_trained_saved_resumed_and_evaluated(tmp_path, monkeypatch, capsys):
    asked = {name: value for name, value in vars(CARTPOLE).items() if name != "env"} | {"eval_epsilon": 0.3}
    calls = []
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 1e9)  # after every chunk

    def stop_after_two(progress):
        if progress.phase in ("compile", "train"):
            calls.append(progress)
        if len(calls) == 3:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        dqn_jax.train(CARTPOLE.env, seeds=2, out=run, criteria=("eval>=1",), on_progress=stop_after_two, **asked)
    warnings = []
    result = dqn_jax.train(
        CARTPOLE.env, seeds=2, out=run, criteria=("eval>=1",), resume=True, warn=warnings.append, **asked
    )
    assert warnings == ["emulators cannot be saved: going on in fresh games, with all else as it was"]
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["fresh_games_after_env_steps"] == [calls[-1].env_steps]
    whole = dqn_jax.train(CARTPOLE.env, seeds=2, criteria=("eval>=1",), **asked)
    assert result.summary["env_steps"] == whole.summary["env_steps"]
    assert result.summary["updates"] == whole.summary["updates"]
    before = len([steps for steps in whole.history.env_steps if steps <= calls[-1].env_steps])
    assert before == 2
    np.testing.assert_array_equal(
        result.history.reading("eval_return")[:, :before], whole.history.reading("eval_return")[:, :before]
    )
    assert result.converged.all()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--episodes", "3", "--json"]) == 0
    played = json.loads(capsys.readouterr().out)
    assert played["epsilon"] == 0.3  # as in the run's own evaluations
    assert np.shape(played["mean_return"]) == (2,)
    assert min(played["mean_length"]) >= 8
    assert (run / "film.mp4").stat().st_size > 5_000


def test_progress_is_told_within_chunks_too(monkeypatch):
    monkeypatch.setattr(pool_population, "_SECONDS_BETWEEN", 0.0)
    asked = {name: value for name, value in vars(CARTPOLE).items() if name != "env"} | {"total_steps": 230}
    told = []
    dqn_jax.train(CARTPOLE.env, seeds=2, criteria=(), on_progress=told.append, **asked)
    games = [progress.games for progress in told if progress.phase == "evaluate"]
    assert {total for _, total in games} == {6}  # of two seeds
    assert [ended for ended, _ in games] == sorted(ended for ended, _ in games)
    told = [progress for progress in told if progress.phase != "evaluate"]
    assert [progress.env_steps for progress in told] == [0, *range(4, 56, 4), *range(56, 236, 4), 232]
    assert [progress.phase for progress in told] == ["compile", *["step"] * 58, "train"]
    assert all(progress.seconds > 0 and progress.lane_steps_per_second > 0 for progress in told[1:])
    assert [progress.share_done for progress in told[1:-1]] == [steps / 232 for steps in range(4, 236, 4)]


def test_what_a_run_goes_on_from_is_not_kept_beside_it(tmp_path, monkeypatch):
    asked = {name: value for name, value in vars(CARTPOLE).items() if name != "env"} | {"seeds": 1}
    dqn_jax.train(CARTPOLE.env, out=tmp_path, **asked | {"total_steps": 200})
    load, loaded = Recorder.load, []

    def noted(recorder, warn):
        saved = load(recorder, warn)
        loaded.append(weakref.ref(saved.lanes.replay.storage.frame))
        return saved

    monkeypatch.setattr(Recorder, "load", noted)
    kept = []
    dqn_jax.train(
        CARTPOLE.env,
        out=tmp_path,
        resume=True,
        warn=lambda line: None,
        on_progress=lambda progress: kept.append([array() is not None for array in loaded]),
        **asked,
    )
    assert len(loaded) == 1
    assert kept[-1] == [False]


def test_a_run_that_lost_its_rows_begins_again_and_is_saved_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 0.0)  # after the first chunk and the last
    asked = {name: value for name, value in vars(CARTPOLE).items() if name != "env"} | {"out": tmp_path / "run"}
    dqn_jax.train(CARTPOLE.env, seeds=1, **asked)
    for path in (tmp_path / "run" / "checkpoints" / "rows").iterdir():
        path.write_bytes(b"damaged")
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 1e9)  # after every chunk
    asked |= {"seeds": 1, "resume": True}
    warnings = []
    begun = dqn_jax.train(CARTPOLE.env, warn=warnings.append, **asked | {"total_steps": 400})
    assert ["is damaged" in line for line in warnings] == [True, True, False]
    assert warnings[-1] == "there is no whole checkpoint to go on from: starting at the beginning"
    result = dqn_jax.train(CARTPOLE.env, warn=warnings.append, **asked)
    assert warnings[3:] == ["emulators cannot be saved: going on in fresh games, with all else as it was"]
    np.testing.assert_array_equal(result.history.reading("loss")[:, :2], begun.history.reading("loss"))
    dqn_jax.train(CARTPOLE.env, warn=warnings.append, **asked)
    assert len(warnings) == 4  # nothing was left to play
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["fresh_games_after_env_steps"] == [begun.summary["env_steps"]]


KILLED = """
import sys
import dqn_jax
def on_progress(progress):
    if progress.phase in ("compile", "train"):
        print(progress.env_steps, flush=True)
sys.modules["dqn_jax.training"]._CHECKPOINT_SHARE = 1e9
dqn_jax.train("Pong-v5", seeds=1, out={out!r}, criteria=(), on_progress=on_progress, **{asked!r})
"""


def test_a_run_of_games_that_is_killed_goes_on_with_all_that_was_saved(tmp_path):
    asked = {name: value for name, value in vars(PONG).items() if name != "env"} | {"total_steps": 100_000}
    run, warnings = tmp_path / "run", []
    code = KILLED.format(out=str(run), asked=asked)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["0\n", "70\n", "120\n"]
        process.kill()  # while it plays and learns
    assert process.returncode == -signal.SIGKILL
    before = pd.read_csv(run / "metrics.csv")
    asked["total_steps"] = int(before["env_steps"].max()) + 50
    result = dqn_jax.train("Pong-v5", seeds=1, out=run, criteria=(), resume=True, warn=warnings.append, **asked)
    (saved,) = json.loads((run / "provenance.json").read_text())["fresh_games_after_env_steps"]
    assert 120 <= saved >= before["env_steps"].max() - 50  # all but a chunk that was about to be saved
    assert "emulators cannot be saved: going on in fresh games, with all else as it was" in warnings
    after = pd.read_csv(run / "metrics.csv")
    kept = (before["env_steps"] <= saved).sum()
    pd.testing.assert_frame_equal(after[:kept], before[:kept])
    assert after["env_steps"].tolist() == list(range(70, asked["total_steps"] + 1, 50))
    assert result.summary["updates"] == [(asked["total_steps"] - 20) // 4]
    assert result.summary["complete"]


@pytest.mark.parametrize("method", ["send", "recv"])
def test_an_environment_that_fails_while_it_is_played_ends_the_run_in_one_line(method, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 1e9)
    options = "--hidden 8 --num-envs 4 --batch-size 8 --replay-capacity 400 --min-replay 50 --total-steps 460"
    options += f" --eval-every 200 --eval-episodes 3 --seeds 1 --pool-threads 1 --out {tmp_path / 'run'}"
    arguments = ["train", CARTPOLE.env, *options.split()]
    calls = []

    def failing(config, num_envs, seed, *, evaluation=False):
        pool = make_pool(config, num_envs, seed, evaluation=evaluation)
        if not evaluation:
            real = getattr(pool._env, method)

            def fail(*given):
                calls.append(method)
                if len(calls) > 80:  # in the second chunk
                    raise RuntimeError("an emulator died\nwith more to say")
                return real(*given)

            monkeypatch.setattr(pool._env, method, fail)
        return pool

    with monkeypatch.context() as patch:
        patch.setattr(pool_population, "make_pool", failing)
        assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "dqn-jax: env: EnvPool failed at envpool:CartPole-v1: an emulator died."
    assert "Traceback" not in err
    saved = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert saved["env_steps"].tolist() == [252]
    assert main([*arguments, "--resume"]) == 0
    resumed = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert resumed["env_steps"].tolist() == [252, 452, 652]
    pd.testing.assert_frame_equal(resumed[:1], saved)


def test_pixels_train_from_the_command_line_under_a_protocol(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = (
        "--num-envs 2 --torso dqn2013 --hidden 8 --frame-size 36 --batch-size 4 --replay-capacity 300 --min-replay 20"
    )
    small += " --total-steps 60 --eval-every 40 --eval-episodes 1 --max-episode-steps 80 --seeds 1 --pool-threads 1"
    assert main(["train", "pong", "--protocol", "dopamine", *small.split(), "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("dopamine: sticky actions")
    assert "sticky_actions 0.25" in err
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (settings["sticky_actions"], settings["life_loss"], settings["eval_epsilon"]) == (0.25, "ignore", 0.001)
    assert settings["max_episode_steps"] == 80  # an option given beside the protocol counts
    assert "eval>=-3.05" in out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("pong --protocol natur", ["protocol", "Did you mean 'nature'"]),
        ("cartpole --protocol nature", ["protocol", "Atari"]),
        ("pong --sampling latest --pool-batch 3", ["sampling", "pool_batch"]),
        ("pong --train-unit episodes", ["train_unit", "pool"]),
        ("pong --frame-size 20", ["torso", "nature", "36"]),
        ("pongg", ["'pongg'", "Did you mean"]),
        ("envpool:CartPole-v9", ["CartPole-v9"]),
        ("pong --pool-options difculty 1", ["pool_options", "difficulty"]),
        ("cartpole --frame-stack 3", ["frame_stack", "pool"]),
        ("cartpole --pool-batch 3", ["pool_batch", "pool"]),
        ("cartpole --replay-memory host", ["replay_memory", "pool"]),
        ("pong --pool-batch 9", ["pool_batch", "1 to num_envs 8"]),
        ("Snake-v1", ["obs_key", "grid"]),
        ("MiniGrid-Empty-5x5-v0 --torso nature", ["torso", "[7, 7, 3]"]),
    ],
)
def test_bad_input_is_one_line(arguments, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dqn-jax: ")
    assert err.count("\n") == 1
    for name in names:
        assert name in err
    assert list(tmp_path.iterdir()) == []


def test_what_only_the_device_has_is_refused():
    for field, value in (("clear_replay", True), ("freeze_when", "train5>1"), ("total_episodes", 3)):
        with pytest.raises(ConfigError, match=field):
            make_pool_loop(Config(**{**vars(CARTPOLE), field: value}))
