"""Criteria and statistics on hand-made curves: when reached, when not, and how stable."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dqn_jax.config import ConfigError
from dqn_jax.convergence import (
    Collapse,
    Criterion,
    Curve,
    Moment,
    collapses,
    first_run,
    interquartile_mean,
    kaplan_meier,
    median_interval,
    median_time,
    median_with_censored,
    parse_criteria,
    parse_criterion,
    share_interval,
    stability,
    summarize,
    time_to,
    time_to_convergence,
    trailing_mean,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "criterion", "name"),
    [
        ("eval>=475x3", Criterion("eval", ">=", 475.0, 3), "eval>=475x3"),
        ("eval>=475", Criterion("eval", ">=", 475.0, 1), "eval>=475"),
        ("eval>=475x1", Criterion("eval", ">=", 475.0, 1), "eval>=475"),
        ("eval > -110.5", Criterion("eval", ">", -110.5, 1), "eval>-110.5"),
        ("  train100 >= 195 ", Criterion("train", ">=", 195.0, 100), "train100>=195"),
        ("train5>195", Criterion("train", ">", 195.0, 5), "train5>195"),
        ("epsilon<=0.01", Criterion("epsilon", "<=", 0.01, 1), "epsilon<=0.01"),
        ("epsilon<1e-2", Criterion("epsilon", "<", 0.01, 1), "epsilon<0.01"),
        ("loss<=0.1x5", Criterion("loss", "<=", 0.1, 5), "loss<=0.1x5"),
        ("loss<=0.1 x 5", Criterion("loss", "<=", 0.1, 5), "loss<=0.1x5"),
        ("td_error<.5x2", Criterion("td_error", "<", 0.5, 2), "td_error<0.5x2"),
    ],
)
def test_text_is_parsed_and_named_canonically(text, criterion, name):
    assert parse_criterion(text) == criterion
    assert criterion.name == name
    assert parse_criterion(name) == criterion


@given(st.sampled_from(["eval", "train", "loss"]), st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 9))
def test_a_criterion_keeps_every_digit(kind, threshold, window):
    criterion = Criterion(kind, ">=", threshold, window)
    assert parse_criterion(criterion.name) == criterion


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a criterion"),
        ("eval", "says no threshold"),
        ("eval>=", "not a criterion"),
        ("eval=475", "not a criterion"),
        ("eval=>475", "not a criterion"),
        ("475<=eval", "not a criterion"),
        ("eval>=475y3", "not a criterion"),
        ("eval>=475x", "not a criterion"),
        ("eval>=nan", "not a criterion"),
        ("eval>=4.7.5", "not a number"),
        ("eval>=-", "not a number"),
        ("evall>=475", r"'evall'.*unknown.*Did you mean 'eval'"),
        ("reward>=3", r"'reward'.*Kinds: eval, settled, train"),
        ("train>=195", "episodes go with train"),
        ("train100>=195x2", "episodes go with train"),
        ("eval100>=195", "episodes go with train"),
        ("train0>=195", "at least 1"),
        ("eval>=475x0", "at least 1"),
    ],
)
def test_bad_text_is_refused_with_a_reason(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_criterion(text)


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (">=", [False, True, True]),
        (">", [False, False, True]),
        ("<=", [True, True, False]),
        ("<", [True, False, False]),
    ],
)
def test_comparisons_at_the_threshold_and_nan_never_holds(comparison, expected):
    criterion = Criterion("eval", comparison, 2.0, 1)
    np.testing.assert_array_equal(criterion.holds(np.array([1.0, 2.0, 3.0])), expected)
    assert not np.any(criterion.holds(np.array([NAN, NAN])))


@pytest.mark.parametrize(
    ("holds", "length", "index"),
    [
        ([], 1, None),
        ([0, 0], 1, None),
        ([1], 1, 0),
        ([0, 1, 1, 0], 2, 2),
        ([1, 0, 1, 1, 1], 3, 4),
        ([1, 1, 0, 1, 1, 0], 3, None),
        ([1, 1, 1, 1], 2, 1),
        ([1, 1], 3, None),
    ],
)
def test_first_run(holds, length, index):
    assert first_run(np.array(holds, bool), length) == index


def test_trailing_mean():
    np.testing.assert_allclose(trailing_mean(np.array([1, 2, 6, 4]), 2), [NAN, 1.5, 4.0, 5.0])
    np.testing.assert_allclose(trailing_mean(np.array([1, 2, 6, 4]), 1), [1, 2, 6, 4])
    np.testing.assert_allclose(trailing_mean(np.array([1, 2, 6, 4]), 4), [NAN, NAN, NAN, 3.25])
    np.testing.assert_allclose(trailing_mean(np.array([1, 2]), 3), [NAN, NAN])
    assert trailing_mean(np.array([]), 3).shape == (0,)


CURVE = Curve(
    env_steps=np.array([100, 200, 300, 400, 500]),
    updates=np.array([10, 20, 30, 40, 50]),
    episodes=np.array([2, 4, 5, 7, 8]),
    seconds=np.array([1.0, 3.0, 4.0, 5.0, 6.0]),
    eval_return=np.array([5.0, 9.0, 8.0, 9.0, 9.5]),
    loss=np.array([NAN, 4.0, 2.0, 1.0, 3.0]),
    td_error=np.array([NAN, 0.9, 0.4, 0.3, 0.2]),
    episode_env_steps=np.array([40, 90, 150, 190, 260, 320, 380, 450]),
    episode_updates=np.array([4, 9, 15, 19, 26, 32, 38, 45]),
    episode_epsilon=np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.05]),
    episode_return=np.array([1.0, 2.0, 6.0, 4.0, 8.0, 10.0, 3.0, 9.0]),
)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("eval>=9", Moment(200, 20, 4, 3.0)),
        ("eval>9", Moment(500, 50, 8, 6.0)),
        ("eval>=8x2", Moment(300, 30, 5, 4.0)),
        ("eval>=9x2", Moment(500, 50, 8, 6.0)),
        ("eval>=9x3", None),
        ("loss<=2", Moment(300, 30, 5, 4.0)),
        ("loss<=2x2", Moment(400, 40, 7, 5.0)),
        ("loss<=2x3", None),
        ("loss>=0", Moment(200, 20, 4, 3.0)),  # the first reading is NaN, without updates
        ("td_error<0.5x2", Moment(400, 40, 7, 5.0)),
        # Means of two: 1.5, 4, 5, 6, 9 - the fifth is of episodes 5 and 6, which ended at step 320.
        # 320 lies a fifth of the way from 300 (4 s) to 400 (5 s).
        ("train2>=9", Moment(320, 32, 6, 4.2)),
        ("train2>=4", Moment(150, 15, 3, 2.0)),
        ("train1>=1", Moment(40, 4, 1, 0.4)),
        ("train8>=5", Moment(450, 45, 8, 5.5)),
        ("train9>=0", None),
        ("train2>9", None),
        ("epsilon<=0.4", Moment(190, 19, 4, 2.8)),
        ("epsilon<=0.05x2", Moment(450, 45, 8, 5.5)),
        ("epsilon<=0.01", None),
    ],
)
def test_time_to_each_kind_of_criterion(text, moment):
    got = time_to(parse_criterion(text), CURVE)
    if moment is None:
        assert got is None
    else:
        assert got[:3] == moment[:3]
        assert got.seconds == pytest.approx(moment.seconds)


def test_a_curve_without_episodes_or_with_nan_only_is_never_reached():
    empty = CURVE._replace(
        **{f: np.array([]) for f in CURVE._fields if f.startswith("episode_")}, eval_return=np.full(5, NAN)
    )
    for text in ("train1>=0", "epsilon<=1", "eval>=-1000", "eval<=1000"):
        assert time_to(parse_criterion(text), empty) is None
        assert stability(parse_criterion(text), empty) is None


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("eval>=9", 2 / 3),  # reached at 200; then 8, 9, 9.5
        ("eval>=8", 1.0),
        ("eval>=9.5", None),  # reached at the last
        ("eval>=10", None),  # never reached
        ("train2>=9", 1.0),  # reached at step 320; evaluations at 400 and 500 meet 9
        ("train2>=4", 1.0),
        ("train1>=6", 1.0),
        ("loss<=2", 0.5),  # then 1 and 3
        ("td_error<=0.4", 1.0),
        ("epsilon<=0.4", None),
    ],
)
def test_stability_is_the_share_of_later_readings_that_hold(text, share):
    got = stability(parse_criterion(text), CURVE)
    assert got == (None if share is None else pytest.approx(share))


def test_a_nan_reading_counts_against_stability():
    curve = CURVE._replace(eval_return=np.array([9.0, NAN, 9.0, NAN, NAN]))
    assert stability(parse_criterion("eval>=9"), curve) == 0.25


@pytest.mark.parametrize(
    ("returns", "window", "expected"),
    [
        ([], 1, []),
        ([9, 1], 3, []),  # too short for one window
        ([1, 5, 1, 5, 1], 1, []),  # never high: nothing to fall from
        ([1, 5, 9, 5, 9, 3], 1, []),  # high, and never low again
        ([1, 8, 2], 1, [Collapse(2, 3, None)]),  # both levels count as reached
        ([1, 7.99, 2, 8, 2.01], 1, []),
        ([1, 9, 5, 1, 5, 9], 1, [Collapse(2, 4, 6)]),  # in between is neither
        ([1, 9, 9, 1, 1, 5, 1], 1, [Collapse(2, 4, None)]),  # first high, first low; one fall, not three
        ([9, 1, 9, 9, 1, 1, 9], 1, [Collapse(1, 2, 3), Collapse(3, 5, 7)]),
        ([9, 1, 9, 1, 5], 1, [Collapse(1, 2, 3), Collapse(3, 4, None)]),
        # Means of two: NaN, 5.5, 9, 5.5, 1.5, 2, 6.5, 10.
        ([2, 9, 9, 2, 1, 3, 10, 10], 2, [Collapse(3, 5, 8)]),
        # The first value alone is high and the second low, but a mean of two is neither.
        ([9, 1, 9, 1], 2, []),
    ],
)
def test_collapses_are_counted_from_success_to_recovery(returns, window, expected):
    assert collapses(np.array(returns, float), high=8.0, low=2.0, window=window) == expected


def test_summary_keeps_the_seeds_that_did_not_converge():
    never = CURVE._replace(eval_return=np.zeros(5))
    summary = summarize(parse_criterion("eval>=9"), [CURVE, never, CURVE])
    assert summary["name"] == "eval>=9"
    assert summary["threshold"] == 9.0
    assert summary["converged"] == pytest.approx(2 / 3)
    assert summary["env_steps"] == [200, None, 200]
    assert summary["updates"] == [20, None, 20]
    assert summary["episodes"] == [4, None, 4]
    assert summary["seconds"] == [3.0, None, 3.0]
    assert summary["stability"] == [pytest.approx(2 / 3), None, pytest.approx(2 / 3)]


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([], None),
        ([None], None),
        ([3], 3.0),
        ([5, 1, 3], 3.0),
        ([5, None, 3], 5.0),
        ([None, None, 3], None),
        ([4, 1, 3, 2], 2.0),
        ([4, 1, None, 2], 2.0),
        ([1, 2, None, None], 2.0),  # by then half are there
        ([1, None, None, None], None),
        ([1, 2, 3, None, None], 3.0),
    ],
)
def test_median_counts_what_was_not_reached_as_later_than_all(values, median):
    assert median_with_censored(values) == median


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([100.0, 2.0, 3.0, -50.0])) == 2.5
    assert interquartile_mean(np.array([7.0])) == 7.0


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=2, max_side=13), elements=st.floats(-1e6, 1e6)),
    st.integers(0, 1),
)
def test_interquartile_mean_equals_scipy_trim_mean(values, axis):
    axis = min(axis, values.ndim - 1)
    expected = scipy.stats.trim_mean(values, 0.25, axis=axis)
    np.testing.assert_allclose(interquartile_mean(values, axis), expected, rtol=1e-9, atol=1e-6)


@given(st.lists(st.one_of(st.none(), st.integers(1, 9)), min_size=1, max_size=12))
def test_there_is_one_median(values):
    """Of lists with None and of survival curves: the first moment by which at least half are there."""
    times = np.array([10 if value is None else value for value in values], float)
    converged = np.array([value is not None for value in values])
    assert median_with_censored(values) == median_time(kaplan_meier(times, converged))
    assert median_with_censored(values) == time_to_convergence(times, converged, 10.0).median


def test_the_interval_of_a_share_is_clopper_and_pearsons():
    # 1 - 0.025^(1 / n) for none of 20; and a published worked value: 15 of 20 is [0.509, 0.913].
    assert share_interval([False] * 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    assert share_interval([True] * 20) == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert share_interval([True] * 15 + [False] * 5) == pytest.approx((0.509, 0.913), abs=1e-3)


def test_the_interval_of_a_median_knows_what_was_never_reached():
    assert median_interval([3.0] * 8) == (3.0, 3.0)
    assert median_interval([None] * 8) == (None, None)
    assert median_interval([10.0, 20.0, 30.0, 40.0, 50.0, None, None, None, None]) == (20.0, None)
    # The 4th and the 12th of 15 in any textbook's table of the sign test.
    assert median_interval([float(v) for v in range(1, 16)]) == (4.0, 12.0)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (None, None)  # all on one side in 1 of 16 cases
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (1.0, 6.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eval>=475x3", "the third evaluation in a row"),
        ("eval>=475", "the first evaluation that"),
        ("train100>=195", "the mean of the last 100"),
        ("loss<=0.1x21", "the 21st reading in a row"),
    ],
)
def test_a_criterion_says_when_it_is_dated(text, words):
    assert words in parse_criterion(text).dated
    assert "not settling" in parse_criterion(text).dated


def test_criteria_may_be_one_text():
    assert [c.name for c in parse_criteria("eval>=475x3 train100>=195")] == ["eval>=475x3", "train100>=195"]
    assert parse_criteria(("eval>=1",)) == parse_criteria("eval>=1") == [parse_criterion("eval>=1")]
    assert parse_criteria("") == parse_criteria(()) == []


@pytest.mark.parametrize(
    "criteria", ["eval>=1e999", "eval>=-1e999", "eval>=nan", "eval>=1x9999999", "train0>=1", 5, [5]]
)
def test_criteria_that_nothing_can_meet_are_refused(criteria):
    with pytest.raises(ConfigError, match="criteria: ") as error:
        parse_criteria(criteria)
    assert str(error.value).isprintable()
