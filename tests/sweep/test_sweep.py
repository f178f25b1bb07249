"""Sweeps: what is recorded, planned, drawn and confirmed, and going on after a kill or a signal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sweeping import (
    ASKED,
    CONFIG,
    CRITERIA,
    ENV,
    RATES,
    TINY,
    VARY,
    CrashError,
    Watched,
    assert_same_numbers,
    crash_after,
    died,
    programs_of,
)
from sweeping import compiled as compiled  # a fixture

import dqn_jax
from dqn_jax.cli import options
from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.sweep import definition, estimate, runner, sweep, winners, worker
from dqn_jax.sweep import plan as plans
from dqn_jax.sweep.plan import describe, fitted, lane_bytes, make_plan
from dqn_jax.sweep.records import load_data, open_store
from dqn_jax.sweep.results import halves, ranked
from dqn_jax.sweep.space import compile_groups, parse_space, points
from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS, STATUSES

# -- what is recorded


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


def test_a_sweep_from_before_a_setting_goes_on_with_its_default(whole):
    asked = json.loads((whole.directory / "sweep.json").read_text())
    older = {**asked, "config": {k: v for k, v in asked["config"].items() if k != "epsilon_from"}}
    assert definition.as_begun(asked, asked) == asked
    assert definition.as_begun(asked, older) == older
    changed = {**asked, "config": {**asked["config"], "epsilon_from": "learning"}}
    assert definition.as_begun(changed, older) == changed


# -- a sweep that dies, and goes on


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": ("learning_rate=0.0003,0.001",)}, r"vary\.learning_rate: this sweep has 0\.0003,.*, not 0\.0003,0"),
        ({"vary": (*VARY, "discount=0.9,0.99")}, r"vary\.discount: this sweep has nothing, not 0\.9,0\.99"),
        ({"seeds": 2}, r"seeds: this sweep has 0, 1, 2, not 0, 1;"),  # more of them would be lanes beside these
        ({"num_envs": 4, "discount": 0.5}, r"config\.num_envs: .*has 2, not 4 \(and 1 more settings differ\)"),
        ({"stop": "budget"}, "stop: this sweep has converged, not budget"),
        ({"prune": "halving"}, "prune"),
        ({"lane_block": 1}, r"config\.lane_block: this sweep has 0, not 1"),  # other blocks have other bits
    ],
    ids=str,
)
def test_a_sweep_goes_on_only_as_it_was_asked(compiled, whole, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sweep(**{**ASKED, **changes}, out=whole.directory, resume=True)
    assert "\n" not in str(caught.value)


def test_a_sweep_asks_for_what_it_was_asked_to_the_last_digit():
    asked = {**ASKED, "criteria": ("eval>=16926.55", "train5>=0.1234567891")}
    definitions = []
    sweep(**asked, out="nowhere", on_plan=lambda plan, definition: bool(definitions.append(definition)))
    assert definitions[0]["criteria"] == list(asked["criteria"])
    thresholds = [criterion.threshold for criterion in definition.rules_of(definitions[0]).criteria]
    assert thresholds == [16926.55, 0.1234567891]


def test_what_varies_is_not_fixed_too():
    with pytest.raises(
        ConfigError, match=r"^discount: it is given one value and varies too; leave out --discount, or "
    ):
        sweep(**{**ASKED, "vary": ("discount=0.9,0.99",)}, discount=0.9, out="nowhere")


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


def test_no_sweep_to_go_on_with_is_said(tmp_path, compiled):
    with pytest.raises(ConfigError, match="is not a sweep"):
        sweep(**ASKED, out=tmp_path / "nowhere", resume=True)
    with pytest.raises(ConfigError, match="holds no sweep"):
        sweep(**ASKED, root=tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_the_newest_sweep_of_that_name_goes_on(tmp_path, compiled, whole):
    for chunks in (2, 3):
        died(None, root=tmp_path, on_progress=crash_after(chunks))
    older, newer = sorted((tmp_path / ENV).iterdir())
    again = sweep(**ASKED, root=tmp_path, resume=True)
    assert again.directory == newer
    assert_same_numbers(again.data, whole.data)
    assert load_data(older).lanes.shape[0] < 12


# -- what is drawn


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


# -- confirmation


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


def assert_networks_are_those_of(folder, held_out):
    """Played from the starts of the confirmation, they score what is recorded: to the last bit."""
    assert len(list((folder / "networks").rglob("*.npz"))) == len(held_out)
    for trial, own in held_out.groupby("trial"):
        winner = winners.load(folder, trial)
        own = own[own["seed"].isin(winner.settings.seeds)]
        played = winner.driver.play(winner.params, episodes=8, epsilon=0.0, seed=3_000_003)
        np.testing.assert_array_equal(np.asarray(played.returns).mean(axis=1), own["final_return"])
        np.testing.assert_array_equal(winner.eval_return, own["final_return"])
        np.testing.assert_array_equal(winner.env_steps, own["env_steps"])


def lanes_of_confirmation(data):
    return data.lanes[data.lanes["phase"] == "confirm"]


def test_the_networks_of_confirmed_lanes_are_kept_whenever_they_leave_and_whoever_dies(tmp_path, compiled):
    asked = {**ASKED, "vary": ("learning_rate=0.0003",), "seeds": 1, "confirm": 4, "confirm_best": 1}
    out = tmp_path / "sweep"

    def crash(progress):
        if progress.wave == 1 and progress.phase == "run" and progress.running < 4:
            raise CrashError

    died(out, **asked | {"wave": None}, on_progress=crash)
    before = {(trial, seed) for phase, trial, seed in open_store(out).recorded() if phase == "confirm"}
    assert 0 < len(before) < 4
    assert all(winners.path_of(out, *lane).is_file() for lane in before)
    data = sweep(**asked, out=out, resume=True).data
    held_out = lanes_of_confirmation(data)
    assert held_out["env_steps"].nunique() > 1
    assert_networks_are_those_of(out, held_out)
    # A single finalist is reported on all of its seeds.
    table = ranked(data, phase="confirm")
    assert (table["trial"].tolist(), table["lanes"].tolist()) == (list(ranked(data)["trial"][:1]), [4])
    winner = winners.load(out)
    assert winner.settings.seeds == tuple(held_out["seed"])
    assert winner.settings.hparams.learning_rate == RATES[winner.trial]
    with pytest.raises(ConfigError, match=r"^trial: .* confirmed \d, not 77"):
        winners.load(out, 77)
    path = winners.path_of(out, winner.trial, 10_000_002)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=r"^run: .*seed-10000002.npz is damaged"):
        winners.load(out)
    path.unlink()
    with pytest.raises(ConfigError, match=r"^run: .* does not have the networks of trial \d, seed 10000002: "):
        winners.load(out)


def test_a_sweep_that_confirms_nothing_keeps_no_networks(whole):
    assert not (whole.directory / "networks").exists()
    with pytest.raises(ConfigError, match=r"^run: .* keeps no networks: .*--resume --confirm 10"):
        winners.load(whole.directory)


def test_a_sweep_begun_with_other_held_out_seeds_goes_on_with_them(tmp_path, compiled, monkeypatch):
    asked = {**ASKED, "seeds": 1, "confirm": 3, "confirm_best": 2}
    before = {"seeds": [1_000_000, 1_000_001, 1_000_002], "best": 2, "by": ["env_steps"]}
    with monkeypatch.context() as patch:
        patch.setattr(runner, "define", lambda *a, **k: {**definition.define(*a, **k), "confirm": before})
        died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(1))
    data = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    assert sorted(set(lanes_of_confirmation(data)["seed"])) == before["seeds"]
    assert {config.eval_seed for config in compiled} == {1_000_003}  # and from the starts of the search
    assert ranked(data, phase="confirm")["lanes"].tolist() == [3, 3]
    with pytest.raises(ConfigError, match=r"confirm\.seeds: this sweep has 1000000"):
        sweep(**asked | {"confirm": 4}, out=tmp_path / "sweep", resume=True)


def test_no_stream_is_drawn_twice():
    """Seeds of evaluation starts are those of no lane, whatever is asked."""
    starts = {Config.eval_seed, options.Evaluate.eval_seed, definition._CONFIRM_EVAL_SEED}
    assert len(starts) == 3
    for count in (1, 100, definition._MOST_CONFIRM):
        held_out = range(definition._CONFIRM_SEED, definition._CONFIRM_SEED + count)
        assert not starts & set(held_out)
    assert held_out[-1] < 2**31


# -- the plan


def test_a_lane_takes_what_its_arrays_take():
    loop = make_loop(CONFIG)
    weights = 1 * 8 + 8 + 8 * 2 + 2
    transition = 4 * 5  # observation, action, reward, discount, next observation, of four bytes each
    fixed = lane_bytes(CONFIG, HParams()) - _replay_bytes(loop, 20)
    assert _replay_bytes(loop, 20) == 20 * 2 * transition
    # Parameters, target, and Adam's two moments; what is left are counters and readings.
    readings = 2 * (3 * 4 + 1 + 20 * 4 + 20 * 4 + 20 * 2 * 4 + 8 * 4 + 8 * 4)
    assert 0 < fixed - 4 * (4 * weights) - readings < 120
    larger = dataclasses.replace(CONFIG, replay_capacity=400)
    assert lane_bytes(larger, HParams()) - lane_bytes(CONFIG, HParams()) == 180 * 2 * transition


def _replay_bytes(loop, rows):
    state, _ = jax.eval_shape(loop.start, jnp.int32(0), jax.tree.map(lambda x: x[0], stack_hparams(HParams(), 1)))
    leaves = jax.tree.leaves(state.replay.storage)
    assert all(leaf.shape[:2] == (rows, 2) for leaf in leaves)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def planned(vary=VARY, seeds=3, **options):
    space = parse_space(vary)
    preset = dqn_jax.presets.with_overrides(dqn_jax.presets.resolve_preset(ENV), TINY)
    groups = compile_groups(preset, space, points(space, "grid"))
    return make_plan(space, groups, range(seeds), **options)


@pytest.mark.parametrize(
    ("seeds", "wave", "sizes"),
    [
        (3, None, [12]),
        (3, 12, [12]),
        (3, 11, [6, 6]),  # nine would fit, but then three would be left
        (3, 7, [6, 6]),
        (3, 5, [3, 3, 3, 3]),
        (3, 2, [2] * 6),  # fewer than a trial's seeds
        (5, 8, [5, 5, 5, 5]),
        (5, 19, [10, 10]),
        (2, 5, [4, 4]),
        (1, 3, [2, 2]),
    ],
)
def test_waves_are_equal_and_of_whole_trials(seeds, wave, sizes):
    (group,) = planned(seeds=seeds, wave=wave).groups
    assert [len(lanes) for lanes in group.waves] == sizes
    assert group.capacity == max(sizes)
    together = [lane for wave in group.waves for lane in wave]
    assert together == [(trial, seed) for trial in range(4) for seed in range(seeds)]
    if max(sizes) >= seeds:
        trials = [{trial for trial, _ in lanes} for lanes in group.waves]
        assert sum(map(len, trials)) == 4


def test_memory_bounds_the_waves():
    size = planned().groups[0].bytes_per_lane
    for memory, capacity in ((12 * size, 12), (12 * size - 1, 6), (3 * size, 3), (3 * size - 1, 2), (size, 1)):
        plan = planned(memory=memory)
        assert plan.groups[0].capacity == capacity
        assert plan.peak_bytes <= plan.memory == memory
    with pytest.raises(ConfigError, match=r"^memory: one lane takes [\d.]+ kB and there are [\d.]+ kB; lower [^\n]*$"):
        planned(memory=size - 1)


@pytest.mark.parametrize(("host", "device"), [(10**9, 10**8), (10**8, 10**9)])
def test_replays_in_two_places_share_the_smaller_memory(monkeypatch, host, device):
    devices = jax.local_devices()
    monkeypatch.setattr(plans, "host_device", lambda: "host")
    monkeypatch.setattr(plans, "free_memory", lambda places: {"host": host, devices[0]: device}[places[0]])
    monkeypatch.setattr(plans, "lane_bytes", lambda config, hparams: 1000)
    space = parse_space(["replay_memory=device,host"])
    preset = dqn_jax.presets.with_overrides(dqn_jax.presets.resolve_preset("envpool:CartPole-v1"), TINY)
    groups = compile_groups(preset, space, points(space, "grid"))
    assert make_plan(space, groups, range(3)).memory == int(0.7 * 10**8)
    for group, free in zip(groups, (device, host), strict=True):
        assert make_plan(space, [group], range(3)).memory == int(0.7 * free)


def test_the_plan_says_which_setting_makes_programs():
    plan = planned(("batch_size=4,8,16", "discount=0.5,0.9", "dueling=true,false"), wave=6)
    assert plan.programs_because_of == {"batch_size": 3, "dueling": 2}
    lines = describe(plan, {"seeds": [0, 1, 2]})
    assert "12 trials x 3 seeds = 36 lanes on 2 x cpu; 6 programs to compile" in lines[0]
    assert lines[1] == (
        "programs differ by: batch_size (3 values), dueling (2 values); everything else varies within a program"
    )
    assert lines[2].startswith("  batch_size=4, dueling=true: 2 trials, 6 lanes in 1 wave of up to 6, ")
    assert lines[8] == "at most 14,976 environment steps over all lanes; fewer, as lanes leave before their budget ends"
    assert len(lines) == 9
    assert [line for line in describe(planned(), {"seeds": [0, 1, 2]}) if "differ" in line] == []
    listed = plan.as_json()
    assert listed["groups"][0]["settings"] == {"batch_size": 4, "dueling": True}
    assert (listed["programs"], len(listed["groups"])) == (6, 6)
    json.dumps(listed)


def test_the_plan_tells_the_confirmation_and_all_steps():
    asked = {"seeds": [0, 1, 2], "confirm": {"seeds": list(range(10)), "best": 2, "by": ["env_steps", "updates"]}}
    plan = planned(("batch_size=4,8", "discount=0.5,0.9,0.99"), wave=6)
    confirmation = plan.confirmation(asked)
    # Four finalists of two programs: at worst two of each, in four waves of up to six.
    assert confirmation == (4, 40, 2 * -(-20 // 6), 2, 40 * 416)
    lines = describe(plan, asked)
    assert lines[-2] == (
        "then the best again on 10 held-out seeds: up to 4 trials, 40 lanes in 8 waves, 2 more programs"
    )
    assert lines[-1].startswith(f"at most {(6 * 3 + 40) * 416:,} environment steps over all lanes")
    assert plan.confirmation({**asked, "samples": 3}).trials == 3
    assert planned().confirmation({"seeds": [0], "confirm": None}).lanes == 0


def test_time_is_estimated_from_what_ran_here_or_is_measured(tmp_path, compiled, whole):
    plan, asked = planned(), {**whole.data.settings, "confirm": None}
    assert estimate.recorded(tmp_path, asked, plan) is None
    shutil.copytree(whole.directory, tmp_path / "tiny" / "1")
    (session,) = json.loads((whole.directory / "plan.json").read_text())["sessions"]
    rate = session["lane_steps"] / (session["seconds"] - session["compile_seconds"])
    speed = estimate.recorded(tmp_path, asked, plan)
    assert speed.lane_steps_per_second == pytest.approx((rate, rate))
    assert speed.source == f"as in 1 earlier sweep of {ENV} in {tmp_path}"
    elsewhere = {**asked, "config": {**asked["config"], "env": "CartPole-v1"}}
    assert estimate.recorded(tmp_path, elsewhere, plan) is None
    (tmp_path / "tiny" / "1" / "plan.json").write_text("{}")
    assert estimate.recorded(tmp_path, asked, plan) is None
    text = estimate.describe(plan, asked, estimate.Speed((10.0, 41.6), 30.0, "so"))
    assert text == "time: at most about 2.5 min to 8.8 min (estimated so)"  # 4,992 steps and a program
    assert "not known" in estimate.describe(plan, asked, None)


def test_one_chunk_is_measured_where_nothing_has_run(monkeypatch):
    monkeypatch.setattr(estimate, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
    slow, fast = estimate.measured(planned()).lane_steps_per_second
    assert 0 < slow < fast
    monkeypatch.setattr(estimate, "_MOST_WORK", 10.0)
    assert estimate.measured(planned()) is None


def test_a_replay_is_cut_to_what_it_can_hold():
    assert fitted(dataclasses.replace(CONFIG, replay_capacity=10**9)).replay_capacity == 416
    assert fitted(CONFIG) == CONFIG
    short = dataclasses.replace(CONFIG, replay_capacity=10**9, total_steps=16, min_replay=16, batch_size=500)
    assert fitted(short).replay_capacity == 500  # a batch must fit


# -- the live display's numbers


def test_progress_adds_up(tmp_path, compiled, whole):
    seen = []
    result = sweep(**ASKED, wave=6, out=tmp_path / "sweep", on_progress=seen.append)
    assert [p.wave for p in seen if p.phase == "compile"] == [0, 1]
    assert {p.waves for p in seen} == {2}
    for progress in seen:
        assert sum(progress.lanes.values()) + progress.running + progress.waiting == 12
        assert set(progress.lanes) <= set(STATUSES)
        assert progress.total_steps in (1, 416)
    counts = result.data.lanes["status"].value_counts().to_dict()
    assert {status: n for status, n in seen[-1].lanes.items() if n} == counts
    assert (seen[-1].running, seen[-1].waiting, seen[-1].seconds_left) == (0, 0, 0)
    best = ranked(result.data).iloc[0]
    assert seen[-1].best == ({"learning_rate": best["learning_rate"]}, pytest.approx(best["time"]))
    assert all(p.lane_steps_per_second > 0 and p.seconds_left >= 0 for p in seen if p.phase == "run")
