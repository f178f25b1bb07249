"""The two ways to run agents behind one door: environments on the device, or in pools on the host.

A `Driver` is what a configuration is run with, a `Population` what it compiles for many lanes. Whoever trains, plays,
films or plans knows these two, and nothing of the kind of environment: `driver_for` is the only switch between kinds.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.agent import Agent, make_agent
from dqn_jax.config import Config, HParams, own_rhythm
from dqn_jax.envs import find_env, make_env
from dqn_jax.envs.pool_tasks import is_atari
from dqn_jax.films.device import can_draw_env, draw_episode, episode_fps, play_episode
from dqn_jax.films.pool import can_draw_game, draw_game, game_fps, play_game, steps_shown
from dqn_jax.films.write import Film
from dqn_jax.lanes import device, pool
from dqn_jax.lanes.evaluation import Evaluation, evaluate
from dqn_jax.lanes.lane import (
    UNWATCHED,
    ChunkMetrics,
    LaneState,
    Rhythm,
    WarmupMetrics,
    Watch,
    freeze_criterion,
    one_lane,
    stack_hparams,
    tree_bytes,
)
from dqn_jax.lanes.layout import Layout
from dqn_jax.lanes.pool_evaluation import evaluate_pool, make_player
from dqn_jax.lanes.pool_population import PoolPopulation
from dqn_jax.lanes.population import DevicePopulation, make_population
from dqn_jax.prng import make_key
from dqn_jax.types import EnvSpec, Key, Obs, Params, PyTree

# Of one environment of a pool, in the host's memory: of Pong 1.1 MB were measured.
_EMULATOR_BYTES, _OTHER_ENV_BYTES = 1_200_000, 10_000


class Population(Protocol):
    """The compiled programs for up to `layout.lanes` lanes of one configuration.

    Lanes and hyperparameters are placed by its own layout, and only it looks into them.
    """

    @property
    def layout(self) -> Layout:
        """Where lanes are: `lanes`, `devices`, `place`, `fetch`, `active`."""

    @property
    def lane_shapes(self) -> LaneState:
        """The state of all lanes as shapes, leaves `[L, ...]` (on devices with room to spare)."""

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling took, tracing included."""

    @property
    def temporary_bytes(self) -> int:
        """What the programs need on each device beside their inputs and outputs."""

    @property
    def evaluation_seconds(self) -> float:
        """Seconds that the last evaluation took, where they can be told apart; else 0."""

    @property
    def unfinished(self) -> dict[str, np.ndarray]:
        """What was noted of a chunk that was stopped within: arrays `[L, ...]`, `epsilon` `[L, T]` of T iterations."""

    def go_on(self, unfinished: dict[str, np.ndarray]) -> None:
        """Let the next chunk go on from what was noted of it, here or in a population of another process."""

    def start(
        self, seeds: Sequence[int], hparams: HParams, weights: Params | None = None
    ) -> tuple[PyTree, WarmupMetrics]:
        """Fresh lanes from `seeds` (`[l]`), `hparams` (leaves `[l]`) and, if given, `weights` (leaves `[l, ...]`), and
        the episodes of their warm-up.
        """

    def chunk(
        self, env_steps: jax.Array, lanes: PyTree, hparams: PyTree, active: PyTree
    ) -> tuple[PyTree, ChunkMetrics | None]:
        """Advance the active lanes to the end of their chunk, then evaluate; donates `lanes`.

        Metrics of others say nothing. There are none where the chunk was stopped within: then `unfinished` is with
        the lanes what the same chunk goes on from.
        """

    def networks(self, lanes: PyTree) -> PyTree:
        """The networks of the lanes that are played (`AgentState.played`), placed as they are."""

    def without_rows(self, lanes: PyTree) -> PyTree:
        """The lanes with () for the rows of their replays, placed as they are."""

    def rows(self, lanes: PyTree, first: int, count: int, among: np.ndarray) -> PyTree:
        """`count` rows of the replays from number `first` on, of the lanes `[n]` and maybe others: `[L, count, ...]`,
        placed as they are.
        """

    def close(self) -> None:
        """End what runs beside the programs."""


