"""Sweeps recorded by hand, in a folder or on a server, and deaths in the middle of it."""

from __future__ import annotations

import contextlib
import itertools

import optuna
import pandas as pd
import sqlalchemy as sa
from synthetic import curves_of, lane, lanes_table

from dqn_jax.sweep.records import Wave, create, open_store
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
