"""Sweeps: a lane's numbers are its own, lanes leave when they should, and no death of the process costs a number."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping import (
    ASKED,
    CONFIG,
    CRITERIA,
    ENV,
    TINY,
    VARY,
    CrashError,
    Watched,
    assert_same_numbers,
    crash_after,
    numbers,
    of_lane,
    programs_of,
)
from sweeping import compiled as compiled  # a fixture

import dqn_jax
from dqn_jax import runs
from dqn_jax.cli import options
from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.convergence import parse_criterion, stability, time_to
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import ChunkMetrics, WarmupMetrics, stack_hparams
from dqn_jax.lanes.layout import make_layout
from dqn_jax.prng import key_data
from dqn_jax.runs.arrays import read_arrays, write_arrays
from dqn_jax.runs.checkpoint import Checkpoints
from dqn_jax.sweep import definition, estimate, runner, sweep, winners, worker
from dqn_jax.sweep import plan as plans
from dqn_jax.sweep.judge import LaneJudge, Rules
from dqn_jax.sweep.plan import describe, fitted, lane_bytes, make_plan
from dqn_jax.sweep.pruning import Prune, scores_of
from dqn_jax.sweep.records import load_data, open_store
from dqn_jax.sweep.results import halves, ranked
from dqn_jax.sweep.space import compile_groups, parse_space, points
from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS, STATUSES
from dqn_jax.sweep.wave import WaveLane, curve_rows, lane_row, make_programs

RATES = (0.0003, 0.001, 0.003, 0.01)
PRUNED = {**ASKED, "vary": ("learning_rate=0.0003,0.001,0.003,0.01,0.03,0.0001,1e30",), "seeds": 2}
PRUNED |= {"criteria": ("eval>=1x2",), "prune": "halving", "prune_eta": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that others are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
        return sweep(**ASKED, out=tmp_path_factory.mktemp("sweep") / "whole")


@pytest.fixture(scope="module")
def spent(tmp_path_factory):
    """The same, but all lanes stay to the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
        return sweep(**ASKED, stop="budget", out=tmp_path_factory.mktemp("sweep") / "spent")


# -- what is recorded


def test_tables_are_as_documented(whole):
    lanes, curves = whole.data.lanes, whole.data.curves
    assert whole.finished
    for table, columns in ((lanes, LANE_COLUMNS), (curves, CURVE_COLUMNS)):
        pd.testing.assert_frame_equal(table, table.astype(columns))
        assert list(table.columns) == list(columns)
    # Seeds are paired: every trial has the same ones.
    assert list(zip(lanes["trial"], lanes["seed"], strict=True)) == [(t, s) for t in range(4) for s in range(3)]
    assert list(whole.data.trials["learning_rate"]) == list(RATES)
    assert set(lanes["status"]) == {"converged", "budget"}
    assert ((lanes["status"] == "converged") == lanes["converged"]).all()
    last = curves.groupby(["trial", "seed"]).last()
    for name in ("env_steps", "updates", "episodes"):
        np.testing.assert_array_equal(last[name], lanes[name])
    np.testing.assert_array_equal(last["eval_return"], lanes["final_return"])
    np.testing.assert_array_equal(last["seconds"], lanes["device_seconds"])
    np.testing.assert_array_equal(curves.groupby(["trial", "seed"])["eval_return"].max(), lanes["best_return"])
    assert curves["seconds"].gt(0).all()
    assert (curves["updates"] == (curves["env_steps"] - 16) // 2).all()
    assert (curves["episodes"] == curves["env_steps"]).all()  # of one step each
    # Who left did so in the very evaluation in which it converged; who did not went to the end.
    assert (lanes["env_steps"] == lanes["converged_env_steps"].fillna(416)).all()
    assert lanes["env_steps"].nunique() > 3
    for lane in lanes.to_dict("records"):
        first, train, epsilon = json.loads(lane["moments"])
        names = ("env_steps", "updates", "episodes", "seconds")
        found = [lane[f"converged_{name}"] for name in names]
        assert np.isnan(found).all() if first is None else found == first
        assert train is None or 0 < train[0] <= lane["env_steps"]
        assert epsilon is None or epsilon[0] == 106  # from 1 to 0.05 in 200 steps: 0.5 is passed at 105.3


def test_records_of_the_folder_say_what_was_asked_and_planned(whole):
    folder = whole.directory
    assert_same_numbers(load_data(folder), whole.data)
    asked, plan = (json.loads((folder / name).read_text()) for name in ("sweep.json", "plan.json"))
    assert (asked["vary"], asked["seeds"]) == ({"learning_rate": VARY[0].partition("=")[2]}, [0, 1, 2])
    assert (asked["stop"], asked["sampler"], tuple(asked["criteria"])) == ("converged", "grid", CRITERIA)
    assert (plan["programs"], plan["programs_because_of"], plan["devices"]) == (1, {}, 2)
    group = plan["groups"][0]
    assert (group["trials"], group["lanes"], group["waves"], group["capacity"]) == (4, 12, 1, 12)
    assert plan["peak_bytes"] == 12 * group["bytes_per_lane"] <= plan["memory_bytes"]
    assert [entry["unit"] for entry in plan["compiled"]] == [0]
    steps = whole.data.lanes["env_steps"] - 16
    assert [entry["lane_steps"] for entry in plan["sessions"]] == [steps.sum()]
    assert json.loads((folder / "provenance.json").read_text())["seeds"] == [0, 1, 2]
    assert not (folder / "units" / "00000").exists()  # nothing to go on from is left


# -- a lane's numbers are its own


def test_leaving_early_changes_nothing_before(whole, spent):
    assert (spent.data.lanes["env_steps"] == 416).all()
    names = ["converged", "converged_env_steps", "converged_updates", "converged_episodes", "status"]
    pd.testing.assert_frame_equal(spent.data.lanes[names], whole.data.lanes[names], check_exact=True)
    curves = numbers(spent.data)[1]
    until = whole.data.lanes.set_index(["trial", "seed"])["env_steps"]
    left = curves.join(until.rename("until"), on=["trial", "seed"])
    before = curves[(left["env_steps"] <= left["until"]).to_numpy()].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, numbers(whole.data)[1], check_exact=True)
    assert len(before) < len(curves)
    stays = spent.data.lanes.dropna(subset="stability")
    assert len(stays)
    for lane in stays.to_dict("records"):
        own = of_lane(spent.data.curves, lane["trial"], lane["seed"])
        later = own["eval_return"][own["env_steps"] > lane["converged_env_steps"]]
        assert lane["stability"] == (later >= 1).mean()


@pytest.mark.parametrize("wave", [1, 4])
def test_a_lane_has_the_same_numbers_in_waves_of_any_size(tmp_path, compiled, whole, wave):
    again = sweep(**ASKED, wave=wave, out=tmp_path / "sweep")
    assert_same_numbers(again.data, whole.data)
    assert len(open_store(tmp_path / "sweep").waves()) == {1: 12, 4: 4}[wave]
    assert compiled == [CONFIG]  # all waves in one program


def test_a_lane_has_the_same_numbers_on_one_device(tmp_path, monkeypatch, whole):
    alone = functools.partial(make_programs, devices=jax.devices()[:1])
    monkeypatch.setattr(worker, "make_programs", alone)
    assert_same_numbers(sweep(**ASKED, wave=6, out=tmp_path / "sweep").data, whole.data)


def test_a_lane_has_the_same_numbers_among_others_and_who_diverges_stays_alone(tmp_path, compiled, whole):
    company = {**ASKED, "vary": ["learning_rate=1e30,0.003,0.5"], "seeds": [7, 2, 0]}
    data = sweep(**company, out=tmp_path / "sweep").data
    for seed in (0, 2):
        for own, other in zip(numbers(data), numbers(whole.data), strict=True):
            pd.testing.assert_frame_equal(of_lane(own, 1, seed), of_lane(other, 2, seed), check_exact=True)
    diverged = data.lanes[data.lanes["trial"] == 0]
    assert (diverged["status"] == "diverged").all()
    assert not diverged["converged"].any()
    assert (diverged["env_steps"] < 416).all()  # they leave at once
    assert (data.lanes["status"] == "diverged").sum() == 3


