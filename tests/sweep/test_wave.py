"""Waves: a lane's numbers are its own, whoever runs beside it, and no death of the process costs a number."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sweeping import (
    ASKED,
    CONFIG,
    RATES,
    CrashError,
    Watched,
    assert_same_numbers,
    crash_after,
    died,
    numbers,
    of_lane,
    programs_of,
)
from sweeping import compiled as compiled  # a fixture

import dqn_jax
from dqn_jax.config import HParams
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.prng import key_data
from dqn_jax.runs.checkpoint import Checkpoints
from dqn_jax.sweep import sweep, worker
from dqn_jax.sweep.plan import fitted
from dqn_jax.sweep.records import open_store
from dqn_jax.sweep.wave import make_programs


def test_leaving_early_changes_nothing_before(whole, spent):
    assert (spent.data.lanes["env_steps"] == 416).all()
    names = ["converged", "converged_env_steps", "converged_updates", "converged_episodes", "status"]
    pd.testing.assert_frame_equal(spent.data.lanes[names], whole.data.lanes[names], check_exact=True)
    curves = numbers(spent.data)[1]
    until = whole.data.lanes.set_index(["trial", "seed"])["env_steps"]
    left = curves.join(until.rename("until"), on=["trial", "seed"])
    before = curves[(left["env_steps"] <= left["until"]).to_numpy()].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, numbers(whole.data)[1], check_exact=True)
    assert len(before) < len(curves)
    stays = spent.data.lanes.dropna(subset="stability")
    assert len(stays)
    for lane in stays.to_dict("records"):
        own = of_lane(spent.data.curves, lane["trial"], lane["seed"])
        later = own["eval_return"][own["env_steps"] > lane["converged_env_steps"]]
        assert lane["stability"] == (later >= 1).mean()


@pytest.mark.parametrize("wave", [1, 4])
def test_a_lane_has_the_same_numbers_in_waves_of_any_size(tmp_path, compiled, whole, wave):
    again = sweep(**ASKED, wave=wave, out=tmp_path / "sweep")
    assert_same_numbers(again.data, whole.data)
    assert len(open_store(tmp_path / "sweep").waves()) == {1: 12, 4: 4}[wave]
    assert compiled == [CONFIG]  # all waves in one program


def test_a_lane_has_the_same_numbers_on_one_device(tmp_path, monkeypatch, whole):
    alone = functools.partial(make_programs, devices=jax.devices()[:1])
    monkeypatch.setattr(worker, "make_programs", alone)
    assert_same_numbers(sweep(**ASKED, wave=6, out=tmp_path / "sweep").data, whole.data)


def test_a_lane_has_the_same_numbers_among_others_and_who_diverges_stays_alone(tmp_path, compiled, whole):
    company = {**ASKED, "vary": ["learning_rate=1e30,0.003,0.5"], "seeds": [7, 2, 0]}
    data = sweep(**company, out=tmp_path / "sweep").data
    for seed in (0, 2):
        for own, other in zip(numbers(data), numbers(whole.data), strict=True):
            pd.testing.assert_frame_equal(of_lane(own, 1, seed), of_lane(other, 2, seed), check_exact=True)
    diverged = data.lanes[data.lanes["trial"] == 0]
    assert (diverged["status"] == "diverged").all()
    assert not diverged["converged"].any()
    assert (diverged["env_steps"] < 416).all()  # they leave at once
    assert (data.lanes["status"] == "diverged").sum() == 3


BLOCK_OF_ONE = {"lane_block": 1, "replay_capacity": 5000}


OWN_RHYTHM = {"preset": "ProbeLengths-test", "train_unit": "episodes", "train_every": 1, "total_episodes": 60}


OWN_RHYTHM |= {"replay_capacity": 5000, "criteria": ("train5>=4", "eval>=3")}


@pytest.mark.parametrize("changes", [{}, BLOCK_OF_ONE, OWN_RHYTHM], ids=["blocks of 4", "block of 1", "own rhythm"])
def test_a_lane_has_the_numbers_that_training_gives_it(tmp_path, compiled, changes):
    asked = {**ASKED, **changes}
    data = sweep(**asked, stop="budget", out=tmp_path / "sweep").data
    assert compiled[0].replay_capacity == (40 if changes == {} else 416)  # what can be filled
    overrides = {k: v for k, v in asked.items() if k not in ("preset", "vary", "seeds", "criteria")}
    seeds = [2, 0]
    for rate in RATES[1:3]:
        trial = RATES.index(rate)
        trained = dqn_jax.train(
            asked["preset"], seeds=seeds, criteria=asked["criteria"], **overrides, learning_rate=[rate, rate]
        )
        for i, seed in enumerate(seeds):
            curve = trained.history.curves()[i]
            metrics = trained.metrics[trained.metrics["seed"] == seed].reset_index(drop=True)[: len(curve.env_steps)]
            own = of_lane(data.curves, trial, seed).drop(columns="seconds")
            pd.testing.assert_frame_equal(own, metrics[list(own.columns)].astype(own.dtypes), check_exact=True)
            lane = of_lane(data.lanes, trial, seed).iloc[0]
            for summary, moment in zip(trained.summary["criteria"], json.loads(lane["moments"]), strict=True):
                found = [summary[name][i] for name in ("env_steps", "updates", "episodes")]
                assert found == ([None] * 3 if moment is None else moment[:3])
            assert lane["stability"] == trained.summary["criteria"][0]["stability"][i] or np.isnan(lane["stability"])
            assert lane["final_return"] == pytest.approx(trained.summary["final_eval_return"][i])
    if changes == OWN_RHYTHM:
        assert data.lanes["env_steps"].nunique() > 1  # each rests in its own time
        assert (data.lanes["episodes"] >= 60).all()
        assert (data.lanes["env_steps"] < 416).all()


def test_lanes_that_have_left_cost_nothing(tmp_path, monkeypatch, whole):
    watched = Watched(programs_of())
    monkeypatch.setattr(worker, "make_programs", lambda *_: watched.programs)
    assert_same_numbers(sweep(**ASKED, out=tmp_path / "sweep").data, whole.data)
    lanes = whole.data.lanes
    for i, (advanced, blocks) in enumerate(zip(watched.advanced, watched.blocks, strict=True)):
        at_work = set(lanes.index[lanes["env_steps"] > 16 + 40 * i])  # as there is one wave
        assert advanced == at_work
        assert blocks == [-(-len([lane for lane in at_work if lane % 2 == device]) // 4) for device in (0, 1)]
    np.testing.assert_array_equal(watched.updates, lanes["updates"])  # and not one more
    assert len(watched.advanced) == (lanes["env_steps"].max() - 16) // 40


def comparable(lanes):
    return jax.tree.map(np.asarray, lanes._replace(key=key_data(lanes.key)))


class Wave:
    """A wave of twelve lanes under way."""

    def __init__(self, config=CONFIG):
        self.programs = programs_of(config)
        self.rhythm, population = self.programs.driver.rhythm, self.programs.population
        self.layout = population.layout
        self.seeds = list(range(12))
        hparams = stack_hparams(HParams(epsilon_decay_steps=200), 12)
        self.hparams = self.layout.place(hparams)
        self.state, warmup = population.start(self.seeds, hparams)
        self.history = History(self.seeds, 2)
        self.history.add_warmup(self.layout.fetch(warmup, np.arange(12)))
        self.env_steps = self.rhythm.warmup_steps

    def go_on(self, chunks, alive):
        for _ in range(chunks):
            self.state, metrics = self.programs.population.chunk(
                jnp.int32(self.env_steps), self.state, self.hparams, self.layout.active(alive)
            )
            before, self.env_steps = self.env_steps, self.env_steps + self.rhythm.steps_per_chunk
            self.history.add(before, self.env_steps, 1.0, self.layout.fetch(metrics, alive), alive)

    def checkpoint(self, folder):
        apart = self.programs.driver.appends_rows
        return Checkpoints(folder, self.programs.population, rows_apart=apart, kept=1)

    def save(self, into, alive):
        into.save(self.env_steps, self.state, self.history.arrays(), alive)

    def assert_saved(self, folder, alive, warn=pytest.fail):
        """A new process finds what is in memory, for everybody who is still at work."""
        saved = self.checkpoint(folder).load(warn)
        assert saved.env_steps == self.env_steps
        np.testing.assert_array_equal(saved.at_work, alive)
        jax.tree.map(
            np.testing.assert_array_equal,
            comparable(saved.lanes),
            comparable(self.layout.fetch(self.state, alive)),
        )
        restored = History(self.seeds, 2)
        restored.restore(saved.arrays)
        for one, other in zip(restored.curves(), self.history.curves(), strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)


def rows_files(folder):
    return {
        path.name: (tuple(map(int, path.stem.split("-")[1:])), path.stat().st_mtime_ns)
        for path in sorted(folder.glob("rows/*.npz"))
    }


SOME_LEAVE = [(1, np.arange(12)), (1, np.arange(12)), (1, np.array([0, 3, 4, 7, 11])), (3, np.array([3, 7, 11]))]


SOME_LEAVE += [(1, np.array([3, 7])), (1, np.array([7]))]


POOL = {"env": "envpool:CartPole-v1", "lane_block": 5, "eval_episodes": 2, "pool_threads": 1, "max_episode_steps": 30}


@pytest.mark.parametrize(
    "changes",
    [{}, BLOCK_OF_ONE, POOL],
    ids=["a ring that wraps", "a ring that is never full", "pools of five lanes"],
)
def test_a_checkpoint_is_the_state_in_memory_and_writes_each_row_once(tmp_path, changes):
    config = fitted(dataclasses.replace(CONFIG, **changes))
    wave = Wave(config)
    checkpoint, rows, before = wave.checkpoint(tmp_path), -(-config.replay_capacity // 2), {}
    for chunks, alive in SOME_LEAVE:
        wave.go_on(chunks, alive)
        wave.save(checkpoint, alive)
        wave.assert_saved(tmp_path, alive)
        files = rows_files(tmp_path)
        added = wave.env_steps // 2
        covered = [row for (first, last), _ in files.values() for row in range(first, last)]
        assert len(covered) == len(set(covered))
        assert set(range(max(0, added - rows), added)) <= set(covered)
        assert len(covered) < 2 * rows + 20  # what is overwritten in the rings goes from the disk
        for name in before.keys() & files.keys():
            assert files[name] == before[name]  # untouched
        assert len(files.keys() - before.keys()) == 1
        assert len(list(tmp_path.glob("*.npz"))) == 1
        before = files
    assert (added > 5 * rows) == (changes is not BLOCK_OF_ONE)
    # A process that takes over appends in the same way.
    other = wave.checkpoint(tmp_path)
    other.load(pytest.fail)
    wave.go_on(1, np.array([7]))
    wave.save(other, np.array([7]))
    wave.assert_saved(tmp_path, np.array([7]))
    other.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"env": "ProbeLengths-test", "train_unit": "episodes", "train_every": 1, "total_episodes": 60}
        | {"replay_capacity": 5000},
        {"clear_replay": True, "train_every": 16},
    ],
    ids=["own rhythm", "replay thrown away"],
)
def test_a_checkpoint_holds_replays_that_do_not_only_grow(tmp_path, changes):
    wave = Wave(fitted(dataclasses.replace(CONFIG, **changes)))
    checkpoint = wave.checkpoint(tmp_path)
    for chunks, alive in [(1, np.arange(12)), (2, np.arange(1, 12, 2)), (1, np.array([5]))]:
        wave.go_on(chunks, alive)
        wave.save(checkpoint, alive)
        wave.assert_saved(tmp_path, alive)


def test_rows_without_the_state_that_goes_with_them_do_no_harm(tmp_path, monkeypatch):
    wave, alive = Wave(), np.arange(12)
    checkpoint = wave.checkpoint(tmp_path)
    wave.go_on(1, alive)
    wave.save(checkpoint, alive)
    kept = tmp_path.with_name("kept")
    shutil.copytree(tmp_path, kept)
    wave.go_on(1, alive)
    wave.save(checkpoint, alive)
    for path in tmp_path.glob("rows/*.npz"):  # as if the process had died between the two files
        shutil.copy(path, kept / "rows")
    again = Wave()
    again.go_on(1, alive)
    again.assert_saved(kept, alive)
    resumed = again.checkpoint(kept)
    resumed.load(pytest.fail)
    again.go_on(2, alive[::2])
    again.save(resumed, alive[::2])
    again.assert_saved(kept, alive[::2])


def test_no_damage_goes_unnoticed(tmp_path):
    wave, alive = Wave(), np.arange(12)
    checkpoint = wave.checkpoint(tmp_path / "whole")
    for _ in range(2):
        wave.go_on(1, alive)
        wave.save(checkpoint, alive)
    rng, noticed = np.random.default_rng(0), 0
    for path in sorted((tmp_path / "whole").rglob("*.npz")):
        content = path.read_bytes()
        cuts = [content[: len(content) // 2], b"", *_flipped(content, rng, 6)]
        for damaged in cuts:
            folder = tmp_path / "damaged"
            shutil.copytree(tmp_path / "whole", folder)
            (folder / path.relative_to(tmp_path / "whole")).write_bytes(damaged)
            messages = []
            saved = wave.checkpoint(folder).load(messages.append)
            if saved is None:
                assert len(messages) == 1
                assert "damaged" in messages[0]
                assert "\n" not in messages[0]
                noticed += 1
            else:  # a byte of zip's that nothing depends on
                wave.assert_saved(folder, alive)
            shutil.rmtree(folder)
    assert noticed > 12


def _flipped(content, rng, count):
    for place in rng.integers(len(content), size=count):
        data = bytearray(content)
        data[place] ^= 1 << rng.integers(8)
        yield bytes(data)


def _chunks_of_first_wave(whole):
    return (whole.data.lanes["env_steps"][:6].max() - 16) // 40


@pytest.mark.parametrize("chunks", [1, 4, 9, 11])
def test_a_crash_after_any_chunk_costs_nothing(tmp_path, compiled, whole, chunks):
    died(tmp_path / "sweep", on_progress=crash_after(chunks))
    seen = []
    again = sweep(**ASKED, wave=6, out=tmp_path / "sweep", resume=True, on_progress=seen.append)
    assert_same_numbers(again.data, whole.data)
    for progress in seen:
        assert sum(progress.lanes.values()) + progress.running + progress.waiting == 12
    first = next(progress for progress in seen if progress.phase == "run")
    wave, done = divmod(chunks, _chunks_of_first_wave(whole))
    assert (first.wave, first.env_steps) == (wave, 16 + 40 * (done + 1))


def test_a_crash_between_a_record_and_its_checkpoint_runs_no_lane_again(tmp_path, compiled, monkeypatch, whole):
    saves, save = [], Checkpoints.save

    def dies(self, env_steps, lanes, arrays, at_work):
        if len(at_work) < 6 and saves:
            raise CrashError
        saves.append(env_steps)
        save(self, env_steps, lanes, arrays, at_work)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dies)
        died(tmp_path / "sweep", vary=("learning_rate=0.003,0.01",))
    recorded = open_store(tmp_path / "sweep").recorded()
    assert 0 < len(recorded) < 6
    watched = Watched(programs_of())
    monkeypatch.setattr(worker, "make_programs", lambda *_: watched.programs)
    again = sweep(**{**ASKED, "vary": ("learning_rate=0.003,0.01",)}, wave=6, out=tmp_path / "sweep", resume=True)
    lanes = [("search", trial, seed) for trial in range(2) for seed in range(3)]
    assert set(watched.advanced[0]) == {i for i, lane in enumerate(lanes) if lane not in recorded}
    for trial, seed in ((t, s) for t in range(2) for s in range(3)):
        for own, other in zip(numbers(again.data), numbers(whole.data), strict=True):
            pd.testing.assert_frame_equal(of_lane(own, trial, seed), of_lane(other, trial + 2, seed), check_exact=True)


def damage_state(unit):
    path = next(unit.glob("*.npz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def damage_rows(unit):
    path = max(unit.glob("rows/*.npz"))
    path.write_bytes(path.read_bytes()[:-100])


def lose_rows(unit):
    max(unit.glob("rows/*.npz")).unlink()


@pytest.mark.parametrize("damage", [damage_state, damage_rows, lose_rows])
def test_a_damaged_checkpoint_starts_the_wave_again_with_the_same_numbers(tmp_path, compiled, whole, damage):
    died(tmp_path / "sweep", on_progress=crash_after(4))
    damage(tmp_path / "sweep" / "units" / "00000")
    messages = []
    again = sweep(**ASKED, wave=6, out=tmp_path / "sweep", resume=True, warn=messages.append)
    assert len(messages) == 1
    assert "damaged" in messages[0]
    assert "\n" not in messages[0]
    assert_same_numbers(again.data, whole.data)
