"""The driver: what a run writes, resuming bit for bit, stopping, and lanes that diverge."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dqn_jax
from dqn_jax import runs
from dqn_jax.config import ConfigError, RunError
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.driver import DeviceDriver, driver_for
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.runs import checkpoint, recorder

TINY = dict(
    seeds=3,
    hidden=(8,),
    lane_block=1,  # compiles in two thirds of the time that a block of four takes
    batch_size=8,
    replay_capacity=200,
    min_replay=50,
    num_envs=2,
    train_every=2,
    total_steps=650,
    eval_every=200,
    eval_episodes=3,
    max_episode_steps=60,
    epsilon_decay_steps=11_000,  # hardly anything but chance: seeds play episodes of many lengths
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
    promised.append("best.npz")
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
    np.testing.assert_allclose(summary["value_bound"], [1.0] * 3)  # what a fall costs
    q_mean = finished.history.reading("q_mean")
    assert summary["q_mean"] == [row[np.abs(row).argmax()] for row in q_mean]
    assert summary["above_bound"] == []
    assert summary["fell_back"] == [
        i for i in range(3) if finished.converged[i] and summary["final_eval_return"][i] < 5
    ]
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


def test_episodes_of_the_warm_up_count(finished):
    early = finished.episodes[finished.episodes.env_steps <= 50]
    assert set(early.seed) == {0, 1, 2}
    assert (early.updates == 0).all()
    assert (finished.episodes.groupby("seed").episode.first() == 1).all()
    # Two environments without a gap: what the episodes of a seed took is all its steps but the two unfinished ends.
    frames = finished.episodes.groupby("seed").train_return.sum()
    assert ((frames <= 650) & (frames > 650 - 2 * 60)).all()


def test_a_stock_tensorboard_reads_the_events(finished):
    events = {run: EventAccumulator(str(finished.run / "tensorboard" / run)) for run in ("seed_1", "mean")}
    for run in events.values():
        run.Reload()
    written = [(e.step, e.value) for e in events["seed_1"].Scalars("eval/return")]
    own = finished.metrics[finished.metrics.seed == 1]
    assert written == [(s, pytest.approx(v)) for s, v in zip(own.env_steps, own.eval_return, strict=True)]
    tags = {run: set(one.Tags()["scalars"]) for run, one in events.items()}
    assert tags["seed_1"] >= {"eval/length", "train/return", "train/loss", "train/q_mean", "train/epsilon"}
    assert all("/" in tag for tag in tags["seed_1"])
    mean = finished.metrics.groupby("env_steps").eval_return.mean()
    written = [(e.step, e.value) for e in events["mean"].Scalars("eval/return")]
    assert written == [(s, pytest.approx(v)) for s, v in mean.items()]
    first = finished.summary["criteria"][0]
    (tag,) = (tag for tag in tags["mean"] if tag == "converged/eval_5")
    shares = [np.mean([t is not None and t <= step for t in first["env_steps"]]) for step in mean.index]
    assert [e.value for e in events["mean"].Scalars(tag)] == pytest.approx(shares)


def test_a_run_that_cannot_be_filmed_says_so_in_one_line(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(DeviceDriver, "can_film", lambda driver: False)
    runs.save_settings(tmp_path, finished.settings)
    own = recorder.Recorder(tmp_path, finished.settings, driver_for(finished.settings.config), types.SimpleNamespace())
    lines = []
    own.finish(finished.summary, finished.history, finished.params, lines.append)
    assert lines == [f"no film: {finished.settings.config.env} cannot be drawn; all else is written"]
    assert (tmp_path / "curve.png").is_file()
    assert not (tmp_path / "film.gif").exists()


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


@pytest.mark.quick
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
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    newest.write_bytes(data)
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
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}

    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(dqn_jax.RunError, match=r"out: cannot write to .*No space left on device.*--resume"):
        dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **TINY)
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()} == before


def test_stop_converged_ends_the_run_once_every_lane_has(tmp_path):
    result = dqn_jax.train("cartpole", stop="converged", **{**TINY, "criteria": ("eval>=5",)})
    assert result.converged.all()
    assert result.summary["env_steps"] == 250


def test_a_run_ends_within_its_minutes_and_counts_on_when_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("dqn_jax.runs.recorder.Recorder.film", lambda *_: None)  # films take longer than the rest
    now, shares = [0.0], []
    monkeypatch.setattr("dqn_jax.drive.time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def slow(*arguments, **keywords):
        """Chunks of a minute."""
        population = make(*arguments, **keywords)

        def chunk(*inputs):
            now[0] += 60
            return population.chunk(*inputs)

        return population._replace(chunk=chunk)

    make = DeviceDriver.population
    monkeypatch.setattr(DeviceDriver, "population", slow)

    def minutes(allowed, warnings=(), **arguments):
        """The minutes at which each chunk ended."""
        said = []
        result = dqn_jax.train("cartpole", max_minutes=allowed, out=tmp_path / "run", warn=said.append, **arguments)
        assert [line for line in said if not line.startswith("no film")] == list(warnings)
        assert result.summary["complete"]
        assert not result.interrupted
        return [seconds / 60 for seconds in result.history.seconds]

    long = {**TINY, "total_steps": 1_050, "on_progress": lambda progress: shares.append(progress.share_done)}
    too_few = ["max_minutes: 30 s are left, and a chunk takes 60: ending here"]
    assert minutes(2.5, too_few, **long) == [1, 2]
    assert shares == [0, pytest.approx(1 / 2.5), pytest.approx(2 / 2.5)]
    assert minutes(2.5, too_few, resume=True, **long) == [1, 2]
    assert minutes(3, resume=True, **long) == [1, 2, 3]
    assert minutes(np.inf, resume=True, **long) == [1, 2, 3, 4, 5]


def test_a_run_is_saved_and_goes_on_before_any_episode_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["dqn_jax.training"], "_CHECKPOINT_SHARE", 1e9)  # after every chunk
    asked = dict(
        seeds=1, lane_block=1, min_replay=16, num_envs=2, batch_size=4, eval_every=40, eval_episodes=2, hidden=(4,)
    )
    run = tmp_path / "run"
    first = dqn_jax.train("pendulum", out=run, total_steps=80, **asked)
    assert len(first.episodes) == 0
    rest = dqn_jax.train("pendulum", out=run, resume=True, warn=pytest.fail, total_steps=480, **asked)
    whole = dqn_jax.train("pendulum", total_steps=480, **asked)
    assert len(whole.episodes) == 2
    pd.testing.assert_frame_equal(rest.episodes, whole.episodes)
    pd.testing.assert_frame_equal(without_seconds(rest.metrics), without_seconds(whole.metrics))


def test_a_film_that_cannot_be_made_costs_nothing_but_itself(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RunError("env: another game the second time")

    monkeypatch.setattr(recorder, "film_policy", fail)
    warnings = []
    result = dqn_jax.train("cartpole", **{**TINY, "seeds": 1, "out": tmp_path / "run", "warn": warnings.append})
    assert warnings == ["env: another game the second time"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["final_eval_return"] == result.summary["final_eval_return"]
    assert (tmp_path / "run" / "curve.png").is_file()


def test_diverged_lane_is_flagged_and_leaves_the_others_untouched():
    rates = np.array([1e-3, 1e30, 1e-3])
    blocks = {**TINY, "lane_block": 0, "optimizer": "sgd"}  # of four, as networks this small run by default
    result = dqn_jax.train("cartpole", **{**blocks, "learning_rate": rates})
    alone = dqn_jax.train("cartpole", **{**blocks, "seeds": [0], "learning_rate": 1e-3})
    assert result.summary["diverged"] == [1]
    own = result.metrics[result.metrics.seed == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(without_seconds(own), without_seconds(alone.metrics), check_exact=True)


def test_seed_given_twice_is_refused():
    with pytest.raises(ConfigError, match="seeds"):
        dqn_jax.train("cartpole", **{**TINY, "seeds": [1, 1]})


def test_unknown_setting_suggests_the_nearest():
    with pytest.raises(ConfigError, match="learning_rate"):
        dqn_jax.train("cartpole", learning_rte=1e-3)


# -- starting from saved networks

# The same program as above, with steps that are zero in float32 and a target network that stays.
STILL = {**TINY, "learning_rate": 1e-37, "learning_rate_end": 0.0, "target_period": 1_000_000, "total_steps": 250}


def newest_checkpoint(run):
    """What it holds; lanes have leaves `[L, ...]`."""
    settings = runs.load_settings(run)
    loop, hparams = make_loop(settings.config), stack_hparams(settings.hparams, len(settings.seeds))
    shapes = jax.eval_shape(jax.vmap(loop.start), jnp.asarray(settings.seeds), hparams)[0]
    return checkpoint.load(checkpoint.folder_of(run), shapes, warn=pytest.fail)


def assert_all_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def continued(finished, tmp_path_factory):
    """A run that starts from the networks of `finished` and does not move them."""
    out = tmp_path_factory.mktemp("runs") / "continued"
    return dqn_jax.train("cartpole", out=out, weights=finished.run, seed=10, **STILL)


def test_a_run_starts_from_exactly_the_networks_it_is_given(finished, continued):
    assert_all_equal(continued.params, finished.params)
    old, new = (newest_checkpoint(run).lanes.agent for run in (finished.run, continued.run))
    assert_all_equal(new.params, finished.params)
    assert_all_equal(new.target_params, finished.params)  # a copy of the online network, not the old target
    assert not np.array_equal(leaves(old.target_params)[0], leaves(old.params)[0])
    # Evaluations are on the same starts, so that the same agents score the same.
    assert continued.summary["final_eval_return"] == finished.summary["final_eval_return"]
    # Only the networks: exploration starts anew.
    np.testing.assert_array_equal(continued.metrics.epsilon, finished.metrics.groupby("seed").epsilon.first())


def test_the_networks_a_run_started_from_are_recorded_and_it_goes_on_only_from_them(finished, continued):
    assert json.loads((continued.run / "config.json").read_text())["weights"] == str(finished.run)
    assert json.loads((finished.run / "config.json").read_text())["weights"] is None
    settings = {**STILL, "seed": 10, "out": continued.run, "resume": True}
    with pytest.raises(ConfigError, match=r"weights: the run in .* has .*whole, not .*continued"):
        dqn_jax.train("cartpole", weights=continued.run, **settings)
    for source in ({"weights": finished.run}, {}):
        again = dqn_jax.train("cartpole", **source, **settings)
        assert_all_equal(again.params, finished.params)
        assert again.settings.weights == str(finished.run)
        assert len(again.metrics) == len(continued.metrics)


def test_the_networks_given_act_from_the_first_step(finished):
    settings = runs.load_settings(finished.run)
    loop = make_loop(dataclasses.replace(settings.config, min_replay=20))
    greedy = settings.hparams._replace(epsilon_start=0.0, epsilon_end=0.0)
    weights = jax.tree.map(lambda x: jnp.asarray(x[0]), finished.params)
    lane, _ = loop.start(jnp.int32(5), jax.tree.map(lambda x: x[0], stack_hparams(greedy, 1)), weights)
    stored = jax.tree.map(lambda x: x[:10], lane.replay.storage)
    values = loop.agent.q_values(weights, stored.obs_tm1.reshape(20, -1))
    np.testing.assert_array_equal(stored.a_tm1.reshape(-1), jnp.argmax(values, axis=1))


def test_the_folder_above_a_run_stands_for_the_run_taken_then(tmp_path, finished):
    above = finished.run.parent
    source = {"weights": above, "seed": 10, "out": above / "later"}  # soon the newest run in that folder
    begun = dqn_jax.train("cartpole", **source, **STILL)
    assert begun.settings.weights == str(finished.run)
    again = dqn_jax.train("cartpole", **source, resume=True, **STILL)
    assert again.settings.weights == str(finished.run)
    assert_all_equal(again.params, finished.params)


def test_one_agent_is_given_to_every_seed(tmp_path, finished):
    settings, saved = runs.load_settings(finished.run), newest_checkpoint(finished.run)
    alone = tmp_path / "alone"  # as if only the second seed had been trained
    alone.mkdir()
    runs.save_settings(alone, dataclasses.replace(settings, seeds=settings.seeds[1:2]))
    second = jax.tree.map(lambda x: x[1:2], saved.lanes)
    checkpoint.save(checkpoint.folder_of(alone), saved.env_steps, second, saved.arrays)
    several = dqn_jax.train("cartpole", weights=alone, seed=10, **STILL)
    for saved, given in zip(leaves(finished.params), leaves(several.params), strict=True):
        np.testing.assert_array_equal(given, np.stack([saved[1]] * 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 2}, r"weights: .* has 3 agents for 2 seeds"),
        ({"seeds": 1}, r"weights: .* has 3 agents for 1 seeds"),
        ({"hidden": (9,)}, r"weights: .*another shape.*hidden 8"),
        ({"hidden": (8, 8)}, r"weights: .*another shape.*hidden 8"),
        ({"dueling": True}, r"weights: .*another shape.*dueling"),
        ({"env": "Acrobot-v1"}, r"weights: .*another shape.*CartPole-v1"),
    ],
    ids=str,
)
def test_networks_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, finished, changes, message):
    with pytest.raises(ConfigError, match=message):
        dqn_jax.train("cartpole", out=tmp_path / "run", weights=finished.run, **{**TINY, **changes})
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_there_gives_no_networks(tmp_path):
    with pytest.raises(ConfigError, match=r"^weights: .*does not exist"):
        dqn_jax.train("cartpole", out=tmp_path / "run", weights=tmp_path / "nothing", **TINY)


# -- a budget of episodes

EPISODES = {**TINY, "total_episodes": 12, "total_steps": 1_450}


@pytest.fixture(scope="module")
def rested():
    return dqn_jax.train("cartpole", **EPISODES)


def test_a_budget_of_episodes_ends_the_run_and_only_steps_taken_count(rested):
    episodes, last = rested.episodes, rested.metrics.groupby("seed").last()
    counts, ends = episodes.groupby("seed").size(), episodes.groupby("seed").env_steps.max()
    assert counts.between(12, 13).all()  # two environments may end together
    assert (last.episodes == counts).all()
    assert len(set(ends)) > 1
    # Over as soon as every seed is at rest.
    assert rested.metrics.env_steps.max() < 1_450
    assert rested.metrics.env_steps.max() - 200 < ends.max() <= rested.metrics.env_steps.max()
    assert (last.updates == (ends - 50) // 2).all()
    summary = rested.summary
    assert summary["complete"]
    assert summary["env_steps"] == ends.max()
    assert summary["updates"] == list(last.updates)
    seconds = summary["seconds"]["run"]
    assert summary["throughput"]["env_steps_per_second"] * seconds == pytest.approx(ends.sum())
    assert summary["throughput"]["updates_per_second"] * seconds == pytest.approx(last.updates.sum())


def test_a_resumed_run_goes_on_counting_its_episodes(tmp_path, monkeypatch, rested):
    monkeypatch.setattr("dqn_jax.runs.recorder.Recorder.film", lambda *_: None)  # films take longer than the rest
    half = dqn_jax.train("cartpole", out=tmp_path / "run", **{**EPISODES, "total_steps": 250})
    assert 0 < half.metrics.episodes.min() < 12
    resumed = dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **EPISODES)
    pd.testing.assert_frame_equal(without_seconds(resumed.metrics), without_seconds(rested.metrics), check_exact=True)
    pd.testing.assert_frame_equal(resumed.episodes, rested.episodes, check_exact=True)
    assert resumed.summary["env_steps"] == rested.summary["env_steps"]
    # Nothing is left to do.
    again = dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **EPISODES)
    pd.testing.assert_frame_equal(without_seconds(again.metrics), without_seconds(rested.metrics), check_exact=True)


def test_what_a_seed_at_rest_reached_does_not_depend_on_who_goes_on(rested):
    ends = rested.episodes.groupby("seed").env_steps.max()
    first = int(ends.idxmin())
    assert (ends.max() - 50) // 200 > (ends[first] - 50) // 200  # others go on for more evaluations
    alone = dqn_jax.train("cartpole", **{**EPISODES, "seeds": [first]})
    for own, among in zip(alone.summary["criteria"], rested.summary["criteria"], strict=True):
        for field in ("env_steps", "updates", "episodes", "stability"):
            assert own[field] == [among[field][first]]
    assert len(alone.history.curves()[0].eval_return) == len(rested.history.curves()[first].eval_return)
