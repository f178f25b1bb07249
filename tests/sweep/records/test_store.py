"""The records of a sweep as one thing: whole after any death, at any instant."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from recording import assert_whole, deaths, definition, record, run_all, study_of
from synthetic import curves_of, lane, lanes_table

from dqn_jax import ConfigError, RunError
from dqn_jax.sweep.records import Wave, database, load_data
from dqn_jax.sweep.space import points


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
    code = textwrap.dedent(WORKER).format(tests=str(Path(__file__).parents[2]), where=str(where))
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
