"""A sweep's records: each lane once, whole at any instant, in a file as on a server."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from servers import free_port
from synthetic import curves_of, lane, lanes_table

from dqn_jax import ConfigError, RunError
from dqn_jax.sweep.definition import unlike
from dqn_jax.sweep.records import Wave, create, database, export, load_data, open_store
from dqn_jax.sweep.results import find, load
from dqn_jax.sweep.space import points

HORIZON = 100_000
VARY = {
    "learning_rate": "log(0.0001,0.01)",
    "discount": "uniform(0.9,0.999)",
    "target_period": "logint(1,1000)",
    "batch_size": "32,64,128",
    "hidden": "64x64,120x84",
    "double": "true,false",
    "max_grad_norm": "none,10.0",
    "loss": "squared,huber",
}


def definition(**changes):
    asked = {"name": "study", "vary": VARY, "seeds": [0, 1], "config": {"total_steps": HORIZON}}
    return {**asked, **changes}


class Place:
    """Where a sweep is kept: a directory, or a database on a server."""

    def __init__(self, directory, url):
        self.directory, self.url = directory, url

    def create(self, trials=4, waves=2, **changes):
        new = create(self.directory, self.url, definition(**changes))
        if trials:
            new.add_trials(points(new.space, "random", trials))
            lanes = [(trial, seed) for trial in range(trials) for seed in new.definition["seeds"]]
            size = len(lanes) // waves
            new.add_waves(Wave(i, "search", tuple(lanes[i * size : (i + 1) * size])) for i in range(waves))
        return new

    def open(self):
        return open_store(self.url or self.directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return Place(tmp_path / "sweep", None)
    return Place(None, request.getfixturevalue("postgres")())


@pytest.fixture
def folder(tmp_path):
    return Place(tmp_path / "sweep", None)


def study_of(opened):
    """The sweep as Optuna sees it."""
    storage = optuna.storages.RDBStorage(opened.url, engine_kwargs={"poolclass": sa.pool.NullPool})
    return optuna.load_study(study_name=opened.name, storage=storage)


def record(into, wave, owner="me", lanes=None, **changes):
    rows = [lane(*key, **changes) for key in (wave.lanes if lanes is None else lanes)]
    return into.record(wave.id, owner, rows, curves_of(lanes_table(rows)))


def run_all(into, owner="me"):
    while wave := into.claim(owner, 60):
        done = {key[1:] for key in into.recorded()}
        record(into, wave, owner, [key for key in wave.lanes if key not in done])
        into.finish(wave.id)


def assert_whole(opened):
    """No half lane: each has its curve, and its trial's state says how many of its seeds are in."""
    lanes, curves = opened.lanes(), opened.curves()
    assert not lanes.duplicated(["phase", "trial", "seed"]).any()
    pd.testing.assert_frame_equal(curves, curves_of(lanes))
    in_all = lanes.groupby("trial").size()
    for trial in study_of(opened).trials:
        assert trial.state.is_finished() == (in_all.get(trial.number, 0) == len(opened.definition["seeds"]))


# -- what is recorded


def test_a_sweep_is_recorded_as_it_was_run(place):
    new = place.create()
    rows = [lane(t, s, converged_env_steps=10_000.0 * (t + s + 1)) for t in range(4) for s in range(2)]
    for i in range(2):
        wave = new.claim("me", 60)
        assert wave == Wave(i, "search", tuple((t, s) for t in (2 * i, 2 * i + 1) for s in (0, 1)))
        for half in (wave.lanes[2:], wave.lanes[:2]):
            mine = [row for row in rows if (row["trial"], row["seed"]) in half]
            assert new.record(wave.id, "me", mine, curves_of(lanes_table(mine)))
        new.finish(wave.id)
    assert new.claim("me", 60) is None
    for opened in (new, place.open()):
        pd.testing.assert_frame_equal(opened.lanes(), lanes_table(rows))
        pd.testing.assert_frame_equal(opened.curves(), curves_of(lanes_table(rows)))
        assert [state for _, state in opened.waves()] == ["done", "done"]
        assert opened.recorded() == {("search", t, s) for t in range(4) for s in range(2)}
    if place.directory is not None:
        names = sorted(path.name for path in place.directory.rglob("*") if path.is_file())
        assert names == ["store.sqlite", "sweep.json", "unit-00000.parquet", "unit-00001.parquet"]


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


