"""Every command that a page or a message shows does what it says, typed into a shell: here all but the work itself."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dqn_jax import runs
from dqn_jax.cli import learn, look
from dqn_jax.cli import main as cli
from dqn_jax.config import Config, HParams, validate
from dqn_jax.convergence import parse_criterion
from dqn_jax.envs import resolve_env
from dqn_jax.presets import PRESETS, resolve_preset, with_overrides
from dqn_jax.sweep import going_on
from dqn_jax.sweep.definition import define
from dqn_jax.sweep.question import Question
from dqn_jax.sweep.space import parse_space

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("experiments/*/README.md")])
SOURCES = sorted((ROOT / "dqn_jax").rglob("*.py"))


def in_blocks(page):
    """Command lines of code blocks."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(text for language, text in fences if not language).replace("\\\n", " ").splitlines()
    return [line.replace("./scripts/dqn-jax", "dqn-jax") for line in lines if re.match(r"(\./scripts/)?dqn-jax ", line)]


def in_text(page):
    """Commands within a sentence, but for those with a blank to fill in."""
    found = re.findall(r"(?<!`)`(dqn-jax [^`]+)`", page.read_text())
    return [line for line in found if _is_whole(line)]


def in_messages(source):
    """Commands quoted in messages and help texts."""
    found = re.findall(r"'(dqn-jax [^'{}]*)'", source.read_text())
    return [line for line in found if _is_whole(line)]


def _is_whole(line):
    """Whether it can be typed as it stands: no blanks to fill in, and more than the name of a command."""
    blank = re.search(r"\.\.\.|<|\b[A-Z]{2,}\b", line)
    return blank is None and (len(line.split()) > 2 or line.split()[1] in ("list", "help", "benchmark"))


SHOWN = [
    *((page, line) for page in PAGES for line in (*in_blocks(page), *in_text(page))),
    *((source, line) for source in SOURCES for line in in_messages(source)),
]


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """What the program is called with, for each of `SHOWN`, by a shell in an empty folder; and the files it leaves."""
    bin, empty = tmp_path_factory.mktemp("bin"), tmp_path_factory.mktemp("empty")
    stub = bin / "dqn-jax"
    stub.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done > "$TYPED"\n')
    stub.chmod(0o755)
    calls = []
    for i, (_, line) in enumerate(SHOWN):
        environment = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "TYPED": str(bin / str(i))}
        done = subprocess.run(["/bin/sh", "-c", line], cwd=empty, env=environment, capture_output=True, text=True)
        words = (bin / str(i)).read_text().split("\0")[:-1] if (bin / str(i)).exists() else None
        calls.append((done.returncode, done.stderr, words, [path.name for path in empty.iterdir()]))
        for path in empty.iterdir():
            path.unlink()
    return calls


class DoneError(Exception):
    """The command line was understood."""


@pytest.fixture
def understood(monkeypatch):
    """The program but for its work: every setting is checked, and then it ends."""

    def end(*arguments, **named):
        raise DoneError

    def train(chosen, *, criteria=None, **named):
        validate(chosen.config, chosen.hparams)
        resolve_env(chosen.config.env)
        [parse_criterion(text) for text in criteria or ()]
        end()

    def sweep(preset, vary=(), *, resume=False, root=None, on_plan=None, on_progress=None, warn=None, **given):
        settings = {**vars(Config()), **HParams()._asdict()}
        overrides = {name: given.pop(name) for name in list(given) if name in settings}
        fields = {field.name for field in dataclasses.fields(Question)}
        asked = {name: value for name, value in given.items() if name in fields}
        if not resume:
            chosen = with_overrides(resolve_preset(preset), overrides)
            define(chosen, going_on.asked(None, {**asked, "vary": tuple(vary)}))
        elif vary:
            parse_space(vary)
        end()

    cartpole = PRESETS["cartpole"]
    own = runs.RunSettings("cartpole", (0,), cartpole.config, cartpole.hparams, cartpole.criteria)
    monkeypatch.setattr(learn, "train", train)
    monkeypatch.setattr("dqn_jax.sweep.sweep", sweep)
    monkeypatch.setattr(learn.going_on, "find", lambda preset, out, root: (Path("run"), own))
    for where, name in ((look.report, "report_command"), (look.runs, "find_run"), (cli.benchmark, "run")):
        monkeypatch.setattr(where, name, end)
    for name in ("evaluate_run", "record_run"):
        monkeypatch.setattr(look, name, end)
    monkeypatch.setattr(cli.catalogue, "show_all", end)
    monkeypatch.setattr("dqn_jax.sweep.join", end)


NAMES = [f"{page.stem}: {line.split('#')[0][:60]}" for page, line in SHOWN]


@pytest.mark.parametrize("number", range(len(SHOWN)), ids=NAMES)
def test_a_command_that_is_shown_is_one_that_a_shell_and_the_program_understand(
    number, typed, understood, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    code, error, words, files = typed[number]
    assert (code, error, files) == (0, "", [])
    assert words
    try:
        code = cli.main(words)
    except (DoneError, SystemExit) as end:
        code = getattr(end, "code", 0)
    assert (code or 0, capsys.readouterr().err) == (0, "") or "protocol" in " ".join(words)


def test_all_pages_and_messages_are_read():
    """The patterns above find what there is, so that they do not pass for want of anything to check."""
    assert len([1 for page, _ in SHOWN if page.name == "README.md"]) >= 30
    assert len([1 for page, _ in SHOWN if page.suffix == ".py"]) >= 10
    assert any("--criteria" in line for _, line in SHOWN)


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_a_shell_would_eat_is_shown_without_quotes(page):
    text = page.read_text()
    assert re.findall(r"--criteria \w+[<>]", text) == []
    assert re.findall(r"--vary \w+=\w+\(", text) == []


def test_what_a_shell_leaves_of_a_criterion_is_explained(tmp_path):
    """Through a real shell and the real parser of criteria."""
    if shutil.which("sh") is None:
        pytest.skip("no shell")
    done = subprocess.run(["/bin/sh", "-c", "echo eval>=475x3"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == ""
    assert (tmp_path / "=475x3").read_text().split() == ["eval"]
    with pytest.raises(ValueError, match=r"criteria: 'eval' .* redirection .* eval:475x3 or 'eval>=475x3'"):
        parse_criterion("eval")
