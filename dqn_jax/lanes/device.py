"""The training loop of one lane, all inside `jit`: environment, replay, acting and learning in one scan.

A lane is one agent: a seed with its hyperparameters. `population` runs many of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.agent import Agent, AgentState, UpdateInfo, make_agent
from dqn_jax.agent.schedules import epsilon_at
from dqn_jax.config import Config, ConfigError, HParams, PoolSettings, changed, envs_per_step
from dqn_jax.convergence import Criterion, parse_criterion
from dqn_jax.envs import DeviceEnvState, Env, make_env
from dqn_jax.lanes.evaluation import evaluate
from dqn_jax.lanes.lane import rhythm_of
from dqn_jax.prng import key_data, make_key, wrap_key_data
from dqn_jax.replay import Replay, ReplayState, make_replay
from dqn_jax.types import EnvOutput, Key, Obs, Params, Transition, to_transition


class LaneState(NamedTuple):
    """Everything one agent carries from chunk to chunk."""

    key: Key
    agent: AgentState
    replay: ReplayState
    env: DeviceEnvState  # leaves [N, ...]
    obs: Obs  # [N, *obs_shape]
    episodes: jax.Array  # [], int32, episodes finished
    trainings: jax.Array  # [], int32, times of training (each `updates_per_train` batches)
    freeze: Any  # FreezeState, or () without `freeze_when`


class FreezeState(NamedTuple):
    """Whether an agent has stopped learning, and what that is decided by."""

    recent_returns: jax.Array  # [W], float32, raw returns of the last W episodes; NaN before there were so many
    frozen: jax.Array  # [], bool


class WarmupMetrics(NamedTuple):
    """The episodes of a lane's warm-up of T iterations."""

    epsilon: jax.Array  # [T], float32, exploration after each iteration
    episode_return: jax.Array  # [T, N], float32, raw return of the episodes that ended there, else NaN


class ChunkMetrics(NamedTuple):
    """What one lane reports for one chunk of T iterations; where it rests, epsilon and updates stay as they were."""

    loss: jax.Array  # [], float32, mean over the chunk's updates; NaN without any
    td_error: jax.Array  # [], float32, mean absolute TD error, likewise
    q_mean: jax.Array  # [], float32, likewise
    finite: jax.Array  # [], bool, whether losses and weights are all finite
    epsilon: jax.Array  # [T], float32, exploration after each iteration
    updates: jax.Array  # [T], int32, updates made by the end of each iteration
    episode_return: jax.Array  # [T, N], float32, raw return of the episodes that ended there, else NaN
    eval_returns: jax.Array  # [E], float32, the evaluation after the chunk
    eval_lengths: jax.Array  # [E], int32


class LaneStart(Protocol):
    """A fresh lane (`seed` is `[]` int32), its replay warmed up; `weights` take the place of fresh networks."""

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


