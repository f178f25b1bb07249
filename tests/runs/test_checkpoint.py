"""Checkpoints and networks on disk: any path, every bit, damage, what is kept."""

import json
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax import ConfigError
from dqn_jax.prng import key_data, make_key
from dqn_jax.runs import arrays, checkpoint


class Lane(NamedTuple):
    """As a population's state: keys, flags, floats."""

    key: jax.Array
    done: np.ndarray
    values: dict


def lanes(count=3, shift=0.0):
    rng = np.random.default_rng(1)
    values = {
        "w": rng.standard_normal((count, 4, 5)).astype(np.float32) + np.float32(shift),
        "n": np.arange(count, dtype=np.int32),
    }
    return Lane(jax.vmap(make_key)(jnp.arange(count)), rng.random((count, 3, 7)) < 0.5, values)


def shapes(count=1):
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, lanes(count)))


def assert_same(left, right):
    left, right = (x._replace(key=np.asarray(key_data(x.key))) for x in (left, right))
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["plain", "a[x]b", "*?[!]", "with spaces", "日本-é", "[/red]"])
def test_a_checkpoint_comes_back_bit_for_bit_from_any_path(tmp_path, name):
    run = tmp_path / name
    run.parent.mkdir(exist_ok=True)
    history = {"seconds": np.array([0.1, np.nan]), "flags": np.zeros((0, 3), bool)}
    checkpoint.save(run, 500, lanes(), history)
    env_steps, got, found, at_work = checkpoint.load(run, shapes(), pytest.fail)
    assert env_steps == 500
    assert at_work.tolist() == [0, 1, 2]
    assert_same(got, lanes())
    assert found["flags"].shape == (0, 3)
    np.testing.assert_array_equal(found["seconds"], history["seconds"])


def test_the_last_two_are_kept_and_the_one_before_a_damaged_one_is_used(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, lanes(shift=step), {})
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["000000000002.npz", "000000000003.npz"]
    whole, rng = paths[1].read_bytes(), np.random.default_rng(2)
    for bit in rng.integers(0, 8 * len(whole), 60):  # either the flip changes no number, or it is found
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        paths[1].write_bytes(data)
        warned = []
        env_steps, got, *_ = checkpoint.load(tmp_path, shapes(), warned.append)
        assert env_steps == (2 if warned else 3)
        assert_same(got, lanes(shift=env_steps))
    paths[1].write_bytes(whole[: len(whole) // 2])
    assert checkpoint.load(tmp_path, shapes(), warned.append)[0] == 2
    checkpoint.save(tmp_path, 2, lanes(), {})  # gone on from there: the damaged one beyond is no use any more
    assert [path.name for path in tmp_path.iterdir()] == ["000000000002.npz"]


def test_nothing_older_is_given_up_for_what_cannot_be_read_back(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, lanes(), {})
    checkpoint.save(tmp_path, 2, lanes(), {})
    write = np.savez

    def spoil(path, **arrays):  # a disk that gives back other bytes
        write(path, **arrays)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(arrays.np, "savez", spoil)
    with pytest.raises(OSError, match="read back"):
        checkpoint.save(tmp_path, 3, lanes(), {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "000000000001.npz",
        "000000000002.npz",
    ]


def test_checkpoints_of_the_earlier_format_are_named_in_one_line(tmp_path):
    assert checkpoint.load(tmp_path, shapes(), pytest.fail) is None
    old = tmp_path / "000000000500"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text(json.dumps({"format": 1, "files": {}}))
    with pytest.raises(ConfigError, match=r"^run: the checkpoints in .* earlier dqn_jax.*git_commit") as error:
        checkpoint.load(tmp_path, shapes(), pytest.fail)
    assert "\n" not in str(error.value)


def test_a_newer_format_is_skipped(tmp_path):
    checkpoint.save(tmp_path, 1, lanes(), {})
    path = next(tmp_path.iterdir())
    stored = arrays.read_arrays(path)
    arrays.write_arrays(path, {**stored, "format": np.asarray(checkpoint.FORMAT + 1)})
    warned = []
    assert checkpoint.load(tmp_path, shapes(), warned.append) is None
    assert "newer dqn_jax" in warned[0]


class Population:
    """As far as checkpoints know one: lanes on the host."""

    def __init__(self, count):
        self.layout = SimpleNamespace(lanes=count, fetch=lambda tree, chosen: jax.tree.map(lambda x: x[chosen], tree))
        self.lane_shapes = shapes(count)


def test_who_is_at_work_is_kept_with_the_state_and_one_checkpoint_if_asked(tmp_path):
    made = checkpoint.Checkpoints(tmp_path / "wave", Population(3), rows_apart=False, kept=1)
    assert made.load(pytest.fail) is None
    for step, at_work in ((1, np.arange(3)), (2, np.array([0, 2]))):
        made.save(step, lanes(), {"x": np.ones(2)}, at_work)
        assert made.saved_at == step
    assert [path.name for path in made.folder.iterdir()] == ["000000000002.npz"]
    env_steps, got, found, at_work = checkpoint.Checkpoints(made.folder, Population(3), rows_apart=False).load(
        pytest.fail
    )
    assert (env_steps, at_work.tolist(), list(found)) == (2, [0, 2], ["x"])
    assert_same(got, jax.tree.map(lambda x: x[np.array([0, 2])], lanes()))
    made.clear()
    assert not made.folder.exists()


def test_a_wave_that_an_earlier_version_saved_goes_on(tmp_path):
    made = checkpoint.Checkpoints(tmp_path, Population(3), rows_apart=False, kept=1)
    made.save(500, lanes(), {}, np.array([1, 2]))
    stored = arrays.read_arrays(tmp_path / "000000000500.npz")
    (tmp_path / "000000000500.npz").unlink()
    del stored["format"]
    arrays.write_arrays(tmp_path / "state-000000000500.npz", {**stored, "env_steps": np.asarray(500)})
    arrays.write_arrays(tmp_path / "rows-000000000000-000000000100.npz", {"lanes": np.arange(3)})
    env_steps, got, _, at_work = made.load(pytest.fail)
    assert (env_steps, at_work.tolist()) == (500, [1, 2])
    assert_same(got, jax.tree.map(lambda x: x[np.array([1, 2])], lanes()))
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.npz")}
    assert names == {"000000000500.npz", "rows/rows-000000000000-000000000100.npz"}
