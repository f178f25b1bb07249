"""The loop of the device driver: one lane, all inside `jit`: environment, memory, acting and learning in one scan.

A lane is one agent: a seed with its hyperparameters. `population` runs many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.agent import Agent, UpdateInfo, make_agent
from dqn_jax.config import Config, ConfigError, HParams, PoolSettings, changed, steps_between
from dqn_jax.envs import Env, make_env
from dqn_jax.lanes.evaluation import evaluate
from dqn_jax.lanes.lane import (
    ChunkMetrics,
    LaneState,
    LearnKeys,
    Parts,
    Report,
    Rhythm,
    WarmupMetrics,
    act,
    exploration,
    freeze,
    freeze_criterion,
    fresh_learner,
    learn,
    never_frozen,
    no_sums,
    rhythm_of,
    trainings_due,
)
from dqn_jax.prng import key_data, make_key, wrap_key_data
from dqn_jax.replay import make_memory
from dqn_jax.types import EnvOutput, Params, Transition, TransitionRow, to_row


class LaneStart(Protocol):
    """A fresh lane (`seed` is `[]` int32), its memory warmed up; `weights` take the place of fresh networks."""

    def __call__(
        self, seed: jax.Array, hparams: HParams, weights: Params | None = None
    ) -> tuple[LaneState, WarmupMetrics]: ...


class LaneChunk(Protocol):
    """Advance a lane by one evaluation interval, then evaluate; `env_steps` `[]` int32 are those taken before."""

    def __call__(self, env_steps: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, ChunkMetrics]: ...


class Loop(NamedTuple):
    """The pure functions of a lane and the numbers that fix its rhythm."""

    start: LaneStart
    chunk: LaneChunk
    env: Env
    agent: Agent
    warmup_steps: int  # environment steps before learning
    steps_per_chunk: int  # environment steps per chunk
    num_chunks: int


class _Carry(NamedTuple):
    """What goes through the iterations of a chunk."""

    env_steps: jax.Array  # [], int32, taken so far
    lane: LaneState
    sums: jax.Array  # [3], float32, of `UpdateInfo` over the updates so far


def check_settings(config: Config) -> None:
    """Refuse what environments on the device do not have.

    Raises:
      ConfigError: naming the setting.
    """
    for field in changed(config, PoolSettings):
        raise ConfigError(f"{field}: only environments of a pool (EnvPool) have it; leave it out.")


def device_rhythm(config: Config) -> Rhythm:
    """As `rhythm_of`; the warm-up is at the least so long that the first time of learning finds a whole window."""
    return rhythm_of(config, least=config.n_step - 1)


def make_loop(config: Config) -> Loop:
    """Build the loop of one lane.

    Raises:
      ConfigError: as `make_env` and `make_agent`, and for settings that only pools have.
    """
    check_settings(config)
    env = make_env(config)
    parts = Parts(config, make_agent(config, env.spec), make_memory(config, "transitions"))
    criterion, rhythm = freeze_criterion(config), device_rhythm(config)
    eval_key_data = key_data(make_key(config.eval_seed))

    def start(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> tuple[LaneState, WarmupMetrics]:
        net_key, env_key, key = jax.random.split(make_key(seed), 3)
        env_state, obs = jax.vmap(env.reset)(jax.random.split(env_key, config.num_envs))
        count, zeros = jnp.zeros((), jnp.int32), jnp.zeros((config.num_envs,), jnp.float32)
        example = TransitionRow(Transition(obs, zeros.astype(jnp.int32), zeros, zeros, obs), zeros > 0)
        lane = LaneState(
            seed=(),
            key=key,
            agent=fresh_learner(parts, net_key, hparams, weights),
            replay=parts.memory.init(example),
            env=env_state,
            obs=obs,
            episodes=count,
            trainings=count,
            freeze=never_frozen(criterion),
        )

        def warm(lane: LaneState, env_steps: jax.Array) -> tuple[LaneState, WarmupMetrics]:
            lane, out, _ = _interact(parts, env, env_steps, lane, hparams)
            lane = freeze(criterion, lane, out.terminated | out.truncated, out.episode_return)
            epsilon = exploration(config, hparams, env_steps + config.num_envs, lane)
            return lane, WarmupMetrics(epsilon, _finished_returns(out))

        return jax.lax.scan(warm, lane, config.num_envs * jnp.arange(rhythm.warmup_iterations))

    def chunk(env_steps: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, ChunkMetrics]:
        def reading(carry: _Carry, episode_return: jax.Array) -> Report:
            epsilon = exploration(config, hparams, carry.env_steps, carry.lane)
            return Report(epsilon, carry.lane.agent.updates, episode_return)

        def iteration(carry: _Carry) -> tuple[_Carry, Report]:
            env_steps, lane, sums = carry
            lane, out, learn_keys = _interact(parts, env, env_steps, lane, hparams)
            trainings = _trainings(config, env_steps - rhythm.warmup_steps, lane, out)
            lane, sums = learn(parts, trainings, lane, sums, learn_keys, hparams)
            lane = freeze(criterion, lane, out.terminated | out.truncated, out.episode_return)
            carry = _Carry(env_steps + config.num_envs, lane, sums)
            return carry, reading(carry, _finished_returns(out))

        carry = _Carry(env_steps, lane, no_sums())
        if config.total_episodes is None:
            carry, report = jax.lax.scan(lambda carry, _: iteration(carry), carry, length=rhythm.iterations)
        else:
            carry, report = _until_rest(iteration, reading, carry, config, rhythm.iterations)
        _, new_lane, sums = carry
        made = (new_lane.agent.updates - lane.agent.updates).astype(jnp.float32)
        means = UpdateInfo(*jnp.where(made > 0, sums / made, jnp.nan))
        weights = jax.tree.leaves(new_lane.agent.params)
        finite = jnp.all(jnp.isfinite(sums)) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(w)) for w in weights]))
        # The same key every time: evaluations are comparable between chunks and between lanes.
        evaluation = evaluate(
            env,
            parts.agent,
            new_lane.agent.played,
            wrap_key_data(eval_key_data),
            episodes=config.eval_episodes,
            epsilon=config.eval_epsilon,
        )
        return new_lane, ChunkMetrics.of(means, finite, report, evaluation)

    return Loop(start, chunk, env, parts.agent, *rhythm[1:])


def _interact(
    parts: Parts, env: Env, env_steps: jax.Array, lane: LaneState, hparams: HParams
) -> tuple[LaneState, EnvOutput, LearnKeys]:
    """Act in all N environments once and remember what happened; also gives the keys to learn with."""
    key, act_key, env_key, *learn_keys = jax.random.split(lane.key, 5)
    actions, _ = act(parts, env_steps, lane, lane.obs, act_key, hparams)
    env_state, out = jax.vmap(env.step)(jax.random.split(env_key, parts.config.num_envs), lane.env, actions)
    stored = parts.memory.add(lane.replay, to_row(lane.obs, actions, out))
    finished = jnp.sum(out.terminated | out.truncated, dtype=jnp.int32)
    lane = lane._replace(key=key, replay=stored, env=env_state, obs=out.obs, episodes=lane.episodes + finished)
    return lane, out, LearnKeys(*learn_keys)


def _trainings(config: Config, since: jax.Array, lane: LaneState, out: EnvOutput) -> int | jax.Array:
    """How often to train after an iteration that began `since` environment steps after the warm-up and gave `out`."""
    trainings: int | jax.Array
    if config.train_unit == "env_steps":
        trainings = trainings_due(config, since)
        if config.num_envs % steps_between(config) == 0:
            trainings = config.num_envs // steps_between(config)
    else:
        finished = out.terminated | out.truncated
        before, after = lane.episodes - jnp.sum(finished, dtype=jnp.int32), lane.episodes
        trainings = after // config.train_every - before // config.train_every
    return trainings if config.freeze_when is None else jnp.where(lane.freeze.frozen, 0, trainings)


def _finished_returns(out: EnvOutput) -> jax.Array:
    return jnp.where(out.terminated | out.truncated, out.episode_return, jnp.nan)


def _until_rest(
    iteration: Callable[[_Carry], tuple[_Carry, Report]],
    reading: Callable[[_Carry, jax.Array], Report],
    carry: _Carry,
    config: Config,
    iterations: int,
) -> tuple[_Carry, Report]:
    """Like a scan of `iteration`, but it ends once the lane has finished its episodes, which saves all the rest."""
    total_episodes = config.total_episodes
    assert total_episodes is not None

    def body(state: tuple[jax.Array, _Carry, Report]) -> tuple[jax.Array, _Carry, Report]:
        i, carry, reports = state
        carry, report = iteration(carry)
        reports = jax.tree.map(lambda rows, x: jax.lax.dynamic_update_index_in_dim(rows, x, i, 0), reports, report)
        return i + 1, carry, reports

    def active(state: tuple[jax.Array, _Carry, Report]) -> jax.Array:
        i, carry, _ = state
        return (i < iterations) & (carry.lane.episodes < total_episodes)

    example = reading(carry, jnp.zeros((config.num_envs,)))
    reports = jax.tree.map(lambda x: jnp.zeros((iterations, *x.shape), x.dtype), example)
    made, carry, reports = jax.lax.while_loop(active, body, (jnp.int32(0), carry, reports))
    at_rest = reading(carry, jnp.full((config.num_envs,), jnp.nan))
    resting = jnp.arange(iterations) >= made
    fill = jax.vmap(jnp.where, (0, None, 0))
    return carry, jax.tree.map(lambda rest, rows: fill(resting, rest, rows), at_rest, reports)
