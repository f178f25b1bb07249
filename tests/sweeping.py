"""Sweeps small enough for tests, whose programs are compiled once for all of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import probes  # noqa: F401 - registers the probe environments
import pytest

from dqn_jax.config import Config, HParams
from dqn_jax.presets import resolve_preset, with_overrides
from dqn_jax.sweep import SweepProgress, sweep, winners, worker
from dqn_jax.sweep.plan import Plan, make_plan
from dqn_jax.sweep.pruning import Prune
from dqn_jax.sweep.space import compile_groups, parse_space, points
from dqn_jax.sweep.tables import SweepData
from dqn_jax.sweep.wave import Programs, make_programs

# A network this small runs in blocks of four. 208 rows go through a ring of 20; ten evaluations.
TINY: dict[str, Any] = dict(
    hidden=(8,),
    batch_size=8,
    replay_capacity=40,
    min_replay=16,
    num_envs=2,
    train_every=2,
    total_steps=416,
    eval_every=40,
    eval_episodes=8,
    epsilon_decay_steps=200,
)
ENV = "ProbePolicy-test"
CONFIG = Config(env=ENV, **{name: value for name, value in TINY.items() if name != "epsilon_decay_steps"})
CRITERIA = ("eval>=1x2", "train5>=0.5", "epsilon<=0.5")
VARY = ("learning_rate=0.0003,0.001,0.003,0.01",)
ASKED: dict[str, Any] = dict(preset=ENV, vary=VARY, seeds=3, criteria=CRITERIA, **TINY)
RATES = (0.0003, 0.001, 0.003, 0.01)
_CAPACITY = 12


@functools.cache
def _compiled(config: Config, left_out: tuple[bool, ...], lanes: int) -> Programs:
    hparams = HParams(*[None if out else 1.0 for out in left_out])  # type: ignore[arg-type]
    return make_programs(config, hparams, lanes)


def programs_of(config: Config = CONFIG, hparams: HParams = HParams(), lanes: int = _CAPACITY) -> Programs:  # noqa: B008
    """Programs for at least so many lanes."""
    return _compiled(config, tuple(value is None for value in hparams), max(lanes, _CAPACITY))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Sweeps share their programs with those of other tests; lists what each would have compiled."""
    asked: list[Config] = []

    def make(config: Config, hparams: HParams, lanes: int) -> Programs:
        asked.append(config)
        return programs_of(config, hparams, lanes)

    monkeypatch.setattr(worker, "make_programs", make)
    monkeypatch.setattr(worker, "_CHECKPOINT_SHARE", 1e9)  # after every chunk
    return asked


class CrashError(Exception):
    """What ends a process in the middle."""


def crash_after(chunks: int, wave: int = 0) -> Callable[[SweepProgress], None]:
    """For `on_progress`: the process dies after so many chunks, counted from this wave on."""
    left = [chunks]

    def on_progress(progress: SweepProgress) -> None:
        left[0] -= progress.phase == "run" and progress.wave >= wave
        if left[0] <= 0:
            raise CrashError

    return on_progress


def died(out: Path | None, **changes: Any) -> None:
    """A sweep in waves of six lanes, in which the process dies."""
    with pytest.raises(CrashError):
        sweep(**{**ASKED, "wave": 6, "out": out, **changes})


def prune(rule: Any = "halving", eta: int = 2, first: int = 56, budget: int = 336, **more: Any) -> Prune:
    """Rules of pruning, of a budget of few evaluations."""
    return Prune(rule, eta, first, budget, **more)


def numbers(data: SweepData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lanes and curves without the seconds, which no two sweeps share."""
    moments = [str([None if m is None else m[:3] for m in json.loads(text)]) for text in data.lanes["moments"]]
    lanes = data.lanes.drop(columns=["device_seconds", "converged_seconds"]).assign(moments=moments)
    return lanes, data.curves.drop(columns="seconds")


def assert_same_numbers(left: SweepData, right: SweepData) -> None:
    """Bit for bit."""
    pd.testing.assert_frame_equal(left.trials, right.trials, check_exact=True)
    for one, other in zip(numbers(left), numbers(right), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def of_lane(table: pd.DataFrame, trial: int, seed: int, phase: str = "search") -> pd.DataFrame:
    """The rows of one lane, without saying whose they are."""
    rows = table[(table["trial"] == trial) & (table["seed"] == seed) & (table["phase"] == phase)]
    return rows.drop(columns=["trial", "seed", "phase"]).reset_index(drop=True)


class Watched:
    """A population's chunks: which lanes each advanced, and the updates that every lane has made."""

    def __init__(self, programs: Programs):
        self.advanced: list[set[int]] = []
        self.blocks: list[list[int]] = []
        self.updates: np.ndarray = np.empty(0)
        population = programs.population
        layout = population.layout

        def chunk(env_steps: Any, lanes: Any, hparams: Any, active: Any) -> Any:
            slots = np.asarray(active.slots).reshape(layout.mesh.size, layout.share)
            blocks = np.asarray(active.blocks)
            taken = [slots[i, : count * layout.block_size] for i, count in enumerate(blocks)]
            own = [(device, int(s)) for device, row in enumerate(taken) for s in row if s < layout.share]
            self.advanced.append({slot * layout.mesh.size + device for device, slot in own})
            self.blocks.append(blocks.tolist())
            result = population.chunk(env_steps, lanes, hparams, active)
            self.updates = layout.fetch(result[0].agent.updates, np.arange(layout.lanes))
            return result

        self.programs = programs._replace(population=population._replace(chunk=chunk))


def planned(vary: Sequence[str] = VARY, seeds: int = 3, **options: Any) -> Plan:
    """The plan of a sweep this small."""
    space = parse_space(vary)
    preset = with_overrides(resolve_preset(ENV), TINY)
    groups = compile_groups(preset, space, points(space, "grid"))
    return make_plan(space, groups, range(seeds), **options)


def lanes_of_confirmation(data: SweepData) -> pd.DataFrame:
    """The lanes on held-out seeds."""
    return data.lanes[data.lanes["phase"] == "confirm"]


def assert_networks_are_those_of(folder: Path, held_out: pd.DataFrame) -> None:
    """Played from the starts of the confirmation, they score what is recorded: to the last bit."""
    assert len(list((folder / "networks").rglob("*.npz"))) == len(held_out)
    for trial, own in held_out.groupby("trial"):
        winner = winners.load(folder, trial)
        own = own[own["seed"].isin(winner.settings.seeds)]
        played = winner.driver.play(winner.params, episodes=8, epsilon=0.0, seed=3_000_003)
        np.testing.assert_array_equal(np.asarray(played.returns).mean(axis=1), own["final_return"])
        np.testing.assert_array_equal(winner.eval_return, own["final_return"])
        np.testing.assert_array_equal(winner.env_steps, own["env_steps"])