def make_loop(config: Config) -> Loop:
    """Build the loop of one lane.

    Raises:
      ConfigError: as `make_env` and `make_agent`, and for settings that only pools have.
    """
    for field in changed(config, PoolSettings):
        raise ConfigError(f"{field}: only environments of a pool (EnvPool) have it; leave it out.")
    env = make_env(config)
    agent = make_agent(config, env.spec)
    replay = make_replay(config.replay_capacity, config.batch_size, config.num_envs, config.sampling)
    criterion = None if config.freeze_when is None else _freeze_criterion(config.freeze_when)
    eval_key_data = key_data(make_key(config.eval_seed))

    rhythm = rhythm_of(config)
    warmup_steps, iterations = rhythm.warmup_steps, rhythm.iterations

    def start(seed: jax.Array, hparams: HParams, weights: Params | None = None) -> tuple[LaneState, WarmupMetrics]:
        net_key, env_key, key = jax.random.split(make_key(seed), 3)
        env_state, obs = jax.vmap(env.reset)(jax.random.split(env_key, config.num_envs))
        zero = jnp.zeros((), jnp.float32)
        example = Transition(obs[0], jnp.zeros((), jnp.int32), zero, zero, obs[0])
        count = jnp.zeros((), jnp.int32)
        freeze: Any = ()
        if criterion is not None:
            freeze = FreezeState(jnp.full((criterion.window,), jnp.nan), jnp.zeros((), bool))
        learner = fresh_learner(config, agent, net_key, hparams, weights)
        lane = LaneState(key, learner, replay.init(example), env_state, obs, count, count, freeze)

        def warm(lane: LaneState, env_steps: jax.Array) -> tuple[LaneState, WarmupMetrics]:
            lane, out, _ = _interact(config, env, agent, replay, env_steps, lane, hparams)
            lane = _freeze(criterion, lane, out)
            epsilon = exploration(config, hparams, env_steps + config.num_envs, lane)
            return lane, WarmupMetrics(epsilon, _finished_returns(out))

        return jax.lax.scan(warm, lane, config.num_envs * jnp.arange(rhythm.warmup_iterations))

    def chunk(env_steps: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, ChunkMetrics]:
        def reading(carry: Any) -> tuple[jax.Array, jax.Array]:
            env_steps, lane, _ = carry
            return exploration(config, hparams, env_steps, lane), lane.agent.updates

        def iteration(carry: Any) -> tuple[Any, Any]:
            env_steps, lane, sums = carry
            lane, out, learn_key = _interact(config, env, agent, replay, env_steps, lane, hparams)
            if config.train_unit == "env_steps":
                trainings = trainings_due(config, env_steps - warmup_steps)
                if config.num_envs % config.train_every == 0:
                    trainings = config.num_envs // config.train_every
            else:
                finished = out.terminated | out.truncated
                before, after = lane.episodes - jnp.sum(finished, dtype=jnp.int32), lane.episodes
                trainings = after // config.train_every - before // config.train_every
            if config.freeze_when is not None:
                trainings = jnp.where(lane.freeze.frozen, 0, trainings)
            lane, sums = _learn(config, agent, replay, trainings, lane, sums, learn_key, hparams)
            lane = _freeze(criterion, lane, out)
            env_steps = env_steps + config.num_envs
            carry = (env_steps, lane, sums)
            return carry, (*reading(carry), _finished_returns(out))

        carry = (env_steps, lane, jnp.zeros((len(UpdateInfo._fields),), jnp.float32))
        if config.total_episodes is None:
            carry, report = jax.lax.scan(lambda carry, _: iteration(carry), carry, length=iterations)
        else:
            carry, report = _until_rest(iteration, reading, carry, config.total_episodes, iterations, config.num_envs)
        (_, new_lane, sums), (epsilon, updates, episode_return) = carry, report
        made = (new_lane.agent.updates - lane.agent.updates).astype(jnp.float32)
        means = UpdateInfo(*jnp.where(made > 0, sums / made, jnp.nan))
        weights = jax.tree.leaves(new_lane.agent.params)
        finite = jnp.all(jnp.isfinite(sums)) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(w)) for w in weights]))
        # The same key every time: evaluations are comparable between chunks and between lanes.
        evaluation = evaluate(
            env,
            agent,
            new_lane.agent.params,
            wrap_key_data(eval_key_data),
            episodes=config.eval_episodes,
            epsilon=config.eval_epsilon,
        )
        return new_lane, ChunkMetrics(
            loss=means.loss,
            td_error=means.td_error,
            q_mean=means.q_mean,
            finite=finite,
            epsilon=epsilon,
            updates=updates,
            episode_return=episode_return,
            eval_returns=evaluation.returns,
            eval_lengths=evaluation.lengths,
        )

    return Loop(start, chunk, env, agent, *rhythm[1:])


def trainings_due(config: Config, since: Any) -> Any:
    """How often to train after the vector step that begins `since` environment steps after the warm-up.

    As many times as it crosses multiples of `train_every`: nothing depends on one number dividing another.
    """
    return (since + envs_per_step(config)) // config.train_every - since // config.train_every


def fresh_learner(config: Config, agent: Agent, key: Key, hparams: HParams, weights: Params | None) -> AgentState:
    """A fresh learner, with `weights` in place of its own networks if they are given."""
    learner = agent.init(key, hparams)
    if weights is None:
        return learner
    target = jax.tree.map(jnp.copy, weights) if config.target_network else ()
    return learner._replace(params=weights, target_params=target)


def _finished_returns(out: EnvOutput) -> jax.Array:
    return jnp.where(out.terminated | out.truncated, out.episode_return, jnp.nan)


def _until_rest(
    iteration: Any, reading: Any, carry: Any, total_episodes: int, iterations: int, num_envs: int
) -> tuple[Any, Any]:
    """Like a scan of `iteration`, but it ends once the lane has finished its episodes, which saves all the rest."""

    def body(state: Any) -> Any:
        i, carry, reports = state
        carry, report = iteration(carry)
        reports = jax.tree.map(lambda rows, x: jax.lax.dynamic_update_index_in_dim(rows, x, i, 0), reports, report)
        return i + 1, carry, reports

    def active(state: Any) -> jax.Array:
        i, (_, lane, _), _ = state
        return (i < iterations) & (lane.episodes < total_episodes)

    example = (*reading(carry), jnp.zeros((num_envs,)))
    reports = jax.tree.map(lambda x: jnp.zeros((iterations, *x.shape), x.dtype), example)
    made, carry, reports = jax.lax.while_loop(active, body, (jnp.int32(0), carry, reports))
    at_rest = (*reading(carry), jnp.full((num_envs,), jnp.nan))
    resting = jnp.arange(iterations) >= made
    fill = jax.vmap(jnp.where, (0, None, 0))
    return carry, jax.tree.map(lambda rest, rows: fill(resting, rest, rows), at_rest, reports)


