"""Where lanes are: blocks, devices, and the way there and back."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from probes import tiny

from dqn_jax.lanes.layout import BlockLayout, make_layout
from dqn_jax.prng import key_data, make_key

LANE_CONFIG = tiny(
    env="CartPole-v1",
    max_episode_steps=60,
    batch_size=16,
    replay_capacity=200,
    min_replay=20,
    eval_every=80,
    eval_episodes=3,
    total_steps=180,
)


@pytest.mark.parametrize(
    ("lanes", "devices", "changes", "weights", "padded", "block_size"),
    [
        (1, 1, {}, 10, 4, 4),  # tiny networks go in blocks of 4, even alone: the same program, the same bits
        (5, 1, {}, 10, 8, 4),
        (5, 2, {}, 10, 8, 4),
        (16, 2, {}, 10, 16, 4),
        (1, 2, {}, 10**9, 1, 1),  # a device without lanes is left out
        (3, 1, {}, 10**9, 3, 1),
        (5, 2, {}, 10**9, 6, 1),
        (16, 2, {"lane_block": 8}, 10**9, 16, 8),
        (17, 2, {"lane_block": 3}, 10, 18, 3),
        (3, 1, {"train_unit": "episodes"}, 10, 3, 1),
    ],
)
def test_lanes_are_spread_evenly_in_whole_blocks(lanes, devices, changes, weights, padded, block_size):
    layout = make_layout(dataclasses.replace(LANE_CONFIG, **changes), lanes, weights, jax.devices()[:devices])
    assert (layout.lanes, layout.padded, layout.block_size) == (lanes, padded, block_size)
    assert layout.mesh.size == min(lanes, devices)
    there = layout.fetch(layout.place(np.arange(lanes)), np.arange(lanes))
    np.testing.assert_array_equal(there, np.arange(lanes))


@pytest.mark.parametrize("block_size", [1, 2, 4])
def test_blocks_give_back_what_was_placed(block_size):
    layout = BlockLayout(5, block_size, tuple(jax.local_devices()))
    tree = {"x": np.arange(10).reshape(5, 2), "key": jax.random.split(make_key(0), 5)}
    blocks = layout.place(tree)
    assert len(blocks) == -(-5 // block_size)
    assert {block["x"].shape for block in blocks} == {(block_size, 2)}
    some = np.array([0, 3, 4])
    back = layout.fetch(blocks, some)
    np.testing.assert_array_equal(back["x"], tree["x"][some])
    np.testing.assert_array_equal(key_data(back["key"]), key_data(tree["key"])[some])
    assert layout.blocks_of(some) == sorted({lane // block_size for lane in some})