class Driver(Protocol):
    """How agents of one configuration are run.

    Attributes:
      config: what it was made for.
      spec: of the environment.
      agent: its pure functions.
      rhythm: when it acts, learns and is evaluated.
      restarts_games: whether a run that is resumed begins fresh games: emulators cannot be saved.
      rows_before_acting: whether an iteration reports the row it acted on, and not the one that its action led to.
      stops_within: whether a chunk, which takes long then, can be stopped within, and gone on with.
      appends_rows: whether the rows of a replay can be appended to files of their own: not where each lane has them at
        times of its own, or throws them away.
      rows_apart: whether a run does so: rows of pools are large.
      film_suffix: of a film beside a run's files.
    """

    @property
    def config(self) -> Config: ...
    @property
    def spec(self) -> EnvSpec: ...
    @property
    def agent(self) -> Agent: ...
    @property
    def rhythm(self) -> Rhythm: ...
    @property
    def restarts_games(self) -> bool: ...
    @property
    def rows_before_acting(self) -> bool: ...
    @property
    def stops_within(self) -> bool: ...
    @property
    def appends_rows(self) -> bool: ...
    @property
    def rows_apart(self) -> bool: ...
    @property
    def film_suffix(self) -> str: ...

    def lane_shapes(self, lanes: int, hparams: HParams) -> LaneState:
        """The state of `lanes` lanes as shapes, leaves `[lanes, ...]`."""

    def population(
        self,
        hparams: HParams,
        lanes: int,
        *,
        devices: Sequence[jax.Device] | None = None,
        from_weights: bool = False,
        watch: Watch = UNWATCHED,
    ) -> Population:
        """Compile the programs for up to `lanes` lanes.

        Args:
          hparams: says which hyperparameters there are (not None); their values are given when lanes start.
          lanes: the most lanes at once.
          devices: to spread over (default: all).
          from_weights: whether lanes start from given networks.
          watch: what it tells and asks while a chunk goes on.

        Raises:
          ConfigError: if it does not fit into memory.
        """

    def play(self, params: Params, *, episodes: int, epsilon: float, seed: int) -> Evaluation:
        """Play `episodes` episodes with each of L agents, all from the same starts: leaves `[L, episodes]`.

        Args:
          params: networks, leaves `[L, ...]`.
          episodes: of each, side by side.
          epsilon: exploration; 0 is the greedy policy.
          seed: fixes the starts and the environments' noise.
        """

    def can_film(self) -> bool:
        """Whether the environment can be drawn."""

    def film(self, params: Params | None, *, start: int, title: str, suffix: str, q_values: bool = False) -> Film:
        """Play one episode, to be drawn as the film is read.

        Args:
          params: one network; None is the random policy. Agents are greedy, and in a pool
            explore as its evaluations do.
          start: seed of the episode.
          title: a line of text above.
          suffix: .gif or .mp4: of a long game a GIF shows fewer steps.
          q_values: whether those of all actions are drawn beside the picture.
        """

    def lane_bytes(self, hparams: HParams) -> int:
        """What one lane takes on its device: its state, and its readings on the device and on the host."""

    def run_bytes(self, hparams: HParams) -> int:
        """What one lane of a run takes, its evaluations and its emulators included; but the frames of a pool, which
        its population looks at.
        """

    def evaluation_bytes(self, lanes: int, episodes: int) -> int:
        """What it takes to play so many episodes side by side with each of so many agents."""


def driver_for(config: Config) -> Driver:
    """The driver for the environment of `config`.

    Raises:
      ConfigError: for settings that its kind of environment does not have, an unknown environment, a network that does
        not fit it.
    """
    return PoolDriver(config) if find_env(config.env).in_pool else DeviceDriver(config)


_SEED: PyTree = jax.ShapeDtypeStruct((), np.int32)


# A process that trains again, with other seeds or values of hyperparameters, has the programs: a loop in a notebook.
@functools.lru_cache(maxsize=4)
def _device_population(
    config: Config, which: tuple[bool, ...], lanes: int, devices: tuple[jax.Device, ...] | None, from_weights: bool
) -> DevicePopulation:
    values: list[PyTree] = [1 if there else None for there in which]
    loop = device.make_loop(config)
    return make_population(config, loop, HParams(*values), lanes, devices, from_weights=from_weights)


class DeviceDriver:
    """Environments on the device: a chunk is one program."""

    restarts_games = rows_before_acting = stops_within = rows_apart = False
    film_suffix = ".gif"

    def __init__(self, config: Config):
        device.check_settings(config)
        freeze_criterion(config)
        self.config = config
        self._env = make_env(config)
        self.spec, self.agent = self._env.spec, make_agent(config, self._env.spec)
        self.rhythm = device.device_rhythm(config)
        self.appends_rows = _appends_rows(config)

    @functools.cached_property
    def _loop(self) -> device.Loop:
        return device.make_loop(self.config)

    def lane_shapes(self, lanes: int, hparams: HParams) -> LaneState:
        seeds = jax.ShapeDtypeStruct((lanes,), np.int32)
        return jax.eval_shape(jax.vmap(self._loop.start), seeds, stack_hparams(hparams, lanes))[0]

    def population(
        self,
        hparams: HParams,
        lanes: int,
        *,
        devices: Sequence[jax.Device] | None = None,
        from_weights: bool = False,
        watch: Watch = UNWATCHED,
    ) -> Population:
        began = time.perf_counter()
        which = tuple(value is not None for value in hparams)
        among = None if devices is None else tuple(devices)
        compiled = _device_population(self.config, which, lanes, among, from_weights)
        return compiled._replace(compile_seconds=time.perf_counter() - began)

    def play(self, params: Params, *, episodes: int, epsilon: float, seed: int) -> Evaluation:
        def one(params: Params) -> Evaluation:
            return evaluate(self._env, self.agent, params, make_key(seed), episodes=episodes, epsilon=epsilon)

        return jax.jit(lambda params: jax.lax.map(one, params))(params)

    def can_film(self) -> bool:
        return can_draw_env(self._env)

    def film(self, params: Params | None, *, start: int, title: str, suffix: str, q_values: bool = False) -> Film:
        def choose(obs: Obs, key: Key) -> jax.Array:
            if params is None:
                return jax.random.randint(key, (obs.shape[0],), 0, self.spec.num_actions, jnp.int32)
            return jnp.argmax(self.agent.q_values(params, obs), axis=-1)

        values = functools.partial(self.agent.q_values, params) if q_values and params is not None else None
        episode = play_episode(self._env, choose, make_key(start), q_values=values)
        frames = draw_episode(self._env, episode, title=title)
        return Film(frames, len(frames), episode_fps(self._env), episode.episode_return)

    def lane_bytes(self, hparams: HParams) -> int:
        example = one_lane(hparams)
        state, _ = jax.eval_shape(self._loop.start, _SEED, example)
        _, metrics = jax.eval_shape(self._loop.chunk, _SEED, state, example)
        return tree_bytes(state) + 2 * tree_bytes(metrics)

    def run_bytes(self, hparams: HParams) -> int:
        return self.lane_bytes(hparams) + self.evaluation_bytes(1, self.config.eval_episodes)

    def evaluation_bytes(self, lanes: int, episodes: int) -> int:
        one = tree_bytes(jax.eval_shape(self._env.reset, make_key(0)))
        return episodes * (2 * one + 16)  # agent after agent; a step has its input and its output, and results are kept


