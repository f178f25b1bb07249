"""Damaged, missing and foreign files of a sweep: the same numbers or one line, never others, never a traceback."""

from __future__ import annotations

import json
import shutil
import sqlite3

import numpy as np
import pandas as pd
import pytest
from sweeping import ASKED, CRITERIA, ENV, TINY, VARY, assert_same_numbers
from sweeping import compiled as compiled  # a fixture
from synthetic import curves_of, lane, lanes_table

from dqn_jax import ConfigError, RunError
from dqn_jax.cli.main import main
from dqn_jax.sweep import runner, sweep
from dqn_jax.sweep.records import Wave, create, load_data, open_store
from dqn_jax.sweep.space import points


def small(directory):
    """A sweep of two waves, one done and one half way."""
    vary = {"learning_rate": "log(0.0001,0.01)", "hidden": "64x64,120x84"}
    new = create(directory, None, {"name": "study", "vary": vary, "seeds": [0, 1], "config": {"total_steps": 100_000}})
    new.add_trials(points(new.space, "random", 4))
    new.add_waves([Wave(i, "search", tuple((t, s) for t in (2 * i, 2 * i + 1) for s in (0, 1))) for i in range(2)])
    for lanes in (4, 2):
        wave = new.claim("me", 60)
        rows = [lane(*key) for key in wave.lanes[:lanes]]
        new.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
        if lanes == 4:
            new.finish(wave.id)
    return load_data(directory)


def assert_told_or_same(directory, good):
    """Gives what was told, if it was not all the same."""
    told: list[str] = []
    try:
        data = load_data(directory, told.append)
    except (ConfigError, RunError) as error:
        told.append(str(error))
        data = None
    if data is None:
        assert len(told[-1].splitlines()) == 1
        return told[-1]
    pd.testing.assert_frame_equal(data.trials, good.trials, check_exact=True)
    pd.testing.assert_frame_equal(data.lanes, good.lanes, check_exact=True)
    assert (data.name, data.settings) == (good.name, good.settings)
    if not told:
        pd.testing.assert_frame_equal(data.curves, good.curves, check_exact=True)
        return None
    assert len(told) == 1
    assert len(told[0].splitlines()) == 1
    assert len(data.curves.merge(good.curves)) == len(data.curves) < len(good.curves)
    return told[0]


@pytest.mark.parametrize(("name", "flips"), [("store.sqlite", 70), ("curves/unit-00000.parquet", 40)])
def test_a_flipped_bit_changes_no_number_silently(name, flips, tmp_path):
    good = small(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    bits = np.random.default_rng(0).choice(8 * len(whole), flips, replace=False)
    if name == "store.sqlite":  # most of the file is empty: aim at what is written in it
        held = np.flatnonzero(np.frombuffer(whole, np.uint8))
        bits = 8 * np.random.default_rng(1).choice(held, flips, replace=False) + bits % 8
    told = []
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        told.append(assert_told_or_same(tmp_path, good))
    path.write_bytes(whole)
    assert assert_told_or_same(tmp_path, good) is None
    assert sum(line is not None for line in told) > (0 if name == "store.sqlite" else flips - 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE dqn_jax_lanes SET converged_env_steps = 1.0 WHERE trial = 1 AND seed = 0", "trial 1, seed 0"),
        ("DELETE FROM dqn_jax_lanes WHERE trial = 1 AND seed = 0", "lanes are missing"),
        ("UPDATE trial_params SET param_value = 0.5 * param_value WHERE param_id = 1", "its points"),
        ("UPDATE dqn_jax_sweeps SET definition = replace(definition, '100000', '100001')", "what was asked"),
        ("UPDATE dqn_jax_sweeps SET digest = NULL", "what was asked"),
        ("UPDATE dqn_jax_curves SET data = substr(data, 1, 900)", "curves of wave 1 is damaged"),
        ("DELETE FROM dqn_jax_curves", "the curves of 2 lanes"),
    ],
)
def test_what_was_changed_behind_our_back_is_named(change, says, tmp_path):
    good = small(tmp_path)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute(change)
    connection.close()
    assert says in assert_told_or_same(tmp_path, good)


def test_a_value_that_was_changed_is_not_learnt_from(tmp_path):
    small(tmp_path)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("UPDATE dqn_jax_units SET phase = 'confirm' WHERE id = 0")
    connection.close()
    with pytest.raises(RunError, match="its waves"):
        open_store(tmp_path).claim("me", 60)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("UPDATE trial_values SET value = 1.0")
    connection.close()
    with pytest.raises(RunError, match="the value of trial 0"):
        open_store(tmp_path).ask(2, "tpe", seed=0)


