"""gymnax environments on the device: names, options, and the step that keeps the contracts.

`step` resets in the same step and reports the observation it led to as `final_obs`: a time limit
bootstraps from there, never from the observation after the reset.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.config import ConfigError, DeviceSettings, EnvSettings, UnknownEnvError, suggest
from dqn_jax.types import EnvOutput, EnvSpec, Key, Obs


def _gymnax() -> Any:
    """The gymnax module. Importing it starts jax's backends, after which the number of CPU devices is fixed."""
    import gymnax

    return gymnax


_ALIASES = {"CartPole-v0": ("CartPole-v1", 200)}  # name: (gymnax name, episode cap)
_REFUSED = {"MNISTBandit-bsuite": "it downloads its images, and nothing is fetched from the network at run time"}
_BINARY_PLANES = ("-MinAtar", "Pong-misc")  # observations of 0.0 and 1.0 that a byte holds without loss


# Masses, lengths, times and limits without which the equations have no numbers, or nothing moves.
_POSITIVE = frozenset(
    "masscart masspole total_mass length polemass_length tau theta_threshold_radians x_threshold m l dt link_length_1 "
    "link_length_2 link_mass_1 link_mass_2 link_com_pos_1 link_com_pos_2 link_moi max_vel_1 max_vel_2 max_speed "
    "max_torque max_force circle_radius goal_radius sigma_p sigma_l ramp_interval init_spawn_speed init_move_interval "
    "enemy_move_interval enemy_shot_interval diver_move_interval diver_spawn_speed max_oxygen memory_length "
    "chain_length size".split()
)
_PROBABILITIES = frozenset({"fail_prob", "reward_prob", "slip_prob"})


class DeviceEnvState(NamedTuple):
    """State of one environment and of the episode it is in."""

    inner: Any  # the gymnax state
    last_action: jax.Array  # [], int32, the action last executed (for sticky actions)
    episode_return: jax.Array  # [], float32, raw return so far
    episode_length: jax.Array  # [], int32, frames so far


class EnvReset(Protocol):
    """Start an episode: state and first observation `[*obs_shape]`."""

    def __call__(self, key: Key) -> tuple[DeviceEnvState, Obs]: ...


class EnvStep(Protocol):
    """Take one agent step with `action` `[]` int32."""

    def __call__(self, key: Key, state: DeviceEnvState, action: jax.Array) -> tuple[DeviceEnvState, EnvOutput]: ...


class Env(NamedTuple):
    """One on-device environment as pure functions; `vmap` them for many."""

    spec: EnvSpec
    reset: EnvReset
    step: EnvStep  # resets by itself after the last step of an episode
    advance: EnvStep  # does not reset: for evaluation, where only first episodes count
    inner: Any  # the gymnax environment, for drawing
    inner_params: Any  # its parameters


def env_names() -> list[str]:
    """Full names of the gymnax environments that `make_env` takes, sorted."""
    return sorted([*(name for name in _gymnax().registered_envs if _refusal(name) is None), *_ALIASES])


def resolve_device_env(name: str) -> str:
    """The full name for `name`: case does not matter, nor does the suffix where it is the only one.

    Raises:
      UnknownEnvError: if gymnax has no such environment.
      ConfigError: if it cannot be used here.
    """
    names = [*_gymnax().registered_envs, *_ALIASES]
    wanted = name.lower()
    matches = [n for n in names if n.lower() == wanted] or [
        n for n in _gymnax().registered_envs if n.rsplit("-", 1)[0].lower() == wanted
    ]
    if len(matches) != 1:
        raise UnknownEnvError(name, [*names, *(n.rsplit("-", 1)[0] for n in names)])
    if (reason := _refusal(matches[0])) is not None:
        raise ConfigError(f"env: '{matches[0]}' cannot be used here: {reason}.")
    return matches[0]


def _refusal(name: str) -> str | None:
    if name in _REFUSED:
        return _REFUSED[name]
    if name in ("PointRobot-misc", "Reacher-misc", "Swimmer-misc"):
        return "it has several continuous actions; DQN chooses among discrete ones"
    return None


