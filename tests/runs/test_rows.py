"""Rows of replays on disk."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.lanes.lane import without_rows
from dqn_jax.lanes.layout import BlockLayout
from dqn_jax.lanes.pool_population import PoolPopulation
from dqn_jax.runs.rows import RowFiles

CAPACITY = 40


class Replay(NamedTuple):
    storage: Any
    rows_added: Any


class Lanes(NamedTuple):
    replay: Any


def population(lanes):
    """One that has nothing but replays."""
    shape = jax.ShapeDtypeStruct((lanes, CAPACITY), jnp.int32)
    layout = BlockLayout(lanes, 1, (jax.devices()[0],))
    own = SimpleNamespace(layout=layout, lane_shapes=Lanes(Replay([shape], None)))
    own.rows = functools.partial(PoolPopulation.rows, own)
    return own


def rings(history):
    """Blocks of one lane, whose rings have had each of `history` `[L, rows]` added in turn."""
    blocks = []
    for own in np.asarray(history):
        ring = np.zeros((1, CAPACITY), np.int32)
        for row, value in enumerate(own):
            ring[0, row % CAPACITY] = value
        blocks.append(Lanes(Replay([jnp.asarray(ring)], jnp.full((1,), len(own), jnp.int32))))
    return blocks


def restored(files, layout, blocks, lanes):
    whole = files.restore(layout.fetch([without_rows(block) for block in blocks], lanes), lanes)
    return whole.replay.storage[0]


@pytest.mark.parametrize("ahead", [25, 45, 90])
def test_rows_of_a_future_that_was_never_reached_are_forgotten(tmp_path, ahead):
    """As where a process dies after its rows and before its state: environments then go on otherwise."""
    everyone, both = np.arange(2), population(2)
    files = RowFiles(tmp_path, both)
    before = 100 * np.arange(1, 11) + np.array([[0], [1]])  # [2, 10]
    lost = np.concatenate([before, 7_000 + np.zeros((2, ahead), int)], axis=1)
    reached = np.concatenate([before, 8_000 + np.arange(12) + np.array([[0], [50]])], axis=1)
    files.append(rings(before), 10, everyone)
    files.append(rings(lost), 10 + ahead, everyone)
    resumed = RowFiles(tmp_path, both)
    np.testing.assert_array_equal(
        restored(resumed, both.layout, rings(before), everyone)[:, :10], before, err_msg="goes on from here"
    )
    resumed.append(rings(reached), 22, everyone)
    found = restored(RowFiles(tmp_path, both), both.layout, rings(reached), everyone)
    np.testing.assert_array_equal(found[:, :22], reached)


def test_lost_and_damaged_rows_are_noticed(tmp_path):
    everyone, one = np.arange(1), population(1)
    history = np.arange(100)[None]
    for rows in (30, 70, 100):
        if rows == 30:
            files = RowFiles(tmp_path, one)
        files.append(rings(history[:, :rows]), rows, everyone)
    files.forget(100)
    np.testing.assert_array_equal(
        restored(RowFiles(tmp_path, one), one.layout, rings(history), everyone),
        rings(history)[0].replay.storage[0],
    )
    newest = max(tmp_path.iterdir())
    content = newest.read_bytes()
    newest.write_bytes(content[:-9])
    with pytest.raises(ValueError, match=newest.name):
        restored(RowFiles(tmp_path, one), one.layout, rings(history), everyone)
    newest.unlink()
    with pytest.raises(ValueError, match="missing"):
        restored(RowFiles(tmp_path, one), one.layout, rings(history), everyone)


def test_what_begins_again_after_damage_can_be_restored(tmp_path):
    everyone, one = np.arange(1), population(1)
    damaged, again = rings(np.arange(30)[None]), rings(np.arange(50, 70)[None])
    RowFiles(tmp_path, one).append(damaged, 30, everyone)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    files = RowFiles(tmp_path, one)
    with pytest.raises(ValueError, match=f"{path.name}: it is no .npz file"):
        restored(files, one.layout, damaged, everyone)
    files.clear()
    files.append(again, 20, everyone)
    found = restored(RowFiles(tmp_path, one), one.layout, again, everyone)
    np.testing.assert_array_equal(found[:, :20], np.arange(50, 70)[None])
