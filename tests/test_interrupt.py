"""Ctrl-C and SIGTERM at any moment of a program's life: one line, exit code 130, a folder that can be used."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dqn_jax
from dqn_jax import interrupt
from dqn_jax.cli.main import main
from dqn_jax.interrupt import Interrupt
from dqn_jax.lanes.driver import DeviceDriver

# Chunks of a second or so, on any machine of these days.
RUN = (
    "train cartpole --seeds 2 --hidden 16 --lane-block 1 --batch-size 32 --min-replay 100 --total-steps 200100 "
    "--eval-every 10000 --eval-episodes 5 --max-episode-steps 60 --criteria eval>=1000"
).split()


def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program, as soon as it hears of signals."""
    child = subprocess.Popen(
        [sys.executable, "-m", "dqn_jax", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(Path(dqn_jax.__file__).parents[1]), "HOME": str(Path.home())},
    )
    status = Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.001)
    return child


def wait_for(child: subprocess.Popen[str], words: str) -> None:
    for line in child.stderr:
        if words in line:
            return
    raise AssertionError(f"it never said '{words}'")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_hears_of_a_stop_before_jax_is_imported(tmp_path, number):
    child = begin(tmp_path, *RUN, "--out", "run")
    assert "jaxlib" not in Path(f"/proc/{child.pid}/maps").read_text()
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "dqn-jax: stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", [0.3, 0.9])
def test_a_stop_while_it_imports_is_one_line(tmp_path, moment):
    child = begin(tmp_path, *RUN, "--out", "run")
    time.sleep(moment)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("dqn-jax: stopped")
    assert "Traceback" not in err


def test_a_stop_before_anything_is_there_says_how_to_begin_again(tmp_path):
    child = begin(tmp_path, *RUN, "--out", "run")
    wait_for(child, "compiling")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    if not (tmp_path / "run" / "config.json").exists():
        assert err.splitlines()[-1] == "dqn-jax: stopped; nothing was begun: the same command begins it"


def test_a_stop_is_answered_at_once_and_obeyed_after_the_chunk(tmp_path):
    child = begin(tmp_path, *RUN, "--out", "run")
    wait_for(child, "% ")
    child.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    wait_for(child, "dqn-jax: stopping after this chunk (about")
    assert time.monotonic() - asked < 1.0
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "dqn-jax: stopped; go on with" in err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"] is False


def test_a_second_stop_ends_it_at_once(tmp_path):
    child = begin(
        tmp_path, *RUN, "--out", "run", "--eval-every", "1000000", "--total-steps", "9000000"
    )  # a chunk of a minute or so
    wait_for(child, "compiling")
    while not (tmp_path / "run" / "provenance.json").exists():
        time.sleep(0.01)
    time.sleep(1.0)
    child.send_signal(signal.SIGINT)
    wait_for(child, "stopping after this chunk; Ctrl-C again stops now")
    child.send_signal(signal.SIGINT)
    asked = time.monotonic()
    out, err = child.communicate(timeout=60)
    assert time.monotonic() - asked < 1.0
    line = f"dqn-jax: stopped; go on with: {shlex.quote(sys.executable)} -m dqn_jax train --resume --out run\n"
    assert (child.returncode, out, err) == (130, "", line)


def test_importing_the_library_installs_nothing():
    code = "import signal; before = signal.getsignal(2), signal.getsignal(15); import dqn_jax; " + (
        "print(before == (signal.getsignal(2), signal.getsignal(15)), signal.set_wakeup_fd(-1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "-1"]


def test_in_a_library_the_first_asks_and_the_second_is_an_exception(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as work:
        work.answer = lambda: "stopping after this"
        signal.raise_signal(signal.SIGINT)
        assert work.requested
        assert capsys.readouterr().err == "dqn-jax: stopping after this\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with Interrupt() as nothing_begun, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        nothing_begun.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_while_it_compiles_leaves_a_run_that_was_never_begun(tmp_path, monkeypatch):
    def asked(*_, **__):
        interrupt._at_work[-1].requested = True  # and the exception was swallowed, as compilers do
        return compiled(*_, **__)

    compiled = DeviceDriver.population
    monkeypatch.setattr(DeviceDriver, "population", asked)
    tiny = ["--total-steps", "700", "--eval-every", "300", "--replay-capacity", "200"]
    assert main([*RUN, *tiny, "--out", str(tmp_path / "run")]) == 130
    assert not (tmp_path / "run" / "summary.json").exists()
