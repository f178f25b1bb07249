"""A process at work on a sweep: it claims wave after wave from the records, runs it, and records what it found."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_jax import devices, files, runs
from dqn_jax.config import RunError
from dqn_jax.drive import Allowance
from dqn_jax.interrupt import Interrupt
from dqn_jax.runs import schemas
from dqn_jax.sweep import records, winners
from dqn_jax.sweep.definition import preset_of, rules_of
from dqn_jax.sweep.plan import fitted_groups
from dqn_jax.sweep.progress import Meter, OnProgress, Tally
from dqn_jax.sweep.pruning import Rung, scores_of
from dqn_jax.sweep.records import Wave
from dqn_jax.sweep.space import Group
from dqn_jax.sweep.wave import Programs, WaveLane, WaveProgress, make_programs, run_wave
from dqn_jax.types import Params

if TYPE_CHECKING:
    import pandas as pd

_CHECKPOINT_SHARE = 0.01  # of the time that checkpoints of waves may take
_LEASE_SECONDS = 60.0
_POLL_SECONDS = 2.0


class Worker:
    """One process at work on a sweep."""

    def __init__(
        self,
        store: records.Store,
        directory: Path | None = None,
        on_progress: OnProgress | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ):
        self.store = store
        self.directory = directory
        self.on_progress = on_progress
        self.warn = warn
        self.rules = rules_of(store.definition)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.interrupt: Interrupt | None = None
        self.chunk_seconds = self.chunk_began = float("nan")  # of the last chunk, and of the one at work
        self.stops_within = False  # whether the wave at work can be stopped within a chunk
        self.tally = Tally()
        self.allowance = Allowance(_CHECKPOINT_SHARE)
        self._programs: tuple[Any, Programs] | None = None
        self._scores: dict[int, dict[Rung, list[float]]] = {}  # of waves that are done, for pruning

    @property
    def stopping(self) -> bool:
        """Whether somebody has asked this process to stop."""
        return self.interrupt is not None and self.interrupt.requested

    def answer(self) -> str:
        """To somebody who asks to stop."""
        if self.stops_within:
            return "stopping here, once all is saved; Ctrl-C again stops now and loses what is not saved"
        left = self.chunk_seconds - (time.monotonic() - self.chunk_began)
        about = f" (about {max(left, 1):.0f} s)" if left == left else ""
        return f"stopping after this chunk{about}, and saving; Ctrl-C again stops now and loses what is not saved"

    def programs(self, group: Group, wave: Wave) -> Programs:
        """The programs of a group for a wave's lanes; those of the last one are kept."""
        left_out = tuple(value is None for value in group.trials[0].hparams)
        if self._programs is not None:
            key, programs = self._programs
            if key == (group.config, left_out) and programs.population.layout.lanes >= len(wave.lanes):
                return programs
        self._programs = None  # frees their memory first
        programs = make_programs(group.config, group.trials[0].hparams, len(wave.lanes))
        self._programs = ((group.config, left_out), programs)
        self.tally.compile_seconds += programs.population.compile_seconds
        self.note(
            "compiled",
            {
                "unit": wave.id,
                "phase": wave.phase,
                "capacity": programs.population.layout.lanes,
                "seconds": programs.population.compile_seconds,
                "temporary_bytes": programs.population.temporary_bytes,
            },
        )
        return programs

    def raced(self, wave: Wave) -> dict[Rung, list[float]]:
        """What trials of earlier waves that are done had scored at each rung.

        Raises:
          RunError: if an older version began to prune here, by other rules.
        """
        prune = self.rules.prune
        if prune is None or wave.phase != "search":
            return {}
        if "among" not in self.store.definition["prune"]:
            raise RunError(
                "prune: an older dqn_jax began this sweep and pruned by other rules; go on with that one "
                "(provenance.json says which), or start a new sweep."
            )
        found: dict[Rung, list[float]] = {}
        for earlier, state in self.store.waves():
            if earlier.id >= wave.id or state != "done" or earlier.phase != wave.phase:
                continue
            if earlier.id not in self._scores:
                self._scores[earlier.id] = scores_of(prune, *self.store.of_wave(earlier.id))
            for rung, scores in self._scores[earlier.id].items():
                found.setdefault(rung, []).extend(scores)
        return found

    def note(self, what: str, entry: dict[str, Any]) -> None:
        """Add an entry to a list in plan.json: what really happened, beside what was planned."""
        if self.directory is None:
            return
        path = self.directory / "plan.json"
        with files.clear_errors(self.directory):
            plan = files.read_notes(path, schemas.Plan, self.warn)
            plan.setdefault(what, []).append(entry)
            files.write_json(path, plan)

    def note_session(self) -> None:
        """Note what this process has done, if it has done anything."""
        tally = self.tally
        if tally.lane_steps:
            self.note(
                "sessions",
                {
                    "seconds": tally.seconds,
                    "compile_seconds": tally.compile_seconds,
                    "program_seconds": tally.program_seconds,
                    "lane_steps": tally.lane_steps,
                    "waves": tally.waves,
                    "peak_memory_bytes": devices.peak_memory_bytes(),
                },
            )


