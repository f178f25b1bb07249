"""The driver: what a run writes, resuming bit for bit, stopping, and lanes that diverge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dqn_jax
from dqn_jax import runs
from dqn_jax.config import ConfigError

TINY = dict(
    seeds=3,
    hidden=(8,),
    batch_size=8,
    replay_capacity=200,
    min_replay=50,
    num_envs=2,
    train_every=2,
    total_steps=650,
    eval_every=200,
    eval_episodes=3,
    max_episode_steps=60,
    criteria=("eval>=5", "train5>=5", "epsilon<=0.99", "eval>=1000"),
)
COLUMNS = (
    "seed env_steps updates episodes seconds epsilon loss td_error q_mean train_return eval_return eval_length"
).split()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return dqn_jax.train("cartpole", out=out, save_episodes=True, **TINY)


def without_seconds(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds")


def test_run_folder_holds_every_promised_file(finished):
    names = {path.name for path in finished.run.iterdir()}
    promised = "config.json provenance.json metrics.csv summary.json curve.png film.gif checkpoints tensorboard".split()
    assert names == {*promised, "episodes.csv"}
    assert not list(finished.run.rglob("*.pkl"))
    assert len(list((finished.run / "checkpoints").iterdir())) <= 2


def test_metrics_are_long_form_with_one_row_per_seed_and_evaluation(finished):
    table = pd.read_csv(finished.run / "metrics.csv")
    assert sorted(table.columns) == sorted(COLUMNS)
    assert list(table.seed) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(table.env_steps[:3]) == [250, 450, 650]
    assert list(table.updates[:3]) == [100, 200, 300]  # one per two steps after the warm-up of 50


def test_summary_has_the_documented_keys(finished):
    summary = json.loads((finished.run / "summary.json").read_text())
    assert summary["env"] == "CartPole-v1"
    assert summary["preset"] == "cartpole"
    assert summary["seeds"] == [0, 1, 2]
    assert len(summary["final_eval_return"]) == 3
    assert summary["diverged"] == []
    assert summary["peak_memory_bytes"] > 1e6
    assert set(summary["throughput"]) == {"env_steps_per_second", "updates_per_second"}
    assert set(summary["seconds"]) == {"import", "compile", "run"}
    for criterion in summary["criteria"]:
        assert list(criterion)[:3] == ["name", "threshold", "converged"]
        for field in ("env_steps", "updates", "episodes", "seconds", "stability"):
            assert len(criterion[field]) == 3
    never = summary["criteria"][-1]
    assert never["converged"] == 0.0
    assert never["env_steps"] == never["seconds"] == never["stability"] == [None] * 3


def test_episodes_table_agrees_with_the_counters(finished):
    episodes = pd.read_csv(finished.run / "episodes.csv")
    last = finished.metrics.groupby("seed").episodes.last()
    assert (episodes.groupby("seed").size() == last).all()
    assert (episodes.train_return <= 60).all()
    assert episodes.groupby("seed").env_steps.apply(lambda s: s.is_monotonic_increasing).all()


def test_a_stock_tensorboard_reads_the_events(finished):
    events = EventAccumulator(str(finished.run / "tensorboard" / "seed_1"))
    events.Reload()
    written = [(e.step, e.value) for e in events.Scalars("eval_return")]
    own = finished.metrics[finished.metrics.seed == 1]
    assert written == [(s, pytest.approx(v)) for s, v in zip(own.env_steps, own.eval_return, strict=True)]


def test_provenance_says_where_the_numbers_come_from(finished):
    provenance = json.loads((finished.run / "provenance.json").read_text())
    assert provenance["seeds"] == [0, 1, 2]
    assert provenance["versions"]["jax"]
    assert provenance["devices"]["platform"] == "cpu"


def test_python_without_out_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = dqn_jax.train("cartpole", **TINY)
    assert list(tmp_path.iterdir()) == []
    assert result.run is None
    assert set(result.metrics.seed) == {0, 1, 2}


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, finished):
    half = {**TINY, "total_steps": 450}
    dqn_jax.train("cartpole", out=tmp_path / "run", **half)
    resumed = dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **TINY)
    pd.testing.assert_frame_equal(without_seconds(resumed.metrics), without_seconds(finished.metrics), check_exact=True)
    pd.testing.assert_frame_equal(resumed.episodes, finished.episodes, check_exact=True)
    for a, b in zip(*map(lambda r: leaves(r.params), (resumed, finished)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.summary["criteria"][0]["env_steps"] == finished.summary["criteria"][0]["env_steps"]


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


KILLED = """
import sys, time, dqn_jax
def slow(p):
    print(p.env_steps, flush=True); time.sleep(0.3)
