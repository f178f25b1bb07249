"""The programs of a population over pools: compiled for the blocks of each device, replays beside learners or apart."""

from __future__ import annotations

import concurrent.futures
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from dqn_jax.agent import UpdateInfo
from dqn_jax.config import ConfigError, HParams, ReplaySettings, asynchronous, envs_per_step
from dqn_jax.devices import free_memory, size_text
from dqn_jax.lanes.lane import LaneState, temporary_bytes
from dqn_jax.lanes.layout import BlockLayout
from dqn_jax.lanes.pool import PoolLoop, PoolPieces, PoolStart, Seen
from dqn_jax.prng import make_key
from dqn_jax.replay import ReplayState
from dqn_jax.types import FrameRow, Params, PyTree


class BlockAct(Protocol):
    """As `PoolAct`, of a block of L lanes (leaves `[L, ...]`), from the host; donates `lanes`."""

    def __call__(
        self, env_steps: np.int32, lanes: LaneState, seen: Seen, hparams: HParams
    ) -> tuple[LaneState, jax.Array, jax.Array]: ...


class BlockLearn(Protocol):
    """As `PoolLearn`, of a block of L lanes (leaves `[L, ...]`), from the host; donates `lanes`."""

    def __call__(self, trainings: np.int32, lanes: LaneState, hparams: HParams) -> tuple[LaneState, jax.Array]: ...


class BlockPrograms(NamedTuple):
    """Those of one device, for a block."""

    start: PoolStart
    act: BlockAct
    learn: BlockLearn
    # Where replays are in the host's memory, `act` remembers nothing, and this does: (replay, row, envs).
    store: Callable[[ReplayState, FrameRow, jax.Array | None], ReplayState] | None = None


class Compiled(NamedTuple):
    """The programs of all devices of a layout."""

    programs: dict[jax.Device, BlockPrograms]
    temporary_bytes: int  # the most that one needs on its device beside its inputs and outputs


def compile_programs(loop: PoolLoop, layout: BlockLayout, example: HParams, *, from_weights: bool) -> Compiled:
    """Compile for the blocks of a layout, for all devices side by side.

    Args:
      loop: whose functions they are made of.
      layout: of the blocks.
      example: hyperparameters of one lane, leaves `[]`.
      from_weights: whether lanes start from given networks.

    Raises:
      ConfigError: if replays that are drawn by priority are to be in the host's memory.
    """
    size, host = layout.block_size, layout.host
    seed: PyTree = jax.ShapeDtypeStruct((), jnp.int32)
    weights = jax.eval_shape(lambda h: loop.agent.init(make_key(0), h).params, example) if from_weights else None
    lane = jax.eval_shape(loop.start, seed, example, weights)
    seen = _seen_shapes(loop)
    if host is not None and jax.tree.leaves(lane.replay.priorities):
        raise ConfigError("replay_memory: a replay that is drawn by priority is kept with its network; use device.")
    compiled: list[jax.stages.Compiled] = []

    def program(
        function: Callable[..., PyTree], *shapes: PyTree, shared: int = 0, donate: tuple[int, ...] = ()
    ) -> jax.stages.Compiled:
        lowered = jax.jit(_over_lanes(function, size, shared), donate_argnums=donate).lower(*shapes)
        compiled.append(lowered.compile())
        return compiled[-1]

    def beside(device: jax.Device) -> BlockPrograms:
        own = functools.partial(spread, (size,), sharding=SingleDeviceSharding(device))
        count = spread((), seed, SingleDeviceSharding(device))
        return BlockPrograms(
            program(loop.start, own(seed), own(example), own(weights)),
            program(loop.act, count, own(lane), own(seen), own(example), shared=1, donate=(1,)),
            program(loop.learn, count, own(lane), own(example), shared=1, donate=(1,)),
        )

    def apart(device: jax.Device, host: jax.Device) -> BlockPrograms:
        own = functools.partial(spread, (size,), sharding=SingleDeviceSharding(device))
        there = functools.partial(spread, (size,), sharding=SingleDeviceSharding(host))
        count, count_there = (spread((), seed, SingleDeviceSharding(where)) for where in (device, host))
        pieces, bare = loop.pieces, own(lane._replace(replay=()))
        stored, key, hparams = there(lane.replay), there(lane.key), there(example)
        batch = jax.eval_shape(pieces.draw, seed, lane.replay, lane.key, example)
        sums = jax.ShapeDtypeStruct((len(UpdateInfo._fields),), jnp.float32)
        fitted = own(lane.agent), own(sums), own(batch), own(example), own(lane.key)
        return _apart(
            loop.config.updates_per_train,
            device,
            host,
            PoolPieces(
                fresh=program(pieces.fresh, own(seed), own(example), own(weights)),
                empty=program(pieces.empty, there(seed)),
                choose=program(pieces.choose, count, bare, own(seen), own(example), shared=1, donate=(1,)),
                add=program(pieces.add, stored, there(seen.row), there(seen.envs), donate=(0,)),
                begin=program(pieces.begin, count, bare, shared=1, donate=(1,)),
                draw=program(pieces.draw, count_there, stored, key, hparams, shared=1),
                fit=program(pieces.fit, *fitted, donate=(0, 1)),
            ),
        )

    def of(device: jax.Device) -> BlockPrograms:
        return beside(device) if host is None else apart(device, host)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        programs = dict(zip(layout.devices, pool.map(of, layout.devices), strict=True))
    return Compiled(programs, max(temporary_bytes(one) for one in compiled))