class PoolDriver:
    """Environments in pools on the host, whose loop acts, learns while they step, and can be stopped at every step."""

    restarts_games = rows_before_acting = stops_within = True
    film_suffix = ".mp4"  # a game in a pool is long, and a video shows the whole of it at its own speed

    def __init__(self, config: Config):
        pool.check_settings(config)
        self.config = config
        self._player = make_player(config)
        self.spec, self.agent = self._player.spec, self._player.agent
        self.rhythm = pool.pool_rhythm(config)
        self.appends_rows = self.rows_apart = _appends_rows(config)

    @functools.cached_property
    def _loop(self) -> pool.PoolLoop:
        return pool.make_pool_loop(self.config, self._player)

    def lane_shapes(self, lanes: int, hparams: HParams) -> LaneState:
        seeds = jax.ShapeDtypeStruct((lanes,), np.int32)
        return jax.eval_shape(jax.vmap(self._loop.start), seeds, stack_hparams(hparams, lanes))

    def population(
        self,
        hparams: HParams,
        lanes: int,
        *,
        devices: Sequence[jax.Device] | None = None,
        from_weights: bool = False,
        watch: Watch = UNWATCHED,
    ) -> Population:
        return PoolPopulation(self._loop, hparams, lanes, devices, from_weights=from_weights, watch=watch)

    def play(self, params: Params, *, episodes: int, epsilon: float, seed: int) -> Evaluation:
        return evaluate_pool(self._player, params, episodes=episodes, epsilon=epsilon, seed=seed)

    def can_film(self) -> bool:
        return can_draw_game(self.config)

    def film(self, params: Params | None, *, start: int, title: str, suffix: str, q_values: bool = False) -> Film:
        network, values = jax.tree.map(lambda x: jnp.asarray(x)[None], params), jax.jit(self.agent.q_values)

        def choose(obs: Obs, frame: np.ndarray, first: np.ndarray, key: Key) -> tuple[Obs, jax.Array]:
            epsilon = np.float32(self.config.eval_epsilon)
            obs, actions = self._player.choose(network, obs[None], frame[None], first[None], epsilon, key)
            return obs[0], actions[0]

        kept = None if params is None or not q_values else functools.partial(values, params)
        game = play_game(self.config, None if params is None else choose, start=start, q_values=kept)
        steps = steps_shown(game, suffix)
        frames = draw_game(self.config, game, steps, title=title)
        return Film(frames, len(steps), game_fps(self.config, self.spec.name), game.score)

    def lane_bytes(self, hparams: HParams) -> int:
        # Beside its state, a chunk's readings are nothing.
        return tree_bytes(jax.eval_shape(self._loop.start, _SEED, one_lane(hparams)))

    def run_bytes(self, hparams: HParams) -> int:
        shown = tree_bytes(jax.eval_shape(self._loop.pieces.fresh, _SEED, one_lane(hparams)))
        evaluation = self.evaluation_bytes(1, self.config.eval_episodes)
        return shown + self.config.num_envs * self._environment_bytes() + evaluation

    def evaluation_bytes(self, lanes: int, episodes: int) -> int:
        seen = tree_bytes(jax.ShapeDtypeStruct(self.spec.obs_shape, self.spec.obs_dtype))
        return lanes * episodes * (self._environment_bytes() + 2 * seen)

    def _environment_bytes(self) -> int:
        return _EMULATOR_BYTES if is_atari(self.spec.name) else _OTHER_ENV_BYTES


def _appends_rows(config: Config) -> bool:
    return not own_rhythm(config) and not config.clear_replay