dqn_jax.train("cartpole", out=sys.argv[1], on_progress=slow, **{settings!r})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_run_goes_on_to_the_same_numbers(tmp_path, finished, number):
    code = KILLED.replace("{settings!r}", repr({**TINY, "save_episodes": True}))
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if int(line) >= 250:
            break
    time.sleep(0.1)
    os.kill(child.pid, number)
    child.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert not (tmp_path / "run" / "summary.json").exists()
    else:
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"] is False
    resumed = dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **TINY)
    pd.testing.assert_frame_equal(without_seconds(resumed.metrics), without_seconds(finished.metrics), check_exact=True)
    assert not list((tmp_path / "run").rglob(".*tmp*"))


def test_damaged_checkpoint_is_skipped_with_a_message(tmp_path, finished):
    dqn_jax.train("cartpole", out=tmp_path / "run", **TINY)
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)
    messages = []
    resumed = dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, warn=messages.append, **TINY)
    assert len([m for m in messages if "damaged" in m and newest.name in m]) == 1
    pd.testing.assert_frame_equal(without_seconds(resumed.metrics), without_seconds(finished.metrics), check_exact=True)


def test_resume_with_other_settings_names_the_difference(tmp_path):
    dqn_jax.train("cartpole", out=tmp_path / "run", **TINY)
    with pytest.raises(ConfigError, match=r"learning_rate: the run in .* not 0\.5"):
        dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **{**TINY, "learning_rate": 0.5})


def test_full_disk_is_one_clear_error_and_loses_no_checkpoint(tmp_path, monkeypatch):
    dqn_jax.train("cartpole", out=tmp_path / "run", **{**TINY, "total_steps": 450})
    before = runs._checksums(tmp_path / "run" / "checkpoints")

    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(dqn_jax.RunError, match=r"out: cannot write to .*No space left on device.*--resume"):
        dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **TINY)
    assert runs._checksums(tmp_path / "run" / "checkpoints") == before


def test_stop_converged_ends_the_run_once_every_lane_has(tmp_path):
    result = dqn_jax.train("cartpole", stop="converged", **{**TINY, "criteria": ("eval>=5",)})
    assert result.converged.all()
    assert result.summary["env_steps"] == 250


def test_diverged_lane_is_flagged_and_leaves_the_others_untouched():
    rates = np.array([1e-3, 1e30, 1e-3])
    result = dqn_jax.train("cartpole", **{**TINY, "learning_rate": rates, "optimizer": "sgd"})
    alone = dqn_jax.train("cartpole", **{**TINY, "seeds": [0], "learning_rate": 1e-3, "optimizer": "sgd"})
    assert result.summary["diverged"] == [1]
    own = result.metrics[result.metrics.seed == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(without_seconds(own), without_seconds(alone.metrics), check_exact=True)


def test_seed_given_twice_is_refused():
    with pytest.raises(ConfigError, match="seeds"):
        dqn_jax.train("cartpole", **{**TINY, "seeds": [1, 1]})


def test_unknown_setting_suggests_the_nearest():
    with pytest.raises(ConfigError, match="learning_rate"):
        dqn_jax.train("cartpole", learning_rte=1e-3)