def test_adding_again_adds_what_is_missing(place):
    new = place.create(trials=3, waves=1)
    drawn = points(new.space, "random", 5)
    new.add_trials(drawn)
    new.add_trials(drawn)
    assert new.points() == [*points(new.space, "random", 3), *drawn[3:]]
    planned = [wave for wave, _ in new.waves()]
    new.add_waves([*planned, Wave(1, "confirm", ((3, 7),))])
    assert [wave for wave, _ in new.waves()] == [*planned, Wave(1, "confirm", ((3, 7),))]
    with pytest.raises(ValueError, match="wave 1 is there already, with other lanes"):
        new.add_waves([Wave(1, "confirm", ((3, 8),))])


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


# -- once each


def test_a_lane_is_recorded_once(place):
    new = place.create(trials=1, waves=1)
    wave = new.claim("me", 60)
    for steps in (10_000.0, 70_000.0):
        record(new, wave, converged_env_steps=steps)
    twice = [lane(0, 0, final_return=7.0), lane(0, 0, final_return=8.0)]
    new.record(wave.id, "me", twice, curves_of(lanes_table(twice)))
    rows = [lane(0, s, converged_env_steps=10_000.0) for s in (0, 1)]
    pd.testing.assert_frame_equal(new.lanes(), lanes_table(rows))
    pd.testing.assert_frame_equal(new.curves(), curves_of(lanes_table(rows)))
    new.finish(wave.id)
    new.finish(wave.id)
    pd.testing.assert_frame_equal(new.curves(), curves_of(lanes_table(rows)))
    assert study_of(new).best_value == 10_000.0


def test_an_expired_lease_is_taken_over_and_both_records_make_one(place):
    first = place.create(trials=2, waves=1)
    second = place.open()
    wave = first.claim("first", 0.0)
    assert second.waves()[0][1] == "waiting"
    assert record(first, wave, "first", wave.lanes[:1])
    assert second.claim("second", 60) == wave
    assert first.claim("first", 60) is None
    assert not first.renew(wave.id, "first", 60)
    assert not record(first, wave, "first", wave.lanes[1:3], converged_env_steps=5_000.0)  # it counts all the same
    assert second.renew(wave.id, "second", 60)
    assert record(second, wave, "second")
    second.finish(wave.id)
    assert not second.renew(wave.id, "second", 60)
    assert second.lanes()["converged_env_steps"].fillna(0).tolist() == [0, 5_000, 5_000, 0]
    pd.testing.assert_frame_equal(second.curves(), curves_of(second.lanes()))


def test_a_lease_is_renewed_and_given_back(place):
    new = place.create(waves=1)
    wave = new.claim("me", 0.0)
    assert new.renew(wave.id, "me", 60)  # late, but nobody else came
    assert new.claim("other", 60) is None
    new.release("other")
    assert new.claim("other", 60) is None
    new.release("me")
    assert not new.renew(wave.id, "me", 60)
    assert new.claim("other", 60) == wave


def test_a_unit_is_done_only_with_all_its_lanes(place):
    new = place.create()
    wave = new.claim("me", 60)
    record(new, wave, lanes=wave.lanes[1:])
    with pytest.raises(ValueError, match="wave 0 is not done: 1 of its lanes"):
        new.finish(wave.id)


