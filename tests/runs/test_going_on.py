"""What goes on keeps its own settings, may be asked for more where that keeps bits, and for nothing else."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sqlite3

import pandas as pd
import pytest
from sweeping import CRITERIA, ENV, TINY, assert_same_numbers, programs_of
from sweeping import compiled as compiled  # a fixture

import dqn_jax
from dqn_jax import runs
from dqn_jax.cli.display import SweepDisplay, TrainDisplay
from dqn_jax.cli.main import main
from dqn_jax.config import ConfigError
from dqn_jax.runs import going_on
from dqn_jax.sweep import sweep

OPTIONS = (
    "--hidden 8 --batch-size 8 --replay-capacity 200 --min-replay 50 --num-envs 2 --train-every 2 --eval-every 200 "
    "--eval-episodes 3 --max-episode-steps 60 --learning-rate 2e-3 --seeds 2 --seed 3 --save-episodes "
    "--criteria eval:475x3 epsilon:0.5"
).split()


@pytest.fixture(autouse=True)
def no_films(monkeypatch):
    monkeypatch.setattr("dqn_jax.runs.recorder.Recorder.film", lambda *_: None)  # they take longer than the rest


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run with options of every kind that Ctrl-C stopped after its first chunk, and what was said then."""
    folder = tmp_path_factory.mktemp("stopped")

    def stop(self, progress):
        if progress.phase == "train":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(TrainDisplay, "update", stop)
        patch.setattr("dqn_jax.runs.recorder.Recorder.film", lambda *_: None)
        lines = []
        patch.setattr("builtins.print", lambda *words, file=None, **rest: lines.append(str(words[0])))
        assert main(["train", *OPTIONS, "--total-steps", "1e3", "cartpole"]) == 130
    return folder, [line for text in lines for line in text.splitlines()]


@pytest.fixture
def copy(stopped, tmp_path, monkeypatch):
    """The stopped run's folder, to go on with from above it."""
    shutil.copytree(stopped[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return next((tmp_path / "runs" / "cartpole").iterdir())


def numbers(run):
    return pd.read_csv(run / "metrics.csv").drop(columns="seconds")


def test_the_hint_after_ctrl_c_is_a_command_that_works_and_gives_the_numbers_of_a_run_never_stopped(stopped, copy):
    hint = stopped[1][-1]
    assert hint == f"dqn-jax train --resume --out runs/cartpole/{copy.name}"
    assert len(numbers(copy).env_steps.unique()) == 1
    assert main([*shlex.split(hint)[1:], "--total-steps", "450"]) == 0
    assert main(["train", "cartpole", "--resume", "--total-steps", "650"]) == 0  # and more of it
    whole = copy.parent / "whole"
    assert main(["train", "cartpole", *OPTIONS, "--total-steps", "650", "--out", str(whole)]) == 0
    pd.testing.assert_frame_equal(numbers(copy), numbers(whole), check_exact=True)
    assert (copy / "episodes.csv").read_text() == (whole / "episodes.csv").read_text()  # it was asked for once
    own = runs.load_settings(copy)
    assert (own.seeds, own.criteria, own.config.total_steps) == ((3, 4), ("eval>=475x3", "epsilon<=0.5"), 650)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--learning-rate 1e-3",
            "learning_rate: the run in .* has 0.002, not 0.001; .* leave it out, or drop",
        ),
        ("--seeds 4", r"seeds: the run in .* has 3 to 4, not 3 to 6; .* --seed 5 --seeds 2 without --resume"),
        ("--seed 0", "seeds: the run in .* has 3 to 4, not 0 to 1"),
        ("--lane-block 1", "lane_block: the run in .* has 0, not 1"),
        ("--hidden 9 --double --no-double", "hidden: the run in .* has 8, not 9 .and 1 more settings differ"),
        (
            "acrobot --out runs/cartpole",
            "preset: the run in .* is of 'cartpole', not of 'acrobot'; leave",
        ),
        ("acrobot", "resume: runs/acrobot does not exist"),
    ],
)
def test_what_is_typed_and_differs_is_refused_in_one_line(copy, capsys, arguments, message):
    before = (copy / "config.json").read_text()
    assert main(["train", "--resume", *arguments.split()]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(err)
    assert (copy / "config.json").read_text() == before


def test_from_python_too_a_run_has_its_own_settings(copy):
    for preset in (None, "cartpole"):
        with pytest.raises(ConfigError, match="discount: the run in"):
            dqn_jax.train(preset, resume=True, out=copy, discount=0.5)
    with pytest.raises(ConfigError, match=r"seeds: the run in"):
        dqn_jax.train(resume=True, out=copy, seeds=[3, 9])
    run, own = going_on.find(None, copy, None)
    assert run == copy
    assert going_on.asked("cartpole", own).config == own.config
    result = dqn_jax.train(resume=True, out=copy, total_steps=450, seeds=2, learning_rate=2e-3)
    assert result.settings.seeds == (3, 4)


# -- sweeps

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
