"""Sweeps from question to tables: what is recorded, drawn and confirmed, and going on after a kill or a signal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweeping import (
    ASKED,
    CRITERIA,
    ENV,
    RATES,
    VARY,
    Watched,
    assert_networks_are_those_of,
    assert_same_numbers,
    crash_after,
    died,
    lanes_of_confirmation,
    programs_of,
)
from sweeping import compiled as compiled  # a fixture

from dqn_jax.config import ConfigError
from dqn_jax.sweep import sweep, worker
from dqn_jax.sweep.records import load_data, open_store
from dqn_jax.sweep.results import halves, ranked
from dqn_jax.sweep.space import parse_space, points
from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS


def test_tables_are_as_documented(whole):
    lanes, curves = whole.data.lanes, whole.data.curves
    assert whole.finished
    for table, columns in ((lanes, LANE_COLUMNS), (curves, CURVE_COLUMNS)):
        pd.testing.assert_frame_equal(table, table.astype(columns))
        assert list(table.columns) == list(columns)
    # Seeds are paired: every trial has the same ones.
    assert list(zip(lanes["trial"], lanes["seed"], strict=True)) == [(t, s) for t in range(4) for s in range(3)]
    assert list(whole.data.trials["learning_rate"]) == list(RATES)
    assert set(lanes["status"]) == {"converged", "budget"}
    assert ((lanes["status"] == "converged") == lanes["converged"]).all()
    last = curves.groupby(["trial", "seed"]).last()
    for name in ("env_steps", "updates", "episodes"):
        np.testing.assert_array_equal(last[name], lanes[name])
    np.testing.assert_array_equal(last["eval_return"], lanes["final_return"])
    np.testing.assert_array_equal(last["seconds"], lanes["device_seconds"])
    np.testing.assert_array_equal(curves.groupby(["trial", "seed"])["eval_return"].max(), lanes["best_return"])
    assert curves["seconds"].gt(0).all()
    assert (curves["updates"] == (curves["env_steps"] - 16) // 2).all()
    assert (curves["episodes"] == curves["env_steps"]).all()  # of one step each
    # Who left did so in the very evaluation in which it converged; who did not went to the end.
    assert (lanes["env_steps"] == lanes["converged_env_steps"].fillna(416)).all()
    assert lanes["env_steps"].nunique() > 3
    for lane in lanes.to_dict("records"):
        first, train, epsilon = json.loads(lane["moments"])
        names = ("env_steps", "updates", "episodes", "seconds")
        found = [lane[f"converged_{name}"] for name in names]
        assert np.isnan(found).all() if first is None else found == first
        assert train is None or 0 < train[0] <= lane["env_steps"]
        assert epsilon is None or epsilon[0] == 106  # from 1 to 0.05 in 200 steps: 0.5 is passed at 105.3


def test_records_of_the_folder_say_what_was_asked_and_planned(whole):
    folder = whole.directory
    assert_same_numbers(load_data(folder), whole.data)
    asked, plan = (json.loads((folder / name).read_text()) for name in ("sweep.json", "plan.json"))
    assert (asked["vary"], asked["seeds"]) == ({"learning_rate": VARY[0].partition("=")[2]}, [0, 1, 2])
    assert (asked["stop"], asked["sampler"], tuple(asked["criteria"])) == ("converged", "grid", CRITERIA)
    assert (plan["programs"], plan["programs_because_of"], plan["devices"]) == (1, {}, 2)
    group = plan["groups"][0]
    assert (group["trials"], group["lanes"], group["waves"], group["capacity"]) == (4, 12, 1, 12)
    assert plan["peak_bytes"] == 12 * group["bytes_per_lane"] <= plan["memory_bytes"]
    assert [entry["unit"] for entry in plan["compiled"]] == [0]
    steps = whole.data.lanes["env_steps"] - 16
    assert [entry["lane_steps"] for entry in plan["sessions"]] == [steps.sum()]
    assert json.loads((folder / "provenance.json").read_text())["seeds"] == [0, 1, 2]
    assert not (folder / "units" / "00000").exists()  # nothing to go on from is left


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from sweeping import ASKED
from dqn_jax.sweep import sweep, worker

worker._CHECKPOINT_SHARE = 1e9

def slowly(progress):
    print(progress.phase, progress.wave, progress.env_steps, flush=True)
    time.sleep(0.3)

sweep(**ASKED, wave=6, out=sys.argv[1], on_progress=slowly)
"""