def make_env(config: DeviceSettings) -> Env:
    """Build the environment that `config` describes.

    A step has five stages: the action sticks or not, it is held for some frames, what these ended in is told, the
    reward is made what is learnt from, and, in `step` alone, an episode that is over makes room for the next.

    Raises:
      ConfigError: for an unknown name or parameter, or options that the environment does not allow.
    """
    name = resolve_device_env(config.env)
    base, cap = _ALIASES.get(name, (name, None))
    inner, params = _make_gymnax(base, config.env_params)
    cap = config.max_episode_steps or cap
    if cap is not None:
        params = params.replace(max_steps_in_episode=type(params.max_steps_in_episode)(cap))
    num_actions, to_inner_action = _actions(name, inner, params, config.action_bins)
    encode, obs_shape, obs_dtype = _observations(base, inner, params)
    spec = EnvSpec(name, obs_shape, obs_dtype, num_actions, int(params.max_steps_in_episode))
    hold = _holding(_frame_step(inner, params, to_inner_action, encode), config.action_repeat)

    def reset(key: Key) -> tuple[DeviceEnvState, Obs]:
        obs, state = inner.reset_env(key, params)
        # Python scalars in a gymnax state are weakly typed; a loop needs the same types every time round.
        state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state)
        zero = jnp.zeros((), jnp.int32)
        return DeviceEnvState(state, zero, jnp.zeros((), jnp.float32), zero), encode(obs)

    def advance(key: Key, state: DeviceEnvState, action: jax.Array) -> tuple[DeviceEnvState, EnvOutput]:
        if config.sticky_actions > 0.0:
            key, action = _stick(key, state.last_action, action, config.sticky_actions)
        frame, frames = hold(key, state.inner, action)
        terminated, truncated = frame.terminated, frame.truncated
        if config.time_limit_terminates:
            terminated, truncated = terminated | truncated, jnp.zeros((), bool)
        out = EnvOutput(
            obs=frame.obs,
            final_obs=frame.obs,
            reward=_learnt_reward(frame.reward, terminated, config),
            terminated=terminated,
            truncated=truncated,
            episode_return=state.episode_return + frame.reward,
            episode_length=state.episode_length + frames,
        )
        return DeviceEnvState(frame.inner, action, out.episode_return, out.episode_length), out

    def step(key: Key, state: DeviceEnvState, action: jax.Array) -> tuple[DeviceEnvState, EnvOutput]:
        step_key, reset_key = jax.random.split(key)
        stepped, out = advance(step_key, state, action)
        fresh, first_obs = reset(reset_key)
        done = out.terminated | out.truncated
        next_state, next_obs = jax.tree.map(
            lambda new, old: jnp.where(done, new, old), (fresh, first_obs), (stepped, out.obs)
        )
        return next_state, out._replace(obs=next_obs)

    return Env(spec, reset, step, advance, inner, params)


class _Frame(NamedTuple):
    """What one frame of an environment led to, or several for which an action was held."""

    inner: Any  # the gymnax state
    obs: Obs  # [*obs_shape], encoded
    reward: jax.Array  # [], float32, raw, summed over the frames
    terminated: jax.Array  # [], bool, the task ended
    truncated: jax.Array  # [], bool, a time limit ended the episode, and nothing else


_FrameStep = Callable[[Key, Any, jax.Array], _Frame]  # (key, gymnax state, action [])


def _stick(key: Key, last: jax.Array, action: jax.Array, probability: float) -> tuple[Key, jax.Array]:
    """A key for what follows, and the action that is executed: the last one again with `probability`.

    Reference: Machado et al. 2018 (JAIR 61:523), section 5.
    """
    key, sticky_key = jax.random.split(key)
    sticks = jax.random.uniform(sticky_key) < probability
    return key, jnp.where(sticks, last, action)