def work(worker: Worker, *, wait: bool) -> bool:
    """Run waves until none is to be had; False if stopped.

    Args:
      worker: this process.
      wait: whether others may be at work: then go on until their waves are done too, for they may die.
    """
    store = worker.store
    while not worker.stopping:
        wave = store.claim(worker.owner, _LEASE_SECONDS)
        if wave is not None:
            if run_claimed(worker, wave):
                continue
            if worker.stopping:
                store.release(worker.owner)
                return False
            worker.warn(f"wave {wave.id} has gone to another worker: this one's lease ran out")
        elif wait and any(state == "running" for _, state in store.waves()):
            time.sleep(_POLL_SECONDS)
        else:
            return True
    return False


def work_one(url: str, name: str, owner: str) -> int:
    """Run the next wave that nobody has, of the sweep at `url`; 0 if there is none.

    A task that is started again after its death has the same `owner`, and takes up what it had then.
    """
    devices.configure()
    store = records.open_store(url, name)
    store.release(owner)
    worker = Worker(store)
    worker.owner = owner
    wave = store.claim(worker.owner, _LEASE_SECONDS)
    if wave is not None:
        run_claimed(worker, wave)
    return worker.tally.waves


def run_claimed(worker: Worker, wave: Wave) -> bool:
    """Run one claimed wave to its end; False if it was stopped or lost."""
    store = worker.store
    all_points = store.points()
    numbers = sorted({trial for trial, _ in wave.lanes})
    preset = preset_of(store.definition, wave.phase)
    group, *others = fitted_groups(preset, store.space, [all_points[t] for t in numbers], numbers)
    if others:
        raise RunError(f"wave {wave.id} holds trials of several programs; it was planned by another version.")
    trials = {trial.number: trial for trial in group.trials}
    lanes = [WaveLane(trial, seed, trials[trial].hparams) for trial, seed in wave.lanes]
    raced = worker.raced(wave)
    if wave.phase == "confirm" and worker.directory is None:
        worker.warn("the networks of confirmed lanes are kept where the sweep has its folder: not of those run here")
    with _lease(store, wave, worker.owner) as held:
        clerk = _Clerk(worker, wave, held, Meter(store, worker.tally, worker.on_progress, wave, all_points))
        clerk.meter.show("compile")
        programs = worker.programs(group, wave)
        if worker.stopping:  # compiling takes long
            return False
        worker.stops_within = programs.driver.stops_within
        with contextlib.closing(programs.population):  # its games end with the wave, whoever goes on with that
            ended = run_wave(
                programs,
                lanes,
                # What is confirmed is measured to the end: pruning would bias it.
                worker.rules if wave.phase == "search" else dataclasses.replace(worker.rules, prune=None),
                phase=wave.phase,
                clerk=clerk,
                folder=None if worker.directory is None else worker.directory / "units" / f"{wave.id:05d}",
                allowance=worker.allowance,
                stopping=lambda: worker.stopping,
                warn=worker.warn,
                raced=raced,
            )
    if ended:
        store.finish(wave.id)
        worker.tally.waves += 1
    return ended


class _Clerk:
    """What a worker does with what a wave finds: a `wave.Clerk`."""

    def __init__(self, worker: Worker, wave: Wave, held: Callable[[], bool], meter: Meter):
        self.meter = meter
        self.keeps_networks = wave.phase == "confirm" and worker.directory is not None
        self.recorded = worker.store.recorded
        self._worker, self._wave, self._held = worker, wave, held

    def record(self, rows: list[dict[str, Any]], curves: pd.DataFrame) -> bool:
        self.meter.left(rows)
        return self._worker.store.record(self._wave.id, self._worker.owner, rows, curves) and self._held()

    def keep(self, lanes: Sequence[tuple[int, int]], env_steps: int, eval_returns: np.ndarray, params: Params) -> None:
        assert self._worker.directory is not None  # else `keeps_networks` is false
        winners.keep(self._worker.directory, lanes, env_steps, eval_returns, params)

    def fresh_games(self, env_steps: int) -> str:
        assert self._worker.directory is not None  # where the checkpoint was
        return runs.note_fresh_games(self._worker.directory, {"wave": self._wave.id, "env_steps": env_steps})

    def progress(self, progress: WaveProgress) -> None:
        self.meter.chunk(progress)
        self._worker.chunk_seconds, self._worker.chunk_began = progress.seconds, time.monotonic()


@contextlib.contextmanager
def _lease(store: records.Store, wave: Wave, owner: str) -> Iterator[Callable[[], bool]]:
    """Keeps a wave leased while it compiles and runs, however long that takes; the value says whether it still is."""
    ended = threading.Event()
    lost = threading.Event()

    def keep() -> None:
        while not ended.wait(_LEASE_SECONDS / 3):
            try:
                if not store.renew(wave.id, owner, _LEASE_SECONDS):
                    lost.set()
                    return
            except RunError:
                continue  # the next record says so, if the database stays away

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield lambda: not lost.is_set()
    finally:
        ended.set()
        thread.join()
