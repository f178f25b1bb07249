"""What both drivers do with one lane, an agent at work: a seed with its hyperparameters.

A lane acts in all its environments at once (an iteration), learns from what it remembers as often as it is due, and is
evaluated at the end of every chunk of iterations. How environments step in between is the drivers' business.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.agent import Agent, AgentState, UpdateInfo
from dqn_jax.agent.learner import weights_of
from dqn_jax.agent.schedules import epsilon_at
from dqn_jax.config import (
    SETTINGS,
    Config,
    ConfigError,
    DeviceSettings,
    HParams,
    envs_per_step,
    steps_between,
    transitions_drawn,
)
from dqn_jax.convergence import Criterion, parse_criterion
from dqn_jax.lanes.evaluation import Evaluation
from dqn_jax.prng import make_key
from dqn_jax.replay import Memory, ReplayState
from dqn_jax.types import Batch, Key, Obs, Params, PyTree

Count = TypeVar("Count", int, jax.Array)


class Rhythm(NamedTuple):
    """The numbers that fix when a run acts, learns and is evaluated; counted in environment steps of one lane."""

    step: int  # of one iteration: of all environments that act at once
    warmup_steps: int  # before learning
    steps_per_chunk: int  # from one evaluation to the next
    num_chunks: int

    @property
    def warmup_iterations(self) -> int:
        """How many iterations there are before learning."""
        return self.warmup_steps // self.step

    @property
    def iterations(self) -> int:
        """How many iterations a whole chunk has."""
        return self.steps_per_chunk // self.step

    @property
    def last_step(self) -> int:
        """Environment steps at the end of the last chunk."""
        return self.warmup_steps + self.num_chunks * self.steps_per_chunk


def rhythm_of(config: Config, least: int = 0) -> Rhythm:
    """The rhythm of `config`, in whole iterations; the warm-up has `least` of them or more."""
    step = envs_per_step(config)
    warmup_steps = max(-(-config.min_replay // step), least) * step
    steps_per_chunk = -(-config.eval_every // step) * step
    num_chunks = max(1, -(-(config.total_steps - warmup_steps) // steps_per_chunk))
    return Rhythm(step, warmup_steps, steps_per_chunk, num_chunks)


class FreezeState(NamedTuple):
    """Whether an agent has stopped learning, and what that is decided by."""

    recent_returns: jax.Array  # [W], float32, raw returns of the last W episodes; NaN before there were so many
    frozen: jax.Array  # [], bool


class LaneState(NamedTuple):
    """Everything one agent carries from chunk to chunk; () in place of what its driver or its settings do not have."""

    seed: PyTree  # [], int32, of the games of a pool; () on the device
    key: Key
    agent: AgentState
    replay: ReplayState
    env: PyTree  # `DeviceEnvState`, leaves [N, ...]; () over a pool, which has its environments itself
    obs: Obs  # [N, *obs_shape], what it acts on next; over a pool, what it acted on last
    episodes: jax.Array  # [], int32, episodes finished
    trainings: jax.Array  # [], int32, times of training (each `updates_per_train` batches)
    freeze: PyTree  # `FreezeState`; () without `freeze_when`


class WarmupMetrics(NamedTuple):
    """The episodes of a lane's warm-up of T iterations."""

    epsilon: jax.Array  # [T], float32, exploration after each iteration
    episode_return: jax.Array  # [T, N], float32, raw return of the episodes that ended there, else NaN


class Report(NamedTuple):
    """What a lane reports of its iterations: of each, or, with an axis T before these, of the T of a chunk."""

    epsilon: jax.Array  # [], float32, exploration after it
    updates: jax.Array  # [], int32, updates made by its end
    episode_return: jax.Array  # [N], float32, raw return of the episodes that ended there, else NaN


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

    @classmethod
    def of(cls, means: UpdateInfo, finite: jax.Array, report: Report, evaluation: Evaluation) -> ChunkMetrics:
        """From means over the updates (NaN without any), the report of all iterations, and the evaluation."""
        return cls(*means, finite, *report, *evaluation)


class Watch(NamedTuple):
    """What a population tells and asks while a chunk goes on; one whose chunk is a single program does neither."""

    on_step: Callable[[int], None] = lambda env_steps: None  # told every second, the environment steps taken
    on_game: Callable[[int, int, int], None] = lambda env_steps, ended, games: None  # and of an evaluation its games
    stop: Callable[[], bool] = lambda: False  # asked every step: whether to end the chunk at once, unevaluated
    seconds_left: Callable[[], float] = lambda: math.inf  # and what is left: training ends so that an evaluation fits


UNWATCHED = Watch()


class Parts(NamedTuple):
    """What a lane is made of, whatever drives it."""

    config: Config
    agent: Agent
    memory: Memory


def fresh_learner(parts: Parts, key: Key, hparams: HParams, weights: Params | None) -> AgentState:
    """A fresh learner, with `weights` in place of its own networks if they are given."""
    learner = parts.agent.init(key, hparams)
    if weights is None:
        return learner
    target = jax.tree.map(jnp.copy, weights) if parts.config.target_network else ()
    average = () if hparams.average_decay is None else jax.tree.map(jnp.copy, weights)
    return learner._replace(params=weights, target_params=target, average_params=average)