def _frame_step(inner: Any, params: Any, to_inner_action: Any, encode: Any) -> _FrameStep:
    """One frame of gymnax's `inner`, with types that stay the same."""

    def step(key: Key, state: Any, action: jax.Array) -> _Frame:
        obs, new_state, reward, terminated, _ = inner.step_env(key, state, to_inner_action(action), params)
        new_state = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype).reshape(old.shape), state, new_state)
        terminated = jnp.asarray(terminated, bool).reshape(())
        truncated = jnp.asarray(inner.is_truncated(new_state, params), bool) & ~terminated
        return _Frame(new_state, encode(obs), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    return step


def _holding(step: _FrameStep, times: int) -> Callable[[Key, Any, jax.Array], tuple[_Frame, jax.Array | int]]:
    """Hold an action for so many frames, or until the episode ends; also gives how many there were."""
    if times == 1:
        return lambda key, state, action: (step(key, state, action), 1)

    def hold(key: Key, state: Any, action: jax.Array) -> tuple[_Frame, jax.Array]:
        key, frame_key = jax.random.split(key)
        first = step(frame_key, state, action)

        def body(_: int, carry: tuple[Key, _Frame, jax.Array]) -> tuple[Key, _Frame, jax.Array]:
            key, so_far, frames = carry
            key, frame_key = jax.random.split(key)
            over = so_far.terminated | so_far.truncated
            new = step(frame_key, so_far.inner, action)
            reward = so_far.reward + jnp.where(over, 0.0, new.reward)
            new = jax.tree.map(lambda old, new: jnp.where(over, old, new), so_far, new)
            return key, new._replace(reward=reward), frames + ~over

        return jax.lax.fori_loop(1, times, body, (key, first, jnp.ones((), jnp.int32)))[1:]

    return hold


def _learnt_reward(reward: jax.Array, terminated: jax.Array, settings: EnvSettings) -> jax.Array:
    """The reward that is learnt from: shifted, replaced at an end, scaled, then clipped, as the settings say."""
    if settings.reward_shift:
        reward = reward + settings.reward_shift
    if settings.terminal_reward is not None:
        reward = jnp.where(terminated, settings.terminal_reward, reward)
    reward = reward * settings.reward_scale
    return reward if settings.reward_clip is None else jnp.clip(reward, -settings.reward_clip, settings.reward_clip)


def _make_gymnax(name: str, changes: tuple[tuple[str, float], ...]) -> tuple[Any, Any]:
    """The gymnax environment with changed parameters; constructor arguments count as parameters too."""
    _, defaults = _gymnax().make(name)
    fields = {field: value for field, value in vars(defaults).items() if jnp.ndim(value) == 0}
    options = _constructor_options(name)
    arguments: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    for field, value in changes:
        if not math.isfinite(value):
            raise ConfigError(f"env_params: {field} is {value}; use a finite number.")
        if field in _POSITIVE and not value > 0:
            raise ConfigError(f"env_params: {field} is {value:g}, which nothing in the world is; use more than 0.")
        if field in _PROBABILITIES and not 0 <= value <= 1:
            raise ConfigError(f"env_params: {field} is {value:g}; use a probability between 0 and 1.")
        if value != int(value) and isinstance(fields.get(field, options.get(field)), int):
            raise ConfigError(f"env_params: {field} is {value:g}; use an integer.")
        if field == "max_steps_in_episode":
            raise ConfigError("env_params: use max_episode_steps for the episode cap.")
        if field in fields:
            replaced[field] = type(fields[field])(value)
        elif field in options:
            arguments[field] = type(options[field])(value)
        else:
            known = sorted(({*fields} | {*options}) - {"max_steps_in_episode"})
            raise ConfigError(
                f"env_params: {name} has no parameter '{field}'.{suggest(field, known)} It has: {', '.join(known)}."
            )
    inner, params = _gymnax().make(name, **arguments)
    params = params.replace(**replaced)
    if name == "CartPole-v1":  # gymnax keeps two derived numbers as parameters of their own
        derived = {
            "total_mass": params.masscart + params.masspole,
            "polemass_length": params.masspole * params.length,
        }
        if replaced:
            params = params.replace(**{k: v for k, v in derived.items() if k not in replaced})
    return inner, params


def _constructor_options(name: str) -> dict[str, Any]:
    factory = type(_gymnax().make(name)[0])
    parameters = inspect.signature(factory.__init__).parameters
    return {k: p.default for k, p in parameters.items() if isinstance(p.default, int | float | bool)}


def _actions(name: str, inner: Any, params: Any, bins: int | None) -> tuple[int, Any]:
    """Number of discrete actions, and the map from one of them to the environment's own action."""
    from gymnax.environments import spaces

    space = inner.action_space(params)
    if isinstance(space, spaces.Discrete):
        if bins is not None:
            raise ConfigError(f"action_bins: {name} already has {space.n} discrete actions; leave action_bins out.")
        return int(space.n), lambda action: action
    if not isinstance(space, spaces.Box) or math.prod(space.shape) != 1:
        raise ConfigError(f"env: {name} has actions {space}; DQN needs discrete ones or one bounded continuous one.")
    low, high = float(jnp.min(jnp.asarray(space.low))), float(jnp.max(jnp.asarray(space.high)))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"env: the actions of {name} are unbounded and cannot be cut into bins.")
    if bins is None:
        raise ConfigError(
            f"action_bins: {name} has a continuous action in [{low:g}, {high:g}]; set action_bins, e.g. 11."
        )
    values = jnp.linspace(low, high, bins)
    return bins, lambda action: values[action].reshape(space.shape)


def _observations(name: str, inner: Any, params: Any) -> tuple[Any, tuple[int, ...], Any]:
    """How observations are encoded for replay and network, and their shape and dtype."""
    from gymnax.environments import spaces

    space = inner.observation_space(params)
    if isinstance(space, spaces.Discrete):
        return (lambda obs: jax.nn.one_hot(obs, space.n)), (int(space.n),), jnp.float32
    shape = jax.eval_shape(lambda: inner.reset_env(jax.random.key(0), params)[0]).shape
    dtype = jnp.uint8 if name.endswith(_BINARY_PLANES) else jnp.float32
    return (lambda obs: jnp.asarray(obs, dtype)), tuple(shape), dtype