BLOCK_OF_ONE = {"lane_block": 1, "replay_capacity": 5000}
OWN_RHYTHM = {"preset": "ProbeLengths-test", "train_unit": "episodes", "train_every": 1, "total_episodes": 60}
OWN_RHYTHM |= {"replay_capacity": 5000, "criteria": ("train5>=4", "eval>=3")}


@pytest.mark.parametrize("changes", [{}, BLOCK_OF_ONE, OWN_RHYTHM], ids=["blocks of 4", "block of 1", "own rhythm"])
def test_a_lane_has_the_numbers_that_training_gives_it(tmp_path, compiled, changes):
    asked = {**ASKED, **changes}
    data = sweep(**asked, stop="budget", out=tmp_path / "sweep").data
    assert compiled[0].replay_capacity == (40 if changes == {} else 416)  # what can be filled
    overrides = {k: v for k, v in asked.items() if k not in ("preset", "vary", "seeds", "criteria")}
    seeds = [2, 0]
    for rate in RATES[1:3]:
        trial = RATES.index(rate)
        trained = dqn_jax.train(
            asked["preset"], seeds=seeds, criteria=asked["criteria"], **overrides, learning_rate=[rate, rate]
        )
        for i, seed in enumerate(seeds):
            curve = trained.history.curves()[i]
            metrics = trained.metrics[trained.metrics["seed"] == seed].reset_index(drop=True)[: len(curve.env_steps)]
            own = of_lane(data.curves, trial, seed).drop(columns="seconds")
            pd.testing.assert_frame_equal(own, metrics[list(own.columns)].astype(own.dtypes), check_exact=True)
            lane = of_lane(data.lanes, trial, seed).iloc[0]
            for summary, moment in zip(trained.summary["criteria"], json.loads(lane["moments"]), strict=True):
                found = [summary[name][i] for name in ("env_steps", "updates", "episodes")]
                assert found == ([None] * 3 if moment is None else moment[:3])
            assert lane["stability"] == trained.summary["criteria"][0]["stability"][i] or np.isnan(lane["stability"])
            assert lane["final_return"] == pytest.approx(trained.summary["final_eval_return"][i])
    if changes == OWN_RHYTHM:
        assert data.lanes["env_steps"].nunique() > 1  # each rests in its own time
        assert (data.lanes["episodes"] >= 60).all()
        assert (data.lanes["env_steps"] < 416).all()


# -- one program, and nobody works who has left