def _freeze_criterion(text: str) -> Criterion:
    try:
        criterion = parse_criterion(text)
    except ConfigError:
        criterion = None
    if criterion is None or criterion.kind != "train":
        raise ConfigError(f"freeze_when: '{text}' is no criterion on training episodes; write e.g. train5>195.")
    return criterion


def _freeze(criterion: Criterion | None, lane: LaneState, out: EnvOutput) -> LaneState:
    """Take in the episodes that ended (`out` leaves `[N, ...]`), and freeze the agent once the criterion holds."""
    if criterion is None:
        return lane

    def episode(state: FreezeState, ended: tuple[jax.Array, jax.Array]) -> tuple[FreezeState, None]:
        finished, episode_return = ended
        returns = jnp.where(finished, jnp.append(state.recent_returns[1:], episode_return), state.recent_returns)
        return FreezeState(returns, state.frozen | criterion.holds(jnp.mean(returns))), None

    ended = (out.terminated | out.truncated, out.episode_return)
    return lane._replace(freeze=jax.lax.scan(episode, lane.freeze, ended)[0])


def exploration(config: Config, hparams: HParams, env_steps: jax.Array, lane: Any) -> jax.Array:
    """Epsilon of a lane (of either loop) after `env_steps`, `[]` float32."""
    if config.epsilon_from == "learning":
        env_steps = jnp.maximum(env_steps - config.min_replay, 0)
    counts = {
        "env_steps": env_steps,
        "updates": lane.agent.updates,
        "trainings": lane.trainings,
        "episodes": lane.episodes,
    }
    epsilon = epsilon_at(config, hparams, counts[config.epsilon_unit])
    return epsilon if config.freeze_when is None else jnp.where(lane.freeze.frozen, 0.0, epsilon)


def _interact(
    config: Config, env: Env, agent: Agent, replay: Replay, env_steps: jax.Array, lane: LaneState, hparams: HParams
) -> tuple[LaneState, EnvOutput, Key]:
    """Act in all N environments once and store what happened; also gives the key to learn with."""
    key, act_key, env_key, learn_key = jax.random.split(lane.key, 4)
    epsilon = exploration(config, hparams, env_steps, lane)
    actions = agent.act(lane.agent.params, lane.obs, epsilon, act_key)
    env_state, out = jax.vmap(env.step)(jax.random.split(env_key, config.num_envs), lane.env, actions)
    stored = replay.add(lane.replay, to_transition(lane.obs, actions, out))
    finished = jnp.sum(out.terminated | out.truncated, dtype=jnp.int32)
    lane = lane._replace(key=key, replay=stored, env=env_state, obs=out.obs, episodes=lane.episodes + finished)
    return lane, out, learn_key


def _learn(
    config: Config,
    agent: Agent,
    replay: Replay,
    trainings: int | jax.Array,
    lane: LaneState,
    sums: jax.Array,
    key: Key,
    hparams: HParams,
) -> tuple[LaneState, jax.Array]:
    """Train `trainings` times on `updates_per_train` batches each; `sums` `[3]` adds up the fields of `UpdateInfo`."""
    batches = trainings * config.updates_per_train
    minibatch_size = config.minibatch_size or config.batch_size

    def fit(carry: tuple[AgentState, jax.Array], minibatch: Transition) -> tuple[tuple[AgentState, jax.Array], None]:
        state, sums = carry
        state, info = agent.update(state, minibatch, hparams)
        return (state, sums + jnp.stack(info)), None

    def one(key: Key, carry: tuple[AgentState, jax.Array]) -> tuple[AgentState, jax.Array]:
        batch = replay.sample(lane.replay, key)
        if minibatch_size == config.batch_size:
            return fit(carry, batch)[0]
        pieces = jax.tree.map(lambda x: x.reshape(-1, minibatch_size, *x.shape[1:]), batch)
        return jax.lax.scan(fit, carry, pieces)[0]

    carry = (lane.agent, sums)
    if isinstance(batches, int) and batches == 1:
        carry = one(key, carry)
    else:
        carry = jax.lax.fori_loop(0, batches, lambda i, carry: one(jax.random.fold_in(key, i), carry), carry)
    stored = replay.clear(lane.replay, trainings > 0) if config.clear_replay else lane.replay
    return lane._replace(agent=carry[0], replay=stored, trainings=lane.trainings + trainings), carry[1]