def exploration(config: Config, hparams: HParams, env_steps: jax.Array, lane: LaneState) -> jax.Array:
    """Epsilon of a lane after `env_steps` (`[]` int32), `[]` float32."""
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


def act(
    parts: Parts, env_steps: jax.Array, lane: LaneState, obs: Obs, key: Key, hparams: HParams
) -> tuple[jax.Array, jax.Array]:
    """Actions `[M]` int32 for `obs` `[M, *obs_shape]` of a lane's environments, and the exploration `[]` among them."""
    config, agent = parts.config, parts.agent
    epsilon = exploration(config, hparams, env_steps, lane)
    temperature = hparams.temperature if config.exploration == "boltzmann" else None
    return agent.respond(acting_params(config, lane.agent), (), obs, epsilon, key, temperature)[1], epsilon


def acting_params(config: Config, learner: AgentState) -> Params:
    """The network that is acted with while learning: with the target network nothing waits for the last update.

    Reference: Daley & Amato 2021 (arXiv 2111.01264), section 3.
    """
    return learner.target_params if config.acting_network == "target" else learner.params


def trainings_due(config: Config, since: Count) -> Count:
    """How often to train after the iteration that begins `since` environment steps after the warm-up.

    As many times as it crosses multiples of `train_every` (or of a rollout's steps): nothing depends on one number
    dividing another.
    """
    interval = steps_between(config)
    return (since + envs_per_step(config)) // interval - since // interval


class LearnKeys(NamedTuple):
    """The keys of one time of training."""

    draw: Key  # for batches
    noise: Key  # for what heads draw; one serves all updates


def no_sums() -> jax.Array:
    """`[3]`, float32: the fields of `UpdateInfo`, summed over no updates yet."""
    return jnp.zeros((len(UpdateInfo._fields),), jnp.float32)


def fit(
    parts: Parts, learner: AgentState, sums: jax.Array, batch: Batch, hparams: HParams, key: Key
) -> tuple[AgentState, jax.Array, jax.Array]:
    """Learn from one batch, in pieces of `minibatch_size`; gives learner, sums `[3]` and TD errors `[B]`.

    `key` is for what heads draw.
    """
    config = parts.config

    def learnt(carry: tuple[AgentState, jax.Array], batch: Batch) -> tuple[tuple[AgentState, jax.Array], jax.Array]:
        learner, info, td_error = parts.agent.learn(carry[0], batch, hparams, key)
        return (learner, carry[1] + jnp.stack(info)), td_error

    drawn = transitions_drawn(config)
    size = config.minibatch_size or drawn
    if size == drawn:
        carry, td_error = learnt((learner, sums), batch)
        return *carry, td_error
    pieces = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)
    carry, td_error = jax.lax.scan(learnt, (learner, sums), pieces)
    return *carry, td_error.reshape(-1)


def learn(
    parts: Parts, trainings: int | jax.Array, lane: LaneState, sums: jax.Array, keys: LearnKeys, hparams: HParams
) -> tuple[LaneState, jax.Array]:
    """Train `trainings` times on `updates_per_train` batches each; `sums` `[3]` adds up the fields of `UpdateInfo`.

    The loop carries the learner, priorities and sums, and never the rows, which XLA would copy.
    """
    config, memory = parts.config, parts.memory
    Carry = tuple[AgentState, PyTree, jax.Array]

    def one(drawn_from: ReplayState, key: Key, carry: Carry) -> Carry:
        learner, priorities, sums = carry
        stored = drawn_from._replace(priorities=priorities)
        q_values = functools.partial(parts.agent.q_values, learner.params)
        batch = memory.sample(stored, key, hparams, q_values)
        learner, sums, td_error = fit(parts, learner, sums, batch, hparams, keys.noise)
        return learner, memory.reprioritize(priorities, batch.place, td_error, hparams), sums

    def many(drawn_from: ReplayState, first: int | jax.Array, end: int | jax.Array, carry: Carry) -> Carry:
        def numbered(i: jax.Array, carry: Carry) -> Carry:
            return one(drawn_from, jax.random.fold_in(keys.draw, i), carry)

        return jax.lax.fori_loop(first, end, numbered, carry)

    def prepared(training: jax.Array, carry: Carry) -> Carry:
        """One time of training whose targets are made before its first batch."""
        assert memory.prepare is not None
        learner, priorities, _ = carry
        network = learner.target_params if config.target_network else learner.params
        stored = lane.replay._replace(priorities=priorities)
        stored = memory.prepare(stored, hparams, functools.partial(parts.agent.q_values, network))
        first = training * config.updates_per_train
        return many(stored, first, first + config.updates_per_train, carry)

    carry = (lane.agent, lane.replay.priorities, sums)
    batches = trainings * config.updates_per_train
    if memory.prepare is not None:
        carry = jax.lax.fori_loop(0, trainings, prepared, carry)
    elif isinstance(batches, int) and batches == 1:
        carry = one(lane.replay, keys.draw, carry)
    else:
        carry = many(lane.replay, 0, batches, carry)
    learner, priorities, sums = carry
    stored = lane.replay._replace(priorities=priorities)
    stored = memory.clear(stored, trainings > 0) if config.clear_replay else stored
    return lane._replace(agent=learner, replay=stored, trainings=lane.trainings + trainings), sums