def test_lanes_that_have_left_cost_nothing(tmp_path, monkeypatch, whole):
    watched = Watched(programs_of())
    monkeypatch.setattr(worker, "make_programs", lambda *_: watched.programs)
    assert_same_numbers(sweep(**ASKED, out=tmp_path / "sweep").data, whole.data)
    lanes = whole.data.lanes
    for i, (advanced, blocks) in enumerate(zip(watched.advanced, watched.blocks, strict=True)):
        at_work = set(lanes.index[lanes["env_steps"] > 16 + 40 * i])  # as there is one wave
        assert advanced == at_work
        assert blocks == [-(-len([lane for lane in at_work if lane % 2 == device]) // 4) for device in (0, 1)]
    np.testing.assert_array_equal(watched.updates, lanes["updates"])  # and not one more
    assert len(watched.advanced) == (lanes["env_steps"].max() - 16) // 40


@given(st.data())
def test_every_active_lane_has_one_place_in_the_fewest_blocks(data):
    lanes, devices = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 2))
    config = dataclasses.replace(CONFIG, lane_block=data.draw(st.integers(1, 5)))
    layout = make_layout(config, lanes, 10, jax.devices()[:devices])
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, lanes - 1)))), int)
    active = layout.active(chosen)
    slots = np.asarray(active.slots).reshape(layout.mesh.size, layout.share)
    blocks = np.asarray(active.blocks)
    for device in range(layout.mesh.size):
        run = slots[device, : blocks[device] * layout.block_size]
        own, fillers = run[run < layout.share], run[run >= layout.share]
        mine = chosen[chosen % layout.mesh.size == device]
        np.testing.assert_array_equal(device * layout.share + own, layout.slot_of(mine))
        assert len(fillers) < layout.block_size
        assert set(fillers - layout.share) <= set(own)  # repeats, whose results are dropped
        assert np.all(slots[device] // layout.share <= 1)
    # What is placed comes back, for any few of them and in any order.
    values = np.arange(lanes * 3).reshape(lanes, 3)
    placed = layout.place({"x": values})
    asked = np.array(data.draw(st.permutations(list(range(lanes)))), int)[: data.draw(st.integers(1, lanes))]
    np.testing.assert_array_equal(layout.fetch(placed, asked)["x"], values[asked])
    few = data.draw(st.integers(1, lanes))
    np.testing.assert_array_equal(
        layout.fetch(layout.place(values[:few]), np.arange(lanes))[few:], np.tile(values[few - 1], (lanes - few, 1))
    )


# -- when lanes leave

CHUNKS = 8  # of 40 environment steps after 16


class Readings:
    """Random readings of L lanes over all chunks."""

    def __init__(self, seed, lanes=6):
        rng = np.random.default_rng(seed)
        self.lanes = [WaveLane(i // 2, i % 2, HParams()) for i in range(lanes)]
        self.eval = rng.choice([0.0, 1.0, 2.0], (lanes, CHUNKS), p=[0.5, 0.3, 0.2])
        self.loss = np.where(rng.random((lanes, CHUNKS)) < 0.2, np.nan, rng.random((lanes, CHUNKS)))
        self.finite = np.cumprod(rng.random((lanes, CHUNKS)) < 0.95, axis=1).astype(bool)
        self.epsilon = np.sort(rng.random((lanes, CHUNKS * 20)), axis=1)[:, ::-1].reshape(lanes, CHUNKS, 20)
        episodes = rng.choice([np.nan, 0.0, 1.0, 2.0], (lanes, CHUNKS, 20, 2), p=[0.8, 0.1, 0.05, 0.05])
        self.episodes = episodes
        self.warmup = WarmupMetrics(np.ones((lanes, 8)), rng.choice([np.nan, 1.0], (lanes, 8, 2)))

    def history(self):
        history = History([lane.seed for lane in self.lanes], num_envs=2)
        history.add_warmup(self.warmup)
        return history

    def feed(self, history, chunk, lanes):
        metrics = ChunkMetrics(
            loss=self.loss[lanes, chunk],
            td_error=self.loss[lanes, chunk],
            q_mean=self.loss[lanes, chunk],
            finite=self.finite[lanes, chunk],
            epsilon=self.epsilon[lanes, chunk],
            updates=np.tile(np.arange(20) + 20 * chunk, (len(lanes), 1)),
            episode_return=self.episodes[lanes, chunk],
            eval_returns=np.tile(self.eval[lanes, chunk, None], (1, 3)),
            eval_lengths=np.ones((len(lanes), 3)),
        )
        before = 16 + 40 * chunk
        history.add(before, before + 40, float(chunk + 1), metrics, lanes)


def left_with(readings, rules):
    """Status, chunk and row of every lane, judged chunk by chunk."""
    history, judge = readings.history(), LaneJudge(rules, [lane.trial for lane in readings.lanes])
    alive, left = np.arange(len(readings.lanes)), {}
    for chunk in range(CHUNKS):
        if len(alive) == 0:
            break
        readings.feed(history, chunk, alive)
        leaving = judge.leaving(history, alive, last=chunk == CHUNKS - 1)
        numbers = np.array(sorted(leaving), int)
        for i, curve in zip(numbers, history.curves(numbers), strict=True):
            row = lane_row(rules.criteria, readings.lanes[i], "search", leaving[i], curve, history.final_eval[i])
            left[int(i)] = (leaving[int(i)], chunk, row, curve)
        alive = np.setdiff1d(alive, numbers)
    assert len(alive) == 0
    return left


CHECKED = ("eval>=1", "eval>=1x3", "train3>=1", "train5>1", "epsilon<=0.3", "epsilon<=0.6x3", "loss<=0.5x2")


@given(st.integers(0, 10_000), st.sampled_from(CHECKED), st.sampled_from(["converged", "budget"]), st.integers(0, 3))
def test_a_lane_leaves_in_the_chunk_that_its_whole_curve_says(seed, text, stop, stays):
    readings, criterion = Readings(seed), parse_criterion(text)
    whole, everyone = readings.history(), np.arange(6)
    for chunk in range(CHUNKS):
        readings.feed(whole, chunk, everyone)
    left = left_with(readings, Rules((criterion,), stop, stability_steps=40 * stays - 3 * bool(stays)))
    ends = 16 + 40 * np.arange(1, CHUNKS + 1)
    for i, curve in enumerate(whole.curves()):
        moment = time_to(criterion, curve)
        met = CHUNKS if moment is None else int(np.searchsorted(ends, moment.env_steps))
        diverges = int(np.argmin(np.append(readings.finite[i], False)))
        leaves = min(met + stays, CHUNKS - 1) if stop == "converged" else CHUNKS - 1
        status, chunk, row, own = left[i]
        if diverges < leaves or (diverges == leaves and met > leaves):
            assert (status, chunk) == ("diverged", diverges)
        else:
            assert (status, chunk) == ("converged" if met <= chunk else "budget", leaves)
        assert row["converged"] == (met <= chunk)
        if met <= chunk:
            assert (row["converged_env_steps"], row["converged_updates"]) == (moment.env_steps, moment.updates)
            assert row["converged_episodes"] == moment.episodes
        np.testing.assert_array_equal(own.eval_return, readings.eval[i, : chunk + 1])
        assert stability(criterion, own) is None or row["stability"] == stability(criterion, own)


def test_training_and_exploration_criteria_and_stability_decide_in_a_real_sweep(tmp_path, compiled, spent):
    for criterion in ("train5>=0.9", "epsilon<=0.5"):
        asked = {**ASKED, "criteria": (criterion,), "stability_steps": 60}
        lanes = sweep(**asked, out=tmp_path / criterion).data.lanes
        assert lanes["converged"].any()
        for lane in lanes[lanes["converged"]].to_dict("records"):
            ends = 16 + 40 * -(-(lane["converged_env_steps"] - 16) // 40)
            assert lane["env_steps"] == min(ends + 80, 416)
            own = of_lane(spent.data.curves, lane["trial"], lane["seed"])
            assert lane["final_return"] == own.set_index("env_steps")["eval_return"][lane["env_steps"]]
    assert (lanes["converged_env_steps"] == 106).all()


# -- pruning


def prune(rule="halving", eta=2, first=56, budget=336, **more):
    return Prune(rule, eta, first, budget, **more)


def test_rungs_are_those_of_the_papers():
    assert prune(budget=416).rungs(5) == [104, 208]  # 52 would be before the first evaluation
    assert prune(eta=3, budget=416).rungs(0) == [139]
    assert prune(eta=4, first=104, budget=416).rungs(0) == [104]
    brackets = [tuple(prune("hyperband", 2, 40, 400).rungs(trial)) for trial in range(4)]
    assert sorted(brackets) == [(), (50, 100, 200), (100, 200), (200,)]
    for wrong in ({"rule": "median"}, {"eta": 1}):
        with pytest.raises(ConfigError, match="prune"):
            Prune(**wrong)


def test_a_bracket_is_no_hyperparameter():
    """In a grid whose last list is as long as there are brackets, each value is in all brackets alike."""
    drawn = prune("hyperband", 2, 40, 400, seed=3)
    assert [drawn.rungs(trial) for trial in range(80)] == [drawn.rungs(trial) for trial in range(80)]
    bracket = np.array([len(drawn.rungs(trial)) for trial in range(400)]).reshape(100, 4)  # rows, values of the list
    assert (np.sort(bracket, axis=1) == np.arange(4)).all()  # as many in each, at any time
    for value in range(4):
        assert (np.bincount(bracket[:, value], minlength=4) > 12).all()
    other = np.array([len(prune("hyperband", 2, 40, 400, seed=4).rungs(trial)) for trial in range(400)])
    assert (other != bracket.ravel()).mean() > 0.5


def scores_by_trial(evals):
    """Readings in which trial t has the evaluations `evals[t]` and one seed."""
    readings = Readings(0, lanes=len(evals))
    readings.lanes = [WaveLane(t, 0, HParams()) for t in range(len(evals))]
    readings.eval = np.tile(np.asarray(evals, float)[:, None], (1, CHUNKS))
    readings.finite[:] = True
    return readings


def test_halving_keeps_the_best_of_every_rung():
    # Rungs at 84 and 168 of 336: judged after the evaluations at 96 and 176, the second and the fourth.
    order = [3, 0, 6, 2, 5, 1, 4]
    left = left_with(scores_by_trial(order), Rules((), "budget", prune=prune()))
    ends = {score: left[trial][:2] for trial, score in enumerate(order)}
    assert ends == {
        **{score: ("pruned", 1) for score in (0, 1, 2)},  # four of seven go on,
        **{score: ("pruned", 3) for score in (3, 4)},  # then two of these four
        **{score: ("budget", 7) for score in (5, 6)},
    }


def test_hyperband_compares_trials_within_their_bracket_only():
    rule = prune("hyperband")
    evals = list(range(12, 0, -1))
    left = left_with(scores_by_trial(evals), Rules((), "budget", prune=rule))
    for rungs, ends in (
        # Four trials each: of two rungs, of the later one only, of none.
        (2, [("budget", 7), ("pruned", 3), ("pruned", 1), ("pruned", 1)]),
        (1, [("budget", 7), ("budget", 7), ("pruned", 3), ("pruned", 3)]),
        (0, [("budget", 7)] * 4),
    ):
        own = [trial for trial in range(12) if len(rule.rungs(trial)) == rungs]  # best first
        assert [left[trial][:2] for trial in own] == ends


def test_a_trial_is_compared_with_those_of_earlier_waves():
    scores = {0: 5.0, 1: 4.0, 2: 3.0}
    rule = prune(eta=3)
    assert rule.go_on(scores, []) == {0}
    assert rule.go_on(scores, [9.0, 9.0, 9.0]) == set()  # of six the best two, and both were earlier
    assert rule.go_on(scores, [0.0] * 6) == {0, 1, 2}
    assert rule.go_on(scores, [5.0, 0.0, 0.0]) == {0}  # of equal ones the earlier are better
    assert rule.go_on({0: np.inf, 1: np.inf}, [9.0]) == {0}


def test_a_trial_that_has_converged_is_not_pruned_and_keeps_its_place():
    rules = Rules((parse_criterion("eval>=5"),), "budget", prune=prune())
    left = left_with(scores_by_trial([9, 8, 7, 6, 1, 0, 2, 3]), rules)
    assert [left[trial][:2] for trial in range(8)] == [("converged", 7)] * 4 + [("pruned", 1)] * 4


def test_diverged_trials_are_the_first_to_go():
    readings = scores_by_trial([3, 2, 9, 9])
    readings.finite[2:] = False
    left = left_with(readings, Rules((), "budget", prune=prune()))
    assert [left[trial][:2] for trial in range(4)] == [
        ("budget", 7),
        ("pruned", 3),
        ("diverged", 0),
        ("diverged", 0),
    ]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
        return sweep(**PRUNED, out=tmp_path_factory.mktemp("sweep") / "pruned")


def weeded_out(data, rung, racing, places):
    """Of trials at a rung, by the curves: those not among the best `places`."""
    evals = data.curves[data.curves["env_steps"] <= rung].groupby(["trial", "seed"])["eval_return"].last()
    converged = data.lanes.set_index(["trial", "seed"])["converged_env_steps"] <= rung
    score = evals.groupby("trial").mean().where(~converged.groupby("trial").all(), np.inf)
    score[6] = -1e30  # it diverged
    ordered = sorted(racing, key=lambda trial: (-score[trial], trial))
    return {t for t in ordered[places:] if np.isfinite(score[t])}


def gone_at(data, rung):
    return set(data.lanes["trial"][(data.lanes["status"] == "pruned") & (data.lanes["env_steps"] == rung)])


def test_pruning_of_a_real_sweep_follows_its_evaluations(pruned):
    data = pruned.data
    assert set(data.lanes["status"]) >= {"pruned", "converged", "diverged"}
    racing = set(range(7))
    for rung in (136, 216):  # the first evaluations at or after 104 and 208
        weeded = weeded_out(data, rung, racing, -(-len(racing) // 2))
        assert gone_at(data, rung) == weeded - {6}
        racing -= weeded
    assert data.lanes[data.lanes["status"] == "pruned"]["env_steps"].isin([136, 216]).all()


def test_waves_are_compared_with_those_before_them(tmp_path, compiled, pruned):
    """One trial a wave: compared with nobody else, everybody would go on."""
    asked = {**PRUNED, "wave": 2}
    data = sweep(**asked, out=tmp_path / "sweep").data
    assert gone_at(data, 136)
    racing = []
    for trial in range(7):  # in their order
        racing.append(trial)
        assert (trial in gone_at(data, 136)) == (
            trial in weeded_out(data, 136, racing, -(-len(racing) // 2)) and trial != 6
        )
    # And the same after a crash in any of them, and from the tables alone as they were judged.
    died(tmp_path / "again", **asked, on_progress=crash_after(2, wave=3))
    assert_same_numbers(sweep(**asked, out=tmp_path / "again", resume=True).data, data)
    rules = definition.rules_of(data.settings)
    assert rules.prune.ladder() == [104, 208]
    found = scores_of(rules.prune, data.lanes, data.curves)
    assert [len(found[2, rung]) for rung in (104, 208)] == [7, 7 - len(gone_at(data, 136) | {6})]


def test_a_sweep_that_an_older_version_pruned_is_not_gone_on_with(tmp_path, compiled, monkeypatch):
    with monkeypatch.context() as patch:
        older = {"rule": "halving", "eta": 2}
        patch.setattr(runner, "define", lambda *a, **k: {**definition.define(*a, **k), "prune": older})
        patch.setattr(worker.Worker, "raced", lambda *_: {})
        died(tmp_path / "sweep", **PRUNED | {"wave": None}, on_progress=crash_after(1))
    with pytest.raises(runs.RunError, match=r"^prune: an older dqn_jax began this sweep"):
        sweep(**PRUNED, out=tmp_path / "sweep", resume=True)


def test_a_sweep_from_before_a_setting_goes_on_with_its_default(whole):
    asked = json.loads((whole.directory / "sweep.json").read_text())
    older = {**asked, "config": {k: v for k, v in asked["config"].items() if k != "epsilon_from"}}
    assert definition.as_begun(asked, asked) == asked
    assert definition.as_begun(asked, older) == older
    changed = {**asked, "config": {**asked["config"], "epsilon_from": "learning"}}
    assert definition.as_begun(changed, older) == changed


# -- checkpoints of a wave


def comparable(lanes):
    return jax.tree.map(np.asarray, lanes._replace(key=key_data(lanes.key)))


class Wave:
    """A wave of twelve lanes under way."""

    def __init__(self, config=CONFIG):
        self.programs = programs_of(config)
        self.rhythm, population = self.programs.driver.rhythm, self.programs.population
        self.layout = population.layout
        self.seeds = list(range(12))
        hparams = stack_hparams(HParams(epsilon_decay_steps=200), 12)
        self.hparams = self.layout.place(hparams)
        self.state, warmup = population.start(self.seeds, hparams)
        self.history = History(self.seeds, 2)
        self.history.add_warmup(self.layout.fetch(warmup, np.arange(12)))
        self.env_steps = self.rhythm.warmup_steps

    def go_on(self, chunks, alive):
        for _ in range(chunks):
            self.state, metrics = self.programs.population.chunk(
                jnp.int32(self.env_steps), self.state, self.hparams, self.layout.active(alive)
            )
            before, self.env_steps = self.env_steps, self.env_steps + self.rhythm.steps_per_chunk
            self.history.add(before, self.env_steps, 1.0, self.layout.fetch(metrics, alive), alive)

    def checkpoint(self, folder):
        apart = self.programs.driver.appends_rows
        return Checkpoints(folder, self.programs.population, rows_apart=apart, kept=1)

    def save(self, into, alive):
        into.save(self.env_steps, self.state, self.history.arrays(), alive)

    def assert_saved(self, folder, alive, warn=pytest.fail):
        """A new process finds what is in memory, for everybody who is still at work."""
        saved = self.checkpoint(folder).load(warn)
        assert saved.env_steps == self.env_steps
        np.testing.assert_array_equal(saved.at_work, alive)
        jax.tree.map(
            np.testing.assert_array_equal,
            comparable(saved.lanes),
            comparable(self.layout.fetch(self.state, alive)),
        )
        restored = History(self.seeds, 2)
        restored.restore(saved.arrays)
        for one, other in zip(restored.curves(), self.history.curves(), strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)


def rows_files(folder):
    return {
        path.name: (tuple(map(int, path.stem.split("-")[1:])), path.stat().st_mtime_ns)
        for path in sorted(folder.glob("rows/*.npz"))
    }


SOME_LEAVE = [(1, np.arange(12)), (1, np.arange(12)), (1, np.array([0, 3, 4, 7, 11])), (3, np.array([3, 7, 11]))]
SOME_LEAVE += [(1, np.array([3, 7])), (1, np.array([7]))]


POOL = {"env": "envpool:CartPole-v1", "lane_block": 5, "eval_episodes": 2, "pool_threads": 1, "max_episode_steps": 30}


@pytest.mark.parametrize(
    "changes",
    [{}, BLOCK_OF_ONE, POOL],
    ids=["a ring that wraps", "a ring that is never full", "pools of five lanes"],
)
def test_a_checkpoint_is_the_state_in_memory_and_writes_each_row_once(tmp_path, changes):
    config = fitted(dataclasses.replace(CONFIG, **changes))
    wave = Wave(config)
    checkpoint, rows, before = wave.checkpoint(tmp_path), -(-config.replay_capacity // 2), {}
    for chunks, alive in SOME_LEAVE:
        wave.go_on(chunks, alive)
        wave.save(checkpoint, alive)
        wave.assert_saved(tmp_path, alive)
        files = rows_files(tmp_path)
        added = wave.env_steps // 2
        covered = [row for (first, last), _ in files.values() for row in range(first, last)]
        assert len(covered) == len(set(covered))
        assert set(range(max(0, added - rows), added)) <= set(covered)
        assert len(covered) < 2 * rows + 20  # what is overwritten in the rings goes from the disk
        for name in before.keys() & files.keys():
            assert files[name] == before[name]  # untouched
        assert len(files.keys() - before.keys()) == 1
        assert len(list(tmp_path.glob("*.npz"))) == 1
        before = files
    assert (added > 5 * rows) == (changes is not BLOCK_OF_ONE)
    # A process that takes over appends in the same way.
    other = wave.checkpoint(tmp_path)
    other.load(pytest.fail)
    wave.go_on(1, np.array([7]))
    wave.save(other, np.array([7]))
    wave.assert_saved(tmp_path, np.array([7]))
    other.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"env": "ProbeLengths-test", "train_unit": "episodes", "train_every": 1, "total_episodes": 60}
        | {"replay_capacity": 5000},
        {"clear_replay": True, "train_every": 16},
    ],
    ids=["own rhythm", "replay thrown away"],
)
def test_a_checkpoint_holds_replays_that_do_not_only_grow(tmp_path, changes):
    wave = Wave(fitted(dataclasses.replace(CONFIG, **changes)))
    checkpoint = wave.checkpoint(tmp_path)
    for chunks, alive in [(1, np.arange(12)), (2, np.arange(1, 12, 2)), (1, np.array([5]))]:
        wave.go_on(chunks, alive)
        wave.save(checkpoint, alive)
        wave.assert_saved(tmp_path, alive)


def test_rows_without_the_state_that_goes_with_them_do_no_harm(tmp_path, monkeypatch):
    wave, alive = Wave(), np.arange(12)
    checkpoint = wave.checkpoint(tmp_path)
    wave.go_on(1, alive)
    wave.save(checkpoint, alive)
    kept = tmp_path.with_name("kept")
    shutil.copytree(tmp_path, kept)
    wave.go_on(1, alive)
    wave.save(checkpoint, alive)
    for path in tmp_path.glob("rows/*.npz"):  # as if the process had died between the two files
        shutil.copy(path, kept / "rows")
    again = Wave()
    again.go_on(1, alive)
    again.assert_saved(kept, alive)
    resumed = again.checkpoint(kept)
    resumed.load(pytest.fail)
    again.go_on(2, alive[::2])
    again.save(resumed, alive[::2])
    again.assert_saved(kept, alive[::2])


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "file.npz"
    arrays = {"alive": np.arange(3), "steps": np.asarray(7), "lane0000": np.ones((2, 2), np.float32)}
    write_arrays(path, arrays)
    content = path.read_bytes()
    noticed = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            found = read_arrays(path)
        except ValueError:
            noticed += 1
            continue
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert noticed > len(content) / 2


def test_no_damage_goes_unnoticed(tmp_path):
    wave, alive = Wave(), np.arange(12)
    checkpoint = wave.checkpoint(tmp_path / "whole")
    for _ in range(2):
        wave.go_on(1, alive)
        wave.save(checkpoint, alive)
    rng, noticed = np.random.default_rng(0), 0
    for path in sorted((tmp_path / "whole").rglob("*.npz")):
        content = path.read_bytes()
        cuts = [content[: len(content) // 2], b"", *_flipped(content, rng, 6)]
        for damaged in cuts:
            folder = tmp_path / "damaged"
            shutil.copytree(tmp_path / "whole", folder)
            (folder / path.relative_to(tmp_path / "whole")).write_bytes(damaged)
            messages = []
            saved = wave.checkpoint(folder).load(messages.append)
            if saved is None:
                assert len(messages) == 1
                assert "damaged" in messages[0]
                assert "\n" not in messages[0]
                noticed += 1
            else:  # a byte of zip's that nothing depends on
                wave.assert_saved(folder, alive)
            shutil.rmtree(folder)
    assert noticed > 12


def _flipped(content, rng, count):
    for place in rng.integers(len(content), size=count):
        data = bytearray(content)
        data[place] ^= 1 << rng.integers(8)
        yield bytes(data)


# -- a sweep that dies, and goes on


def died(out, **changes):
    with pytest.raises(CrashError):
        sweep(**{**ASKED, "wave": 6, "out": out, **changes})


def _chunks_of_first_wave(whole):
    return (whole.data.lanes["env_steps"][:6].max() - 16) // 40


@pytest.mark.parametrize("chunks", [1, 4, 9, 11])
def test_a_crash_after_any_chunk_costs_nothing(tmp_path, compiled, whole, chunks):
    died(tmp_path / "sweep", on_progress=crash_after(chunks))
    seen = []
    again = sweep(**ASKED, wave=6, out=tmp_path / "sweep", resume=True, on_progress=seen.append)
    assert_same_numbers(again.data, whole.data)
    for progress in seen:
        assert sum(progress.lanes.values()) + progress.running + progress.waiting == 12
    first = next(progress for progress in seen if progress.phase == "run")
    wave, done = divmod(chunks, _chunks_of_first_wave(whole))
    assert (first.wave, first.env_steps) == (wave, 16 + 40 * (done + 1))


def test_a_crash_between_a_record_and_its_checkpoint_runs_no_lane_again(tmp_path, compiled, monkeypatch, whole):
    saves, save = [], Checkpoints.save

    def dies(self, env_steps, lanes, arrays, at_work):
        if len(at_work) < 6 and saves:
            raise CrashError
        saves.append(env_steps)
        save(self, env_steps, lanes, arrays, at_work)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dies)
        died(tmp_path / "sweep", vary=("learning_rate=0.003,0.01",))
    recorded = open_store(tmp_path / "sweep").recorded()
    assert 0 < len(recorded) < 6
    watched = Watched(programs_of())
    monkeypatch.setattr(worker, "make_programs", lambda *_: watched.programs)
    again = sweep(**{**ASKED, "vary": ("learning_rate=0.003,0.01",)}, wave=6, out=tmp_path / "sweep", resume=True)
    lanes = [("search", trial, seed) for trial in range(2) for seed in range(3)]
    assert set(watched.advanced[0]) == {i for i, lane in enumerate(lanes) if lane not in recorded}
    for trial, seed in ((t, s) for t in range(2) for s in range(3)):
        for own, other in zip(numbers(again.data), numbers(whole.data), strict=True):
            pd.testing.assert_frame_equal(of_lane(own, trial, seed), of_lane(other, trial + 2, seed), check_exact=True)


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("lost", [False, True], ids=["", "checkpoint lost"])
def test_pruning_decides_the_same_after_a_crash(tmp_path, compiled, pruned, chunks, lost):
    died(tmp_path / "sweep", **PRUNED | {"wave": None}, on_progress=crash_after(chunks))
    if lost:
        shutil.rmtree(tmp_path / "sweep" / "units")
    assert_same_numbers(sweep(**PRUNED, out=tmp_path / "sweep", resume=True).data, pruned.data)


def damage_state(unit):
    path = next(unit.glob("*.npz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def damage_rows(unit):
    path = max(unit.glob("rows/*.npz"))
    path.write_bytes(path.read_bytes()[:-100])


def lose_rows(unit):
    max(unit.glob("rows/*.npz")).unlink()


@pytest.mark.parametrize("damage", [damage_state, damage_rows, lose_rows])
def test_a_damaged_checkpoint_starts_the_wave_again_with_the_same_numbers(tmp_path, compiled, whole, damage):
    died(tmp_path / "sweep", on_progress=crash_after(4))
    damage(tmp_path / "sweep" / "units" / "00000")
    messages = []
    again = sweep(**ASKED, wave=6, out=tmp_path / "sweep", resume=True, warn=messages.append)
    assert len(messages) == 1
    assert "damaged" in messages[0]
    assert "\n" not in messages[0]
    assert_same_numbers(again.data, whole.data)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from sweeping import ASKED
from dqn_jax.sweep import sweep, worker

worker._CHECKPOINT_SHARE = 1e9

def slowly(progress):
    print(progress.phase, progress.wave, progress.env_steps, flush=True)
    time.sleep(0.3)

sweep(**ASKED, wave=6, out=sys.argv[1], on_progress=slowly)
"""


@pytest.mark.parametrize("moment", ["run 0 136", "compile 1 0"], ids=["in a wave", "between waves"])
def test_kill_9_costs_nothing(tmp_path, monkeypatch, whole, moment):
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "sweep"), str(Path(__file__).parents[1])],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child, contextlib.suppress(ProcessLookupError):
        assert any(line.strip() == moment for line in child.stdout)
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    before = load_data(tmp_path / "sweep").lanes
    watched = Watched(programs_of())
    monkeypatch.setattr(worker, "make_programs", lambda *_: watched.programs)
    again = sweep(**ASKED, wave=6, out=tmp_path / "sweep", resume=True)
    assert again.finished
    assert_same_numbers(again.data, whole.data)
    # Whoever had finished did not run again: its row is the old one, seconds and all, and it is in no chunk.
    assert len(before) >= (6 if moment.startswith("compile") else 1)
    kept = again.data.lanes.merge(before[["trial", "seed"]])
    pd.testing.assert_frame_equal(kept, before, check_exact=True)
    ran = {3 * trial + seed for trial, seed in zip(before["trial"], before["seed"], strict=True)}
    assert not watched.advanced[0] & {lane % 6 for lane in ran if (lane < 6) == (len(before) < 6)}
    assert len(watched.advanced[0]) == 6 - len(before) % 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_chunk_and_the_sweep_goes_on_from_there(tmp_path, compiled, whole, number, capsys):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    steps = []

    def on_progress(progress):
        if progress.phase == "run":
            steps.append(progress.env_steps)
            if len(steps) == 2:
                os.kill(os.getpid(), number)

    stopped = sweep(**ASKED, out=tmp_path / "sweep", on_progress=on_progress)
    assert not stopped.finished
    assert steps == [56, 96]
    assert "stopping after this chunk" in capsys.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [state for _, state in open_store(tmp_path / "sweep").waves()] == ["waiting"]
    again = sweep(**ASKED, out=tmp_path / "sweep", resume=True, on_progress=lambda p: steps.append(p.env_steps))
    assert again.finished
    assert steps[2:4] == [0, 136]
    assert_same_numbers(again.data, whole.data)


def test_a_finished_sweep_has_nothing_left_to_do(tmp_path, compiled, whole):
    folder = tmp_path / "sweep"
    shutil.copytree(whole.directory, folder)
    again = sweep(**ASKED, out=folder, resume=True)
    assert again.finished
    assert compiled == []
    for name in ("lanes", "curves"):
        pd.testing.assert_frame_equal(getattr(again.data, name), getattr(whole.data, name), check_exact=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": ("learning_rate=0.0003,0.001",)}, r"vary\.learning_rate: this sweep has 0\.0003,.*, not 0\.0003,0"),
        ({"vary": (*VARY, "discount=0.9,0.99")}, r"vary\.discount: this sweep has nothing, not 0\.9,0\.99"),
        ({"seeds": 2}, r"seeds: this sweep has 0, 1, 2, not 0, 1;"),  # more of them would be lanes beside these
        ({"num_envs": 4, "discount": 0.5}, r"config\.num_envs: .*has 2, not 4 \(and 1 more settings differ\)"),
        ({"stop": "budget"}, "stop: this sweep has converged, not budget"),
        ({"prune": "halving"}, "prune"),
        ({"lane_block": 1}, r"config\.lane_block: this sweep has 0, not 1"),  # other blocks have other bits
    ],
    ids=str,
)
def test_a_sweep_goes_on_only_as_it_was_asked(compiled, whole, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sweep(**{**ASKED, **changes}, out=whole.directory, resume=True)
    assert "\n" not in str(caught.value)


def test_a_sweep_asks_for_what_it_was_asked_to_the_last_digit():
    asked = {**ASKED, "criteria": ("eval>=16926.55", "train5>=0.1234567891")}
    definitions = []
    sweep(**asked, out="nowhere", on_plan=lambda plan, definition: bool(definitions.append(definition)))
    assert definitions[0]["criteria"] == list(asked["criteria"])
    thresholds = [criterion.threshold for criterion in definition.rules_of(definitions[0]).criteria]
    assert thresholds == [16926.55, 0.1234567891]


def test_what_varies_is_not_fixed_too():
    with pytest.raises(
        ConfigError, match=r"^discount: it is given one value and varies too; leave out --discount, or "
    ):
        sweep(**{**ASKED, "vary": ("discount=0.9,0.99",)}, discount=0.9, out="nowhere")


def test_two_processes_do_not_run_one_sweep(compiled, whole):
    with (
        open_store(whole.directory).lock(),
        pytest.raises(ConfigError, match=rf"^sweep: .*whole is being run by process {os.getpid()}; [^\n]*$"),
    ):
        sweep(**ASKED, out=whole.directory, resume=True)


def test_an_occupied_folder_is_left_alone(compiled, whole):
    before = sorted(whole.directory.rglob("*"))
    with pytest.raises(ConfigError, match="is not empty"):
        sweep(**ASKED, out=whole.directory)
    assert sorted(whole.directory.rglob("*")) == before


def test_no_sweep_to_go_on_with_is_said(tmp_path, compiled):
    with pytest.raises(ConfigError, match="is not a sweep"):
        sweep(**ASKED, out=tmp_path / "nowhere", resume=True)
    with pytest.raises(ConfigError, match="holds no sweep"):
        sweep(**ASKED, root=tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_the_newest_sweep_of_that_name_goes_on(tmp_path, compiled, whole):
    for chunks in (2, 3):
        died(None, root=tmp_path, on_progress=crash_after(chunks))
    older, newer = sorted((tmp_path / ENV).iterdir())
    again = sweep(**ASKED, root=tmp_path, resume=True)
    assert again.directory == newer
    assert_same_numbers(again.data, whole.data)
    assert load_data(older).lanes.shape[0] < 12


# -- what is drawn


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_points_drawn_are_those_of_the_space(tmp_path, compiled, sampler):
    vary = ("learning_rate=log(1e-4,1e-2)", "target_period=int(1,9)")
    asked = {**ASKED, "vary": vary, "sampler": sampler, "samples": 3, "sample_seed": 5}
    data = sweep(**asked, out=tmp_path / "sweep").data
    drawn = points(parse_space(vary), sampler, 3, 5)
    assert data.trials.to_dict("records") == drawn
    assert list(data.lanes["seed"]) == [0, 1, 2] * 3
    assert data.settings["sampler"] == sampler
    assert len(compiled) == 1


def test_lists_make_a_grid_and_ranges_a_sobol_sequence(tmp_path, compiled):
    definitions = []

    def only_look(plan, definition):
        definitions.append(definition["sampler"])
        return False

    for vary, samples in ((VARY, None), (VARY, 2), (("learning_rate=log(1e-4,1e-2)",), 2)):
        result = sweep(**{**ASKED, "vary": vary}, samples=samples, on_plan=only_look, out=tmp_path / "sweep")
        assert not result.finished
    assert definitions == ["grid", "sobol", "sobol"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_adaptive_samplers_go_on_from_what_they_found(tmp_path, compiled, sampler):
    vary = ("learning_rate=log(1e-4,1e-1)", "discount=uniform(0.5,0.99)")
    asked = {**ASKED, "vary": vary, "seeds": 2, "sampler": sampler, "samples": 6, "batch": 3}
    data = sweep(**asked, out=tmp_path / "whole").data
    assert len(data.trials) == 6
    assert data.trials.drop_duplicates().shape == (6, 2)
    assert len(data.lanes) == 12
    waves = [wave for wave, _ in open_store(tmp_path / "whole").waves()]
    assert [sorted({trial for trial, _ in wave.lanes}) for wave in waves] == [[0, 1, 2], [3, 4, 5]]
    died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(2, wave=1))
    resumed = sweep(**asked, out=tmp_path / "sweep", resume=True)
    assert_same_numbers(resumed.data, data)
    assert len(compiled) <= 3  # one program for all batches, and once more after the crash


def test_what_is_left_out_or_static_makes_programs_of_its_own(tmp_path, compiled):
    vary = ("max_grad_norm=none,0.1", "hidden=8,16", "learning_rate=0.003,0.01")
    asked = {name: value for name, value in ASKED.items() if name != "hidden"}
    data = sweep(**{**asked, "vary": vary, "seeds": 2}, out=tmp_path / "sweep").data
    assert len(compiled) == 4
    assert data.plan["programs"] == 4
    assert data.plan["programs_because_of"] == {"hidden": 2, "max_grad_norm": 2}
    assert [group["settings"] for group in data.plan["groups"]] == [
        {"hidden": width, "max_grad_norm": norm} for norm in (None, 0.1) for width in ([8], [16])
    ]
    assert [group["lanes"] for group in data.plan["groups"]] == [4] * 4
    assert data.trials.to_dict("records") == [
        {"max_grad_norm": norm, "hidden": hidden, "learning_rate": rate}
        for norm in (None, 0.1)
        for hidden in ((8,), (16,))
        for rate in (0.003, 0.01)
    ]
    own = data.curves.drop(columns=["trial", "seconds"])
    first = own[data.curves["trial"] == 0].reset_index(drop=True)
    for trial in range(1, 8):
        assert not own[data.curves["trial"] == trial].reset_index(drop=True).equals(first)
    ranked(data)


# -- confirmation


def test_the_best_are_confirmed_once_on_seeds_held_out_and_from_other_starts(tmp_path, compiled):
    asked = {**ASKED, "confirm": 2, "confirm_best": 2, "prune": "halving", "prune_eta": 4, "criteria": ("eval>=2",)}
    died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(1, wave=1))  # in the confirmation
    data = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    held_out = lanes_of_confirmation(data)
    best = list(ranked(data)["trial"].head(2))
    assert sorted(zip(held_out["trial"], held_out["seed"], strict=True)) == sorted(
        (trial, seed) for trial in best for seed in (10_000_000, 10_000_001)
    )
    assert set(data.lanes["status"][data.lanes["phase"] == "search"]) == {"budget", "pruned"}
    assert (held_out["status"] == "budget").all()  # what is confirmed is measured to its end
    assert [config.eval_seed for config in compiled] == [1_000_003, 3_000_003, 3_000_003]
    again = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    pd.testing.assert_frame_equal(again.lanes, data.lanes, check_exact=True)
    assert list(data.lanes["phase"]) == sorted(data.lanes["phase"], reverse=True)  # search first
    # One held-out seed chooses, and the other is reported.
    assert halves(data.settings) == ([10_000_000], [10_000_001])
    for phase, seed in (("choice", 10_000_000), ("confirm", 10_000_001)):
        table = ranked(data, phase=phase).set_index("trial")
        for lane in held_out[held_out["seed"] == seed].to_dict("records"):
            assert table["lanes"][lane["trial"]] == 1
            assert table["time"][lane["trial"]] == (lane["converged_env_steps"] if lane["converged"] else 416)

    assert_networks_are_those_of(tmp_path / "sweep", held_out)


def assert_networks_are_those_of(folder, held_out):
    """Played from the starts of the confirmation, they score what is recorded: to the last bit."""
    assert len(list((folder / "networks").rglob("*.npz"))) == len(held_out)
    for trial, own in held_out.groupby("trial"):
        winner = winners.load(folder, trial)
        own = own[own["seed"].isin(winner.settings.seeds)]
        played = winner.driver.play(winner.params, episodes=8, epsilon=0.0, seed=3_000_003)
        np.testing.assert_array_equal(np.asarray(played.returns).mean(axis=1), own["final_return"])
        np.testing.assert_array_equal(winner.eval_return, own["final_return"])
        np.testing.assert_array_equal(winner.env_steps, own["env_steps"])


def lanes_of_confirmation(data):
    return data.lanes[data.lanes["phase"] == "confirm"]


def test_the_networks_of_confirmed_lanes_are_kept_whenever_they_leave_and_whoever_dies(tmp_path, compiled):
    asked = {**ASKED, "vary": ("learning_rate=0.0003",), "seeds": 1, "confirm": 4, "confirm_best": 1}
    out = tmp_path / "sweep"

    def crash(progress):
        if progress.wave == 1 and progress.phase == "run" and progress.running < 4:
            raise CrashError

    died(out, **asked | {"wave": None}, on_progress=crash)
    before = {(trial, seed) for phase, trial, seed in open_store(out).recorded() if phase == "confirm"}
    assert 0 < len(before) < 4
    assert all(winners.path_of(out, *lane).is_file() for lane in before)
    data = sweep(**asked, out=out, resume=True).data
    held_out = lanes_of_confirmation(data)
    assert held_out["env_steps"].nunique() > 1
    assert_networks_are_those_of(out, held_out)
    # A single finalist is reported on all of its seeds.
    table = ranked(data, phase="confirm")
    assert (table["trial"].tolist(), table["lanes"].tolist()) == (list(ranked(data)["trial"][:1]), [4])
    winner = winners.load(out)
    assert winner.settings.seeds == tuple(held_out["seed"])
    assert winner.settings.hparams.learning_rate == RATES[winner.trial]
    with pytest.raises(ConfigError, match=r"^trial: .* confirmed \d, not 77"):
        winners.load(out, 77)
    path = winners.path_of(out, winner.trial, 10_000_002)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=r"^run: .*seed-10000002.npz is damaged"):
        winners.load(out)
    path.unlink()
    with pytest.raises(ConfigError, match=r"^run: .* does not have the networks of trial \d, seed 10000002: "):
        winners.load(out)


def test_a_sweep_that_confirms_nothing_keeps_no_networks(whole):
    assert not (whole.directory / "networks").exists()
    with pytest.raises(ConfigError, match=r"^run: .* keeps no networks: .*--resume --confirm 10"):
        winners.load(whole.directory)


def test_a_sweep_begun_with_other_held_out_seeds_goes_on_with_them(tmp_path, compiled, monkeypatch):
    asked = {**ASKED, "seeds": 1, "confirm": 3, "confirm_best": 2}
    before = {"seeds": [1_000_000, 1_000_001, 1_000_002], "best": 2, "by": ["env_steps"]}
    with monkeypatch.context() as patch:
        patch.setattr(runner, "define", lambda *a, **k: {**definition.define(*a, **k), "confirm": before})
        died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(1))
    data = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    assert sorted(set(lanes_of_confirmation(data)["seed"])) == before["seeds"]
    assert {config.eval_seed for config in compiled} == {1_000_003}  # and from the starts of the search
    assert ranked(data, phase="confirm")["lanes"].tolist() == [3, 3]
    with pytest.raises(ConfigError, match=r"confirm\.seeds: this sweep has 1000000"):
        sweep(**asked | {"confirm": 4}, out=tmp_path / "sweep", resume=True)


def test_no_stream_is_drawn_twice():
    """Seeds of evaluation starts are those of no lane, whatever is asked."""
    starts = {Config.eval_seed, options.Evaluate.eval_seed, definition._CONFIRM_EVAL_SEED}
    assert len(starts) == 3
    for count in (1, 100, definition._MOST_CONFIRM):
        held_out = range(definition._CONFIRM_SEED, definition._CONFIRM_SEED + count)
        assert not starts & set(held_out)
    assert held_out[-1] < 2**31


# -- the plan


def test_a_lane_takes_what_its_arrays_take():
    loop = make_loop(CONFIG)
    weights = 1 * 8 + 8 + 8 * 2 + 2
    transition = 4 * 5  # observation, action, reward, discount, next observation, of four bytes each
    fixed = lane_bytes(CONFIG, HParams()) - _replay_bytes(loop, 20)
    assert _replay_bytes(loop, 20) == 20 * 2 * transition
    # Parameters, target, and Adam's two moments; what is left are counters and readings.
    readings = 2 * (3 * 4 + 1 + 20 * 4 + 20 * 4 + 20 * 2 * 4 + 8 * 4 + 8 * 4)
    assert 0 < fixed - 4 * (4 * weights) - readings < 120
    larger = dataclasses.replace(CONFIG, replay_capacity=400)
    assert lane_bytes(larger, HParams()) - lane_bytes(CONFIG, HParams()) == 180 * 2 * transition


def _replay_bytes(loop, rows):
    state, _ = jax.eval_shape(loop.start, jnp.int32(0), jax.tree.map(lambda x: x[0], stack_hparams(HParams(), 1)))
    leaves = jax.tree.leaves(state.replay.storage)
    assert all(leaf.shape[:2] == (rows, 2) for leaf in leaves)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def planned(vary=VARY, seeds=3, **options):
    space = parse_space(vary)
    preset = dqn_jax.presets.with_overrides(dqn_jax.presets.resolve_preset(ENV), TINY)
    groups = compile_groups(preset, space, points(space, "grid"))
    return make_plan(space, groups, range(seeds), **options)


@pytest.mark.parametrize(
    ("seeds", "wave", "sizes"),
    [
        (3, None, [12]),
        (3, 12, [12]),
        (3, 11, [6, 6]),  # nine would fit, but then three would be left
        (3, 7, [6, 6]),
        (3, 5, [3, 3, 3, 3]),
        (3, 2, [2] * 6),  # fewer than a trial's seeds
        (5, 8, [5, 5, 5, 5]),
        (5, 19, [10, 10]),
        (2, 5, [4, 4]),
        (1, 3, [2, 2]),
    ],
)
def test_waves_are_equal_and_of_whole_trials(seeds, wave, sizes):
    (group,) = planned(seeds=seeds, wave=wave).groups
    assert [len(lanes) for lanes in group.waves] == sizes
    assert group.capacity == max(sizes)
    together = [lane for wave in group.waves for lane in wave]
    assert together == [(trial, seed) for trial in range(4) for seed in range(seeds)]
    if max(sizes) >= seeds:
        trials = [{trial for trial, _ in lanes} for lanes in group.waves]
        assert sum(map(len, trials)) == 4


def test_memory_bounds_the_waves():
    size = planned().groups[0].bytes_per_lane
    for memory, capacity in ((12 * size, 12), (12 * size - 1, 6), (3 * size, 3), (3 * size - 1, 2), (size, 1)):
        plan = planned(memory=memory)
        assert plan.groups[0].capacity == capacity
        assert plan.peak_bytes <= plan.memory == memory
    with pytest.raises(ConfigError, match=r"^memory: one lane takes [\d.]+ kB and there are [\d.]+ kB; lower [^\n]*$"):
        planned(memory=size - 1)


@pytest.mark.parametrize(("host", "device"), [(10**9, 10**8), (10**8, 10**9)])
def test_replays_in_two_places_share_the_smaller_memory(monkeypatch, host, device):
    devices = jax.local_devices()
    monkeypatch.setattr(plans, "host_device", lambda: "host")
    monkeypatch.setattr(plans, "free_memory", lambda places: {"host": host, devices[0]: device}[places[0]])
    monkeypatch.setattr(plans, "lane_bytes", lambda config, hparams: 1000)
    space = parse_space(["replay_memory=device,host"])
    preset = dqn_jax.presets.with_overrides(dqn_jax.presets.resolve_preset("envpool:CartPole-v1"), TINY)
    groups = compile_groups(preset, space, points(space, "grid"))
    assert make_plan(space, groups, range(3)).memory == int(0.7 * 10**8)
    for group, free in zip(groups, (device, host), strict=True):
        assert make_plan(space, [group], range(3)).memory == int(0.7 * free)


def test_the_plan_says_which_setting_makes_programs():
    plan = planned(("batch_size=4,8,16", "discount=0.5,0.9", "dueling=true,false"), wave=6)
    assert plan.programs_because_of == {"batch_size": 3, "dueling": 2}
    lines = describe(plan, {"seeds": [0, 1, 2]})
    assert "12 trials x 3 seeds = 36 lanes on 2 x cpu; 6 programs to compile" in lines[0]
    assert lines[1] == (
        "programs differ by: batch_size (3 values), dueling (2 values); everything else varies within a program"
    )
    assert lines[2].startswith("  batch_size=4, dueling=true: 2 trials, 6 lanes in 1 wave of up to 6, ")
    assert lines[8] == "at most 14,976 environment steps over all lanes; fewer, as lanes leave before their budget ends"
    assert len(lines) == 9
    assert [line for line in describe(planned(), {"seeds": [0, 1, 2]}) if "differ" in line] == []
    listed = plan.as_json()
    assert listed["groups"][0]["settings"] == {"batch_size": 4, "dueling": True}
    assert (listed["programs"], len(listed["groups"])) == (6, 6)
    json.dumps(listed)


def test_the_plan_tells_the_confirmation_and_all_steps():
    asked = {"seeds": [0, 1, 2], "confirm": {"seeds": list(range(10)), "best": 2, "by": ["env_steps", "updates"]}}
    plan = planned(("batch_size=4,8", "discount=0.5,0.9,0.99"), wave=6)
    confirmation = plan.confirmation(asked)
    # Four finalists of two programs: at worst two of each, in four waves of up to six.
    assert confirmation == (4, 40, 2 * -(-20 // 6), 2, 40 * 416)
    lines = describe(plan, asked)
    assert lines[-2] == (
        "then the best again on 10 held-out seeds: up to 4 trials, 40 lanes in 8 waves, 2 more programs"
    )
    assert lines[-1].startswith(f"at most {(6 * 3 + 40) * 416:,} environment steps over all lanes")
    assert plan.confirmation({**asked, "samples": 3}).trials == 3
    assert planned().confirmation({"seeds": [0], "confirm": None}).lanes == 0


def test_time_is_estimated_from_what_ran_here_or_is_measured(tmp_path, compiled, whole):
    plan, asked = planned(), {**whole.data.settings, "confirm": None}
    assert estimate.recorded(tmp_path, asked, plan) is None
    shutil.copytree(whole.directory, tmp_path / "tiny" / "1")
    (session,) = json.loads((whole.directory / "plan.json").read_text())["sessions"]
    rate = session["lane_steps"] / (session["seconds"] - session["compile_seconds"])
    speed = estimate.recorded(tmp_path, asked, plan)
    assert speed.lane_steps_per_second == pytest.approx((rate, rate))
    assert speed.source == f"as in 1 earlier sweep of {ENV} in {tmp_path}"
    elsewhere = {**asked, "config": {**asked["config"], "env": "CartPole-v1"}}
    assert estimate.recorded(tmp_path, elsewhere, plan) is None
    (tmp_path / "tiny" / "1" / "plan.json").write_text("{}")
    assert estimate.recorded(tmp_path, asked, plan) is None
    text = estimate.describe(plan, asked, estimate.Speed((10.0, 41.6), 30.0, "so"))
    assert text == "time: at most about 2.5 min to 8.8 min (estimated so)"  # 4,992 steps and a program
    assert "not known" in estimate.describe(plan, asked, None)


def test_one_chunk_is_measured_where_nothing_has_run(monkeypatch):
    monkeypatch.setattr(estimate, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
    slow, fast = estimate.measured(planned()).lane_steps_per_second
    assert 0 < slow < fast
    monkeypatch.setattr(estimate, "_MOST_WORK", 10.0)
    assert estimate.measured(planned()) is None


def test_a_replay_is_cut_to_what_it_can_hold():
    assert fitted(dataclasses.replace(CONFIG, replay_capacity=10**9)).replay_capacity == 416
    assert fitted(CONFIG) == CONFIG
    short = dataclasses.replace(CONFIG, replay_capacity=10**9, total_steps=16, min_replay=16, batch_size=500)
    assert fitted(short).replay_capacity == 500  # a batch must fit


# -- the live display's numbers


def test_progress_adds_up(tmp_path, compiled, whole):
    seen = []
    result = sweep(**ASKED, wave=6, out=tmp_path / "sweep", on_progress=seen.append)
    assert [p.wave for p in seen if p.phase == "compile"] == [0, 1]
    assert {p.waves for p in seen} == {2}
    for progress in seen:
        assert sum(progress.lanes.values()) + progress.running + progress.waiting == 12
        assert set(progress.lanes) <= set(STATUSES)
        assert progress.total_steps in (1, 416)
    counts = result.data.lanes["status"].value_counts().to_dict()
    assert {status: n for status, n in seen[-1].lanes.items() if n} == counts
    assert (seen[-1].running, seen[-1].waiting, seen[-1].seconds_left) == (0, 0, 0)
    best = ranked(result.data).iloc[0]
    assert seen[-1].best == ({"learning_rate": best["learning_rate"]}, pytest.approx(best["time"]))
    assert all(p.lane_steps_per_second > 0 and p.seconds_left >= 0 for p in seen if p.phase == "run")


def test_curves_of_lanes_that_left_hold_only_their_own_chunks():
    readings = Readings(3)
    history, alive = readings.history(), np.arange(6)
    for chunk in range(4):
        readings.feed(history, chunk, alive)
        alive = alive[:-1]
    table = curve_rows([readings.lanes[i] for i in (5, 2)], "search", history, np.array([5, 2]))
    assert list(table["env_steps"]) == [56, 56, 96, 136, 176]
    np.testing.assert_array_equal(table["eval_return"], [readings.eval[5, 0], *readings.eval[2, :4]])
    assert list(table["seed"]) == [1, 0, 0, 0, 0]
