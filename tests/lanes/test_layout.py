"""Where lanes are: blocks, devices, and the way there and back."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import tiny

from dqn_jax.lanes.driver import driver_for
from dqn_jax.lanes.lane import one_lane, weight_shapes
from dqn_jax.lanes.layout import BlockLayout, make_layout
from dqn_jax.presets import resolve_preset
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


def weights_of(count):
    return [jax.ShapeDtypeStruct((count,), np.float32)]


@pytest.mark.parametrize(
    ("lanes", "devices", "changes", "weights", "padded", "block_size"),
    [
        (1, 1, {}, 10, 4, 4),  # tiny networks go in blocks of 4, even alone: the same program, the same bits
        (5, 1, {}, 10, 8, 4),
        (5, 2, {}, 10, 8, 4),
        (16, 2, {}, 10, 16, 4),
        (1, 2, {}, 10**9, 2, 1),  # on CPU no device is left out: the same program, the same bits
        (3, 1, {}, 10**9, 3, 1),
        (5, 2, {}, 10**9, 6, 1),
        (16, 2, {"lane_block": 8}, 10**9, 16, 8),
        (17, 2, {"lane_block": 3}, 10, 18, 3),
        (3, 1, {"train_unit": "episodes"}, 10, 3, 1),
    ],
)
def test_lanes_are_spread_evenly_in_whole_blocks(lanes, devices, changes, weights, padded, block_size):
    layout = make_layout(
        dataclasses.replace(LANE_CONFIG, **changes), lanes, weights_of(weights), jax.devices()[:devices]
    )
    assert (layout.lanes, layout.padded, layout.block_size) == (lanes, padded, block_size)
    assert layout.mesh.size == devices
    there = layout.fetch(layout.place(np.arange(lanes)), np.arange(lanes))
    np.testing.assert_array_equal(there, np.arange(lanes))


def test_networks_with_convolutions_go_one_by_one_on_cpu():
    preset = resolve_preset("dqn-minatar")
    config = dataclasses.replace(preset.config, batch_size=1)
    shapes = weight_shapes(driver_for(config).agent, one_lane(preset.hparams))
    assert make_layout(config, 4, shapes, jax.devices()[:1]).block_size == 1
    assert make_layout(config, 4, weights_of(sum(x.size for x in shapes)), jax.devices()[:1]).block_size == 4


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


@given(st.data())
def test_every_active_lane_has_one_place_in_the_fewest_blocks(data):
    lanes, devices = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 2))
    config = dataclasses.replace(LANE_CONFIG, lane_block=data.draw(st.integers(1, 5)))
    layout = make_layout(config, lanes, weights_of(10), jax.devices()[:devices])
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, lanes - 1)))), int)
    active = layout.active(chosen)
    slots = np.asarray(active.slots).reshape(layout.mesh.size, layout.share)
    blocks = np.asarray(active.blocks)
    for device in range(layout.mesh.size):
        run = slots[device, : blocks[device] * layout.block_size]
        own, fillers = run[run < layout.share], run[run >= layout.share]
        mine = chosen[chosen % layout.mesh.size == device]
        np.testing.assert_array_equal(device * layout.share + own, layout.slot_of(mine))
        assert len(fillers) < layout.block_size
        assert set(fillers - layout.share) <= set(own)  # repeats, whose results are dropped
        assert np.all(slots[device] // layout.share <= 1)
    # What is placed comes back, for any few of them and in any order.
    values = np.arange(lanes * 3).reshape(lanes, 3)
    placed = layout.place({"x": values})
    asked = np.array(data.draw(st.permutations(list(range(lanes)))), int)[: data.draw(st.integers(1, lanes))]
    np.testing.assert_array_equal(layout.fetch(placed, asked)["x"], values[asked])
    few = data.draw(st.integers(1, lanes))
    np.testing.assert_array_equal(
        layout.fetch(layout.place(values[:few]), np.arange(lanes))[few:], np.tile(values[few - 1], (lanes - few, 1))
    )
