"""What people and their scripts rely on: flags, defaults, messages, exit codes, names, files, keys and columns.

`surface.json` has them as they are. What changes it on purpose is recorded anew, and shows in the difference:

    PYTHONPATH=.:tests .venv/bin/python tests/test_surface.py
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

import dqn_jax
from dqn_jax.cli.main import main

RECORDED = Path(__file__).with_name("surface.json")
COMMANDS = ("list", "train", "sweep", "report", "evaluate", "record", "plot", "benchmark", "help")
TINY = (
    "--hidden 8 --lane-block 1 --batch-size 8 --replay-capacity 200 --min-replay 20 --num-envs 2 --train-every 2 "
    "--total-steps 200 --eval-every 100 --eval-episodes 2 --epsilon-decay-steps 100 --max-episode-steps 20"
).split()
WRONG = """
|nosuch|train nosuch|train cartpole acrobot|train cartpole --nosuch 1|train cartpole --lr 1e-3|train cartpole --seeds
train cartpole --seeds 0|train cartpole --seeds x|train cartpole --seeds 1000000000|train cartpole --seed -1
train cartpole --learning-rate 0|train cartpole --learning-rate 1e-320|train cartpole --discount 1.5
train cartpole --target-period 1.5|train cartpole --epsilon-decay 0|train cartpole --b1 -1
train cartpole --batch-size 0|train cartpole --batch-size 1000000|train cartpole --minibatch-size 7
train cartpole --torso nosuch|train cartpole --torso nature|train cartpole --activation nosuch
train cartpole --optimizer nosuch|train cartpole --optimizer sgd --b1 0.5|train cartpole --loss huber --huber-delta 0
train cartpole --huber-delta 2|train cartpole --epsilon-decay 0.5|train cartpole --double --no-target-network
train cartpole --frame-stack 4|train cartpole --n-step 0|train cartpole --life-loss episode
train cartpole --action-bins 3|train cartpole --env-params nosuch 1|train cartpole --env-params gravity nan
train cartpole --criteria eval|train cartpole --criteria nosuch:3|train cartpole --stop converged --criteria
train cartpole --freeze-when eval:3|train cartpole --hidden 0|train cartpole --hidden x|train cartpole --num-envs 0
train cartpole --total-steps 0|train cartpole --min-replay 999999999|train cartpole --eval-episodes 0
train cartpole --eval-epsilon 2|train cartpole --eval-seed -1|train cartpole --sticky-actions 2
train cartpole --reward-clip 0|train cartpole --lane-block -1|train cartpole --protocol nosuch
train cartpole --protocol nature|train cartpole --max-minutes 0|train Pendulum-v1 --action-bins 1
train envpool:CartPole-v1 --clear-replay|train envpool:CartPole-v1 --env-params gravity 9
train envpool:CartPole-v1 --pool-batch 99|train envpool:CartPole-v1 --pool-options nosuch 1
train --resume --out nosuch|train cartpole --weights nosuch|train cartpole --dueling --hidden
train cartpole --replay-capacity 2000000000|sweep cartpole|sweep cartpole --vary nosuch=1,2
sweep cartpole --vary learning_rate|sweep cartpole --vary learning_rate=log(0,1)
sweep cartpole --vary learning_rate=1e-3,1e-3|sweep cartpole --vary eval_every=100,200
sweep cartpole --vary learning_rate=1e-3,2e-3 --learning-rate 1e-3|sweep cartpole --vary learning_rate=log(1e-4,1e-2)
sweep cartpole --vary learning_rate=1e-3,2e-3 --prune-eta 4|sweep cartpole --vary discount=0.9,2
sweep cartpole --vary learning_rate=1e-3,2e-3 --confirm -1
sweep cartpole --vary learning_rate=1e-3,2e-3 --stop budget --stability-steps 5
sweep cartpole --vary learning_rate=1e-3,2e-3 --store nosuch://x|sweep --join sqlite:///nosuch.sqlite
sweep --resume --out nosuch|sweep cartpole --vary learning_rate=1e-3,2e-3 --workers 0|report nosuch|report
report a b c|evaluate nosuch|evaluate|evaluate nosuch --episodes 0|record nosuch|record nosuch -o film.txt|plot nosuch
plot|plot nosuch -o x.txt|benchmark nosuch|benchmark update --repeats 0|list nosuch|help nosuch
train cartpole --seeds=4=5|train cartpole --json=1
"""


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, at 80 columns."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ, COLUMNS="80"):
        try:
            code = main(list(words))
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()


def options(command: str) -> dict[str, str | None]:
    """The options in a command's help, as they are to be typed, with their defaults."""
    _, text, _ = run(command, "--help")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if re.match(r"  \S", line) and not line.startswith("  -h,"):
            head, *rest = re.split(r" {2,}", line.strip(), maxsplit=1)
            found[head] = rest
        elif found and line.startswith(" " * 26):
            found[list(found)[-1]].append(line.strip())
    texts = {head: " ".join(lines) for head, lines in found.items()}
    return {head: (re.findall(r"\((default[^)]*|required)\)", text) or [None])[-1] for head, text in texts.items()}


def signature(function) -> str:
    """Names, kinds and defaults of parameters, without their types."""
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(function).parameters.values()]
    return re.sub(r"<function (\S+) at \w+>", r"\1", str(inspect.Signature(bare)))


