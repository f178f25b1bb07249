"""Two sweeps or runs side by side."""

from __future__ import annotations

import numpy as np
import pytest
from reporting import HAND, page_of
from synthetic import lane, sweep_of

from dqn_jax.report import comparison
from dqn_jax.report.view import View


def test_two_sweeps_are_compared_by_the_best_trial_of_each(folder):
    fast = [10_000.0, 20_000.0, np.nan, 40_000.0]
    slow = [20_000.0, 30_000.0, np.nan, np.nan]
    a, b = (
        sweep_of([lane(0, s, converged_env_steps=t, final_return=r) for s, t in enumerate(times)], {}, name=name)
        for name, times, r in (("a", fast, 300.0), ("b", slow, 200.0))
    )
    # Of 16 pairs a is faster in 4 (10,000), 3 (20,000), 0 (never) and 2 (40,000); it ties in 1 and, never, in 2.
    expected = (4 + 3 + 2 + 0.5 * (1 + 2)) / 16
    found = {one.measure: one for one in comparison.comparisons(View.of(a), View.of(b))}
    steps = found["fewer environment steps to convergence"]
    assert steps.probability == pytest.approx(expected)
    assert steps.paired
    assert steps.low <= expected <= steps.high
    assert found["higher final return"].probability == 1.0
    page = page_of([folder(a, "a"), folder(b, "b")], output=folder(a, "out"))
    assert f"{100 * expected:.0f}%" in page.table("probability")[0]["probability"]
    assert "The same seeds were used on both sides" in page.text
    assert "chosen on the seeds shown, their numbers are too good." in page.text


def test_what_cannot_be_compared_is_not(folder):
    a = sweep_of([lane(0, s, converged_env_steps=5_000) for s in range(3)], {})
    b = sweep_of([lane(0, s + 9, converged_env_steps=5_000) for s in range(3)], {}, stop="converged")
    found = comparison.comparisons(View.of(a), View.of(b))
    assert {one.paired for one in found} == {False}
    assert "higher final return" not in {one.measure for one in found}
    other = sweep_of([lane(0, 0, converged_env_steps=5_000)], {}, criteria=["eval>=100"])
    assert [one.measure for one in comparison.comparisons(View.of(a), View.of(other))] == ["higher final return"]
    page = page_of([folder(a, "a"), folder(other, "b")], output=folder(a, "out"))
    assert "eval>=475x3 in A and eval>=100 in B, so times are not compared" in page.text


@pytest.mark.parametrize(
    ("changes", "words", "returns_too"),
    [
        ({"env": "CartPole-v0"}, "different tasks (env CartPole-v1 and CartPole-v0)", True),
        ({"max_episode_steps": 200}, "different tasks (max_episode_steps none and 200)", True),
        ({"sticky_actions": 0.25}, "different tasks (sticky_actions 0 and 0.25)", True),
        ({"eval_every": 1_000}, "evaluated differently (eval_every 5000 and 1000)", False),
        ({"eval_epsilon": 0.05}, "evaluated differently (eval_epsilon 0 and 0.05)", True),
        ({"total_steps": 50_000}, "The budgets differ (total_steps 100000 and 50000)", True),
        ({"eval_seed": 5, "reward_scale": 0.1}, "", False),
    ],
)
def test_numbers_on_two_rulers_are_not_compared(folder, changes, words, returns_too):
    lanes = [lane(0, s, converged_env_steps=5_000) for s in range(3)]
    a = sweep_of(lanes, {})
    b = sweep_of(lanes, {}, config={**a.settings["config"], **changes})
    measures = {one.measure for one in comparison.comparisons(View.of(a), View.of(b))}
    assert ("fewer environment steps to convergence" in measures) == (not words)
    assert ("higher final return" in measures) == (not returns_too)
    page = page_of([folder(a, "a"), folder(b, "b")], output=folder(a, "out"))
    assert words in page.text


def test_a_sweep_that_varied_its_ruler_says_so(folder):
    a = sweep_of(HAND, {"total_steps": [10_000, 50_000, 100_000]}, vary={"total_steps": "10000,50000,100000"})
    assert "What varied includes how trials were measured (total_steps)" in page_of([folder(a)]).text
    assert comparison.comparisons(View.of(a), View.of(sweep_of(HAND))) == []
