"""The training loop over a pool of host environments: it acts, sends, learns while the pool steps, and receives.

An environment step is a row of an environment, those that only begin an episode included: whoever plays short episodes
counts more steps than transitions (of FrozenLake's rows under chance 12 % are none, of Pong's 0.1 %).

The agent's functions are those of `loop`. The pool itself is the one thing here with a state of its own: emulators
cannot be saved, so a run that is resumed starts fresh games.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqn_jax.agent import Agent, AgentState, UpdateInfo, make_agent
from dqn_jax.config import Config, ConfigError, DeviceSettings, HParams, changed, envs_per_step
from dqn_jax.envs import make_pool
from dqn_jax.lanes.device import exploration, fresh_learner
from dqn_jax.lanes.lane import Rhythm, rhythm_of
from dqn_jax.prng import make_key
from dqn_jax.replay import ReplayState, make_memory, stack_push
from dqn_jax.replay.memory import MemoryAdd
from dqn_jax.types import Batch, EnvSpec, FrameRow, Key, Obs, Params


class PoolLaneState(NamedTuple):
    """Everything one agent carries from step to step; its environments are in the pool."""

    seed: jax.Array  # [], int32
    key: Key
    agent: AgentState
    replay: ReplayState | Any  # () where it is kept apart
    obs: Obs  # [N, *obs_shape], what it acted on last
    episodes: jax.Array  # [], int32, episodes finished
    trainings: jax.Array  # [], int32, times of training (each `updates_per_train` batches)


class PoolParts(NamedTuple):
    """What `start`, `act` and `learn` are made of, for programs that keep a replay apart from its learner."""

    fresh: Callable[..., PoolLaneState]  # (seed, hparams, weights): with no replay
    empty: Callable[..., ReplayState]  # (seed): the same for all
    choose: Callable[..., tuple[PoolLaneState, jax.Array, jax.Array]]  # as `act`, but stores nothing
    add: MemoryAdd
    begin: Callable[..., tuple[PoolLaneState, Key, jax.Array]]  # (trainings, lane): a key for `draw`, sums so far
    draw: Callable[..., Batch]  # (update, replay, key, discount)
    fit: Callable[..., tuple[AgentState, jax.Array]]  # (learner, sums, batch, hparams)


class PoolLoop(NamedTuple):
    """The pure functions of one agent and the numbers that fix its rhythm."""

    start: Callable[..., PoolLaneState]  # (seed, hparams, weights)
    # (env_steps, lane, row, game_over, envs, hparams): actions [N] and exploration []. envs [N] are those of an
    # asynchronous row, else None.
    act: Callable[..., tuple[PoolLaneState, jax.Array, jax.Array]]
    learn: Callable[..., tuple[PoolLaneState, jax.Array]]  # (trainings, lane, hparams): sums of UpdateInfo [3]
    parts: PoolParts
    # of L networks: (params, obs, frame, first, epsilon, key): obs [L, E, *obs_shape] and actions [L, E]
    play: Callable[..., tuple[Obs, jax.Array]]
    agent: Agent
    spec: EnvSpec
    frame_shape: tuple[int, ...]  # of what the pool gives, before stacking
    config: Config
    frame_bytes: int  # that go to the device for each environment and step
    rhythm: Rhythm

    @property
    def warmup_steps(self) -> int:
        """Environment steps before learning."""
        return self.rhythm.warmup_steps

    @property
    def steps_per_chunk(self) -> int:
        """Environment steps per chunk."""
        return self.rhythm.steps_per_chunk


def make_pool_loop(config: Config) -> PoolLoop:
    """Build the loop of one agent on a pool.

    Raises:
      ConfigError: as `make_pool` and `make_agent`, and for settings that only on-device environments have.
    """
    for field in changed(config, DeviceSettings):
        raise ConfigError(f"{field}: environments of a pool do not have it; leave it out.")
    pool = make_pool(config, 1, [0], evaluation=True)  # its spaces are known once it exists
    spec, frame_shape = pool.spec, pool.frame_shape
    pool.close()
    agent = make_agent(config, spec)
    replay = make_memory(config, "frames")
    # At the least so many that a whole window is stored, of whichever environment.
    one_short = config.num_envs * (config.frame_stack + config.n_step - 1)
    rhythm = rhythm_of(config, least=one_short // envs_per_step(config) + 1)

    def fresh(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> PoolLaneState:
        net_key, key = jax.random.split(make_key(seed))
        count, obs = jnp.zeros((), jnp.int32), jnp.zeros((config.num_envs, *spec.obs_shape), spec.obs_dtype)
        learner = fresh_learner(config, agent, net_key, hparams, weights)
        return PoolLaneState(seed, key, learner, (), obs, count, count)

    def empty(_: jax.Array) -> ReplayState:
        envs = (config.num_envs,)
        frame, flag = jnp.zeros((*envs, *frame_shape), spec.obs_dtype), jnp.zeros(envs, bool)
        return replay.init(FrameRow(frame, jnp.zeros(envs, jnp.int32), jnp.zeros(envs), flag, flag, flag))

    def start(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> PoolLaneState:
        return fresh(seed, hparams, weights)._replace(replay=empty(seed))

    def choose(
        env_steps: jax.Array,
        lane: PoolLaneState,
        row: FrameRow,
        game_over: jax.Array,
        envs: jax.Array | None,
        hparams: HParams,
    ) -> tuple[PoolLaneState, jax.Array, jax.Array]:
        key, act_key = jax.random.split(lane.key)
        episodes = lane.episodes + jnp.sum(game_over, dtype=jnp.int32)
        obs = stack_push(lane.obs if envs is None else lane.obs[envs], row.frame, row.first)
        epsilon = exploration(config, hparams, env_steps, lane._replace(episodes=episodes))
        actions = agent.act(lane.agent.params, obs, epsilon, act_key)
        every_obs = obs if envs is None else lane.obs.at[envs].set(obs)
        return lane._replace(key=key, obs=every_obs, episodes=episodes), actions, epsilon

    def act(
        env_steps: jax.Array,
        lane: PoolLaneState,
        row: FrameRow,
        game_over: jax.Array,
        envs: jax.Array | None,
        hparams: HParams,
    ) -> tuple[PoolLaneState, jax.Array, jax.Array]:
        lane, actions, epsilon = choose(env_steps, lane, row, game_over, envs, hparams)
        stored = replay.add(lane.replay, row._replace(action=actions), envs)
        return lane._replace(replay=stored), actions, epsilon

    def begin(trainings: jax.Array, lane: PoolLaneState) -> tuple[PoolLaneState, Key, jax.Array]:
        key, learn_key = jax.random.split(lane.key)
        lane = lane._replace(key=key, trainings=lane.trainings + trainings)
        return lane, learn_key, jnp.zeros((len(UpdateInfo._fields),))

    def draw(update: jax.Array, stored: ReplayState, key: Key, discount: jax.Array | float) -> Batch:
        return replay.sample(stored, jax.random.fold_in(key, update), HParams(discount=discount))  # type: ignore[arg-type]

    def fit(state: AgentState, sums: jax.Array, batch: Batch, hparams: HParams) -> tuple[AgentState, jax.Array]:
        state, info = agent.update(state, batch.transition, hparams, batch.weight)
        return state, sums + jnp.stack(info)

    def fit_apart(state: AgentState, sums: jax.Array, batch: Batch, hparams: HParams) -> tuple[AgentState, jax.Array]:
        if jax.default_backend() != "cpu":
            return fit(state, sums, batch, hparams)
        # For the bits of `learn`: for CPU XLA compiles otherwise in a loop, here one that it cannot take away.
        once = (state.updates >= 0).astype(jnp.int32)
        return jax.lax.fori_loop(0, once, lambda _, carry: fit(carry[0], carry[1], batch, hparams), (state, sums))

    def learn(trainings: jax.Array, lane: PoolLaneState, hparams: HParams) -> tuple[PoolLaneState, jax.Array]:
        lane, learn_key, sums = begin(trainings, lane)

        def one(i: jax.Array, carry: tuple[AgentState, jax.Array]) -> tuple[AgentState, jax.Array]:
            return fit(*carry, draw(i, lane.replay, learn_key, hparams.discount), hparams)

        learner, sums = jax.lax.fori_loop(0, trainings * config.updates_per_train, one, (lane.agent, sums))
        return lane._replace(agent=learner), sums

    def play_one(
        params: Params, obs: Obs, frame: jax.Array, first: jax.Array, epsilon: jax.Array, key: Key
    ) -> tuple[Obs, jax.Array]:
        obs = stack_push(obs, frame, first)
        return obs, agent.act(params, obs, epsilon, key)

    @functools.partial(jax.jit, donate_argnums=1)
    def play(*arguments: Any) -> tuple[Obs, jax.Array]:
        *own, epsilon, key = arguments
        if own[1].shape[0] == 1:  # batched over networks, convolutions are slow on CPU
            alone = jax.tree.map(lambda x: x.reshape(x.shape[1:]), [*own, epsilon[None], key[None]])
            return jax.tree.map(lambda x: x[None], play_one(*alone))
        return jax.vmap(play_one, in_axes=(0, 0, 0, 0, None, None))(*arguments)

    return PoolLoop(
        start,
        act,
        learn,
        PoolParts(fresh, empty, choose, replay.add, begin, draw, fit_apart),
        play,
        agent,
        spec,
        frame_shape,
        config,
        math.prod(frame_shape) * jnp.dtype(spec.obs_dtype).itemsize + 12,  # a reward, an empty action, four flags
        rhythm,
    )
