"""Settling on curves worked out by hand, against naive loops, and whether its intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dqn_jax import convergence as cv
from dqn_jax.convergence import Moment, parse_criterion, stability, summarize, time_to

NAN = float("nan")


def curve_of(returns, **changes):
    """Evaluations every 100 environment steps, a second each."""
    count = len(returns)
    steps = 100 * np.arange(1, count + 1)
    return cv.Curve(
        env_steps=steps,
        updates=steps // 10,
        episodes=steps // 50,
        seconds=np.arange(1.0, count + 1),
        eval_return=np.array(returns, float),
        loss=np.full(count, NAN),
        td_error=np.full(count, NAN),
        **{name: np.empty(0) for name in cv.Curve._fields if name.startswith("episode_")},
        **changes,
    )


@pytest.mark.parametrize(
    ("returns", "text", "index", "held"),
    [
        ([], "settled>=5", None, None),
        ([5], "settled>=5", 0, None),  # one evaluation only: nothing came after
        ([4], "settled>=5", None, None),
        ([1, 2, 3], "settled>=5", None, None),  # never reached
        ([1, 5, 5, 4], "settled>=5", None, 1 / 2),  # reached, and fell at the last
        ([1, 5, 4, 5], "settled>=5", 3, 1 / 2),
        ([5, 5, 5], "settled>=5", 0, 1.0),
        ([1, 6, 2, 5, 7], "settled>=5", 3, 2 / 3),
        ([1, 6, NAN, 5, 7], "settled>=5", 3, 2 / 3),  # an evaluation that is not known does not hold
        ([1, 6, 5, 5, NAN], "settled>=5", None, 2 / 3),
        ([NAN, NAN], "settled>=5", None, None),
        ([1, 6, 2, 5, 7], "settled>5", 4, 1 / 3),
        ([9, 2, 9, 1], "settled<=2", 3, 1 / 2),
        # Of the four from the second on three hold; of the five from the first on three fifths.
        ([5, 5, 5, 4, 5], "settled75%>=5", 0, 3 / 4),
        ([4, 5, 5, 4, 5], "settled75%>=5", 1, 2 / 3),
        ([4, 5, 5, 4, 5], "settled76%>=5", 4, 2 / 3),
        ([5, 5, 5, 4], "settled75%>=5", 0, 2 / 3),  # the last one need not, where a share need not
        ([5, 5, 5, 4], "settled80%>=5", None, 2 / 3),
        ([4, 4, 5, 4], "settled50%>=5", 2, 0.0),  # from one that holds, not from before it
        ([5, 1, 1, 1], "settled25%>=5", 0, 0.0),
        ([5, 1, 1, 1], "settled25.1%>=5", None, 0.0),
    ],
)
def test_settling_by_hand(returns, text, index, held):
    criterion, curve = parse_criterion(text), curve_of(returns)
    moment = None
    if index is not None:
        moment = Moment(100 * (index + 1), 10 * (index + 1), 2 * (index + 1), float(index + 1))
    assert time_to(criterion, curve) == moment
    assert stability(criterion, curve) == (None if held is None else pytest.approx(held))


def test_nobody_knows_whether_a_curve_that_was_cut_settles():
    """A run that was stopped, a lane that left as it converged, a trial that was pruned."""
    criterion = parse_criterion("settled>=5")
    cut = curve_of([1, 5, 5], whole=False)
    assert time_to(criterion, cut) is None
    assert stability(criterion, cut) == 1.0  # of what was seen
    assert time_to(parse_criterion("eval>=5x2"), cut) is not None  # first passage needs no end
    assert summarize(criterion, [cut, cut])["converged"] is None
    assert summarize(criterion, [cut, curve_of([1, 5, 5])])["converged"] is None
    assert summarize(parse_criterion("eval>=5x2"), [cut])["converged"] == 1.0


def test_an_agent_that_diverged_does_not_settle():
    criterion = parse_criterion("settled>=5")
    lost = curve_of([5, 5, 5], finite=False)
    early = curve_of([5, 5], whole=False, finite=False)  # known not to, wherever it was cut
    assert time_to(criterion, lost) is None
    summary = summarize(criterion, [lost, curve_of([1, 5, 5]), early, curve_of([5, 5, 1])])
    assert summary["converged"] == 0.25
    assert summary["env_steps"] == [None, 200, None, None]
    assert summary["stability"] == [1.0, 1.0, 1.0, 0.5]
    assert summary["stays"]["mean"] == pytest.approx(0.875)
    assert 0 <= summary["stays"]["interval95"][0] < 0.875 < summary["stays"]["interval95"][1] <= 1


@pytest.mark.parametrize(
    ("text", "criterion", "name"),
    [
        ("settled>=475", cv.Criterion("settled", ">=", 475.0, 1), "settled>=475"),
        ("settled95%>=475", cv.Criterion("settled", ">=", 475.0, 1, 95.0), "settled95%>=475"),
        ("settled:475", cv.Criterion("settled", ">=", 475.0, 1), "settled>=475"),
        ("settled97.5% > -110", cv.Criterion("settled", ">", -110.0, 1, 97.5), "settled97.5%>-110"),
        ("settled100%<=3", cv.Criterion("settled", "<=", 3.0, 1), "settled<=3"),
    ],
)
def test_text_is_parsed_and_named_canonically(text, criterion, name):
    assert parse_criterion(text) == criterion
    assert criterion.name == name
    assert parse_criterion(name) == criterion


@given(st.floats(0.01, 100), st.floats(allow_nan=False, allow_infinity=False))
def test_a_share_keeps_every_digit(percent, threshold):
    criterion = cv.Criterion("settled", ">=", threshold, 1, float(f"{percent:.6f}"))
    assert parse_criterion(criterion.name) == criterion


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settled", "says no threshold.*settled:THRESHOLD"),
        ("settled95%", "says no threshold.*settled95%:THRESHOLD"),
        ("settled>=475x3", "leave out the count.*settled95%>=475"),
        ("settled95>=475", "leave out the count.*settled95%>=475"),
        ("settled0%>=475", "a share above 0 goes with settled"),
        ("settled101%>=475", "a share above 0 goes with settled"),
        ("eval95%>=475", "a share above 0 goes with settled"),
        ("train95%>=475", "a share above 0 goes with settled"),
    ],
)
def test_bad_text_is_refused_with_a_reason(text, message):
    with pytest.raises(cv.criteria.ConfigError, match=message):
        parse_criterion(text)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("eval>=475x3", "settled>=475"),
        ("train100>195", "settled>195"),
        ("settled95%>=475", "settled95%>=475"),
        ("epsilon<=0.1", None),
        ("loss<=1", None),
    ],
)
def test_what_settling_means_at_the_threshold_of_a_criterion(text, own):
    settling = parse_criterion(text).settling()
    assert (settling and settling.name) == own


def test_a_criterion_says_that_settling_depends_on_the_budget():
    assert "from which every one to the end of the budget meets it" in parse_criterion("settled>=475").dated
    assert "from which 95 % of them" in parse_criterion("settled95%>=475").dated
    assert "depends on that budget" in parse_criterion("settled95%>=475").dated


def naively_settled(holds, percent):
    for i in range(len(holds)):
        rest = holds[i:]
        if holds[i] and 100 * sum(bool(h) for h in rest) >= percent * len(rest):
            return i
    return -1


def naively_held(holds, window):
    run = 0
    for i, good in enumerate(holds):
        run = run + 1 if good else 0
        if run == window:
            later = [bool(h) for h in holds[i + 1 :]]
            return i, sum(later) / len(later) if later else NAN
    return -1, NAN


HOLDS = hnp.arrays(bool, st.tuples(st.integers(0, 4), st.integers(0, 12)))


@given(HOLDS, st.one_of(st.just(100.0), st.integers(1, 100), st.floats(0.1, 100)), st.integers(1, 4))
def test_arrays_equal_naive_loops(holds, percent, window):
    assert cv.settled_from(holds, percent).tolist() == [naively_settled(row, percent) for row in holds]
    assert cv.settled_from(holds).tolist() == [naively_settled(row, 100) for row in holds]
    expected = [naively_held(row, window) for row in holds]
    assert cv.first_passage(holds, window).tolist() == [index for index, _ in expected]
    np.testing.assert_array_equal(cv.held_after(holds, window), [share for _, share in expected])


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.sampled_from([1, 5, 9, NAN]))
)
def test_curves_and_arrays_agree(returns):
    """What `train` and sweeps say of a curve, `staying` says of the array; settling is never before first passage."""
    found = cv.staying(100 * np.arange(1, returns.shape[1] + 1), returns, parse_criterion("eval>=5"))
    for i, row in enumerate(returns):
        curve = curve_of(row)
        for text, times in (("eval>=5", found.first), ("settled>=5", found.settled)):
            moment = time_to(parse_criterion(text), curve)
            assert times[i] == moment.env_steps if moment else math.isnan(times[i])
        for text in ("eval>=5", "settled>=5"):
            share = stability(parse_criterion(text), curve)
            assert math.isnan(found.held[i]) if share is None else found.held[i] == share
    assert np.all(np.isnan(found.settled) | (found.settled >= found.first))


def test_what_staying_says_of_seeds():
    """Four seeds: settled at 200, at 400, reached and fell at the last, never."""
    returns = [[1, 5, 5, 5], [5, 1, 1, 7], [1, 5, 5, 1], [1, 1, 1, 2]]
    found = cv.staying([100, 200, 300, 400], returns, parse_criterion("eval>=5"))
    np.testing.assert_array_equal(found.first, [200, 100, 200, NAN])
    np.testing.assert_array_equal(found.settled, [200, 400, NAN, NAN])
    np.testing.assert_array_equal(found.held, [1.0, 1 / 3, 1 / 2, NAN])
    np.testing.assert_array_equal(found.final, [5, 7, 1, 2])
    assert found.passage.share == 0.75
    assert found.passage.restricted_mean == (200 + 100 + 200 + 400) / 4
    assert found.settling.share == 0.5
    assert found.settling.restricted_mean == (200 + 400 + 400 + 400) / 4  # who did not counts the budget
    assert found.settling.median == 400.0
    assert found.held_mean == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert (found.final_mean, found.worst) == (3.75, 1.0)
    half = cv.staying([100, 200, 300, 400], returns, parse_criterion("eval>=5"), percent=50)
    np.testing.assert_array_equal(half.settled, [200, 100, 200, NAN])
    with pytest.raises(ValueError, match="must be"):
        cv.staying([100, 200], returns, parse_criterion("eval>=5"))


def test_of_seeds_that_all_held_the_interval_is_not_a_point():
    low, high = cv.held_interval([1.0] * 8)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 8)), 1.0)
    assert all(map(math.isnan, cv.held_interval([0.5])))
    assert all(map(math.isnan, cv.held_interval([])))


# -- coverage: seeds of agents that stay, wobble or collapse -------------------------------------------------


def mostly_stay(rng, seeds, evaluations):
    """3 of 4 seeds hold 99 of 100 evaluations, the others two thirds."""
    chance = np.where(rng.random((*seeds, 1)) < 0.75, 0.99, 0.67)
    return rng.random((*seeds, evaluations)) < chance


def spread_out(rng, seeds, evaluations):
    """How often a seed holds is spread from 0.6 to 1."""
    return rng.random((*seeds, evaluations)) < rng.uniform(0.6, 1.0, (*seeds, 1))


def some_collapse(rng, seeds, evaluations):
    """All hold 95 of 100 evaluations; 1 of 5 seeds falls for good somewhere."""
    falls = np.where(rng.random(seeds) < 0.2, rng.integers(1, evaluations, seeds), evaluations)[..., None]
    return (rng.random((*seeds, evaluations)) < 0.95) & (np.arange(evaluations) < falls)


FEW = {("spread_out", 5): 0.83, ("spread_out", 16): 0.90}
"""Where most seeds settle late and few early: of a few seeds none is early, and the mean passes for late."""


@pytest.mark.parametrize("agents", [mostly_stay, spread_out, some_collapse])
@pytest.mark.parametrize("n", [5, 16, 64])
def test_intervals_of_what_stays_cover(agents, n):
    """Share held after first passage, share settled, median and restricted mean time to settle: 95 % cover in 93."""
    studies, evaluations = 300, 40
    rng = np.random.default_rng(n)
    truth = agents(rng, (50_000,), evaluations)
    middle, settled = np.nanmean(cv.held_after(truth)), cv.settled_from(truth)
    share, mean = np.mean(settled >= 0), np.where(settled >= 0, settled + 1, evaluations).mean()
    median = np.sort(np.where(settled >= 0, settled + 1.0, np.inf))[(len(settled) - 1) // 2]
    hits = dict.fromkeys(("held", "share", "mean", "median"), 0)
    for holds in agents(rng, (studies, n), evaluations):
        own = cv.held_after(holds)
        low, high = cv.held_interval(own[~np.isnan(own)])
        hits["held"] += low <= middle <= high
        index = cv.settled_from(holds)
        found = cv.time_to_convergence(np.where(index >= 0, index + 1, evaluations), index >= 0, evaluations)
        hits["share"] += found.share95[0] <= share <= found.share95[1]
        low, high = found.restricted_mean95
        hits["mean"] += np.isnan(low) or low <= mean <= high
        first, last = found.median95
        hits["median"] += (0 if first is None else first) <= median <= (np.inf if last is None else last)
    enough = {name: 0.93 for name in hits} | {"mean": FEW.get((agents.__name__, n), 0.93)}
    assert {name: count / studies for name, count in hits.items() if count / studies < enough[name]} == {}