@pytest.mark.parametrize("moment", ["run 0 136", "compile 1 0"], ids=["in a wave", "between waves"])
def test_kill_9_costs_nothing(tmp_path, monkeypatch, whole, moment):
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "sweep"), str(Path(__file__).parents[1])],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child, contextlib.suppress(ProcessLookupError):
        assert any(line.strip() == moment for line in child.stdout)
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    before = load_data(tmp_path / "sweep").lanes
    watched = Watched(programs_of())
    monkeypatch.setattr(worker, "make_programs", lambda *_: watched.programs)
    again = sweep(**ASKED, wave=6, out=tmp_path / "sweep", resume=True)
    assert again.finished
    assert_same_numbers(again.data, whole.data)
    # Whoever had finished did not run again: its row is the old one, seconds and all, and it is in no chunk.
    assert len(before) >= (6 if moment.startswith("compile") else 1)
    kept = again.data.lanes.merge(before[["trial", "seed"]])
    pd.testing.assert_frame_equal(kept, before, check_exact=True)
    ran = {3 * trial + seed for trial, seed in zip(before["trial"], before["seed"], strict=True)}
    assert not watched.advanced[0] & {lane % 6 for lane in ran if (lane < 6) == (len(before) < 6)}
    assert len(watched.advanced[0]) == 6 - len(before) % 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_chunk_and_the_sweep_goes_on_from_there(tmp_path, compiled, whole, number, capsys):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    steps = []

    def on_progress(progress):
        if progress.phase == "run":
            steps.append(progress.env_steps)
            if len(steps) == 2:
                os.kill(os.getpid(), number)

    stopped = sweep(**ASKED, out=tmp_path / "sweep", on_progress=on_progress)
    assert not stopped.finished
    assert steps == [56, 96]
    assert "stopping after this chunk" in capsys.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [state for _, state in open_store(tmp_path / "sweep").waves()] == ["waiting"]
    again = sweep(**ASKED, out=tmp_path / "sweep", resume=True, on_progress=lambda p: steps.append(p.env_steps))
    assert again.finished
    assert steps[2:4] == [0, 136]
    assert_same_numbers(again.data, whole.data)


def test_a_finished_sweep_has_nothing_left_to_do(tmp_path, compiled, whole):
    folder = tmp_path / "sweep"
    shutil.copytree(whole.directory, folder)
    again = sweep(**ASKED, out=folder, resume=True)
    assert again.finished
    assert compiled == []
    for name in ("lanes", "curves"):
        pd.testing.assert_frame_equal(getattr(again.data, name), getattr(whole.data, name), check_exact=True)


def test_two_processes_do_not_run_one_sweep(compiled, whole):
    with (
        open_store(whole.directory).lock(),
        pytest.raises(ConfigError, match=rf"^sweep: .*whole is being run by process {os.getpid()}; [^\n]*$"),
    ):
        sweep(**ASKED, out=whole.directory, resume=True)


def test_an_occupied_folder_is_left_alone(compiled, whole):
    before = sorted(whole.directory.rglob("*"))
    with pytest.raises(ConfigError, match="is not empty"):
        sweep(**ASKED, out=whole.directory)
    assert sorted(whole.directory.rglob("*")) == before


def test_without_a_folder_the_newest_sweep_of_that_name_goes_on(tmp_path, compiled, whole):
    for chunks in (2, 3):
        died(None, root=tmp_path, on_progress=crash_after(chunks))
    older, newer = sorted((tmp_path / ENV).iterdir())
    again = sweep(**ASKED, root=tmp_path, resume=True)
    assert again.directory == newer
    assert_same_numbers(again.data, whole.data)
    assert load_data(older).lanes.shape[0] < 12


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_points_drawn_are_those_of_the_space(tmp_path, compiled, sampler):
    vary = ("learning_rate=log(1e-4,1e-2)", "target_period=int(1,9)")
    asked = {**ASKED, "vary": vary, "sampler": sampler, "samples": 3, "sample_seed": 5}
    data = sweep(**asked, out=tmp_path / "sweep").data
    drawn = points(parse_space(vary), sampler, 3, 5)
    assert data.trials.to_dict("records") == drawn
    assert list(data.lanes["seed"]) == [0, 1, 2] * 3
    assert data.settings["sampler"] == sampler
    assert len(compiled) == 1


