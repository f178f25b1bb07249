"""A sweep that goes on may be asked for more where that keeps its numbers, and for nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3

import pytest
from sweeping import CRITERIA, ENV, TINY, assert_same_numbers, programs_of
from sweeping import compiled as compiled  # a fixture

from dqn_jax.cli.display import SweepDisplay
from dqn_jax.cli.main import main
from dqn_jax.config import ConfigError
from dqn_jax.sweep import sweep

ASKED = {
    **TINY,
    "preset": ENV,
    "vary": {"learning_rate": "log(1e-3,1e-2)"},
    "sampler": "random",
    "samples": 2,
    "seeds": 2,
    "criteria": CRITERIA,
}
FLAGS = [
    word
    for name, value in TINY.items()
    for word in ("--" + name.replace("_", "-"), str(value[0] if isinstance(value, tuple) else value))
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A finished sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dqn_jax.sweep.worker.make_programs", lambda *arguments: programs_of(*arguments))
        out = tmp_path_factory.mktemp("asked") / "sweep"
        sweep(**ASKED, out=out)
    return out


def values(folder):
    """Of the trials of its Optuna study."""
    with sqlite3.connect(folder / "store.sqlite") as database:
        query = "SELECT number, state, value FROM trials LEFT JOIN trial_values USING (trial_id) ORDER BY number"
        return database.execute(query).fetchall()


def test_a_sweep_that_is_asked_for_more_later_has_the_numbers_of_one_that_was_asked_at_once(tmp_path, compiled, asked):
    shutil.copytree(asked, tmp_path / "later")
    resumed = ["sweep", "--resume", "--out", str(tmp_path / "later")]
    assert main(resumed) == 0
    assert values(tmp_path / "later") == values(asked)
    assert main([*resumed, "--samples", "3"]) == 0
    assert main([*resumed, "--seeds", "3"]) == 0
    assert main([*resumed, "--confirm", "2", "--confirm-best", "1"]) == 0
    later = sweep(resume=True, out=tmp_path / "later")  # what was added is its own now
    whole = sweep(**{**ASKED, "seeds": 3, "samples": 3}, confirm=2, confirm_best=1, out=tmp_path / "whole")
    assert_same_numbers(later.data, whole.data)
    assert values(tmp_path / "later") == values(tmp_path / "whole")
    for name in ("seeds", "samples", "confirm"):
        assert later.data.settings[name] == whole.data.settings[name]
    with pytest.raises(ConfigError, match=r"seeds: .* its best are chosen already"):
        sweep(resume=True, out=tmp_path / "later", seeds=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--learning-rate 0.5", "hparams.learning_rate: this sweep has"),
        ("--vary learning_rate=1,2", r"vary.learning_rate: this sweep has log\(1e-3,1e-2\), not 1,2"),
        ("--samples 1", "samples: this sweep has 2, not 1"),
        ("--seeds 1", "seeds: this sweep has 0, 1, not 0"),
        ("--stop budget", "stop: this sweep has converged, not budget; .*leave this out, or drop --resume"),
        ("cartpole", "preset: this sweep varies 'ProbePolicy-test', not 'cartpole'"),
    ],
)
def test_what_is_typed_and_differs_from_a_sweep_is_refused_in_one_line(asked, capsys, arguments, message):
    assert main(["sweep", "--resume", "--out", str(asked), *arguments.split()]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(err)


def test_more_is_refused_where_it_would_have_changed_what_was_chosen(tmp_path, compiled):
    sweep(**ASKED, prune="halving", prune_eta=2, out=tmp_path / "sweep")
    with pytest.raises(ConfigError, match=r"samples: .* it chose by what it had"):
        sweep(resume=True, out=tmp_path / "sweep", samples=3)


def test_the_newest_sweep_goes_on_without_a_name(tmp_path, compiled, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def stop(self, progress):
        if progress.phase == "run":
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(SweepDisplay, "update", stop)
        words = ["--vary", "learning_rate=0.001,0.01", "--seeds", "2", "--criteria", *CRITERIA]
        assert main(["sweep", *words, *FLAGS, ENV]) == 130
    assert main(["sweep", "--resume"]) == 0
    assert len(list((tmp_path / "sweeps").glob("*/*"))) == 1
