"""The tables of a sweep: the numbers of its ranking, worked out by hand."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import synthetic
from reporting import END, HAND, confirmed
from synthetic import lane, sweep_of

from dqn_jax import convergence
from dqn_jax.config import ConfigError
from dqn_jax.sweep import results, tables


def test_the_ranked_table_has_the_numbers_worked_out_by_hand():
    table = results.ranked(sweep_of(HAND)).set_index("trial")
    assert table.index.tolist() == [0, 1, 2]
    assert table["rank"].tolist() == [1, 2, 3]
    # 1: a diverged seed counts with the whole horizon. 2: at 40,000 two are still watched, one of which converges then.
    assert table["time"].tolist() == pytest.approx([30_000, (50_000 + END) / 3, 40_000 + 0.5 * (END - 40_000)])
    assert table["share"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert table[["converged", "diverged", "pruned"]].to_numpy().tolist() == [[3, 0, 0], [2, 1, 0], [1, 0, 1]]
    assert table.loc[1, ["share_low", "share_high"]].tolist() == pytest.approx(convergence.share_interval([1, 0, 1]))
    low, high = table.loc[0, ["time_low", "time_high"]]
    assert 0 < low < 30_000 < high < END
    assert table["stability"].tolist() == pytest.approx([0.75, 0.8, 0.6])
    assert table.loc[0, "final"] == pytest.approx(485.0)
    assert table.loc[0, "worst"] == pytest.approx(481.0)
    assert np.isnan(table.loc[2, "final"])  # a pruned seed has no final return, so the trial has none
    assert table["device_seconds"].tolist() == [30, 30, 30]


def test_the_interval_of_a_share_stays_within_it():
    lanes = [lane(0, seed, converged_env_steps=20_000, stability=s) for seed, s in enumerate([1.0, 0.4, 1.0, 1.0])]
    row = results.ranked(sweep_of(lanes)).iloc[0]
    assert 0.0 <= row["stability_low"] < row["stability"] < row["stability_high"] <= 1.0


def test_a_diverged_seed_has_the_lowest_score_and_area_of_the_sweep():
    data = sweep_of(HAND)
    lowest = float(data.curves["eval_return"].min())
    lanes = results.with_scores(data)
    diverged = lanes[lanes["status"] == "diverged"].iloc[0]
    assert (diverged["score"], diverged["area"]) == (lowest, pytest.approx(lowest))
    assert np.isnan(lanes.loc[lanes["status"] == "pruned", ["score", "area"]].to_numpy()).all()
    own = data.curves[(data.curves["trial"] == 0) & (data.curves["seed"] == 0)]
    area = np.trapezoid(own["eval_return"], own["env_steps"]) / (END - synthetic.EVAL_EVERY)
    assert lanes["area"][0] == pytest.approx(area)


def test_other_clocks_rank_by_their_own_times():
    lanes = [
        lane(0, 0, converged_env_steps=20_000, device_seconds=50.0),  # 10 device-seconds
        lane(1, 0, converged_env_steps=40_000, device_seconds=10.0),  # 4
        lane(2, 0, device_seconds=20.0),
    ]
    data = sweep_of(lanes)
    assert results.ranked(data)["trial"].tolist() == [0, 1, 2]
    by_seconds = results.ranked(data, "seconds").set_index("trial")
    assert by_seconds["time"].to_dict() == pytest.approx({1: 4.0, 0: 10.0, 2: 20.0})  # what it spent itself
    assert list(by_seconds.index) == [1, 0, 2]
    assert results.ranked(data, "updates").set_index("trial")["time"].to_dict() == {0: 2500, 1: 5000, 2: 12_500}
    assert by_seconds[["time_low", "time_high", "final_low"]].isna().all(axis=None)  # one seed has no interval
    with pytest.raises(ConfigError, match="Did you mean 'env_steps'"):
        results.ranked(data, "env_step")


@pytest.mark.parametrize("clock", tables.RANKINGS)
def test_the_numbers_of_a_trial_do_not_depend_on_other_trials(clock):
    """A third trial, dearer than both, must not decide the order of two."""
    two = [
        lane(0, 0, converged_env_steps=20_000, device_seconds=9.0),
        lane(0, 1, device_seconds=10.0),
        lane(1, 0, converged_env_steps=60_000, device_seconds=10.0),
        lane(1, 1, converged_env_steps=60_000, device_seconds=10.0),
    ]
    third = [lane(2, s, device_seconds=1000.0, episodes=900_000, updates=900_000, final_return=100.0) for s in (0, 1)]
    alone, beside = (
        results.ranked(sweep_of(lanes), clock).set_index("trial").drop(columns="rank") for lanes in (two, two + third)
    )
    assert alone.index.tolist() == [trial for trial in beside.index if trial != 2]
    pd.testing.assert_frame_equal(alone, beside.loc[alone.index])


def test_settings_whose_failures_are_cheap_do_not_lead():
    lanes = [
        *(lane(0, s, converged_env_steps=50_000, device_seconds=8.0) for s in range(3)),  # 4 seconds each
        lane(1, 0, converged_env_steps=50_000, device_seconds=4.0),
        *(lane(1, s, device_seconds=4.0) for s in (1, 2)),  # less on average, but two of three fail
        *(lane(2, s, device_seconds=0.1) for s in range(3)),
    ]
    table = results.ranked(sweep_of(lanes), "seconds")
    assert table["trial"].tolist() == [0, 1, 2]
    assert table["per_solved"].tolist() == pytest.approx([4.0, 10.0, np.inf])
    assert table["time"].tolist() == pytest.approx([4.0, 10 / 3, 0.1])


def test_a_lane_is_charged_its_own_cost_of_the_whole_budget():
    lanes = [
        lane(0, 0, converged_env_steps=20_000, env_steps=20_000, device_seconds=2.0, status="converged"),
        lane(0, 1, device_seconds=8.0),
        lane(0, 2, status="diverged", env_steps=25_000, device_seconds=3.0),
        lane(1, 0, status="pruned", env_steps=10_000, device_seconds=1.0),
        lane(1, 1, converged_env_steps=50_000, device_seconds=10.0),
        lane(1, 2, converged_env_steps=50_000, device_seconds=10.0),
    ]
    data = sweep_of(lanes)
    assert results.budgets(data.lanes, "seconds", END).tolist() == [10.0, 8.0, 12.0, 10.0, 10.0, 10.0]
    assert results.budgets(data.lanes, "env_steps", END).tolist() == [END] * 6
    times, _, _ = results.outcomes(data.lanes, "seconds", END)
    assert times.tolist() == [2.0, 8.0, 12.0, 1.0, 5.0, 5.0]
    table = results.ranked(data, "seconds").set_index("trial")
    assert table.loc[0, "time"] == pytest.approx((2 + 8 + 12) / 3)
    assert table.loc[0, "per_solved"] == pytest.approx(2 + 8 + 12)
    assert table.loc[0, "per_solved_low"] < 22 < table.loc[0, "per_solved_high"]
    assert table.loc[1, "per_solved"] == pytest.approx(5.5)  # what they took


def test_final_returns_rank_only_where_every_lane_had_its_budget():
    data = sweep_of(HAND)
    assert results.ranked(data, "final_return")["trial"].tolist() == [0, 1, 2]
    cut = sweep_of(HAND, stop="converged")
    assert results.ranked(cut)[["final", "worst", "area"]].isna().all(axis=None)
    with pytest.raises(ConfigError, match="rank by a time"):
        results.ranked(cut, "final_return")


def test_of_trials_that_never_converged_the_better_evaluations_come_first():
    data = sweep_of([lane(t, s, final_return=r) for t, r in enumerate((50.0, 90.0, 70.0)) for s in range(2)])
    assert results.ranked(data)["trial"].tolist() == [1, 2, 0]
    assert results.ranked(data)["time"].tolist() == [END] * 3


def test_without_seeds_that_choose_the_leader_of_the_search_is_reported():
    data = confirmed((60_000, 50_000), (60_000, 50_000), choosing=0)
    assert results.ranked(data, phase="confirm")["trial"].tolist() == [0, 1]
    assert results.ranked(data, phase="confirm")["lanes"].tolist() == [8, 8]


def test_a_thousand_trials_would_rank_in_seconds():
    data = synthetic.sweep(200, confirm=False)
    start = time.process_time()
    assert len(results.ranked(data)) == 200
    assert time.process_time() - start < 4  # about 0.7 on one slow core