def test_lists_make_a_grid_and_ranges_a_sobol_sequence(tmp_path, compiled):
    definitions = []

    def only_look(plan, definition):
        definitions.append(definition["sampler"])
        return False

    for vary, samples in ((VARY, None), (VARY, 2), (("learning_rate=log(1e-4,1e-2)",), 2)):
        result = sweep(**{**ASKED, "vary": vary}, samples=samples, on_plan=only_look, out=tmp_path / "sweep")
        assert not result.finished
    assert definitions == ["grid", "sobol", "sobol"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_adaptive_samplers_go_on_from_what_they_found(tmp_path, compiled, sampler):
    vary = ("learning_rate=log(1e-4,1e-1)", "discount=uniform(0.5,0.99)")
    asked = {**ASKED, "vary": vary, "seeds": 2, "sampler": sampler, "samples": 6, "batch": 3}
    data = sweep(**asked, out=tmp_path / "whole").data
    assert len(data.trials) == 6
    assert data.trials.drop_duplicates().shape == (6, 2)
    assert len(data.lanes) == 12
    waves = [wave for wave, _ in open_store(tmp_path / "whole").waves()]
    assert [sorted({trial for trial, _ in wave.lanes}) for wave in waves] == [[0, 1, 2], [3, 4, 5]]
    died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(2, wave=1))
    resumed = sweep(**asked, out=tmp_path / "sweep", resume=True)
    assert_same_numbers(resumed.data, data)
    assert len(compiled) <= 3  # one program for all batches, and once more after the crash


def test_what_is_left_out_or_static_makes_programs_of_its_own(tmp_path, compiled):
    vary = ("max_grad_norm=none,0.1", "hidden=8,16", "learning_rate=0.003,0.01")
    asked = {name: value for name, value in ASKED.items() if name != "hidden"}
    data = sweep(**{**asked, "vary": vary, "seeds": 2}, out=tmp_path / "sweep").data
    assert len(compiled) == 4
    assert data.plan["programs"] == 4
    assert data.plan["programs_because_of"] == {"hidden": 2, "max_grad_norm": 2}
    assert [group["settings"] for group in data.plan["groups"]] == [
        {"hidden": width, "max_grad_norm": norm} for norm in (None, 0.1) for width in ([8], [16])
    ]
    assert [group["lanes"] for group in data.plan["groups"]] == [4] * 4
    assert data.trials.to_dict("records") == [
        {"max_grad_norm": norm, "hidden": hidden, "learning_rate": rate}
        for norm in (None, 0.1)
        for hidden in ((8,), (16,))
        for rate in (0.003, 0.01)
    ]
    own = data.curves.drop(columns=["trial", "seconds"])
    first = own[data.curves["trial"] == 0].reset_index(drop=True)
    for trial in range(1, 8):
        assert not own[data.curves["trial"] == trial].reset_index(drop=True).equals(first)
    ranked(data)


def test_the_best_are_confirmed_once_on_seeds_held_out_and_from_other_starts(tmp_path, compiled):
    asked = {**ASKED, "confirm": 2, "confirm_best": 2, "prune": "halving", "prune_eta": 4, "criteria": ("eval>=2",)}
    died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(1, wave=1))  # in the confirmation
    data = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    held_out = lanes_of_confirmation(data)
    best = list(ranked(data)["trial"].head(2))
    assert sorted(zip(held_out["trial"], held_out["seed"], strict=True)) == sorted(
        (trial, seed) for trial in best for seed in (10_000_000, 10_000_001)
    )
    assert set(data.lanes["status"][data.lanes["phase"] == "search"]) == {"budget", "pruned"}
    assert (held_out["status"] == "budget").all()  # what is confirmed is measured to its end
    assert [config.eval_seed for config in compiled] == [1_000_003, 3_000_003, 3_000_003]
    again = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    pd.testing.assert_frame_equal(again.lanes, data.lanes, check_exact=True)
    assert list(data.lanes["phase"]) == sorted(data.lanes["phase"], reverse=True)  # search first
    # One held-out seed chooses, and the other is reported.
    assert halves(data.settings) == ([10_000_000], [10_000_001])
    for phase, seed in (("choice", 10_000_000), ("confirm", 10_000_001)):
        table = ranked(data, phase=phase).set_index("trial")
        for lane in held_out[held_out["seed"] == seed].to_dict("records"):
            assert table["lanes"][lane["trial"]] == 1
            assert table["time"][lane["trial"]] == (lane["converged_env_steps"] if lane["converged"] else 416)

    assert_networks_are_those_of(tmp_path / "sweep", held_out)