def names() -> dict[str, object]:
    """What `import dqn_jax` and `dqn_jax.sweep` give."""
    from dqn_jax import sweep

    functions = {name: getattr(dqn_jax, name) for name in dqn_jax.__all__ if inspect.isfunction(getattr(dqn_jax, name))}
    classes = {name: getattr(dqn_jax, name) for name in dqn_jax.__all__ if inspect.isclass(getattr(dqn_jax, name))}
    return {
        "all": sorted(dqn_jax.__all__),
        "functions": {name: signature(function) for name, function in sorted(functions.items())}
        | {"sweep.sweep": signature(sweep.sweep), "sweep.join": signature(sweep.join)},
        "fields": {
            name: list(getattr(kind, "_fields", None) or [f.name for f in dataclasses.fields(kind)])
            for name, kind in sorted(classes.items())
            if hasattr(kind, "_fields") or dataclasses.is_dataclass(kind)
        },
        "presets": sorted(dqn_jax.PRESETS),
        "config": {k: repr(v) for k, v in sorted(dataclasses.asdict(dqn_jax.Config()).items())},
        "hparams": {k: repr(v) for k, v in dqn_jax.HParams()._asdict().items()},
    }


def keys(value: object) -> object:
    """The keys of nested objects; of lists of them, those of the first."""
    if isinstance(value, dict):
        return {k: keys(v) for k, v in sorted(value.items())}
    return [keys(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def contents(folder: Path) -> dict[str, object]:
    """What the files in a folder are called, and the keys or columns in them."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = re.sub(r"events\.out\..*", "events.out", path.relative_to(folder).as_posix())
        if path.suffix == ".json":
            found[name] = keys(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            found[name] = path.read_text().splitlines()[0].split(",")
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                kinds = {re.sub(r"\d{4}$|-bits-.*", "", array) for array in arrays.files}
                found[name] = [*sorted(kinds), len(arrays.files)]
        elif path.suffix == ".parquet":
            found[re.sub(r"[0-9a-f]{8,}", "DIGEST", name)] = pq.read_schema(path).names
        elif path.suffix == ".sqlite":
            connection = sqlite3.connect(path)
            tables = sorted(row[0] for row in connection.execute("select name from sqlite_master where type = 'table'"))
            found[name] = {t: [row[1] for row in connection.execute(f"pragma table_info({t})")] for t in tables}
            connection.close()
        else:
            found[name] = None
    return found


def disk(where: Path) -> dict[str, object]:
    """The folders of a run and of a sweep with its report."""
    with contextlib.chdir(where):
        made = run("train", "cartpole", "--seeds", "2", "--out", "run", "--save-episodes", *TINY)
        assert made[0] == 0, made
        vary = ("--vary", "learning_rate=1e-3,2e-3", "--seeds", "2", "--confirm", "2")
        made = run("sweep", "cartpole", "--stop", "budget", "--out", "sweep", *vary, *TINY)
        assert made[0] == 0, made
        evaluated, ranked, printed = (
            json.loads(run(*words)[1])
            for words in (
                ("evaluate", "run", "--episodes", "2", "--json"),
                ("report", "sweep", "--json"),
                ("report", "run", "--json"),
            )
        )
        assert run("report", "sweep")[0] == 0
        return {
            "run": contents(Path("run")),
            "sweep": contents(Path("sweep")),
            "evaluate --json": keys(evaluated),
            "report --json": [keys(ranked), keys(printed)],
        }


def errors(where: Path) -> dict[str, list[object]]:
    """The exit codes and lines of what is wrong."""
    with contextlib.chdir(where):
        lines = [line for line in re.split(r"[|\n]", WRONG.strip("\n"))]
        found = {}
        for line in dict.fromkeys(lines):
            code, out, err = run(*line.split())
            said = err.replace(str(where), "HERE") or out.splitlines()[0]
            found[line] = [
                code,
                re.sub(r"[\d.,e+]+ (?=[MG]B)|(?<=use at most )[\d,]+(?=, or lower)", "N ", said),
            ]  # of this machine
        return found


def surface(where: Path) -> dict[str, object]:
    """All of it."""
    return {
        "options": {command: options(command) for command in COMMANDS},
        "names": names(),
        "errors": errors(where),
        "disk": disk(where),
    }


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORDED.read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_and_their_defaults_are_as_recorded(command, recorded):
    assert options(command) == recorded["options"][command]


def test_names_signatures_and_defaults_are_as_recorded(recorded):
    assert json.loads(json.dumps(names())) == recorded["names"]


def test_what_is_wrong_is_said_as_recorded(recorded, tmp_path):
    found = errors(tmp_path)
    assert {k: v for k, v in found.items() if recorded["errors"].get(k) != v} == {}
    assert set(found) == set(recorded["errors"])
    assert all(line.count("\n") == 1 for code, line in found.values() if code == 2)


@pytest.mark.quick
def test_files_keys_and_columns_are_as_recorded(recorded, tmp_path):
    found = disk(tmp_path)
    for part, there in recorded["disk"].items():
        assert json.loads(json.dumps(found[part])) == there, part


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    try:
        RECORDED.write_text(json.dumps(surface(folder.resolve()), indent=1, sort_keys=True) + "\n")
    finally:
        shutil.rmtree(folder)
    sys.exit(0)
