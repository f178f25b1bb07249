"""Arrays and networks on disk: every bit, damage, and that bytes of zeros and ones take a bit each."""

from __future__ import annotations

import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.runs import arrays
from dqn_jax.runs.arrays import read_arrays, write_arrays


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8"])
def test_bytes_that_are_all_0_or_1_take_a_bit_each(tmp_path, kind):
    flags = (np.random.default_rng(0).random((64, 999)) < 0.5).astype(kind)
    more = {"one": np.array(True), "none": np.zeros((0, 3), bool), "frames": np.array([[0, 1, 255]], np.uint8)}
    written = {"flags": flags, "signs": np.array([-1, 0, 1], np.int8), **more}
    arrays.write_arrays(tmp_path / "a.npz", written)
    assert os.path.getsize(tmp_path / "a.npz") < flags.size / 8 + 2500
    got = arrays.read_arrays(tmp_path / "a.npz")
    assert got.keys() == written.keys()
    for name, value in written.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


def test_networks_alone(tmp_path):
    params = {"dense": {"kernel": np.random.default_rng(0).random((2, 3, 4), np.float32)}}
    one = jax.eval_shape(lambda: {"dense": {"kernel": jnp.zeros((3, 4))}})
    path = tmp_path / "winners[1].npz"
    with pytest.raises(FileNotFoundError):
        arrays.load_networks(path, one)
    arrays.save_networks(path, params, seeds=np.array([7, 9]), env_steps=[500, 1000])
    got, known = arrays.load_networks(path, one)
    np.testing.assert_array_equal(got["dense"]["kernel"], params["dense"]["kernel"])
    assert {name: x.tolist() for name, x in known.items()} == {"seeds": [7, 9], "env_steps": [500, 1000]}
    with pytest.raises(arrays.MisfitError):
        arrays.load_networks(path, jax.eval_shape(lambda: {"dense": {"kernel": jnp.zeros((3, 5))}}))
    assert all(info.compress_type == zipfile.ZIP_STORED for info in zipfile.ZipFile(path).infolist())


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "file.npz"
    arrays = {"alive": np.arange(3), "steps": np.asarray(7), "lane0000": np.ones((2, 2), np.float32)}
    write_arrays(path, arrays)
    content = path.read_bytes()
    noticed = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            found = read_arrays(path)
        except ValueError:
            noticed += 1
            continue
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert noticed > len(content) / 2
