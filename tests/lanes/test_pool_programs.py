"""The programs of a population over pools: memory that there must be for its replays."""

from __future__ import annotations

import dataclasses

import jax
import pytest
from pools import PONG

import dqn_jax
from dqn_jax.config import ConfigError, HParams
from dqn_jax.devices import host_device
from dqn_jax.lanes import pool_programs
from dqn_jax.lanes.pool import make_pool_loop
from dqn_jax.lanes.pool_population import PoolPopulation


def test_a_replay_larger_than_memory_says_what_fits(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pool_programs, "free_memory", lambda devices: asked.append(list(devices)) or 100_000)
    with pytest.raises(
        ConfigError, match=r"replay_capacity: 300 .* 2 seeds take [\d.]+ kB, .* 100 kB .* about \d+ fit"
    ):
        PoolPopulation(make_pool_loop(PONG), HParams(), 2)
    with pytest.raises(ConfigError, match="replay_capacity: 300"):
        PoolPopulation(make_pool_loop(dataclasses.replace(PONG, replay_memory="host")), HParams(), 2)
    assert asked == [jax.local_devices()[:2], jax.devices("cpu")[:1]]
    with pytest.raises(ConfigError, match="replay_capacity: 300"):
        dqn_jax.train(
            PONG.env, seeds=1, out=tmp_path, **{name: value for name, value in vars(PONG).items() if name != "env"}
        )
    assert not list(tmp_path.iterdir())  # the same folder may be named again


def test_a_block_that_is_filled_up_needs_the_memory_of_all_its_lanes(monkeypatch):
    one = PoolPopulation(make_pool_loop(PONG), HParams(), 1).lane_shapes.replay
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one))
    monkeypatch.setattr(pool_programs, "free_memory", lambda devices: 2 * size)
    PoolPopulation(make_pool_loop(dataclasses.replace(PONG, lane_block=2)), HParams(), 1)
    with pytest.raises(ConfigError, match="replay_capacity: 300"):
        PoolPopulation(make_pool_loop(dataclasses.replace(PONG, lane_block=3)), HParams(), 1)


def test_without_a_cpu_device_frames_cannot_be_kept_in_the_hosts_memory(monkeypatch):
    def devices(backend=None):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(ConfigError, match="replay_memory: jax has no CPU"):
        host_device()
