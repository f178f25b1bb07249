"""Search spaces: what is written is what is drawn, points share programs, and bad input is one clear line."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax.config import ConfigError, HParams
from dqn_jax.presets import resolve_preset
from dqn_jax.sweep.space import Choice, Range, compile_groups, parse_space, points

CARTPOLE = resolve_preset("cartpole")


def one(text):
    ((_, dimension),) = parse_space([text]).items()
    return dimension


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("learning_rate=log(1e-4,1e-2)", Range(1e-4, 1e-2, log=True)),
        ("learning-rate = log( 1e-4 , 1e-2 )", Range(1e-4, 1e-2, log=True)),
        ("discount=uniform(0.9,0.999)", Range(0.9, 0.999)),
        ("epsilon_decay_steps=int(1000,50000)", Range(1000, 50000, integer=True)),
        ("target_period=logint(1,1000)", Range(1, 1000, log=True, integer=True)),
        ("discount=0.9,0.95,0.99", Choice((0.9, 0.95, 0.99))),
        ("batch_size=32,64", Choice((32, 64))),
        ("double=true,off", Choice((True, False))),
        ("hidden=64x64,120x84", Choice(((64, 64), (120, 84)))),
        ("max_grad_norm=none,10", Choice((None, 10.0))),
        ("max_episode_steps=none,100", Choice((None, 100))),
        ("loss=squared,huber", Choice(("squared", "huber"))),
        ("optimizer=adam,rmsprop", Choice(("adam", "rmsprop"))),
    ],
)
def test_a_dimension_is_read_in_its_settings_own_type(text, dimension):
    parsed = one(text)
    assert parsed == dimension
    if isinstance(parsed, Choice):
        assert [type(v) for v in parsed.values] == [type(v) for v in dimension.values]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", r"vary: 'learning_rate' is not NAME=VALUES"),
        ("learning_rate=", r"is not NAME=VALUES"),
        ("lerning_rate=1,2", r"lerning_rate: there is no such setting\. Did you mean 'learning_rate'\?"),
        ("learning_rate=log(1e-2,1e-4)", r"learning_rate: log\(1e-2,1e-4\) is empty"),
        ("learning_rate=log(0,1)", r"reaches zero"),
        ("learning_rate=lg(1,2)", r"there is no range 'lg'"),
        ("learning_rate=log(1,2,3)", r"a range has two ends, not 3"),
        ("learning_rate=log(1,x)", r"'x' is not a finite number"),
        ("learning_rate=log(1,inf)", r"'inf' is not a finite number"),
        ("learning_rate=log(1,2", r"neither a range"),
        ("batch_size=uniform(8,64)", r"batch_size: it counts something; use int or logint in place of uniform"),
        ("batch_size=int(8,64.5)", r"'64.5' is not a whole number"),
        ("batch_size=32,none", r"batch_size: it cannot be left out"),
        ("double=int(0,1)", r"double: it is not a number and has no range"),
        ("double=maybe", r"neither true nor false"),
        ("loss=hubber", r"loss: there is no 'hubber'\. Did you mean 'huber'\?"),
        ("discount=0.9,0.90", r"lists a value twice"),
        ("discount=0.9,", r"'' is not a finite number"),
        ("env_params=1", r"env_params: an environment's own parameters"),
        ("eval_seed=1,2", r"eval_seed: trials are compared"),
        ("huber_delta=1,2 if loss=huber", r"conditional"),
        ("huber_delta[loss=huber]=1,2", r"conditional"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_remedy(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_space([text])
    assert "\n" not in str(error.value)


def test_a_setting_varies_once():
    with pytest.raises(ConfigError, match="varies twice"):
        parse_space(["discount=0.9", "discount=0.99"])
    with pytest.raises(ConfigError, match="say what varies"):
        parse_space([])


names = st.sampled_from(["learning_rate", "batch_size", "double", "hidden", "loss", "discount", "optimizer", "nope"])


@given(
    st.text(max_size=40)
    | st.builds("{}={}".format, names, st.text("0123456789.,e-()xlogintuniform none[]", max_size=20))
)
def test_any_text_is_read_or_refused(text):
    try:
        space, refusal = parse_space([text]), ""
    except ConfigError as error:
        space, refusal = {}, str(error)
    assert refusal or space
    assert "\n" not in refusal or "\n" in text
    assert not space or all(set(point) == set(space) for point in points(space, "random", 5))


# -- points


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(1, 50))
def test_a_range_stays_inside_its_ends(low, factor, log, u, width):
    dimension = Range(low, low * factor, log=log)
    assert low <= dimension.at(u) <= low * factor
    whole = Range(3, 3 + width, log=log, integer=True)
    assert whole.at(u) in range(3, 4 + width)
    assert (whole.at(0.0), whole.at(1 - 1e-12)) == (3, 3 + width)


def test_whole_numbers_are_equally_likely_and_logarithms_even():
    counts = collections.Counter(Range(1, 5, integer=True).at(u) for u in np.linspace(0, 1, 5000, endpoint=False))
    assert all(abs(counts[k] - 1000) <= 1 for k in range(1, 6))
    logs = np.log10([Range(1e-4, 1e-2, log=True).at(u) for u in np.linspace(0, 1, 1001)])
    np.testing.assert_allclose(logs, np.linspace(-4, -2, 1001), atol=1e-9)
    thirds = collections.Counter(Choice(("a", "b", "c")).at(u) for u in np.linspace(0, 1, 300, endpoint=False))
    assert set(thirds.values()) == {100}


def test_a_grid_is_every_combination_once():
    space = parse_space(["discount=0.9,0.99", "batch_size=16,32,64"])
    grid = points(space, "grid")
    assert len(grid) == 6
    assert {(p["discount"], p["batch_size"]) for p in grid} == {(d, b) for d in (0.9, 0.99) for b in (16, 32, 64)}
    with pytest.raises(ConfigError, match="learning_rate: a grid needs listed values"):
        points(parse_space(["learning_rate=log(1e-4,1e-2)"]), "grid")
    with pytest.raises(ConfigError, match="samples: a grid has 6 points"):
        points(space, "grid", samples=3)


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_draws_are_repeatable_and_differ_by_seed(sampler):
    space = parse_space(["learning_rate=log(1e-4,1e-2)", "batch_size=16,32"])
    first = points(space, sampler, 13, seed=1)
    assert len(first) == 13
    assert first == points(space, sampler, 13, seed=1)
    assert first != points(space, sampler, 13, seed=2)
    with pytest.raises(ConfigError, match="samples"):
        points(space, sampler)
    with pytest.raises(ConfigError, match="samples: 0"):
        points(space, sampler, 0)


def test_sobol_fills_a_space_more_evenly_than_random_draws():
    space = parse_space(["discount=uniform(0,1)", "epsilon_end=uniform(0,1)"])

    def empty_cells(sampler):
        cells = {(int(8 * p["discount"]), int(8 * p["epsilon_end"])) for p in points(space, sampler, 64)}
        return 64 - len(cells)

    assert empty_cells("sobol") == 0
    assert empty_cells("random") > 10


# -- programs


def test_only_the_static_part_asks_for_another_program():
    space = parse_space(["learning_rate=log(1e-4,1e-2)", "discount=uniform(0.9,0.99)", "batch_size=32,64"])
    drawn = points(space, "random", 40)
    groups = compile_groups(CARTPOLE, space, drawn)
    assert len(groups) == 2
    assert sorted(t.number for g in groups for t in g.trials) == list(range(40))
    for group in groups:
        for trial in group.trials:
            assert trial.config == group.config
            assert trial.point == drawn[trial.number]
            assert trial.config.batch_size == trial.point["batch_size"]
            assert trial.hparams.learning_rate == trial.point["learning_rate"]
            assert trial.hparams.target_mixing == CARTPOLE.hparams.target_mixing
    traced = parse_space(["learning_rate=log(1e-4,1e-2)", "target_mixing=0.1,0.01"])
    assert len(compile_groups(CARTPOLE, traced, points(traced, "random", 40))) == 1


def test_a_feature_that_is_left_out_of_some_points_is_another_program():
    space = parse_space(["max_grad_norm=none,1,10"])
    groups = compile_groups(CARTPOLE, space, points(space, "grid"))
    assert [[t.hparams.max_grad_norm for t in g.trials] for g in groups] == [[None], [1.0, 10.0]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["huber_delta=0.1,1"], r"huber_delta: it has no effect unless loss is huber; set --loss too"),
        (
            ["huber_delta=0.1,1", "loss=squared,huber"],
            r"huber_delta: it matters only where loss is huber, and loss varies",
        ),
        (["epsilon_decay=0.9,0.99"], r"epsilon_decay: it has no effect unless epsilon_schedule is multiplicative"),
        (
            ["target_period=1,10", "target_network=true,false"],
            r"target_period: it matters only where target_network is on",
        ),
    ],
)
def test_a_setting_that_matters_in_some_points_only_is_refused(texts, message):
    space = parse_space(texts)
    with pytest.raises(ConfigError, match=message):
        compile_groups(CARTPOLE, space, points(space, "grid"))


def test_a_setting_that_matters_everywhere_is_not_refused():
    space = parse_space(["huber_delta=0.1,1", "loss=huber"])
    assert len(compile_groups(CARTPOLE, space, points(space, "grid"))) == 1
    space = parse_space(["learning_rate_end=1e-5,1e-4", "learning_rate_decay_updates=100,1000"])
    assert len(compile_groups(CARTPOLE, space, points(space, "grid"))) == 1


def test_a_point_that_is_not_possible_is_named():
    space = parse_space(["batch_size=32,64", "replay_capacity=50,1000"])
    with pytest.raises(ConfigError, match=r"batch_size: 64 .*at the point batch_size=64, replay_capacity=50"):
        compile_groups(CARTPOLE, space, points(space, "grid"))
    with pytest.raises(ConfigError, match=r"discount: 1\.5 .*at the point discount=1\.5"):
        compile_groups(CARTPOLE, parse_space(["discount=0.9,1.5"]), [{"discount": 1.5}])


def test_every_hyperparameter_can_vary():
    for name in HParams._fields:
        assert isinstance(one(f"{name}=1"), Choice)
    assert math.isclose(one("b1=uniform(0.5,0.9)").at(0.5), 0.7)
