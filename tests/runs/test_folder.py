"""Folders of runs: one process at a time, and what was killed before it began is no run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

import dqn_jax
from dqn_jax import files
from dqn_jax.config import ConfigError

TINY = dict(
    seeds=1,
    hidden=(4,),
    lane_block=1,
    batch_size=4,
    replay_capacity=100,
    min_replay=20,
    num_envs=2,
    train_every=2,
    total_steps=120,
    eval_every=100,
    eval_episodes=1,
    max_episode_steps=10,
    criteria=(),
)


@pytest.fixture(autouse=True)
def no_films(monkeypatch):
    monkeypatch.setattr("dqn_jax.runs.recorder.Recorder.film", lambda *_: None)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_it_began_may_begin_again(tmp_path, resume):
    run, said = tmp_path / "run", []
    run.mkdir()
    (run / "lock").write_text("1")
    (run / ".config.0123456789abcdef.tmp.json").write_text("{")
    result = dqn_jax.train("cartpole", out=run, resume=resume, warn=said.append, **TINY)
    assert ("there is no whole checkpoint to go on from: starting at the beginning" in said) == resume
    assert result.summary["complete"]
    assert not [path.name for path in run.iterdir() if path.name.startswith(".") or path.name == "lock"]


def test_what_is_not_ours_keeps_a_folder_from_being_taken(tmp_path):
    (tmp_path / ".notes.tmp.json").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        dqn_jax.train("cartpole", out=tmp_path, **TINY)
    with pytest.raises(ConfigError, match="holds no run"):
        dqn_jax.train("cartpole", out=tmp_path, resume=True, **TINY)
    assert os.listdir(tmp_path) == [".notes.tmp.json"]


def test_a_second_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path):
    code = (
        "import pathlib, time; from dqn_jax.files import lock\n"
        f"with lock(pathlib.Path({str(tmp_path)!r}), 'out'): print(1, flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match=rf"^out: .* is being run by process {other.pid}; wait for it, or stop"):
            dqn_jax.train("cartpole", out=tmp_path, **TINY)
        other.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == ["lock"]
    with files.lock(tmp_path, "out"), pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        dqn_jax.train("cartpole", out=tmp_path, resume=True, **TINY)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_one_line_when_a_run_goes_on(tmp_path, monkeypatch):
    dqn_jax.train("cartpole", out=tmp_path / "run", **TINY)

    def read_only(path, mode="r", *others, **keywords):
        if mode not in ("r", "rb"):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, mode, *others, **keywords)

    opened = type(tmp_path).open
    monkeypatch.setattr(type(tmp_path), "open", read_only)
    message = r"^out: cannot write to .*run \(Read-only file system\); make it writable, then go on with --resume\.$"
    with pytest.raises(dqn_jax.RunError, match=message) as caught:
        dqn_jax.train("cartpole", out=tmp_path / "run", resume=True, **TINY)
    assert not re.search(r"\n", str(caught.value))
