"""What a sweep will run: groups, waves, memory."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from sweeping import (
    CONFIG,
    TINY,
    planned,
)
from sweeping import compiled as compiled  # a fixture

import dqn_jax
from dqn_jax.config import ConfigError, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.sweep import plan as plans
from dqn_jax.sweep.plan import describe, fitted, lane_bytes, make_plan
from dqn_jax.sweep.space import compile_groups, parse_space, points


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


def test_a_replay_is_cut_to_what_it_can_hold():
    assert fitted(dataclasses.replace(CONFIG, replay_capacity=10**9)).replay_capacity == 416
    assert fitted(CONFIG) == CONFIG
    short = dataclasses.replace(CONFIG, replay_capacity=10**9, total_steps=16, min_replay=16, batch_size=500)
    assert fitted(short).replay_capacity == 500  # a batch must fit
