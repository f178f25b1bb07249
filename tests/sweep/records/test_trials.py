"""Trials: points come back as they were drawn, and a trial has a value once all its seeds are in."""

from __future__ import annotations

import threading
import time

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording import HORIZON, VARY, assert_whole, deaths, definition, record, run_all, study_of
from synthetic import curves_of, lane, lanes_table

from dqn_jax.sweep.records import Wave, create
from dqn_jax.sweep.space import points


def test_points_come_back_in_their_own_types(place):
    new = place.create(trials=40)
    drawn = points(new.space, "random", 40)
    opened = place.open()
    assert opened.points() == drawn
    assert [[type(v) for v in p.values()] for p in opened.points()] == [[type(v) for v in p.values()] for p in drawn]
    table = opened.trials()
    assert table.index.name == "trial"
    assert table.columns.tolist() == list(VARY)
    for trial, point in enumerate(drawn):
        assert table.loc[trial].to_dict() == point
    assert None in set(table["max_grad_norm"])
    assert (120, 84) in set(table["hidden"])


@pytest.fixture(scope="module")
def module_store(tmp_path_factory):
    return create(tmp_path_factory.mktemp("points") / "sweep", None, definition())


@given(st.lists(st.lists(st.floats(0, 1, exclude_max=True), min_size=len(VARY), max_size=len(VARY)), max_size=4))
def test_any_point_of_the_space_comes_back(module_store, units):
    before = module_store.points()
    new = [{name: d.at(u) for (name, d), u in zip(module_store.space.items(), us, strict=True)} for us in units]
    module_store.add_trials([*before, *new])
    assert module_store.points() == [*before, *new]


def test_where_settling_is_asked_a_trial_knows_how_close_its_seeds_came(tmp_path):
    new = create(tmp_path / "sweep", None, definition(criteria=["settled>=475"]))
    new.add_trials(points(new.space, "random", 3))
    wave = Wave(0, "search", tuple((trial, seed) for trial in range(3) for seed in (0, 1)))
    new.add_waves([wave])
    rows = [
        lane(0, 0, converged_env_steps=40_000.0, stability=0.5),  # settled: what counts is when
        lane(0, 1, stability=0.9),  # held 90 % of what came after first passage
        lane(1, 0, stability=0.25),
        lane(1, 1),  # never got there
        lane(2, 0, status="diverged", env_steps=5_000, stability=1.0),
        lane(2, 1, status="pruned", env_steps=5_000, stability=1.0),
    ]
    new.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
    trials = study_of(new).trials
    assert [trial.value for trial in trials] == [pytest.approx((40_000 + 110_000) / 2), 187_500.0, None]
    assert [trial.system_attrs["constraints"] for trial in trials] == [[0.0], [1.0], [1.0]]  # infeasible: none settled


def test_a_trial_has_the_restricted_mean_of_its_seeds(place):
    new = place.create(trials=4, waves=1, seeds=[0, 1, 2])
    wave = new.claim("me", 60)
    rows = [
        *(lane(0, s, converged_env_steps=t) for s, t in enumerate([10_000.0, 20_000.0, 60_000.0])),
        lane(1, 0, converged_env_steps=40_000.0, final_return=400.0),
        lane(1, 1, final_return=10.0),  # never: the whole budget
        lane(1, 2, status="diverged", env_steps=5_000, final_return=np.nan),
        lane(2, 0, converged_env_steps=40_000.0),
        lane(2, 1, status="pruned", env_steps=50_000),
        lane(2, 2, converged_env_steps=120_000.0),
        lane(3, 0),
    ]
    new.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
    trials = study_of(new).trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "RUNNING"]
    assert [trial.value for trial in trials] == [30_000.0, 80_000.0, None, None]
    assert trials[1].user_attrs == {
        "converged": 1,
        "censored": True,
        "share_converged": 1 / 3,
        "final_return": 205.0,
        "device_seconds": 30.0,
        "seeds": 3,
    }
    assert trials[3].user_attrs == {}
    rows = [lane(3, 1, converged_env_steps=120_000.0), lane(3, 2, converged_env_steps=40_000.0)]
    new.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
    study = study_of(new)
    assert [trial.user_attrs["censored"] for trial in study.trials] == [False, True, True, True]
    assert study.trials[3].value == 80_000.0
    assert study.best_trial.number == 0


