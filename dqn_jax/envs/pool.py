"""EnvPool environments on the host: names, options, and the rows a learner gets from a pool of them.

EnvPool (Weng et al. 2022, arXiv 2206.10558) steps many environments in C++ threads. It resets in the *next* step:
after the last row of an episode comes a row that only begins the next one. Its action is ignored and its reward is 0;
`PoolOutput.first` marks it, and it is no transition. `send` returns at once and `recv` waits, so that a learner can
work in between. Asynchronously, `recv` waits for the first few environments that are ready, and `send` is for these.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dqn_jax.config import Config, ConfigError, RunError, UnknownEnvError, asynchronous, suggest
from dqn_jax.devices import cpu_cores
from dqn_jax.types import EnvSpec

PREFIX = "envpool:"
_ATARI = "envpool.atari"
_CHANNELS_FIRST = (_ATARI, "envpool.vizdoom")  # as which these give images; others have an option or need none
_PICTURES = ("envpool.vizdoom", "envpool.procgen", "envpool.gfootball")
_IN_GYMNAX_TOO = "envpool.classic_control"  # these keep the prefix in their full names
_ATARI_FRAMES = 108_000  # half an hour of play, the cap of most papers
_NO_LIMIT = 2**31 - 1  # EnvPool's max_episode_steps for tasks whose code knows no limit
_USUAL_KEY = "image"  # of several arrays: what MiniGrid's agent sees, codes of objects, colours and states
_OWN_LIMIT = "envpool.procgen"  # its games end by a clock of their own, whatever max_episode_steps says

# EnvPool's options that fields of Config set, where the task has them.
_FIELDS = {
    "frame_skip": "action_repeat",
    "repeat_action_probability": "sticky_actions",
    "episodic_life": "life_loss",
    "noop_max": "noop_max",
    "use_fire_reset": "fire_reset",
    "full_action_space": "full_action_space",
    "img_height": "frame_size",
    "img_width": "frame_size",
    "gray_scale": "grayscale",
}
# Those that hold for every pool: frames come alone and with channels last, rewards are raw, actions discrete.
_FIXED = {"stack_num": 1, "reward_clip": False, "channel_first": False, "use_combined_action": True}
# Those that `pool_options` may not set besides, and what sets them.
_SET_BY = {
    **_FIELDS,
    "zero_discount_on_life_loss": "life_loss",
    "stack_num": "frame_stack",
    "reward_clip": "reward_clip",
    "max_episode_steps": "max_episode_steps",
    "num_envs": "num_envs",
    "batch_size": "pool_batch",
    "num_threads": "pool_threads",
    "seed": "seed",
    "env_seed": "seed",
    "task": "env",
    "env_name": "env",
}
# And those that cannot be otherwise, and why.
_NOT_FREE = {
    "channel_first": "channels come last here",
    "use_combined_action": "DQN chooses one of several actions",
    "max_num_players": "one agent plays each environment",
    "gym_reset_return_info": "the rows are made of what it returns",
    "base_path": "EnvPool finds its own files",
}
# Of a game that a person looks at: as the emulator draws it.
_FOR_EYES = {"gray_scale": False, "img_height": 210, "img_width": 160}


class PoolOutput(NamedTuple):
    """One row of every environment, in their order. Arrays are NumPy's; `N` is environments.

    Asynchronously, one row of each of the `pool_batch` environments that were ready, in any order.
    """

    frame: np.ndarray  # [N, *frame_shape], the spec's dtype, the newest frame alone
    reward: np.ndarray  # [N], float32, as learnt from (after terminal_reward, scaling and clipping)
    terminated: np.ndarray  # [N], bool, the bootstrap stops here: game over, or a life lost if life_loss says so
    truncated: np.ndarray  # [N], bool, the time limit ended the episode (of Atari: and nothing else did)
    first: np.ndarray  # [N], bool, the row begins an episode: no transition, its action was ignored
    game_over: np.ndarray  # [N], bool, the logged episode ended here: game over or time limit, never a life lost
    episode_return: np.ndarray  # [N], float32, raw score of the whole game so far, this row included
    episode_length: np.ndarray  # [N], int32, frames of the whole game so far: agent steps times action_repeat
    env_id: np.ndarray  # [N], int32, the environments: 0, 1, ... but asynchronously


def installed() -> bool:
    """Whether there is an EnvPool to import, found out without importing it."""
    return importlib.util.find_spec("envpool") is not None


def _envpool() -> Any:
    """The envpool module. Importing it takes more than a second, so it waits until a pool is asked for."""
    try:
        import envpool
    except ImportError as error:
        raise ConfigError(
            f"env: EnvPool is not installed or does not load ({_first_line(error)}); 'pip install envpool', "
            "or use an environment of gymnax."
        ) from None
    return envpool


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _families() -> dict[str, str]:
    """Every EnvPool task, with the module that it comes from, such as `envpool.atari`."""
    return {task: entry[0] for task, entry in _envpool().registration.registry.specs.items()}


def _full_name(task: str, family: str) -> str:
    return PREFIX + task if family == _IN_GYMNAX_TOO else task


def pool_names() -> list[str]:
    """Names that `make_pool` takes: tasks with one discrete action. Some need an `obs_key`."""
    return sorted(_full_name(task, family) for task, family in _families().items() if _refusal(task, family) is None)


def known_names() -> list[str]:
    """Names to suggest to somebody who mistyped one: full names, and Atari games without their version."""
    names = []
    for task, family in _families().items():
        if not _continuous(family):
            names += [_full_name(task, family)] + [task.removesuffix("-v5")] * (family == _ATARI)
    return names


def resolve_pool_env(name: str) -> str:
    """The full name for `name`: an Atari game however it is spelt, or another EnvPool task by its id.

    `pong`, `Pong-v5`, `ms-pacman` and `MsPacman` are games. Any name may have the prefix `envpool:`, and those that
    gymnax has too keep it in their full names.

    Raises:
      UnknownEnvError: if there is no such task.
      ConfigError: if it cannot be used here, or EnvPool is not installed.
    """
    families = _families()
    wanted = name[len(PREFIX) :] if name.lower().startswith(PREFIX) else name
    games = {_spelling(task): task for task, family in families.items() if family == _ATARI}
    ids = {task.lower(): task for task in families} | {wanted: wanted for wanted in families}
    task = ids.get(wanted) or ids.get(wanted.lower()) or games.get(_spelling(wanted))
    if task is None:
        raise UnknownEnvError(name, known_names())
    full_name = _full_name(task, families[task])
    if (reason := _refusal(task, families[task])) is not None:
        raise ConfigError(f"env: '{full_name}' cannot be used here: {reason}.")
    return full_name


def is_atari(name: str) -> bool:
    """Whether the full name `name` is an Atari game. EnvPool is asked only about names like theirs."""
    return name.endswith("-v5") and _families().get(name) == _ATARI


def gives_pixels(name: str) -> bool:
    """Whether the full name `name`, which is no Atari game, is a task that is seen as a picture."""
    return _families()[name.removeprefix(PREFIX)] in _PICTURES


def _spelling(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower().removesuffix("-v5"))


def _continuous(family: str) -> bool:
    return family.startswith("envpool.mujoco")  # 1,300 tasks, which need not be asked one by one


@functools.cache
def _refusal(task: str, family: str) -> str | None:
    """Why a Q-network cannot learn `task`, or None. Its specification is read where the family does not tell."""
    from gymnasium import spaces

    if family == _ATARI:
        return None
    continuous = "it has continuous actions; DQN chooses among discrete ones"
    if _continuous(family):
        return continuous
    try:
        spec = _envpool().make_spec(task, **_fixed(_defaults(task)))
    except Exception as error:
        return f"EnvPool cannot describe it ({_first_line(error)})"
    actions, _ = _spaces(spec)
    if spec.config.max_num_players > 1:
        return "it is a game of several players"
    if isinstance(actions, spaces.Box) and np.issubdtype(actions.dtype, np.floating):
        return continuous
    if not isinstance(actions, spaces.Discrete):
        return "each step takes several actions; DQN chooses one"
    return None


def _spaces(source: Any) -> tuple[Any, Any]:
    """gymnasium's spaces of actions and observations, from a specification or a pool of EnvPool's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's, about bounds given in a higher precision
        return source.action_space, source.observation_space


