"""Sweeps by other criteria than they ran with: settling read off what was recorded, by hand and against naive loops."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from reporting import write_run
from sweeping import ASKED, ENV, programs_of
from sweeping import compiled as compiled  # a fixture
from synthetic import lane, sweep_of

from dqn_jax.config import ConfigError
from dqn_jax.convergence import parse_criteria
from dqn_jax.sweep import results, sweep
from dqn_jax.sweep.rejudged import judged, rejudged, settling_of, with_settling

END = 100_000
STEP = 20_000


def sweep_with(returns, statuses=None, **settings):
    """Lanes (trial, seed) with these evaluations, one each 20,000 steps; criteria eval>=5 unless settings say so."""
    rows, parts = [], []
    for (trial, seed), own in returns.items():
        status = (statuses or {}).get((trial, seed), "budget")
        steps = STEP * np.arange(1, len(own) + 1)
        good = np.flatnonzero(np.array(own) >= 5)
        at = float(steps[good[0]]) if len(good) else np.nan
        changes = {"moments": json.dumps([[int(at), int(at) // 8, int(at) // 100, at / 1e4] if len(good) else None])}
        rows.append(
            lane(trial, seed, status=status, env_steps=int(steps[-1]), converged_env_steps=at, final_return=own[-1])
            | changes
        )
        parts.append((trial, seed, steps, own))
    data = sweep_of(rows, **{"criteria": ["eval>=5"], **settings})
    curves = data.curves.copy()
    curves = curves.iloc[:0]
    frames = []
    for trial, seed, steps, own in parts:
        base = {name: np.zeros(len(own)) for name in data.curves.columns}
        base |= {"trial": trial, "seed": seed, "phase": "search", "env_steps": steps, "updates": steps // 8}
        base |= {"episodes": steps // 100, "seconds": steps / 1e4, "eval_return": np.array(own, float)}
        frames.append(curves.__class__(base))
    import pandas as pd

    return dataclasses.replace(data, curves=pd.concat(frames, ignore_index=True).astype(data.curves.dtypes.to_dict()))


HAND = {
    (0, 0): [1, 5, 5, 5, 5],  # settled at 40,000
    (0, 1): [5, 1, 5, 5, 5],  # passes at 20,000, settled at 60,000
    (1, 0): [5, 5, 5, 5, 1],  # passes first of all, and falls at the last
    (1, 1): [5, 5, 1, 5, 5],  # settled at 80,000
    (2, 0): [1, 1, 1, 1, 1],
    (2, 1): [1, 1, 1, np.nan, 5],  # settled at the last
}


def test_settling_ranks_those_that_stay():
    data = sweep_with(HAND)
    assert results.ranked(data)["trial"].tolist() == [1, 0, 2]  # first passage, at the same seeds
    table = results.ranked(data, "settled").set_index("trial")
    assert table.index.tolist() == [0, 1, 2]
    assert table["converged"].tolist() == [2, 1, 1]
    assert table["time"].tolist() == [50_000, 90_000, 100_000]
    assert table["stability"].tolist() == pytest.approx([(1 + 3 / 4) / 2, (3 / 4 + 3 / 4) / 2, np.nan], nan_ok=True)


def test_first_passage_is_shown_beside_settling_and_the_end():
    table = results.ranked(sweep_with(HAND)).set_index("trial").loc[[0, 1, 2]]
    assert table["settled"].tolist() == [2, 1, 1]
    assert table["settled_share"].tolist() == [1.0, 0.5, 0.5]
    assert table["settled_time"].tolist() == [50_000, 90_000, 100_000]
    assert table["final_mean"].tolist() == [5, 3, 3]
    assert table["lowest"].tolist() == [5, 1, 1]
    assert 0 < table.loc[0, "settled_share_low"] < 1.0 == table.loc[0, "settled_share_high"]
    cut = results.ranked(sweep_with(HAND, stop="converged"))
    names = ["settled", "settled_share", "settled_time", "final_mean", "lowest"]
    assert cut[names].isna().all(axis=None)


def test_of_trials_that_never_settle_the_one_that_holds_most_leads():
    falls = {(t, s): [5, *good, 1] for t, good in enumerate(([1, 1, 5], [5, 5, 5], [1, 5, 5])) for s in (0, 1)}
    assert results.ranked(sweep_with(falls), "settled")["trial"].tolist() == [1, 2, 0]


@pytest.mark.parametrize("percent", [100, 60])
def test_lanes_by_other_criteria_equal_a_naive_reading(percent):
    data = rejudged(sweep_with(HAND), parse_criteria(f"settled{percent}%>=5 eval>=5 eval>=1x2"))
    for row in data.lanes.to_dict("records"):
        good = [value >= 5 for value in HAND[row["trial"], row["seed"]]]
        starts = [i for i in range(5) if good[i] and 100 * sum(good[i:]) >= percent * (5 - i)]
        assert row["converged"] == bool(starts)
        if starts:
            at = STEP * (starts[0] + 1)
            assert [row[f"converged_{c}"] for c in results.CLOCKS] == [at, at // 8, at // 100, at / 1e4]
        moments = json.loads(row["moments"])
        assert moments[1] == (
            None if True not in good else [m := STEP * (good.index(True) + 1), m // 8, m // 100, m / 1e4]
        )
        assert len(moments) == 3
    assert data.settings["criteria"] == [f"settled{'' if percent == 100 else '60%'}>=5", "eval>=5", "eval>=1x2"]


def test_a_pruned_lane_is_known_not_to_have_settled_up_to_its_last_failure():
    returns = {(0, 0): [5, 1, 5], (0, 1): [5, 5], (1, 0): [1, 1], (1, 1): [1, 5, 5, 5, 5]}
    data = sweep_with(returns, dict.fromkeys([(0, 0), (0, 1), (1, 0)], "pruned"))
    by, _ = judged(data, "settled")
    times, settled, ends = results.outcomes(by.lanes, "env_steps", END)
    assert settled.tolist() == [False, False, False, True]
    assert times.tolist() == [40_000, 0, 40_000, 40_000]
    assert ends.tolist() == [END] * 4
    share = rejudged(data, parse_criteria("settled90%>=5"))
    assert results.outcomes(share.lanes, "env_steps", END)[0].tolist() == [0, 0, 40_000, 40_000]
    assert results.ranked(data)["settled"].isna().all()  # not by the seeds that happened to be left


def test_a_diverged_lane_never_settles():
    data = sweep_with({(0, 0): [5, 5], (0, 1): [5, 5, 5, 5, 5]}, {(0, 0): "diverged"})
    by, clock = judged(data, "settled")
    assert clock == "env_steps"
    times, settled, _ = results.outcomes(by.lanes, "env_steps", END)
    assert settled.tolist() == [False, True]
    assert times.tolist() == [END, STEP]


def test_what_was_not_seen_is_refused():
    cut = sweep_with(HAND, stop="converged")
    assert settling_of(cut) is None
    assert with_settling(cut).lanes["settled_env_steps"].isna().all()
    with pytest.raises(ConfigError, match="by: lanes left when they converged"):
        results.ranked(cut, "settled")
    with pytest.raises(ConfigError, match=r"criteria: lanes left when they met eval>=5.*--stop budget"):
        rejudged(cut, parse_criteria("settled>=5"))
    with pytest.raises(ConfigError, match="criteria: train100>=5 reads training episodes"):
        rejudged(sweep_with(HAND), parse_criteria("train100>=5"))
    with pytest.raises(ConfigError, match="by: nothing says what settled means"):
        results.ranked(sweep_with(HAND, criteria=["epsilon<=0.1"]), "settled")


def test_a_run_from_before_there_was_settling_is_read_by_it(tmp_path):
    """Its seeds evaluate to 480 and 470, and to 100 and 200."""
    data = results.load(write_run(tmp_path / "run"))
    row = results.ranked(data).iloc[0]
    assert (row["settled"], row["lanes"], row["lowest"], row["final_mean"]) == (0, 2, 200.0, 335.0)
    lower = rejudged(data, parse_criteria("settled>=450"))
    assert lower.lanes["converged_env_steps"].tolist() == pytest.approx([1_000, np.nan], nan_ok=True)
    assert lower.lanes["converged_seconds"].tolist() == pytest.approx([4.0, np.nan], nan_ok=True)
    assert lower.lanes["status"].tolist() == ["budget", "budget"]


def test_a_sweep_that_asks_who_settles_keeps_its_lanes_to_the_end(tmp_path, compiled):
    asked = {**ASKED, "criteria": ("settled>=1", "eval>=1x2"), "vary": ("learning_rate=0.001,0.01",), "confirm": 4}
    found = sweep(**asked, confirm_by=("env_steps", "settled"), confirm_best=1, out=tmp_path / "sweep")
    data = found.data
    assert found.finished
    assert data.settings["stop"] == "budget"
    assert (data.lanes["env_steps"] == programs_of().driver.rhythm.last_step).all()
    again = rejudged(sweep_data_without_moments(data), parse_criteria("settled>=1 eval>=1x2"))
    for name in ("converged", "converged_env_steps", "converged_updates", "converged_episodes", "stability"):
        np.testing.assert_array_equal(again.lanes[name], data.lanes[name])
    assert data.lanes["converged"].any()
    assert data.settings["config"]["env"] == ENV


def sweep_data_without_moments(data):
    """As if nothing had been asked: all is read off the curves."""
    lanes = data.lanes.assign(moments="[]")
    return dataclasses.replace(data, lanes=lanes, settings={**data.settings, "criteria": []})