def test_what_never_converged_is_never_optunas_best(folder):
    new = folder.create(trials=2, waves=1)
    wave = new.claim("me", 60)
    record(new, wave, lanes=[(0, 0), (0, 1)])
    trial = study_of(new).trials[0]
    assert (trial.value, trial.user_attrs["converged"], trial.user_attrs["censored"]) == (HORIZON, 0, True)
    with pytest.raises(ValueError, match="feasible"):
        _ = study_of(new).best_trial
    record(new, wave, lanes=[(1, 0)], converged_env_steps=HORIZON + 1.0)
    record(new, wave, lanes=[(1, 1)])
    study = study_of(new)
    assert [trial.value for trial in study.trials] == [HORIZON, HORIZON]
    assert study.best_trial.number == 1
    assert len(new.ask(2, "tpe", seed=0)) == 2


def test_seeds_that_confirm_play_no_part_in_a_trials_value(place):
    new = place.create(trials=1, waves=1, seeds=[0])
    new.add_waves([Wave(1, "confirm", ((0, 7),))])
    for _ in range(2):
        wave = new.claim("me", 60)
        row = lane(*wave.lanes[0], phase=wave.phase, converged_env_steps=1000.0 if wave.id else 50_000.0)
        new.record(wave.id, "me", [row], curves_of(lanes_table([row])))
        new.finish(wave.id)
    assert study_of(new).best_value == 50_000.0
    assert new.lanes()["phase"].tolist() == ["search", "confirm"]
    assert new.curves()["phase"].drop_duplicates().tolist() == ["search", "confirm"]


def test_optuna_opens_it(place):
    new = place.create(trials=3, waves=1)
    point = new.points()[0]
    waiting = study_of(new)
    assert [trial.state.name for trial in waiting.trials] == ["WAITING"] * 3
    assert waiting.trials[0].params == {**point, "hidden": "x".join(map(str, point["hidden"]))}
    assert waiting.trials[0].distributions["learning_rate"] == optuna.distributions.FloatDistribution(
        1e-4, 1e-2, log=True
    )
    assert waiting.trials[0].distributions["target_period"] == optuna.distributions.IntDistribution(1, 1000, log=True)
    new.claim("me", 60)
    study = study_of(new)
    assert [trial.state.name for trial in study.trials] == ["RUNNING"] * 3
    before = study.trials[0].datetime_start
    run_all(place.open(), "me")
    record(new, new.waves()[0][0])
    study = study_of(new)
    assert study.trials[0].datetime_start == before <= study.trials[0].datetime_complete
    assert study.direction.name == "MINIMIZE"
    assert study.metric_names == ["restricted mean of env_steps to convergence"]
    assert len(study.trials_dataframe()) == 3
    study.add_trial(optuna.trial.create_trial(value=1.0))  # its own rules of numbers still hold
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]


def test_a_thousand_trials_take_no_time(place):
    new = place.create(trials=1, waves=1)
    drawn = points(new.space, "random", 1000)
    start = time.monotonic()
    new.add_trials(drawn)
    assert time.monotonic() - start < 5
    assert len(new.points()) == 1000


def test_seeds_of_a_trial_that_arrive_at_once_complete_it(place):
    count = 6
    place.create(trials=count, waves=2 * count)  # a wave for each lane
    stores = [place.open() for _ in range(2)]
    barrier = threading.Barrier(2)

    def work(seed):
        for trial in range(count):
            barrier.wait(60)
            record(stores[seed], Wave(2 * trial + seed, "search", ((trial, seed),)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(place.open())
    trials = study_of(stores[0]).trials
    assert {trial.state.name for trial in trials} == {"COMPLETE"}


def test_death_while_trials_are_asked_leaves_none_of_them(folder):
    new = folder.create(trials=0)
    for _ in deaths(new, lambda: new.ask(2, "tpe", seed=0)):
        assert new.points() == []
    assert len(new.points()) == 2