def freeze_criterion(config: DeviceSettings) -> Criterion | None:
    """When a lane stops learning, if ever.

    Raises:
      ConfigError: if `freeze_when` is no criterion on training episodes.
    """
    if config.freeze_when is None:
        return None
    try:
        criterion = parse_criterion(config.freeze_when)
    except ConfigError:
        criterion = None
    if criterion is None or criterion.kind != "train":
        raise ConfigError(
            f"freeze_when: '{config.freeze_when}' is no criterion on training episodes; write e.g. train5>195."
        )
    return criterion


def never_frozen(criterion: Criterion | None) -> FreezeState | tuple[()]:
    """The state that `freeze` begins with; () without a criterion."""
    if criterion is None:
        return ()
    return FreezeState(jnp.full((criterion.window,), jnp.nan), jnp.zeros((), bool))


def freeze(criterion: Criterion | None, lane: LaneState, ended: jax.Array, episode_return: jax.Array) -> LaneState:
    """Take in the episodes that ended (`ended` `[N]` bool) with their raw returns (`[N]`), and stop the agent's
    learning and exploring once the criterion holds.
    """
    if criterion is None:
        return lane

    def episode(state: FreezeState, one: tuple[jax.Array, jax.Array]) -> tuple[FreezeState, None]:
        finished, episode_return = one
        returns = jnp.where(finished, jnp.append(state.recent_returns[1:], episode_return), state.recent_returns)
        return FreezeState(returns, state.frozen | criterion.holds(jnp.mean(returns))), None

    return lane._replace(freeze=jax.lax.scan(episode, lane.freeze, (ended, episode_return))[0])


def stack_hparams(hparams: HParams, lanes: int) -> HParams:
    """One value per lane: leaves `[lanes]`, float32 (int32 for counts), on the host; None stays None.

    Raises:
      ConfigError: if a hyperparameter has values for another number of lanes.
    """

    def stack(field: str, value: PyTree) -> np.ndarray | None:
        if value is None:
            return None
        array = np.asarray(value, np.int32 if SETTINGS[field].counts else np.float32)
        if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != lanes):
            raise ConfigError(f"{field}: {array.size} values for {lanes} lanes; give one value, or one for each lane.")
        return np.broadcast_to(array, (lanes,)).copy()

    stacked: dict[str, PyTree] = {field: stack(field, value) for field, value in hparams._asdict().items()}
    return HParams(**stacked)


def first_hparams(hparams: HParams) -> HParams:
    """Those of the first lane: which there are, without the number of lanes."""
    firsts: list[PyTree] = [None if value is None else np.ravel(value)[0] for value in hparams]  # a value may be a list
    return HParams(*firsts)


def one_lane(hparams: HParams) -> HParams:
    """Those of the first lane as a program takes them: leaves `[]`, float32 or int32."""
    return jax.tree.map(lambda x: x[0], stack_hparams(first_hparams(hparams), 1))


def host_array(x: np.ndarray) -> jax.Array:
    """An array of the host where one of a device is declared, as it is: programs and readers take either."""
    return cast(jax.Array, x)


def count_weights(agent: Agent, hparams: HParams) -> int:
    """Number of weights of one agent's network."""
    return sum(x.size for x in weight_shapes(agent, hparams))


def weight_shapes(agent: Agent, hparams: HParams) -> list[jax.ShapeDtypeStruct]:
    """The weights of one agent's network, as shapes."""
    state = jax.eval_shape(lambda: agent.init(make_key(0), hparams))
    return jax.tree.leaves(weights_of(state.params))


def tree_bytes(tree: PyTree) -> int:
    """What the leaves of a tree take, arrays or shapes; a key 8 bytes."""

    def size(x: PyTree) -> int:
        return 8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize

    return sum(math.prod(x.shape) * size(x) for x in jax.tree.leaves(tree))


def temporary_bytes(program: jax.stages.Compiled) -> int:
    """What a compiled program needs on each device beside its inputs and outputs, where it says."""
    analysis = program.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0


def without_rows(lane: LaneState) -> LaneState:
    """A lane, or many, with () for the rows of the replay: what is left of it is small."""
    return lane._replace(replay=lane.replay._replace(storage=()))


@functools.partial(jax.jit, static_argnums=2)
def ring_rows(storage: PyTree, first: jax.Array, count: int) -> PyTree:
    """`[L, count, ...]`, rows of rings `[L, rows, ...]` from `first` on; one program for all places."""
    return jax.tree.map(lambda x: jnp.take(x, (first + jnp.arange(count)) % x.shape[1], axis=1), storage)