def pool_seeds(seed: int, num_envs: int) -> list[int]:
    """Seeds of the environments of a pool, each in 1 to 2**31 - 1.

    Environment i takes word i of NumPy's `SeedSequence(seed)`, whatever the number of environments. With EnvPool's
    own rule, `seed + i`, the pools of neighbouring seeds would have all environments but one in common.
    """
    words = np.random.SeedSequence(seed).generate_state(num_envs) >> 1  # EnvPool's seeds are int32
    return [max(int(word), 1) for word in words]


def make_pool(
    config: Config, num_envs: int, seed: int | Sequence[int], *, evaluation: bool = False, pictures: bool = False
) -> Pool:
    """Start a pool of `num_envs` environments for each seed. Those of equal seeds give the same rows.

    Args:
      config: its fields on environments and pools are read.
      num_envs: environments of each seed; `config.num_envs` is not read.
      seed: 0 or more, or several, whose environments follow one another; see `pool_seeds`. One where the pool is
        asynchronous.
      evaluation: play whole games, whatever `life_loss` says, all step by step, whatever `pool_batch` says.
      pictures: for `Pool.picture`; the frames are no observations then, all else is as without.

    Raises:
      ConfigError: for an unknown name or option, or one that the environment does not have.
    """
    name = resolve_pool_env(config.env)
    task = name.removeprefix(PREFIX)
    options = _options(config, name, _defaults(task))
    if evaluation and "episodic_life" in options:
        options["episodic_life"] = False
    if pictures:
        options |= _FOR_EYES if is_atari(name) else {"render_mode": "rgb_array"}
    words = [word for s in ([seed] if isinstance(seed, int) else seed) for word in pool_seeds(s, num_envs)]
    threads = min(len(words), config.pool_threads or cpu_cores())
    try:
        env = _envpool().make(
            task,
            env_type="gymnasium",
            num_envs=len(words),
            batch_size=config.pool_batch if asynchronous(config) and not evaluation else len(words),
            num_threads=threads,
            seed=words,
            **options,
        )
    except Exception as error:
        raise ConfigError(f"pool_options: EnvPool cannot make {name} so: {_first_line(error)}.") from error
    return Pool(env, name, config, evaluation=evaluation)


