"""The loop of the pool driver: it acts, sends, learns while the pool of host environments steps, and receives.

An environment step is a row of an environment, those that only begin an episode included: whoever plays short episodes
counts more steps than transitions (of FrozenLake's rows under chance 12 % are none, of Pong's 0.1 %).

The lane is that of `lane`. The pool itself is the one thing here with a state of its own: emulators cannot be saved, so
a run that is resumed starts fresh games.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.agent import Agent, AgentState
from dqn_jax.config import Config, ConfigError, DeviceSettings, HParams, changed, envs_per_step
from dqn_jax.lanes.lane import LaneState, LearnKeys, Parts, Rhythm, act, fit, fresh_learner, learn, no_sums, rhythm_of
from dqn_jax.lanes.pool_evaluation import PoolPlayer, make_player
from dqn_jax.prng import make_key
from dqn_jax.replay import ReplayState, make_memory, stack_push
from dqn_jax.types import Batch, EnvSpec, FrameRow, Key, Params


class Seen(NamedTuple):
    """What a pool showed in one step to one lane: M environments, all of them or, asynchronously, those ready."""

    row: FrameRow  # leaves [M, ...]; no action is chosen yet
    game_over: jax.Array  # [M], bool
    envs: jax.Array | None  # [M], int32, which they are, where the pool is asynchronous


class PoolStart(Protocol):
    """A fresh lane from `seed` (`[]` int32); `weights` take the place of fresh networks."""

    def __call__(self, seed: jax.Array, hparams: HParams, weights: Params | None = None) -> LaneState: ...


class PoolAct(Protocol):
    """Remember what was seen and act on it: the lane, actions `[M]` int32, and the exploration `[]` among them."""

    def __call__(
        self, env_steps: jax.Array, lane: LaneState, seen: Seen, hparams: HParams
    ) -> tuple[LaneState, jax.Array, jax.Array]: ...


class PoolLearn(Protocol):
    """Train `trainings` (`[]` int32) times: the lane, and sums of the fields of `UpdateInfo`, `[3]`."""

    def __call__(self, trainings: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, jax.Array]: ...


class PoolPieces(NamedTuple):
    """What `start`, `act` and `learn` are made of, for programs that keep a replay apart from its learner."""

    fresh: PoolStart  # with () for a replay
    empty: Callable[[jax.Array], ReplayState]  # (seed): the same for all
    choose: PoolAct  # as `act`, but nothing is remembered
    add: Callable[[ReplayState, FrameRow, jax.Array | None], ReplayState]  # (replay, row, envs)
    # (trainings, lane): the lane after so many, with its old networks; keys for `draw` and `fit`; sums so far
    begin: Callable[[jax.Array, LaneState], tuple[LaneState, LearnKeys, jax.Array]]
    draw: Callable[[jax.Array, ReplayState, Key, HParams], Batch]  # (number of the update, replay, key, hparams)
    fit: Callable[[AgentState, jax.Array, Batch, HParams, Key], tuple[AgentState, jax.Array]]  # learner and sums


class PoolLoop(NamedTuple):
    """The pure functions of one agent and the numbers that fix its rhythm."""

    start: PoolStart
    act: PoolAct
    learn: PoolLearn
    pieces: PoolPieces
    player: PoolPlayer
    rhythm: Rhythm

    @property
    def config(self) -> Config:
        """The settings that it was made for."""
        return self.player.config

    @property
    def agent(self) -> Agent:
        """The pure functions of its agent."""
        return self.player.agent

    @property
    def spec(self) -> EnvSpec:
        """The environment as the agent sees it."""
        return self.player.spec

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """What the pool gives, before stacking."""
        return self.player.frame_shape

    @property
    def frame_bytes(self) -> int:
        """Bytes that go to the device for each environment and step."""
        frame = math.prod(self.frame_shape) * jnp.dtype(self.spec.obs_dtype).itemsize
        return frame + 12  # a reward, an empty action, four flags


def check_settings(config: Config) -> None:
    """Refuse what environments of a pool do not have.

    Raises:
      ConfigError: naming the setting.
    """
    for field in changed(config, DeviceSettings):
        raise ConfigError(f"{field}: environments of a pool do not have it; leave it out.")


def pool_rhythm(config: Config) -> Rhythm:
    """As `rhythm_of`; the warm-up is at the least so long that a whole window is stored, of whichever environment.

    A rollout needs the one row that its first step was taken in.
    """
    if config.replay == "rollout":
        return rhythm_of(config, least=1)
    one_short = config.num_envs * (config.frame_stack + config.n_step - 1)
    return rhythm_of(config, least=one_short // envs_per_step(config) + 1)


def make_pool_loop(config: Config, player: PoolPlayer | None = None) -> PoolLoop:
    """Build the loop of one agent on a pool; `player` is `make_player(config)`, where there is one already.

    Raises:
      ConfigError: as `make_pool` and `make_agent`, and for settings that only on-device environments have.
    """
    check_settings(config)
    player = make_player(config) if player is None else player
    spec, parts = player.spec, Parts(config, player.agent, make_memory(config, "frames"))

    def fresh(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> LaneState:
        net_key, key = jax.random.split(make_key(seed))
        count, obs = jnp.zeros((), jnp.int32), jnp.zeros((config.num_envs, *spec.obs_shape), spec.obs_dtype)
        nothing: ReplayState = ()  # type: ignore[assignment]
        return LaneState(
            seed=seed,
            key=key,
            agent=fresh_learner(parts, net_key, hparams, weights),
            replay=nothing,
            env=(),
            obs=obs,
            episodes=count,
            trainings=count,
            freeze=(),
        )

    def empty(_: jax.Array) -> ReplayState:
        envs = (config.num_envs,)
        frame, flag = jnp.zeros((*envs, *player.frame_shape), spec.obs_dtype), jnp.zeros(envs, bool)
        return parts.memory.init(FrameRow(frame, jnp.zeros(envs, jnp.int32), jnp.zeros(envs), flag, flag, flag))

    def start(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> LaneState:
        return fresh(seed, hparams, weights)._replace(replay=empty(seed))

    def choose(
        env_steps: jax.Array, lane: LaneState, seen: Seen, hparams: HParams
    ) -> tuple[LaneState, jax.Array, jax.Array]:
        key, act_key = jax.random.split(lane.key)
        episodes = lane.episodes + jnp.sum(seen.game_over, dtype=jnp.int32)
        envs = seen.envs
        obs = stack_push(lane.obs if envs is None else lane.obs[envs], seen.row.frame, seen.row.first)
        actions, epsilon = act(parts, env_steps, lane._replace(episodes=episodes), obs, act_key, hparams)
        every_obs = obs if envs is None else lane.obs.at[envs].set(obs)
        return lane._replace(key=key, obs=every_obs, episodes=episodes), actions, epsilon

    def act_and_store(
        env_steps: jax.Array, lane: LaneState, seen: Seen, hparams: HParams
    ) -> tuple[LaneState, jax.Array, jax.Array]:
        lane, actions, epsilon = choose(env_steps, lane, seen, hparams)
        stored = parts.memory.add(lane.replay, seen.row._replace(action=actions), seen.envs)
        return lane._replace(replay=stored), actions, epsilon

    def begin(trainings: jax.Array, lane: LaneState) -> tuple[LaneState, LearnKeys, jax.Array]:
        key, *learn_keys = jax.random.split(lane.key, 3)
        return lane._replace(key=key, trainings=lane.trainings + trainings), LearnKeys(*learn_keys), no_sums()

    def draw(update: jax.Array, stored: ReplayState, key: Key, hparams: HParams) -> Batch:
        return parts.memory.sample(stored, jax.random.fold_in(key, update), hparams)

    def fit_apart(
        learner: AgentState, sums: jax.Array, batch: Batch, hparams: HParams, key: Key
    ) -> tuple[AgentState, jax.Array]:
        def once(learner: AgentState, sums: jax.Array) -> tuple[AgentState, jax.Array]:
            return fit(parts, learner, sums, batch, hparams, key)[:2]

        if jax.default_backend() != "cpu":
            return once(learner, sums)
        # For the bits of `learn`: for CPU XLA compiles otherwise in a loop, here one that it cannot take away.
        one = (learner.updates >= 0).astype(jnp.int32)
        return jax.lax.fori_loop(0, one, lambda _, carry: once(*carry), (learner, sums))

    def learn_some(trainings: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, jax.Array]:
        key, *learn_keys = jax.random.split(lane.key, 3)
        return learn(parts, trainings, lane._replace(key=key), no_sums(), LearnKeys(*learn_keys), hparams)

    pieces = PoolPieces(
        fresh=fresh, empty=empty, choose=choose, add=parts.memory.add, begin=begin, draw=draw, fit=fit_apart
    )
    return PoolLoop(start, act_and_store, learn_some, pieces, player, pool_rhythm(config))