def test_stores_of_before_there_were_digests_go_on(tmp_path):
    good = small(tmp_path)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        for table, columns in {
            "sweeps": ("digest", "trials_digest", "units_digest", "lanes_recorded"),
            "units": ("curves_digest",),
            "lanes": ("digest",),
            "curves": ("digest",),
        }.items():
            for column in columns:
                connection.execute(f"ALTER TABLE dqn_jax_{table} DROP COLUMN {column}")
        connection.execute("UPDATE dqn_jax_sweeps SET format = 1")
    connection.close()
    assert assert_told_or_same(tmp_path, good) is None
    old = open_store(tmp_path)
    with old.lock():
        wave = old.claim("me", 60)
        rows = [lane(*key) for key in wave.lanes[2:]]
        old.record(wave.id, "me", rows, curves_of(lanes_table(rows)))
        old.finish(wave.id)
    old.ask(2, "tpe", seed=0)
    pd.testing.assert_frame_equal(old.curves(), curves_of(old.lanes()))
    url = f"sqlite:///{tmp_path}/store.sqlite"  # a new sweep in the old tables has digests
    definition = {"name": "new", "vary": {"double": "true"}, "seeds": [0], "config": {"total_steps": 10}}
    new = create(None, url, definition)
    new.add_trials([{"double": True}])
    with new.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(trials_digest) FROM dqn_jax_sweeps").scalar_one() == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "0", '"x"', "[]", "{}", "[" * 100_000, '{"name": 1}',
        *(
            json.dumps({"name": "x", "vary": {"double": "true"}, "seeds": [0], "config": {"total_steps": 9}, **wrong})
            for wrong in (
                {"seeds": []}, {"seeds": "abc"}, {"seeds": [-1]}, {"vary": {}}, {"vary": "x"}, {"config": []},
                {"config": {"total_steps": 0}}, {"sampler": "x"}, {"prune": {"rule": "halving", "eta": 0}},
                {"confirm": {}}, {"hparams": {"learning_rate": "x"}},
            )
        ),
    ],
)  # fmt: skip
def test_a_question_of_another_shape_is_one_line(text, tmp_path):
    small(tmp_path)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        for table, column in (("sweeps", "digest"),):
            connection.execute(f"UPDATE dqn_jax_{table} SET {column} = NULL, definition = ?, format = 1", [text])
    connection.close()
    for attempt in (load_data, open_store):
        with pytest.raises((ConfigError, RunError)) as error:
            attempt(tmp_path)
        assert len(str(error.value).splitlines()) == 1
        assert len(str(error.value)) < 500


# -- through the command line


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that has ended."""
    with pytest.MonkeyPatch.context() as patch:
        from sweeping import programs_of

        patch.setattr("dqn_jax.sweep.worker.make_programs", lambda config, hparams, n: programs_of(config, hparams, n))
        return sweep(**ASKED, out=tmp_path_factory.mktemp("sweep") / "whole")


FLAGS = [
    word
    for name, value in TINY.items()
    for word in ("--" + name.replace("_", "-"), str(value[0] if isinstance(value, tuple) else value))
]
KINDS = {
    "missing": None,
    "empty": b"",
    "cut": b'{"devices": ',
    "string": b'"text"',
    "list": b"[1, 2]",
    "zero": b"0",
    "wrong types": b'{"groups": 3, "compiled": "x", "sessions": [1], "devices": {"a": []}, "flags": 1, "seeds": 2}',
    "deep": b"[" * 100_000,
    "bytes": bytes(range(256)) * 16,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["plan.json", "provenance.json", "sweep.json", "curves/unit-00000.parquet", "lock"])
def test_a_file_that_is_damaged_in_any_way(name, kind, whole, tmp_path, capsys, compiled):
    folder = tmp_path / "sweep"
    shutil.copytree(whole.directory, folder)
    path = folder / name
    path.unlink(missing_ok=True)
    if KINDS[kind] is not None:
        path.write_bytes(KINDS[kind])
    assert main(["report", str(folder), "--csv"]) == 0
    asked = ["sweep", ENV, *FLAGS, "--seeds", "3", "--criteria", *CRITERIA, "--vary", *VARY]
    assert main([*asked, "--out", str(folder), "--resume"]) == 0
    err = capsys.readouterr().err
    assert "Traceback" not in err
    harmless = kind == "missing" or name in ("sweep.json", "lock")
    if name.endswith("parquet"):
        assert "are lost" in err
        assert "the lanes of 1 waves run again, with the same numbers" in err
        assert len(compiled) == 1
    else:
        assert compiled == []
        assert ("they are begun anew" in err) != harmless
    told: list[str] = []
    assert_same_numbers(load_data(folder, told.append), whole.data)
    assert told == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "missing"])
def test_a_store_that_is_damaged_in_any_way(kind, whole, tmp_path, capsys):
    folder = tmp_path / "sweep"
    shutil.copytree(whole.directory, folder)
    (folder / "store.sqlite").write_bytes(KINDS[kind])
    for command in (
        ["report", str(folder)],
        ["sweep", "--join", f"sqlite:///{folder}/store.sqlite"],
        ["sweep", ENV, *FLAGS, "--vary", *VARY, "--criteria", *CRITERIA, "--out", str(folder), "--resume"],
    ):
        assert main(command) in (1, 2)
        err = capsys.readouterr().err
        assert len(err.strip().splitlines()) == 1
        assert "Traceback" not in err


# -- who joins


def test_who_joins_takes_over_what_nobody_plans(whole, tmp_path, monkeypatch, capsys, compiled):
    url = f"sqlite:///{tmp_path}/records.sqlite"
    create(None, url, {k: v for k, v in whole.data.settings.items() if k != "format"})  # and its runner has died
    monkeypatch.setattr(runner, "_PATIENCE_SECONDS", 0.0)
    assert main(["sweep", "--join", url]) == 0
    out, err = capsys.readouterr()
    assert "nobody plans what is left of this sweep: this worker does" in err
    assert "1 waves run here" in out
    assert_same_numbers(open_store(url).data(), whole.data)