def test_racing_workers_never_share_a_unit(place):
    count, claimed, errors = 12, [], []
    place.create(trials=count, waves=count, seeds=[0])
    stores = [place.open() for _ in range(3)]

    def work(number):
        try:
            while wave := stores[number].claim(f"worker-{number}", 60):
                claimed.append(wave.id)
                record(stores[number], wave, f"worker-{number}")
                stores[number].finish(wave.id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(claimed) == list(range(count))
    assert_whole(place.open())


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


# -- deaths


class Death(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def deaths(opened, act):
    """Die in `act` before its first statement, then before its second, ... and before it commits, until it lives."""
    dialect = opened.engine.dialect
    commit = dialect.do_commit
    for at in itertools.count():
        left = itertools.count(at, -1)

        def step(*_, left=left):
            if next(left) <= 0:
                raise Death

        def do_commit(connection, step=step):
            step()
            commit(connection)

        sa.event.listen(opened.engine, "before_cursor_execute", step)
        dialect.do_commit = do_commit
        try:
            with contextlib.suppress(Death):
                act()
                return
        finally:
            sa.event.remove(opened.engine, "before_cursor_execute", step)
            dialect.do_commit = commit
        yield at


def test_death_before_any_statement_loses_and_doubles_nothing(place):
    new = place.create(trials=2, waves=1)
    wave = new.claim("me", 0.0)
    rows = [lane(*key) for key in wave.lanes]
    curves = curves_of(lanes_table(rows))
    died = 0
    for died in deaths(new, lambda: new.record(wave.id, "me", rows, curves)):  # noqa: B007 - the last is what counts
        assert new.recorded() == set()
        assert new.curves().empty
    assert died > 8
    assert_whole(place.open())
    for died in deaths(new, lambda: new.finish(wave.id)):  # noqa: B007
        assert new.waves() == [(wave, "waiting")]
        pd.testing.assert_frame_equal(new.curves(), curves)
    assert died > 3
    assert new.waves() == [(wave, "done")]
    assert_whole(place.open())


def test_death_while_trials_are_asked_leaves_none_of_them(folder):
    new = folder.create(trials=0)
    for _ in deaths(new, lambda: new.ask(2, "tpe", seed=0)):
        assert new.points() == []
    assert len(new.points()) == 2


def test_death_while_the_curves_are_written_loses_nothing(folder, monkeypatch):
    new = folder.create(waves=1)
    wave = new.claim("me", 60)
    record(new, wave)
    with monkeypatch.context() as patched:

        def die(*_):
            raise Death

        patched.setattr(os, "fsync", die)
        with pytest.raises(Death):
            new.finish(wave.id)
    assert_whole(folder.open())
    (folder.directory / "curves" / "unit-00000.parquet").write_bytes(b"half of one")  # it counts once the wave is done
    assert_whole(folder.open())
    folder.open().finish(wave.id)
    assert_whole(folder.open())


WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from synthetic import curves_of, lane, lanes_table
from dqn_jax.sweep import records
assert not set(sys.modules) & {{"optuna", "sqlalchemy"}}, "slow to import, and not needed yet"
opened = records.open_store({where!r})
with opened.lock():
    print("locked", flush=True)
    while wave := opened.claim("worker", 60):
        for key in wave.lanes:
            if ("search", *key) not in opened.recorded():
                opened.record(wave.id, "worker", [lane(*key)], curves_of(lanes_table([lane(*key)])))
                print("recorded", flush=True)
        opened.finish(wave.id)
"""


def worker(where):
    code = textwrap.dedent(WORKER).format(tests=str(Path(__file__).parents[1]), where=str(where))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_whole_records_and_an_open_lock(folder):
    new = folder.create(trials=60, waves=4)
    for _ in range(2):
        before = len(new.recorded())
        with worker(folder.directory) as process:
            assert process.stdout.readline() == "locked\n"
            with (
                pytest.raises(ConfigError, match=f"is being run by process {process.pid}; wait for it") as error,
                new.lock(),
            ):
                pass
            assert "\n" not in str(error.value)
            for _ in range(12):
                assert process.stdout.readline() == "recorded\n"
            time.sleep(0.01 * np.random.default_rng(before).random())
            assert "search" in set(load_data(folder.directory).lanes["phase"])  # while it runs
            process.send_signal(signal.SIGKILL)
        after = folder.open()
        assert len(after.recorded()) >= before + 12
        assert_whole(after)
        with after.lock():  # free, and so is what the dead process had leased
            assert "running" not in {state for _, state in after.waves()}
    with new.lock():
        run_all(new)
    assert len(new.recorded()) == 120
    assert_whole(folder.open())


# -- what goes wrong


def test_a_full_disk_is_one_line_and_loses_nothing(folder):
    new = folder.create(trials=40, waves=2)
    first, second = new.claim("me", 60), new.claim("me", 60)
    record(new, first)

    def shrink(connection, _):
        connection.execute("PRAGMA max_page_count = 1")  # at least what it has

    sa.event.listen(new.engine, "connect", shrink)
    with pytest.raises(RunError, match=r"cannot use .*full.*; free space, then go on with --resume") as error:
        record(new, second)
    assert "\n" not in str(error.value)
    assert_whole(folder.open())
    assert len(new.recorded()) == 40
    sa.event.remove(new.engine, "connect", shrink)
    record(new, second)
    assert_whole(folder.open())


def test_a_full_disk_under_the_curves_is_one_line_too(folder, monkeypatch):
    new = folder.create(waves=1)
    wave = new.claim("me", 60)
    record(new, wave)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left on device\); free space, then go on with --resume"):
            new.finish(wave.id)
    assert_whole(folder.open())
    new.finish(wave.id)
    assert_whole(folder.open())


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    start = time.monotonic()
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/sweeps"
    for attempt in (lambda: open_store(url), lambda: create(None, url, definition())):
        with pytest.raises(RunError, match=r"cannot use postgresql\S+127\.0\.0\.1.*refused") as error:
            attempt()
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
    assert time.monotonic() - start < 10


def test_a_server_may_be_away_for_a_while(postgres, monkeypatch):
    new = Place(None, postgres()).create()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    connect, left = new.engine.dialect.connect, [True, True, False]

    def away(*args, **kwargs):
        if left.pop(0):
            raise psycopg.OperationalError("the database system is starting up")
        return connect(*args, **kwargs)

    monkeypatch.setattr(new.engine.dialect, "connect", away)
    assert len(new.points()) == 4
    assert left == []


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "nonsense://x", "postgresql"])
def test_a_url_that_cannot_be_used_is_refused(url):
    with pytest.raises(ConfigError, match=r"store: this is not the URL of a database"):
        create(None, url, definition())


def test_what_is_not_a_sweep_is_refused(tmp_path, postgres):
    with pytest.raises(ConfigError, match="is not a sweep"):
        open_store(tmp_path)
    with pytest.raises(ConfigError, match="is not a sweep"):
        load_data(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no sweep of dqn_jax"):
        open_store(postgres())
    for name in ("store.sqlite", "sweep.json"):
        (tmp_path / name).write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(RunError, match="file is not a database"):
        open_store(tmp_path)
    with pytest.raises(ConfigError, match="is not empty"):
        create(tmp_path, None, definition())


def test_a_newer_format_is_refused(place, monkeypatch):
    place.create()
    monkeypatch.setattr(database, "FORMAT", 0)
    with pytest.raises(ConfigError, match=r"was written by a newer dqn_jax \(format 2\); update dqn_jax"):
        place.open()


def test_an_unknown_version_of_optunas_tables_is_refused(place):
    new = place.create()
    with new.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    with pytest.raises(ConfigError, match=r"store: The runtime optuna version .* is no longer compatible"):
        place.open()


def test_a_database_holds_several_sweeps(postgres):
    where = Place(None, postgres())
    where.create(trials=2, waves=1)
    where.create(trials=3, waves=1, name="second", seeds=[5])
    with pytest.raises(ConfigError, match=r"has 2 sweeps \(study, second\); choose one by its name"):
        where.open()
    with pytest.raises(ConfigError, match=r"has no sweep 'secnd'. Did you mean 'second'\? It has study, second"):
        open_store(where.url, "secnd")
    with pytest.raises(ConfigError, match=r"has a study 'second' already"):
        where.create(name="second")
    for name, lanes in (("study", 4), ("second", 3)):
        opened = open_store(where.url, name)
        run_all(opened)
        assert len(opened.lanes()) == lanes
        assert_whole(opened)
    storage = study_of(opened)._storage
    storage.delete_study(storage.get_study_id_from_name("study"))
    assert where.open().name == "second"
    assert where.create(trials=2, waves=1).lanes().empty


def test_a_directory_may_have_any_name(tmp_path):
    odd = Place(tmp_path / "a b?c#d%e{f}&g=h:i@j", None)
    run_all(odd.create())
    assert_whole(odd.open())
    assert sorted(path.name for path in tmp_path.iterdir()) == [odd.directory.name]


# -- adaptive sampling


def test_a_sampler_learns_and_a_resumed_sweep_asks_the_same(place):
    new = place.create(trials=0, vary={"learning_rate": "log(0.0001,0.01)", "batch_size": "32,64"})
    for batch in range(6):
        before = new.points()
        drawn = new.ask(8, "tpe", seed=3)
        assert [number for number, _ in drawn] == list(range(8 * batch, 8 * batch + 8))
        assert new.points() == [*before, *(point for _, point in drawn)]
        wave = Wave(batch, "search", tuple((number, seed) for number, _ in drawn for seed in (0, 1)))
        new.add_waves([wave])
        distance = {number: abs(np.log10(p["learning_rate"]) + 3) for number, p in drawn}
        rows = [lane(t, s, converged_env_steps=1_000 + 90_000 * distance[t]) for t, s in wave.lanes]
        new.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
    found = np.abs(np.log10([point["learning_rate"] for point in new.points()]) + 3)
    assert found[-16:].mean() < 0.5 * found[:16].mean()


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_the_same_records_are_asked_the_same(tmp_path, sampler):
    asked = []
    for name in ("one", "two"):
        where = Place(tmp_path / name, None)
        new = where.create(trials=0)
        drawn = new.ask(8, sampler, seed=1)
        rows = [lane(t, s, converged_env_steps=1000.0 * (t + 1)) for t in range(8) for s in (0, 1)]
        rows[3]["status"] = "pruned"
        new.add_waves([Wave(0, "search", tuple((row["trial"], row["seed"]) for row in rows))])
        new.record(0, "me", rows, curves_of(lanes_table(rows)))
        drawn += (where.open() if name == "two" else new).ask(8, sampler, seed=1)
        asked.append(drawn)
    assert asked[0] == asked[1]
    assert asked[0][:8] != asked[0][8:]


def test_cmaes_narrows_down(folder):
    new = folder.create(trials=0, seeds=[0], vary={"learning_rate": "log(0.0001,0.01)", "target_period": "int(1,100)"})
    spread = []
    for batch in range(8):
        drawn = new.ask(8, "cmaes", seed=0)
        rows = [
            lane(
                t, 0, converged_env_steps=1 + 1e4 * (np.log10(p["learning_rate"]) + 2.5) ** 2 + p["target_period"] ** 2
            )
            for t, p in drawn
        ]
        new.add_waves([Wave(batch, "search", tuple((t, 0) for t, _ in drawn))])
        new.record(batch, "me", rows, curves_of(lanes_table(rows)))
        spread.append(np.mean([row["converged_env_steps"] for row in rows]))
    assert spread[-1] < 0.2 * spread[0]
    with new.engine.connect() as connection:
        attributes = connection.exec_driver_sql("SELECT key, value_json FROM trial_system_attributes").all()
    attributes = [(key, value) for key, value in attributes if key != "constraints"]
    assert {key for key, _ in attributes} == {"dqn_jax:generation"}  # plain numbers, no pickled optimiser
    assert {json.loads(value) for _, value in attributes} == set(range(8))


def test_cmaes_needs_a_range(folder):
    new = folder.create(trials=0, vary={"batch_size": "32,64"})
    with pytest.raises(ConfigError, match="cmaes needs a setting that varies over a range; use tpe"):
        new.ask(4, "cmaes", seed=0)


# -- reports


def test_a_report_reads_while_the_sweep_runs(folder):
    new = folder.create(trials=20, waves=4)
    (folder.directory / "plan.json").write_text('{"devices": 1}')
    thread = threading.Thread(target=run_all, args=(new,))
    thread.start()
    seen = []
    while thread.is_alive():
        data = load_data(folder.directory)
        pd.testing.assert_frame_equal(data.curves, curves_of(data.lanes))
        seen.append(len(data.lanes))
    thread.join()
    data = load_data(folder.directory)
    assert seen == sorted(seen)
    assert len(data.lanes) == 40
    assert (data.name, data.plan, data.provenance) == ("study", {"devices": 1}, {})
    assert data.settings == {"format": database.FORMAT, **definition()}
    assert len(data.trials) == 20


def test_a_server_is_mirrored_into_a_directory(tmp_path, postgres):
    where = Place(None, postgres())
    remote = where.create(trials=4, waves=2)
    mirror = tmp_path / "mirror"
    for _ in range(3):
        export(remote, mirror)
        mirrored, opened = load_data(mirror), remote.data()
        for name in ("trials", "lanes", "curves"):
            pd.testing.assert_frame_equal(getattr(mirrored, name), getattr(opened, name))
        assert mirrored.settings == opened.settings
        if wave := remote.claim("me", 60):
            record(remote, wave, lanes=wave.lanes[1:])
            export(remote, mirror)
            record(remote, wave)
            remote.finish(wave.id)
    assert len(mirrored.lanes) == 8
    assert sorted(path.name for path in (mirror / "curves").iterdir()) == ["unit-00000.parquet", "unit-00001.parquet"]
    with pytest.raises(ConfigError, match=r"mirrors 'study' at postgresql\S+; go on with it by --store URL"):
        open_store(mirror)
    with pytest.raises(ConfigError, match="holds another sweep"):
        export(where.create(name="other"), mirror)


def test_a_new_sweep_on_a_server_has_its_mirror_at_once(tmp_path, postgres):
    remote = create(tmp_path / "mirror", postgres(), definition())
    assert load_data(tmp_path / "mirror").lanes.empty
    with remote.lock():
        pass


def test_differences_name_the_field(place):
    new = place.create()
    assert unlike(new.definition, definition(vary=VARY)) == []
    wanted = definition(seeds=(0, 1, 2), vary={**VARY, "discount": "0.9"}, sampler="sobol")
    assert unlike(new.definition, wanted) == [
        ("vary.discount", "uniform(0.9,0.999)", "0.9"),
        ("seeds", [0, 1], [0, 1, 2]),
        ("sampler", None, "sobol"),
    ]


# -- creation


KILLED_CREATIONS = """
import json, os, signal, sys
from pathlib import Path
import sqlalchemy as sa
import optuna
from dqn_jax import ConfigError
from dqn_jax.sweep.records import create, load_data, open_store

folder, stride, definition = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
create(folder / "first", None, definition)  # all that is imported late
left = [-1]

def step(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

sa.event.listen(sa.Engine, "before_cursor_execute", step)
sa.event.listen(sa.Engine, "commit", step)
sys.addaudithook(lambda name, _: step() if name in ("open", "os.rename", "os.remove", "os.mkdir") else None)
at, states = 1, []
while True:
    directory = folder / str(at)
    child = os.fork()
    if child == 0:
        left[0] = at
        create(directory, None, definition)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    try:
        open_store(directory)
    except ConfigError as error:
        assert "is not a sweep" in str(error) or "start it there without --resume" in str(error), error
        states.append("free")
        create(directory, None, definition)
    else:
        states.append("whole")
        try:
            create(directory, None, definition)
        except ConfigError as error:
            assert "is not empty" in str(error) and "--resume" in str(error)
    assert load_data(directory).name == definition["name"]
    with open_store(directory).lock():
        pass
    assert sorted(path.name for path in directory.iterdir()) == ["store.sqlite", "sweep.json"]
    at += stride
print(json.dumps(states))
"""


def test_a_creation_that_is_killed_leaves_a_folder_that_can_be_used(tmp_path):
    arguments = [str(tmp_path), "19", json.dumps(definition())]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_CREATIONS, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert len(states) > 5
    assert states == sorted(states)  # first nothing, then everything
    assert set(states) == {"free", "whole"}


def test_what_a_creation_fails_with_leaves_no_folder(tmp_path):
    with pytest.raises(RunError, match="refused"):
        create(tmp_path / "mirror", f"postgresql://me@127.0.0.1:{free_port()}/sweeps", definition())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not empty; choose another folder, or go on with the sweep in it"):
        create(tmp_path / "mine", None, definition())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_sweep_is_its_store_and_the_copy_is_made_again(folder):
    folder.create()
    copy = folder.directory / "sweep.json"
    kept = copy.read_text()
    for spoil in (copy.unlink, lambda: copy.write_text("half of"), lambda: copy.write_bytes(b"\xff")):
        spoil()
        assert find(folder.directory.parent) == folder.directory
        assert load(folder.directory).name == "study"
        assert copy.read_text() == kept
        assert folder.open().name == "study"
    (folder.directory / "store.sqlite").unlink()
    for attempt in (folder.open, lambda: load(folder.directory)):
        with pytest.raises(ConfigError, match=r"store\.sqlite is missing, and with it all that was found"):
            attempt()


def test_a_creation_at_a_url_that_is_killed_can_be_done_again(place):
    url = place.url or f"sqlite:///{place.directory}.sqlite"
    left = [0]

    def step(*_):
        left[0] -= 1
        if left[0] == 0:
            raise Death

    sa.event.listen(sa.Engine, "before_cursor_execute", step)
    try:
        for at in itertools.count(1, 15):
            left[0] = at
            with contextlib.suppress(Death):
                create(None, url, definition())
                break
    except ConfigError:
        pass  # it died when all was done
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", step)
    with pytest.raises(ConfigError, match="has a study 'study' already"):
        create(None, url, definition())
    assert at > 60
    assert Place(None, url).open().lanes().empty


# -- several that plan


def test_of_two_that_plan_at_once_one_does(place):
    first = place.create(trials=4, waves=1)
    second = place.open()
    waves = [((0, 7),), ((1, 7),)]
    assert first.plan("confirm", waves, after=1)
    assert not second.plan("confirm", [((0, 7), (1, 7))], after=1)
    assert [wave for wave, _ in second.waves()][1:] == [Wave(1, "confirm", waves[0]), Wave(2, "confirm", waves[1])]
    assert [number for number, _ in first.ask(2, "tpe", 0, after=4)] == [4, 5]
    assert second.ask(2, "tpe", 0, after=4) == []
    assert len(second.points()) == 6