def _defaults(task: str) -> dict[str, Any]:
    """All options of `task`, as registered. EnvPool's own `make_spec` would load the ROM of a game to say so."""
    module, spec_class, registered = _envpool().registration.registry.specs[task]
    return getattr(importlib.import_module(module), spec_class).gen_config(**registered)._asdict()


def _fixed(defaults: dict[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in _FIXED.items() if option in defaults}


def _options(config: Config, name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """EnvPool's options as `config` has them; `defaults` are all that the task has."""
    for field in ("env_params", "action_bins"):
        if getattr(config, field) != getattr(Config, field):
            raise ConfigError(f"{field}: {name} is an EnvPool environment and has none; see pool_options.")
    options = _fixed(defaults)
    for option, field in _FIELDS.items():
        if option in defaults and (field != "life_loss" or is_atari(name)):  # lives are known of Atari alone
            options[option] = getattr(config, field)
        elif getattr(config, field) != getattr(Config, field):
            raise ConfigError(f"{field}: EnvPool has nothing of the kind for {name}; leave it out.")
    if "episodic_life" in options:
        options["episodic_life"] = config.life_loss == "episode"
    options["max_episode_steps"] = _step_limit(config, name, defaults["max_episode_steps"])
    free = sorted(defaults.keys() - _SET_BY.keys() - _NOT_FREE.keys())
    for option, text in config.pool_options:
        if option in _SET_BY:
            raise ConfigError(f"pool_options: {option} is what the setting {_SET_BY[option]} says; use that.")
        if option in _NOT_FREE:
            raise ConfigError(f"pool_options: {option} is fixed, for {_NOT_FREE[option]}; leave it out.")
        if option not in defaults:
            raise ConfigError(
                f"pool_options: {name} has no option '{option}'.{suggest(option, free)} It has: {', '.join(free)}."
            )
        options[option] = _parse(option, text, type(defaults[option]))
    return options


def _step_limit(config: Config, name: str, default: int) -> int:
    """The episode cap in agent steps, which is what EnvPool counts."""
    frames, repeat = config.max_episode_steps, config.action_repeat
    if frames is None:
        return _ATARI_FRAMES // repeat if is_atari(name) else default
    if default == _NO_LIMIT or _families()[name.removeprefix(PREFIX)] == _OWN_LIMIT:
        raise ConfigError(f"max_episode_steps: EnvPool cannot cap the episodes of {name}; leave it out.")
    if frames % repeat:
        raise ConfigError(
            f"max_episode_steps: {frames} frames are no whole number of steps of action_repeat {repeat}; "
            f"use {max(frames // repeat, 1) * repeat}."
        )
    return frames // repeat


def _parse(option: str, text: str, kind: type) -> Any:
    """The value that `text` is for an option of type `kind`."""
    forms: dict[type, tuple[Callable[[str], Any], str]] = {
        bool: ({"true": True, "1": True, "false": False, "0": False}.__getitem__, "true or false"),
        int: (int, "an integer"),
        float: (float, "a number"),
        str: (str, "text"),
    }
    parse, form = forms.get(kind, (lambda text: kind(ast.literal_eval(text)), f"a {kind.__name__} as Python writes it"))
    try:
        return parse(text.lower() if kind is bool else text)
    except (KeyError, ValueError, TypeError, SyntaxError):
        raise ConfigError(f"pool_options: {option} is '{text}'; use {form}.") from None


def _observed(space: Any, config: Config, name: str) -> tuple[tuple[str, ...], Any]:
    """The array that the agent sees: the keys that lead to it in what EnvPool gives, and its space."""
    arrays = _arrays(space)
    if () in arrays:
        if config.obs_key is not None:
            raise ConfigError(f"obs_key: {name} gives one array; leave it out.")
        return (), space
    keys = tuple((_USUAL_KEY if config.obs_key is None else config.obs_key).split("."))
    if keys not in arrays:
        given = "several arrays" if config.obs_key is None else f"no '{config.obs_key}'"
        raise ConfigError(f"obs_key: {name} gives {given}; use one of {', '.join('.'.join(keys) for keys in arrays)}.")
    return keys, arrays[keys]


def _arrays(space: Any, keys: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The spaces of single arrays in `space`, by the keys that lead to them."""
    from gymnasium import spaces

    if not isinstance(space, spaces.Dict):
        return {keys: space}
    return {path: one for key, inner in space.items() for path, one in _arrays(inner, (*keys, key)).items()}


def _observations(
    space: Any, channels_first: bool, stacked: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...], Any]:
    """How EnvPool's observations `[N, ...]` become frames `[N, *frame_shape]`, and their shape and dtype.

    The stack of grey frames takes the place of their one channel; where nothing is stacked, they keep it.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        states, start = int(space.n), int(space.start)
        table = np.eye(states, dtype=np.float32)
        return (lambda obs: table[obs - start]), (states,), jnp.float32
    if channels_first:
        channels, *size = space.shape
        if channels == 1 and stacked:
            return (lambda obs: obs[:, 0]), tuple(size), jnp.uint8
        return (lambda obs: np.moveaxis(obs, 1, -1)), (*size, channels), jnp.uint8
    dtype = jnp.uint8 if space.dtype == np.uint8 or isinstance(space, spaces.MultiBinary) else jnp.float32
    return (lambda obs: obs.astype(dtype, copy=False)), tuple(space.shape), dtype


class Pool:
    """Environments that threads of the host step: `reset` once, then `send` and `recv` in turn.

    Attributes:
      spec: the environment as the agent sees it. Atari's observations are uint8, `[size, size, frame_stack]`, in
        colour `[size, size, 3, frame_stack]`; others have the task's own shape, discrete ones are one-hot. Where
        nothing is stacked, an observation is a frame. `max_episode_steps` is in emulator frames.
      frame_shape: of one frame, before stacking: `[size, size]` or `[size, size, 3]`; grey ones that are not stacked
        have their one channel, `[size, size, 1]`.
    """

    def __init__(self, env: Any, name: str, config: Config, *, evaluation: bool) -> None:
        self._env = env
        self._config = config
        self._atari = is_atari(name)
        self._life_loss = "ignore" if evaluation else config.life_loss
        actions, observations = _spaces(env)
        self._first_action = int(actions.start)
        self._keys, observed = _observed(observations, config, name)
        channels_first = _families()[name.removeprefix(PREFIX)] in _CHANNELS_FIRST
        stacked = config.frame_stack > 1
        self._encode, self.frame_shape, dtype = _observations(observed, channels_first, stacked)
        self.spec = EnvSpec(
            name=name,
            obs_shape=(*self.frame_shape, config.frame_stack) if stacked else self.frame_shape,
            obs_dtype=dtype,
            num_actions=int(actions.n),
            max_episode_steps=env.config["max_episode_steps"] * config.action_repeat,
        )

    def reset(self) -> PoolOutput:
        """Begin a new game everywhere: each environment's next row is `first`. Not between `send` and `recv`.

        Raises:
          RunError: if EnvPool fails.
        """
        envs = len(self._env)
        self._done, self._game_over = np.ones(envs, bool), np.ones(envs, bool)
        self._lives = np.zeros(envs, np.int32)
        self._return, self._steps = np.zeros(envs, np.float32), np.zeros(envs, np.int32)
        with self._one_line():
            self._env.async_reset()
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Hand `actions` `[N]` (integers below `spec.num_actions`) for the last row to the threads; return at once.

        Raises:
          ValueError: for other actions; EnvPool would read beyond its table.
          RunError: if EnvPool fails.
        """
        actions = np.asarray(actions)
        if actions.shape != self._envs.shape or actions.min() < 0 or actions.max() >= self.spec.num_actions:
            raise ValueError(f"actions are {len(self._envs)} integers from 0 to {self.spec.num_actions - 1}")
        with self._one_line():
            self._env.send(actions + self._first_action, self._envs)

    def recv(self) -> PoolOutput:
        """Wait for the rows that the last `send` leads to, or asynchronously for any that are ready.

        Raises:
          RunError: if EnvPool fails.
        """
        with self._one_line():
            obs, reward, ended, limit, info = self._env.recv()
        return self._output(obs, reward, ended, limit, info)

    def picture(self) -> np.ndarray:
        """The first environment of a pool made with `pictures`, at the newest row: `[H, W, 3]` uint8.

        Atari's are the maximum of the last two emulator frames, for many games draw a thing in every second one only:
        the laser of Space Invaders is in none of those that EnvPool's own `render` shows.

        Raises:
          ConfigError: if EnvPool cannot draw it.
        """
        if self._atari:
            return self._newest[0].transpose(1, 2, 0)
        try:
            return self._env.render()[0]
        except Exception as error:
            raise ConfigError(f"env: {self.spec.name} cannot be drawn: {_first_line(error)}.") from error

    def close(self) -> None:
        """End the threads."""
        self._env.close()
        del self._env  # its destructor joins them

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise RunError(f"env: EnvPool failed at {self.spec.name}: {_first_line(error)}.") from error

    def _output(
        self, obs: Any, reward: np.ndarray, ended: np.ndarray, limit: np.ndarray, info: dict[str, np.ndarray]
    ) -> PoolOutput:
        """The row in EnvPool's arrays; `ended` is an end before the time limit, `limit` any end at it."""
        self._envs = envs = info["env_id"]
        first, new_game = self._done[envs], self._game_over[envs]
        self._newest = obs
        # What ended at the limit EnvPool calls truncated, whatever else happened; only Atari says if the game is over.
        over = info["terminated"].astype(bool) if self._atari else ended
        terminated = over
        if self._atari:
            lost = ~first & (info["lives"] < self._lives[envs])
            self._lives[envs] = info["lives"]
            if self._life_loss == "bootstrap":
                terminated = over | lost
            elif self._life_loss == "episode":
                terminated = ended | (limit & (over | lost))
        truncated = limit & ~terminated
        if self._config.time_limit_terminates:
            terminated, truncated = terminated | truncated, np.zeros_like(truncated)
        self._done[envs], self._game_over[envs] = ended | limit, over | limit
        self._return[envs] = np.where(new_game, np.float32(0.0), self._return[envs] + reward)
        self._steps[envs] = np.where(new_game, np.int32(0), self._steps[envs] + ~first)
        return PoolOutput(
            frame=self._encode(functools.reduce(lambda inner, key: inner[key], self._keys, obs)),
            reward=self._learnt_reward(reward, terminated),  # EnvPool's is 0 where a row only begins
            terminated=terminated,
            truncated=truncated,
            first=first,
            game_over=self._game_over[envs],
            episode_return=self._return[envs],
            episode_length=self._steps[envs] * np.int32(self._config.action_repeat),
            env_id=envs,
        )

    def _learnt_reward(self, reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        config = self._config
        if config.terminal_reward is not None:
            reward = np.where(terminated, np.float32(config.terminal_reward), reward)
        reward = reward * np.float32(config.reward_scale)
        return reward if config.reward_clip is None else np.clip(reward, -config.reward_clip, config.reward_clip)
