"""A run that goes on keeps its own settings, and is asked for nothing else that would change its numbers."""

from __future__ import annotations

import os
import shlex
import shutil
import signal

import pandas as pd
import pytest
from sweeping import compiled as compiled  # a fixture

import dqn_jax
from dqn_jax import runs
from dqn_jax.cli.display import TrainDisplay
from dqn_jax.cli.main import main
from dqn_jax.config import ConfigError
from dqn_jax.runs import going_on

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
        ("--hidden 9 --dueling", "hidden: the run in .* has 8, not 9 .and 1 more settings differ"),
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
