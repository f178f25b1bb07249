"""What training goes on from, and networks, on disk: .npz files that are whole or not there, and tell their damage.

A file is read back before it takes its name, so that nothing older is given up for one that cannot be read.
"""

from __future__ import annotations

import contextlib
import math
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dqn_jax.config import ConfigError
from dqn_jax.files import atomic
from dqn_jax.prng import key_data, wrap_key_data
from dqn_jax.types import Params

FORMAT = 2  # of a run's checkpoints; a newer one is skipped. (1 was orbax's folders.)
_KEPT = 2  # checkpoints
_DAMAGE = (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # what reading raises


class MisfitError(ValueError):
    """Whole, but of other shapes than are wanted: another version, or another network."""


class Allowance:
    """Time that checkpoints may take: a small share of all that passes.

    With a share of 1 %, chunks that take longer than 100 checkpoints are all saved, and a kill loses the one in flight;
    of shorter ones not every one is, and it loses what 100 checkpoints take, at most.
    """

    def __init__(self, share: float):
        self._share = share
        self._began = time.perf_counter()
        self._spent = self._last = 0.0

    def left(self) -> bool:
        """Whether there is time for another one like the last; for the first there always is."""
        return self._spent + self._last <= self._share * (time.perf_counter() - self._began)

    @contextlib.contextmanager
    def spend(self) -> Iterator[None]:
        """A checkpoint is written."""
        began = time.perf_counter()
        yield
        self._last = time.perf_counter() - began
        self._spent += self._last


# -- the checkpoints of a run --------------------------------------------------------------------------------


class Saved(NamedTuple):
    """What a run goes on from."""

    env_steps: int
    lanes: Any  # on the host, leaves [L, ...]
    arrays: dict[str, np.ndarray]  # of the host's part


def folder_of(run: Path) -> Path:
    """Where a run's checkpoints are, `<env_steps>.npz`."""
    return run / "checkpoints"


def save(run: Path, env_steps: int, lanes: Any, arrays: dict[str, np.ndarray]) -> None:
    """Save a population (leaves `[L, ...]`) and the host's part after `env_steps`; keep the last two up to there."""
    folder = folder_of(run)
    folder.mkdir(exist_ok=True)
    path = folder / f"{env_steps:012d}.npz"
    host = {f"history_{name}": value for name, value in arrays.items()}
    write_arrays(path, {"format": np.asarray(FORMAT), **tree_arrays(lanes), **host})
    saved = _saved(folder)
    kept = [other for other in saved if other.name <= path.name][-_KEPT:]  # those beyond were damaged, and skipped
    for other in set(saved) - set(kept):
        other.unlink()


def load(
    run: Path, template: Any, warn: Callable[[str], None], complete: Callable[[Any], Any] = lambda lanes: lanes
) -> Saved | None:
    """The newest whole checkpoint, or None without any; damaged ones are skipped.

    Args:
      run: the run's folder.
      template: the population's state as shapes (`jax.eval_shape`); the lane count may differ.
      warn: called with one line for each checkpoint that is skipped.
      complete: adds to the lanes what is kept elsewhere; one in which that raises OSError or ValueError is skipped.

    Raises:
      ConfigError: if it is of another version of dqn_jax: its leaves are not those of `template`.
    """
    folder = folder_of(run)
    saved = _saved(folder)
    if not saved and folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir()):
        raise ConfigError(
            f"run: the checkpoints in {folder} are folders of an earlier dqn_jax, which this version does not read; "
            "use the one that wrote them (git_commit in provenance.json), or start a new run."
        )
    for path in reversed(saved):
        try:
            stored = read_arrays(path)
            if int(stored.get("format", FORMAT)) > FORMAT:
                raise ValueError("it was written by a newer dqn_jax")
            lanes = complete(tree_from(stored, template))
            arrays = {name.removeprefix("history_"): x for name, x in stored.items() if name.startswith("history_")}
            return Saved(int(path.stem), lanes, arrays)
        except MisfitError as error:
            raise ConfigError(
                f"run: the checkpoint {path} does not fit this version of dqn_jax; "
                "use the one that wrote it (provenance.json says which), or start a new run."
            ) from error
        except (OSError, ValueError) as error:
            warn(f"checkpoint {path} is damaged ({error}) and is skipped")
    return None


def _saved(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(path for path in folder.glob("*.npz") if path.stem.isdigit())


# -- networks alone ------------------------------------------------------------------------------------------


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


# -- trees and arrays ----------------------------------------------------------------------------------------


def tree_arrays(tree: Any, prefix: str = "lane") -> dict[str, np.ndarray]:
    """The leaves of a tree as named arrays; keys as their data."""
    leaves = [key_data(x) if _is_key(x) else x for x in jax.tree.leaves(tree)]
    return {f"{prefix}{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def tree_from(arrays: dict[str, np.ndarray], template: Any, prefix: str = "lane") -> Any:
    """The tree that `tree_arrays` took apart, on the host.

    Raises:
      MisfitError: if the leaves are not those of `template` (shapes `[L, ...]`; L may differ).
    """
    leaves, structure = jax.tree.flatten(template)
    stored: list[Any] = [arrays[name] for name in sorted(arrays) if name.startswith(prefix)]
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


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
