"""Trees of arrays on disk: .npz files that are whole or not there, and tell their damage.

A file is read back before it takes its name, so that nothing older is given up for one that cannot be read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np

from dqn_jax.files import atomic
from dqn_jax.prng import key_data, wrap_key_data
from dqn_jax.types import Params, PyTree

_DAMAGE = (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # what reading raises


class MisfitError(ValueError):
    """Whole, but of other shapes than are wanted: another version, or another network."""


def tree_arrays(tree: PyTree, prefix: str = "lane") -> dict[str, np.ndarray]:
    """The leaves of a tree as named arrays; keys as their data."""
    leaves = [key_data(x) if _is_key(x) else x for x in jax.tree.leaves(tree)]
    return {f"{prefix}{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def tree_from(arrays: dict[str, np.ndarray], template: PyTree, prefix: str = "lane") -> PyTree:
    """The tree that `tree_arrays` took apart, on the host.

    Raises:
      MisfitError: if the leaves are not those of `template` (shapes `[L, ...]`; L may differ).
    """
    leaves, structure = jax.tree.flatten(template)
    stored: list[PyTree] = [arrays[name] for name in sorted(arrays) if name.startswith(prefix)]
    wanted = jax.eval_shape(lambda xs: [key_data(x) if _is_key(x) else x for x in xs], leaves)
    if [(x.shape[1:], x.dtype) for x in stored] != [(x.shape[1:], x.dtype) for x in wanted]:
        raise MisfitError("its arrays have other shapes")
    return jax.tree.unflatten(
        structure, [wrap_key_data(old) if _is_key(new) else old for old, new in zip(stored, leaves, strict=True)]
    )


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz, whole or not at all, and read it back before it takes its name.

    Raises:
      OSError: if it cannot be written, or cannot be read back.
    """
    packed = dict(_pack(name, value) for name, value in arrays.items())
    with atomic(path) as temporary:  # zip's checksums do not tell that a file of it is gone: their number does
        np.savez(temporary, files=len(packed), **packed)  # type: ignore[arg-type]
        with zipfile.ZipFile(temporary) as written:
            if len(written.namelist()) != len(packed) + 1 or written.testzip() is not None:
                raise OSError(f"{path.name} was read back with other contents than were written")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote.

    Raises:
      ValueError: if it is damaged.
    """
    try:
        # Opened here: NumPy leaves a file open that it opened and found damaged.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        whole = arrays.pop("files") == len(arrays)
        unpacked = dict(_unpack(name, value) for name, value in arrays.items())
    except ValueError as error:  # NumPy's advises to load it as a pickle
        raise ValueError(f"{path.name}: it is no .npz file any more") from error
    except _DAMAGE as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not whole:
        raise ValueError(f"{path.name}: arrays are missing")
    return unpacked


_BITS = "-bits-"  # then the type and the shape


def _pack(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """An array of bytes that are all 0 or 1, as flags and the planes of MinAtar are, as bits."""
    if value.dtype.name not in ("bool", "uint8", "int8") or not value.size or value.max() > 1 or value.min() < 0:
        return name, value
    return f"{name}{_BITS}{value.dtype.name}-{'x'.join(map(str, value.shape))}", np.packbits(value.astype(bool))


def _unpack(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    name, packed, form = name.partition(_BITS)
    if not packed:
        return name, value
    kind, sizes = form.split("-")
    shape = tuple(int(size) for size in sizes.split("x") if size)
    return name, np.unpackbits(value, count=math.prod(shape)).view(kind).reshape(shape)


def _is_key(x: jax.Array | jax.ShapeDtypeStruct | np.ndarray) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


# -- networks alone


def save_networks(path: Path, params: Params, **lanes: np.ndarray) -> None:
    """Write networks (leaves `[L, ...]`) and what is known of each lane (`seeds=`, `env_steps=`, ..., each `[L]`)."""
    notes = {f"note_{name}": np.asarray(value) for name, value in lanes.items()}
    write_arrays(path, {**tree_arrays(params), **notes})


def load_networks(path: Path, template: Params) -> tuple[Params, dict[str, np.ndarray]]:
    """What `save_networks` wrote: networks (leaves `[L, ...]`, on the host), and what is known of each lane.

    Args:
      path: the file.
      template: one network as shapes: `jax.eval_shape` of `agent.init(...).params`.

    Raises:
      FileNotFoundError: if there is none.
      MisfitError: if the networks have other shapes; a ValueError.
      ValueError: if it is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    stored = read_arrays(path)
    several = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), template)
    notes = {name.removeprefix("note_"): x for name, x in stored.items() if name.startswith("note_")}
    return tree_from(stored, several), notes
