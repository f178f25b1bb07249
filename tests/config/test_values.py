"""Values of settings in the types of their fields, as people type them, and as they are shown."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from dqn_jax.config import INT_MAX, UnfitError, as_type, exact, show, whole_number
from dqn_jax.config.values import check_float, fits, numbers


@pytest.mark.parametrize(
    ("wanted", "value", "taken"),
    [
        (bool, np.bool_(True), True),
        (int, 1e6, 1_000_000),
        (float, 1, 1.0),
        (str, "a", "a"),
        (Literal["a", "b"], "b", "b"),
        (int | None, None, None),
        (int | None, 3, 3),
        (tuple[int, ...], 64, (64,)),
        (tuple[int, ...], [64, 32.0], (64, 32)),
        (tuple[tuple[str, float], ...], {"gravity": 9}, (("gravity", 9.0),)),
    ],
)
def test_what_can_only_mean_one_thing_is_taken(wanted, value, taken):
    made = as_type(wanted, value)
    assert made == taken
    assert type(made) is type(taken)
    assert fits(wanted, taken)


@pytest.mark.parametrize(
    ("wanted", "value", "message"),
    [
        (bool, 1, "use true or false"),
        (int, 1.5, "use an integer"),
        (int, True, "use an integer"),
        (int, INT_MAX + 1, f"use an integer of at most {INT_MAX}"),
        (float, "1", "use a number"),
        (float, math.nan, "use a finite number"),
        (float, 1e39, "it does not fit into 32 bits"),
        (str, "a\nb", "use text in one line"),
        (Literal["a", "b"], "c", "choose one of a, b"),
        (tuple[int, ...], "64", "use integers such as"),
        (tuple[tuple[str, float], ...], ["a"], "use pairs of a name and a value"),
    ],
)
def test_what_is_none_says_what_to_use(wanted, value, message):
    with pytest.raises(UnfitError, match=message):
        as_type(wanted, value)


def test_what_could_be_made_to_fit_does_not_fit_as_it_is():
    assert not fits(int, 1.0)
    assert not fits(tuple[int, ...], [64])
    assert not fits(tuple[int, ...], (64.0,))
    assert fits(int, np.int64(3))


def test_numbers_are_one_or_one_for_each_lane():
    assert numbers(0.5) == [0.5]
    assert numbers(np.float32([1, 2])) == [1.0, 2.0]
    for value in ("x", [], [[1.0]], None, [1.0, None], True):
        with pytest.raises(UnfitError, match="use a number, or one for each lane"):
            numbers(value)


def test_floats_fit_into_32_bits():
    for value in (0.0, 1e-37, -3e38):
        check_float(value)
    for value in (1e-39, 1e39, math.inf, math.nan):
        with pytest.raises(UnfitError):
            check_float(value)


@pytest.mark.parametrize(("text", "number"), [("16", 16), ("1_000_000", 1_000_000), ("1e6", 1_000_000), ("-2", -2)])
def test_whole_numbers_as_people_write_them(text, number):
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.5", "nan", "inf", "1e31"])
def test_what_is_no_whole_number(text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        whole_number(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [((64, 32), "64x32"), (None, "none"), (math.nan, "none"), (True, "true"), (np.float32(0.001), "0.001"), (3, "3")],
)
def test_values_are_shown_as_they_are_typed(value, shown):
    assert show(value) == shown


@pytest.mark.parametrize("text", ["475", "0.01", "16926.55", repr(1 / 3)])
def test_exact_numbers_give_themselves_back(text):
    assert exact(float(text)) == text
