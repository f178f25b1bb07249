"""`dqn-jax sweep` from end to end, and every kind of bad input: one line, the right exit code, nothing written."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import sqlite3

import numpy as np
import pytest
from rich.console import Console
from servers import free_port
from sweeping import ASKED, CRITERIA, ENV, TINY, VARY, assert_same_numbers
from sweeping import compiled as compiled  # a fixture

from dqn_jax.cli.display import SweepDisplay
from dqn_jax.cli.main import main
from dqn_jax.cli.tables import sweep_tables
from dqn_jax.sweep import SweepProgress, SweepResult, sweep
from dqn_jax.sweep.records import load_data
from dqn_jax.sweep.results import ranked
from dqn_jax.sweep.tables import LANE_COLUMNS

FLAGS = [
    word
    for name, value in TINY.items()
    for word in ("--" + name.replace("_", "-"), str(value[0] if isinstance(value, tuple) else value))
]
COMMAND = ["sweep", ENV, *FLAGS, "--seeds", "3", "--criteria", *CRITERIA]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("", ["vary", "--vary 'learning_rate=log(1e-4,1e-2)'"]),
        ("--vary learning_rte=1,2", ["learning_rte", "Did you mean 'learning_rate'"]),
        ("--vary env_params=1,2", ["env_params", "--env-params"]),
        ("--vary eval_seed=1,2", ["eval_seed", "--eval-seed"]),
        ("--vary learning_rate", ["learning_rate", "NAME=VALUES"]),
        ("--vary learning_rate=", ["learning_rate", "NAME=VALUES"]),
        ("--vary learning_rate=uniform(0.1)", ["learning_rate", "two ends"]),
        ("--vary learning_rate=uniform(0.1,0.1)", ["learning_rate", "empty"]),
        ("--vary learning_rate=log(1e-2,1e-4)", ["learning_rate", "empty", "lower"]),
        ("--vary learning_rate=log(0,1e-4)", ["learning_rate", "zero", "uniform"]),
        ("--vary learning_rate=lag(1e-4,1e-2)", ["'lag'", "Did you mean 'log'"]),
        ("--vary learning_rate=1e-3,1e-3", ["learning_rate", "twice"]),
        ("--vary learning_rate=1e-3 --vary learning_rate=1e-2", ["learning_rate", "twice"]),
        ("--vary learning_rate=none,1", ["learning_rate", "cannot be left out"]),
        ("--vary learning_rate=1,x", ["learning_rate", "'x'"]),
        ("--vary learning_rate=uniform(0,1) --samples 1", ["learning_rate: 0.0", "greater than 0"]),
        ("--vary discount=uniform(0.5,1.5) --samples 1", ["discount: 1.5", "at most 1"]),
        ("--vary discount=uniform(0.5,1.5) --samples 1 --sampler tpe", ["discount: 1.5", "at most 1"]),
        ("--vary batch_size=log(8,64)", ["batch_size", "logint"]),
        ("--vary hidden=uniform(8,64)", ["hidden", "list"]),
        ("--vary hidden=int(8,64) --samples 2", ["hidden", "list"]),
        ("--vary loss=squared,hubr", ["loss", "Did you mean 'huber'"]),
        *(
            (f"--vary {name}=1,2", [f"{name}: ", "one sweep for each value", f"--{name.replace('_', '-')}"])
            for name in (
                "env",
                "max_episode_steps",
                "sticky_actions",
                "noop_max",
                "eval_every",
                "eval_episodes",
                "eval_epsilon",
                "total_steps",
                "total_episodes",
            )
        ),
        ("--vary discount=0.9,0.99 --discount 0.9", ["discount", "varies too", "--vary discount"]),
        ("--vary learning_rate=1,2 --prune-eta 4", ["prune_eta", "without --prune"]),
        ("--vary learning_rate=1,2 --confirm-best 4", ["confirm_best", "without --confirm"]),
        ("--vary learning_rate=1,2 --samples 100000000", ["samples", "100,000 or fewer"]),
        ("--vary learning_rate=log(1,2) --samples 100000000 --sampler tpe", ["samples", "100,000 or fewer"]),
        ("--vary learning_rate=1,2 --seeds 1000000000", ["seeds", "too many"]),
        ("--vary learning_rate=1,2 --confirm 1000000000", ["confirm", "1,000,000 or fewer"]),
        ("--vary learning_rate=1,2 --sample-seed -1", ["sample_seed", "0 or more"]),
        ("--vary learning_rate=1,2 --stop budget --stability-steps 5", ["stability_steps", "leave out one"]),
        ("--vary learning_rate=1,2 --workers 0", ["workers", "--engine ray"]),
        ("--vary learning_rate=1,2 --workers 0 --engine ray", ["workers", "1 or more"]),
        ("--vary learning_rate=1,2 --name ../../x", ["name", "letters, digits"]),
        ("--vary learning_rate=1,2 --name [/red]x", ["name", "letters, digits"]),
        ("--vary learning_rate=1,2 --eval-seed 2", ["eval_seed", "seed of a lane"]),
        ("--vary huber_delta=1,2", ["huber_delta", "--loss"]),
        ("--vary minibatch_size=3,8", ["minibatch_size: 3", "divisor", "at the point minibatch_size=3"]),
        ("--vary learning_rate=1,2 --samples 0", ["samples", "--samples"]),
        ("--vary learning_rate=log(1e-4,1e-2)", ["samples", "--samples 64"]),
        ("--vary learning_rate=log(1e-4,1e-2) --sampler grid", ["learning_rate", "grid"]),
        ("--vary learning_rate=1,2 --sampler grid --samples 2", ["samples", "leave samples out"]),
        ("--vary learning_rate=log(1e-4,1e-2) --sampler tpe", ["samples", "tpe"]),
        ("--vary learning_rate=1,2 --sampler cmaes --samples 4", ["cmaes", "range"]),
        ("--vary learning_rate=log(1,2) --sampler tpe --samples 4 --sampler-batch 0", ["batch", "1 or more"]),
        ("--vary learning_rate=1,2 --sampler sobel", ["--sampler", "sobol"]),
        ("--vary learning_rate=1,2 --seeds 0", ["seeds", "1 or more"]),
        ("--vary learning_rate=1,2 --seed -1", ["seed", "between 0 and"]),
        ("--vary learning_rate=1,2 --seed 2147483647", ["seed", "between 0 and"]),
        ("--vary learning_rate=1,2 --wave 0", ["wave", "1 or more"]),
        ("--vary learning_rate=1,2 --memory-gb 1e-6", ["memory", "one lane takes", "--memory-gb"]),
        ("--vary learning_rate=1,2 --memory-gb 0", ["memory_gb", "positive"]),
        ("--vary learning_rate=1,2 --memory-gb nan", ["memory_gb", "positive"]),
        ("--vary learning_rate=1,2 --resume", ["resume", "holds no sweep"]),
        ("--vary learning_rate=1,2 --resume --out nowhere", ["nowhere", "is not a sweep"]),
        ("--vary learning_rate=1,2 --prune median", ["--prune", "halving"]),
        ("--vary learning_rate=1,2 --prune halving --prune-eta 1", ["prune_eta", "2 or more"]),
        ("--vary learning_rate=1,2 --prune halving --prune-eta 1000000000", ["prune_eta", "smaller"]),
        ("--vary learning_rate=1,2 --stability-steps -1", ["stability_steps", "0 or more"]),
        ("--vary learning_rate=1,2 --criteria", ["criteria", "--criteria"]),
        ("--vary learning_rate=1,2 --criteria evil>=1", ["evil", "Did you mean 'eval'"]),
        ("--vary learning_rate=1,2 --confirm -1", ["confirm", "0 or more"]),
        ("--vary learning_rate=1,2 --confirm 2 --confirm-best 0", ["confirm_best", "1 or more"]),
        ("--vary learning_rate=1,2 --confirm 2 --confirm-by final_return", ["confirm_by", "--stop budget"]),
        ("--vary learning_rate=1,2 --confirm 2 --confirm-by speed", ["--confirm-by", "speed"]),
        ("--vary learning_rate=1,2 --confirm 2 --confirm-by", ["confirm", "env_steps"]),
        ("--vary learning_rate=1,2 --confirm 2 --seed 10000000", ["seed", "held out"]),
        ("--vary learning_rate=1,2 --engine ray", ["ray", "--store"]),
        ("--vary learning_rate=1,2 --discount 2", ["discount", "at most 1"]),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(arguments, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dqn-jax: ")
    assert len(err.strip().splitlines()) == 1
    for name in names:
        assert name in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["two\nlines", "a\x1b[31m", " ", "x" * 101, "..", "a/b", "$x_{$"])
def test_a_name_is_one_of_a_folder_and_of_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--vary", "learning_rate=1,2", "--name", name]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dqn-jax: name: ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (["sweep"], 2, ["preset", "dqn-jax sweep cartpole"]),
        (["sweep", "cartpol"], 2, ["Did you mean 'cartpole'"]),
        (["sweep", "--join"], 2, ["--join"]),
        ([*COMMAND, "--vary", "learning_rate=1,2", "--store", "nowhere"], 2, ["store", "postgresql://"]),
        (["sweep", "--join", "nowhere"], 2, ["nowhere"]),
        (["sweep", "cartpole", "--join", "postgresql://x/y"], 2, ["leave 'cartpole' out"]),
        (["sweep", "--join", "sqlite:////no/such/folder/x"], 1, ["store", "unable to open"]),
        (["sweep", "--join", "postgresql://{server}/x"], 1, ["store", "{server}"]),
        ([*COMMAND, "--vary", "learning_rate=1,2", "--store", "postgresql://{server}/x"], 1, ["store", "{server}"]),
    ],
)
def test_what_cannot_be_reached_is_one_line(arguments, code, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    server = f"127.0.0.1:{free_port()}"
    assert main([argument.replace("{server}", server) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dqn-jax: ")
    assert len(err.strip().splitlines()) == 1
    for name in names:
        assert name.replace("{server}", server) in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_plan_is_printed_and_nothing_is_written(tmp_path, monkeypatch, capsys, compiled):
    monkeypatch.chdir(tmp_path)
    varied = ["--vary", "loss=squared,huber", "--vary", "learning_rate=1e-3,1e-2", "--wave", "3"]
    assert main([*COMMAND, *varied, "--plan"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, second, *groups, steps, seconds = out.splitlines()
    assert first.startswith("4 trials x 3 seeds = 12 lanes on 2 x cpu; 2 programs to compile; at most ")
    assert second.startswith("programs differ by: loss (2 values);")
    assert [line.partition(",")[0] for line in groups] == ["  loss=squared: 2 trials", "  loss=huber: 2 trials"]
    assert steps.startswith("at most 4,992 environment steps over all lanes")
    assert re.fullmatch(r"time: at most about .* \(estimated from one chunk of \d lanes of fresh agents, .*\)", seconds)
    assert all("6 lanes in 2 waves of up to 3" in line for line in groups)
    assert main([*COMMAND, *varied, "--plan", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["programs_because_of"] == {"loss": 2}
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    assert compiled == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """As COMMAND asks, from Python."""
    with pytest.MonkeyPatch.context() as patch:
        from sweeping import programs_of

        patch.setattr("dqn_jax.sweep.worker.make_programs", lambda config, hparams, n: programs_of(config, hparams, n))
        return sweep(**ASKED, out=tmp_path_factory.mktemp("sweep") / "whole")


def test_sweep_prints_the_best_and_where_the_files_are(tmp_path, monkeypatch, capsys, compiled, whole):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--vary", *VARY]) == 0
    out, err = capsys.readouterr()
    (folder,) = (tmp_path / "sweeps" / ENV).iterdir()
    assert_same_numbers(load_data(folder), whole.data)
    lines = out.splitlines()
    assert lines[0] == "best in the search, by environment steps to eval>=1x2"
    counts = whole.data.lanes["status"].value_counts()
    assert f"lanes   {counts['converged']} converged, {counts['budget']} spent their budget" in lines
    assert any(line.rstrip().endswith("learning_rate=0.01") for line in lines)
    assert f"files   {folder.relative_to(tmp_path)}" in lines
    progress = err.splitlines()
    assert progress[0].startswith("4 trials x 3 seeds = 12 lanes")
    assert progress[-1].startswith("100% ")
    assert "0 running, 0 waiting" in progress[-1]
    # The same command with --resume has nothing to do.
    assert main([*COMMAND, "--vary", *VARY, "--resume"]) == 0
    assert [path.name for path in (tmp_path / "sweeps" / ENV).iterdir()] == [folder.name]
    assert compiled[1:] == []
    capsys.readouterr()
    assert main([*COMMAND, "--vary", "learning_rate=1,2", "--resume"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("dqn-jax: vary.learning_rate: this sweep has 0.0003,0.001,0.003,0.01, not 1,2;")


def test_json_is_the_only_thing_on_standard_output(tmp_path, capsys, compiled, whole):
    assert main([*COMMAND, "--vary", *VARY, "--json", "--name", "mine", "--out", str(tmp_path / "mine")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert {row["trial"]: row["learning_rate"] for row in rows} == dict(enumerate((0.0003, 0.001, 0.003, 0.01)))
    assert sum(row["converged"] for row in rows) == whole.data.lanes["converged"].sum()
    assert load_data(tmp_path / "mine").name == "mine"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_has_exit_code_130_and_says_how_to_go_on(
    tmp_path, monkeypatch, capsys, compiled, whole, number
):
    def stop(self, progress):
        if progress.phase == "run" and progress.env_steps == 96:
            os.kill(os.getpid(), number)

    out = str(tmp_path / "sweep")
    with monkeypatch.context() as patch:
        patch.setattr(SweepDisplay, "update", stop)
        assert main([*COMMAND, "--vary", *VARY, "--out", out]) == 130
    err = capsys.readouterr().err.splitlines()
    assert err[-2:] == ["dqn-jax: stopped; go on with", f"dqn-jax sweep --resume --out {out}"]
    assert main(shlex.split(err[-1])[1:]) == 0
    assert_same_numbers(load_data(tmp_path / "sweep"), whole.data)


def test_a_full_disk_is_one_line_and_the_sweep_goes_on_later(tmp_path, monkeypatch, capsys, compiled, whole):
    written, savez = [], np.savez

    def full(file, **arrays):
        written.append(file)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        savez(file, **arrays)

    command = [*COMMAND, "--vary", *VARY, "--out", str(tmp_path / "sweep")]
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        assert main(command) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if line.startswith("dqn-jax:")] == err[-1:]
    assert "No space left on device" in err[-1]
    assert "--resume" in err[-1]
    assert not list((tmp_path / "sweep").rglob(".*tmp*"))
    assert main([*command, "--resume"]) == 0
    assert_same_numbers(load_data(tmp_path / "sweep"), whole.data)


def test_a_sweep_of_a_newer_version_is_refused(tmp_path, capsys, compiled):
    command = [*COMMAND, "--vary", "learning_rate=0.01", "--out", str(tmp_path / "sweep")]
    assert main(command) == 0
    with sqlite3.connect(tmp_path / "sweep" / "store.sqlite") as database:
        database.execute("UPDATE dqn_jax_sweeps SET format = 99")
    database.close()
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "newer dqn_jax (format 99)" in err


# -- what a person sees


def progress(**changes):
    known = dict(
        phase="run",
        group={"hidden": (64, 64), "batch_size": 32},
        wave=1,
        waves=4,
        lanes={"converged": 1200, "diverged": 3},
        running=7,
        waiting=40,
        env_steps=25_000,
        total_steps=100_000,
        lane_steps_per_second=123_456.0,
        seconds=59.0,
        seconds_left=7300.0,
        best=({"learning_rate": 1.23456e-3}, 31_500.0),
    )
    return SweepProgress(**{**known, **changes})


def test_the_screen_says_where_a_sweep_is():
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    display = SweepDisplay("mine", enabled=True)
    console.print(display._screen(progress()))
    console.print(display._screen(progress(phase="compile", best=None, seconds_left=float("nan"), group={}, lanes={})))
    console.file.close()
    text = console.export_text()
    for part in (
        "wave 2 of 4",
        "hidden=64x64, batch_size=32: 25,000 of 100,000 steps",
        "7 running, 1,200 converged, 3 diverged, 40 waiting",
        "123k lane-steps/s, 59 s so far",
        "2 h 1 min left",
        "31,500 environment steps: learning_rate=0.001235",
        "one program for all: compiling",
        "none has converged yet",
        "? left",
    ):
        assert part in text


def test_without_a_terminal_there_is_a_line_for_every_tenth(capsys):
    with SweepDisplay("mine", enabled=False) as display:
        display.update(progress(phase="compile", group={"batch_size": 32}))
        for finished in range(0, 101):
            display.update(progress(lanes={"budget": finished}, running=0, waiting=100 - finished))
        for finished in range(100, 126):  # 25 lanes more, to confirm the best
            display.update(progress(lanes={"budget": finished}, running=0, waiting=125 - finished))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mine: wave 2 of 4, batch_size=32"
    assert [line.split("%")[0].strip() for line in lines[1:]] == [str(10 * i) for i in (*range(11), 8, 9, 10)]


def test_the_table_shows_whole_numbers_whole(whole, capsys):
    trials = whole.data.trials.assign(epsilon_decay_steps=[23_451, 123_456, 7, 8])
    data = type(whole.data)(**{**vars(whole.data), "trials": trials})
    sweep_tables(SweepResult(data, None, True))
    assert "epsilon_decay_steps=123456" in capsys.readouterr().out
    assert set(LANE_COLUMNS) == set(data.lanes.columns)


def test_a_sweeps_winner_is_evaluated_and_filmed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = (
        "--hidden 8 --lane-block 1 --total-steps 800 --eval-every 200 --eval-episodes 4 --min-replay 100 --batch-size 8"
    )
    words = f"sweep cartpole --vary discount=0.9,0.99 --confirm 2 --seeds 1 --out s {tiny}"
    assert main(words.split()) == 0
    data = load_data(tmp_path / "s")
    best = [int(trial) for trial in ranked(data, phase="confirm")["trial"]]
    capsys.readouterr()
    assert main(["evaluate", "s", "--episodes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == f"s, trial {best[0]} on held-out seeds, as its lanes left"
    assert (found["seeds"], found["env_steps"]) == ([10_000_001], [data.lanes["env_steps"].max()])
    assert main(["record", "s", "--trial", str(best[1]), "-o", "film.gif"]) == 0
    assert "seed 10000001" in capsys.readouterr().out
    assert (tmp_path / "film.gif").stat().st_size > 1000
    for wrong, words in (("--checkpoint best", "checkpoint: "), ("--trial 9", "trial: s confirmed")):
        assert main(["evaluate", "s", *wrong.split()]) == 2
        assert words in capsys.readouterr().err
