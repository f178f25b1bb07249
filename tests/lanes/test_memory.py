"""What cannot fit into memory is refused in one line before anything compiles, and what did not is one line too."""

from __future__ import annotations

import re

import jax
import pytest

from dqn_jax.cli import main as cli
from dqn_jax.cli.main import main
from dqn_jax.config import Config, ConfigError
from dqn_jax.lanes import memory
from dqn_jax.lanes.driver import DeviceDriver, PoolDriver, driver_for


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "--seeds 1000000000",
            "seeds: this run takes 4.*e.06 GB, and 8 GB are free; each seed takes 4.* MB: use",
        ),
        ("--replay-capacity 2000000000", "replay_capacity: this run takes"),
        ("--seeds 1 --num-envs 100000000 --eval-episodes 1", "num_envs: this run takes"),
        ("--eval-episodes 1000000000", "eval_episodes: this run takes"),
        ("--env Pong-v5 --num-envs 1000000 --seeds 1", "num_envs: this run takes"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_it_compiles(arguments, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda devices: int(8e9))
    monkeypatch.setattr(DeviceDriver, "population", pytest.fail)
    monkeypatch.setattr(PoolDriver, "population", pytest.fail)
    with jax.debug_key_reuse(False):  # it keeps a flag for each of a hundred million keys
        assert main(["train", "cartpole", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(says, err), err
    assert list(tmp_path.iterdir()) == []


def test_more_episodes_than_fit_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda devices: int(8e9))
    driver = driver_for(Config())
    with pytest.raises(ConfigError, match=r"^episodes: 1,000,000,000 side by side take .*; use at most"):
        memory.check_evaluation(driver, 2, 1_000_000_000)
    memory.check_evaluation(driver, 2, 100_000)


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 80000000 bytes.")]
)
def test_out_of_memory_is_one_line(error, monkeypatch, capsys):
    def fail(arguments):
        raise error

    monkeypatch.setitem(cli._HANDLERS, "list", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr().err.startswith("dqn-jax: out of memory: use fewer seeds")


def test_another_failure_of_a_device_is_not_taken_for_it():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.in_one_line():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