def _over_lanes(function: Callable[..., PyTree], block_size: int, shared: int) -> Callable[..., PyTree]:
    """`function` of one lane as one of a block; the first `shared` arguments are the same for all."""
    if block_size > 1:
        return lambda *a: jax.vmap(functools.partial(function, *a[:shared]))(*a[shared:])

    def one(*arguments: PyTree) -> PyTree:
        own = jax.tree.map(lambda x: x.reshape(x.shape[1:]), arguments[shared:])
        return jax.tree.map(lambda x: x[None], function(*arguments[:shared], *own))

    return one


def _seen_shapes(loop: PoolLoop) -> Seen:
    """What a pool shows to one lane in one step, as shapes."""

    def of_envs(dtype: PyTree, shape: tuple[int, ...] = ()) -> PyTree:
        return jax.ShapeDtypeStruct((envs_per_step(loop.config), *shape), dtype)

    flag, frame = of_envs(bool), of_envs(loop.spec.obs_dtype, loop.frame_shape)
    row = FrameRow(frame, of_envs(jnp.int32), of_envs(jnp.float32), flag, flag, flag)
    return Seen(row, flag, of_envs(jnp.int32) if asynchronous(loop.config) else None)


def _apart(updates_per_train: int, device: jax.Device, host: jax.Device, pieces: PoolPieces) -> BlockPrograms:
    """The programs of a device whose replays are on `host`. It draws the next batch while the device learns from one.

    `pieces` are compiled: `empty`, `add` and `draw` for the host, the others for the device.
    """
    sent: dict[int, tuple[HParams, HParams]] = {}  # hyperparameters of blocks, and the same there

    def there(hparams: HParams) -> HParams:
        if id(hparams) not in sent:
            sent[id(hparams)] = hparams, jax.device_put(hparams, host)
        return sent[id(hparams)][1]

    def start(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> LaneState:
        return pieces.fresh(seed, hparams, weights)._replace(replay=pieces.empty(jax.device_put(seed, host)))

    def act(
        env_steps: np.int32, lane: LaneState, seen: Seen, hparams: HParams
    ) -> tuple[LaneState, jax.Array, jax.Array]:
        own, actions, epsilon = pieces.choose(env_steps, _bare(lane), seen, hparams)  # type: ignore[arg-type]
        return own._replace(replay=lane.replay), actions, epsilon

    def learn(trainings: np.int32, lane: LaneState, hparams: HParams) -> tuple[LaneState, jax.Array]:
        own, keys, sums = pieces.begin(trainings, _bare(lane))  # type: ignore[arg-type]
        key, learner = jax.device_put(keys.draw, host), own.agent
        for update in range(int(trainings) * updates_per_train):
            batch = pieces.draw(np.int32(update), lane.replay, key, there(hparams))  # type: ignore[arg-type]
            learner, sums = pieces.fit(learner, sums, jax.device_put(batch, device), hparams, keys.noise)
        return own._replace(agent=learner, replay=lane.replay), sums

    return BlockPrograms(start, act, learn, pieces.add)  # type: ignore[arg-type]


def _bare(lane: LaneState) -> LaneState:
    """A lane with () in place of its replay."""
    nothing: PyTree = ()
    return lane._replace(replay=nothing)


def spread(axes: tuple[int, ...], tree: PyTree, sharding: SingleDeviceSharding | None = None) -> PyTree:
    """The shapes of a tree with further leading axes, and where they are."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype, sharding=sharding), tree)


def check_memory(replay: ReplayState, config: ReplaySettings, layout: BlockLayout) -> None:
    """Refuse replays (shapes, leaves `[L, ...]`) that do not fit.

    Raises:
      ConfigError: saying about how many transitions do.
    """
    lanes = layout.lanes
    room = -(-lanes // layout.block_size) * layout.block_size  # a last block is filled up
    needed = sum(math.prod((room, *x.shape[1:])) * x.dtype.itemsize for x in jax.tree.leaves(replay))
    free = free_memory(layout.devices if layout.host is None else [layout.host])
    if needed > free:
        fits = int(config.replay_capacity * 0.9 * free / needed)
        each = f" for each of {lanes} seeds" if lanes > 1 else ""
        field, what = "replay_capacity", f"{config.replay_capacity:,} transitions"
        if config.replay == "rollout":
            field, what = "rollout_length", f"rollouts of {config.rollout_length:,} steps"
            fits = int(config.rollout_length * 0.9 * free / needed)
        raise ConfigError(
            f"{field}: {what}{each} take {size_text(needed)}, and {size_text(free)} are free; about {fits:,} fit."
        )
