"""A new hyperparameter is one line and its use: a copy of the package gets both, and all else follows by itself."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dqn_jax

LINE = '''
    warmth: Annotated[float, Bounds(0, 2, open=True), OnlyWhere("loss", "huber")] = 1.0
    """Factor on the step size."""
'''
USE = ("start = jnp.float32(hparams.learning_rate)", "start = jnp.float32(hparams.learning_rate) * hparams.warmth")
COMMANDS = {
    "help": "train --help",
    "too much": "train tutorial-2 --loss huber --warmth 2.5",
    "no effect": "train tutorial-2 --loss squared --warmth 0.5",
    "mistyped": "train tutorial-2 --warmt 0.5",
    "sweep": (
        "sweep cartpole --vary warmth=0.5,1.5 --seeds 1 --stop budget --out sweep --loss huber --hidden 8 "
        "--lane-block 1 --batch-size 8 --replay-capacity 200 --min-replay 20 --num-envs 2 --train-every 2 "
        "--total-steps 200 --eval-every 100 --eval-episodes 2 --epsilon-decay-steps 100 --max-episode-steps 20"
    ),
    "report": "report sweep --csv",
}
SCRIPT = """
import contextlib, io, json, sys
from dqn_jax import HParams, runs
from dqn_jax.agent.schedules import learning_rate_at
from dqn_jax.cli.main import main

said = {}
for name, words in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words.split())
        except SystemExit as end:
            code = end.code
    said[name] = code, out.getvalue(), err.getvalue()
said["use"] = float(learning_rate_at(HParams(learning_rate=0.5, warmth=0.5), 0))
said["read"] = runs.schemas.hparams_from({"warmth": [0.5, 1.5]})
try:
    runs.schemas.hparams_from({"warmth": "x"})
except ValueError as error:
    said["damaged"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the commands say and do where the package has one hyperparameter more."""
    there = tmp_path_factory.mktemp("house")
    package = shutil.copytree(
        Path(dqn_jax.__file__).parent, there / "dqn_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    hparams, schedules = package / "config" / "hparams.py", package / "agent" / "schedules.py"
    hparams.write_text(hparams.read_text().rstrip("\n") + LINE)
    assert schedules.read_text().count(USE[0]) == 1
    schedules.write_text(schedules.read_text().replace(*USE))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)],
        cwd=there,
        env={**os.environ, "PYTHONPATH": str(there), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_help_shows_it_among_the_settings(said):
    code, text, _ = said["help"]
    assert code == 0
    rule = text[text.index("learning rule:") : text.index("replay and cadence:")]
    assert "  --warmth FLOAT          Factor on the step size. (default: 1)" in rule


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("too much", "warmth: 2.5 is not possible; use a number greater than 0 and at most 2."),
        ("no effect", "warmth: it has no effect unless loss is huber; change that too, or leave warmth out."),
        ("mistyped", "--warmt: there is no such option. Did you mean --warmth?"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(said, name, line):
    code, _, error = said[name]
    assert code == 2
    assert error.startswith(f"dqn-jax: {line}"), error
    assert error.count("\n") == 1


def test_a_sweep_varies_it_and_its_table_has_it(said):
    assert said["sweep"][0] == 0, said["sweep"][2]
    rows = list(csv.DictReader(io.StringIO(said["report"][1])))
    assert sorted(row["warmth"] for row in rows) == ["0.5", "1.5"], said["report"]


def test_its_use_sees_it_and_files_are_read_with_it(said):
    assert said["use"] == 0.25
    assert said["read"] == {"warmth": [0.5, 1.5]}
    assert "warmth" in said["damaged"]
