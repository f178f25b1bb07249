"""When lanes leave: each in the chunk that its whole curve says, and hopeless trials at their rungs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping import (
    ASKED,
    assert_same_numbers,
    crash_after,
    died,
    of_lane,
    programs_of,
    prune,
)
from sweeping import compiled as compiled  # a fixture

from dqn_jax.config import HParams, RunError
from dqn_jax.convergence import parse_criterion, stability, time_to
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import ChunkMetrics, WarmupMetrics
from dqn_jax.sweep import definition, runner, sweep, worker
from dqn_jax.sweep.judge import LaneJudge, Rules
from dqn_jax.sweep.pruning import scores_of
from dqn_jax.sweep.wave import WaveLane, curve_rows, lane_row

PRUNED = {**ASKED, "vary": ("learning_rate=0.0003,0.001,0.003,0.01,0.03,0.0001,1e30",), "seeds": 2}


PRUNED |= {"criteria": ("eval>=1x2",), "prune": "halving", "prune_eta": 2}


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


@given(
    st.integers(0, 10_000), st.sampled_from(["settled>=1", "settled60%>=1"]), st.sampled_from(["converged", "budget"])
)
def test_nobody_leaves_before_the_end_for_having_settled(seed, text, stop):
    """Whatever `stop` says; what became of a lane is what its whole curve says, and diverging ends it as ever."""
    readings, criterion = Readings(seed), parse_criterion(text)
    for i, (status, chunk, row, curve) in left_with(readings, Rules((criterion,), stop)).items():
        diverges = int(np.argmin(np.append(readings.finite[i], False)))
        assert chunk == min(diverges, CHUNKS - 1)
        moment = time_to(criterion, curve)
        assert status == ("diverged" if diverges < CHUNKS else "budget" if moment is None else "converged")
        assert row["converged"] == (moment is not None)
        assert not (row["converged"] and diverges < CHUNKS)


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


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("lost", [False, True], ids=["", "checkpoint lost"])
def test_pruning_decides_the_same_after_a_crash(tmp_path, compiled, pruned, chunks, lost):
    died(tmp_path / "sweep", **PRUNED | {"wave": None}, on_progress=crash_after(chunks))
    if lost:
        shutil.rmtree(tmp_path / "sweep" / "units")
    assert_same_numbers(sweep(**PRUNED, out=tmp_path / "sweep", resume=True).data, pruned.data)


def test_a_sweep_that_an_older_version_pruned_is_not_gone_on_with(tmp_path, compiled, monkeypatch):
    with monkeypatch.context() as patch:
        older = {"rule": "halving", "eta": 2}
        patch.setattr(runner, "define", lambda *a, **k: {**definition.define(*a, **k), "prune": older})
        patch.setattr(worker.Worker, "raced", lambda *_: {})
        died(tmp_path / "sweep", **PRUNED | {"wave": None}, on_progress=crash_after(1))
    with pytest.raises(RunError, match=r"^prune: an older dqn_jax began this sweep"):
        sweep(**PRUNED, out=tmp_path / "sweep", resume=True)


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
