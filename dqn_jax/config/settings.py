"""What a run is made of: `Config` (static), `HParams` (traced), and their validation.

Static or traced is decided once, here. A `Config` field changes shapes or program structure: changing
it compiles a new program. An `HParams` field is a scalar inside the program: every lane of a
population may have its own, at no cost.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from dqn_jax.config.errors import ConfigError
from dqn_jax.config.values import INT_MAX, UnfitError, as_type, check_float, fits, numbers

Sampling = Literal["with_replacement", "without_replacement", "latest"]
ACTIVATIONS = ("relu", "tanh", "gelu", "silu")


@dataclasses.dataclass(frozen=True)
class Config:
    """Static part of a run: what changes shapes or the structure of the compiled program."""

    # -- environment
    env: str = "CartPole-v1"
    """Environment by its gymnax name ('CartPole-v0' is CartPole-v1 with a 200-step cap), or by its EnvPool name
    ('Pong-v5'; 'envpool:CartPole-v1' where gymnax has the name too)."""
    env_params: tuple[tuple[str, float], ...] = ()
    """Environment parameters to change, as name value pairs, e.g. 'gravity 9.0 length 0.7'."""
    max_episode_steps: int | None = None
    """Episode cap in environment frames (default: the environment's own)."""
    action_repeat: int = 1
    """Frames each action is held for (frame skip); rewards are summed."""
    action_bins: int | None = None
    """Evenly spaced bins for one bounded continuous action; needed by Pendulum and MountainCarContinuous."""
    terminal_reward: float | None = None
    """Reward given in place of the environment's on the step that terminates (not on a time limit)."""
    time_limit_terminates: bool = False
    """Learn as if a time limit were a termination: the slip of many tutorials, here to be compared with."""
    reward_scale: float = 1.0
    """Factor on the learnt reward; logged returns stay raw."""
    reward_clip: float | None = None
    """Clip the learnt reward to [-x, x], after scaling; logged returns stay raw."""
    sticky_actions: float = 0.0
    """Probability that the previous action is repeated instead of the chosen one."""
    num_envs: int = 8
    """Environments each seed steps at once."""

    # -- Atari and other environments of a pool (EnvPool)
    obs_key: str | None = None
    """Of a task that gives several arrays, the one to observe (default: 'image', where there is one)."""
    frame_stack: int = 1
    """Newest frames that make one observation; they are stacked on the device."""
    frame_size: int = 84
    """Height and width that Atari frames are resized to, in pixels."""
    grayscale: bool = True
    """Atari frames in grey; false: in colour, three channels each."""
    life_loss: Literal["ignore", "bootstrap", "episode"] = "ignore"
    """What losing a life does: nothing, stop the bootstrap while the game goes on, or end the episode and reset."""
    noop_max: int = 30
    """Atari games start with 1 to so many no-ops."""
    fire_reset: bool = False
    """Press FIRE at the start of Atari games that wait for it."""
    full_action_space: bool = False
    """All 18 Atari actions instead of those that the game uses."""
    pool_options: tuple[tuple[str, str], ...] = ()
    """Further EnvPool options, as name value pairs, e.g. 'mode 1 difficulty 0'."""
    pool_threads: int = 0
    """Threads that step the pool (0: one for each core)."""
    pool_batch: int | None = None
    """Environments that a step waits for, the first that are ready. With fewer than num_envs the pool is asynchronous:
    none waits for the slowest, and a run's numbers are never the same twice."""

    # -- network
    torso: Literal["auto", "mlp", "minatar", "nature", "dqn2013", "impala"] = "auto"
    """'mlp', 'minatar' (3x3 convolution), the pixel networks 'nature', 'dqn2013' and 'impala', or 'auto' (by the
    observation's shape: nature for pixels, minatar for other [H, W, C] observations)."""
    hidden: tuple[int, ...] = (120, 84)
    """Widths of the hidden dense layers."""
    activation: str = "relu"
    """Activation: relu, tanh, gelu or silu."""
    dueling: bool = False
    """Dueling head: separate value and advantage streams."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; weights, losses and optimiser stay float32."""
    weight_init: Literal["lecun_normal", "glorot_uniform", "he_normal"] = "lecun_normal"
    """Initial weights of dense layers: flax's default, Keras's default, or He's for ReLU."""

    # -- learning rule
    double: bool = False
    """Double Q-learning: the online network chooses the next action, the target network values it."""
    loss: Literal["squared", "huber"] = "squared"
    """Loss on the TD error; huber uses huber_delta."""
    optimizer: str = "adam"
    """Optimiser by its optax name (adam, rmsprop, sgd, adamw, radam, ...), or 'rmsprop_centered'."""
    target_network: bool = True
    """Whether targets come from a second network, moved by target_period and target_mixing."""

    # -- replay and cadence
    replay_capacity: int = 20_000
    """Transitions kept by the replay."""
    batch_size: int = 128
    """Transitions drawn from the replay at a time."""
    replay_memory: Literal["device", "host"] = "device"
    """Where a pool's frames are kept: with the network, or in the host's memory, from which batches are sent."""
    minibatch_size: int | None = None
    """Transitions per gradient step: what was drawn is fitted in pieces of this size, one after another (default:
    all at once; 1 is the sample-by-sample fit of many tutorials)."""
    sampling: Sampling = "with_replacement"
    """How a batch is drawn: uniformly with or without replacement, or the newest transitions in their order."""
    clear_replay: bool = False
    """Throw the stored transitions away after each training."""
    n_step: int = 1
    """Rewards summed before the bootstrap (pools only)."""
    min_replay: int = 1_000
    """Environment steps taken before learning starts."""
    train_unit: Literal["env_steps", "episodes"] = "env_steps"
    """What train_every counts: environment steps, or finished episodes ('at the end of each episode')."""
    train_every: int = 8
    """Train after every so many train_unit."""
    updates_per_train: int = 1
    """Batches drawn and fitted each time."""
    freeze_when: str | None = None
    """A training criterion (train5>195) at which a seed stops learning and acts greedily from then on."""

    # -- exploration
    epsilon_schedule: Literal["linear", "multiplicative", "constant"] = "linear"
    """linear (over epsilon_decay_steps), multiplicative (times epsilon_decay), or constant (epsilon_start)."""
    epsilon_unit: Literal["env_steps", "updates", "trainings", "episodes"] = "env_steps"
    """What the schedule counts; 'trainings' are the times of training, each updates_per_train updates."""
    epsilon_from: Literal["start", "learning"] = "start"
    """Where environment steps are counted from: the first of all, or the first after min_replay."""

    # -- budget and evaluation
    total_steps: int = 200_000
    """Environment steps (agent decisions) per seed, warm-up included; rounded up to whole evaluations."""
    total_episodes: int | None = None
    """Training episodes per seed, after which it rests (default: no limit but total_steps)."""
    eval_every: int = 5_000
    """Environment steps between evaluations, per seed."""
    eval_episodes: int = 100
    """Episodes per evaluation, one per evaluation environment, on the same starts every time."""
    eval_epsilon: float = 0.0
    """Exploration during evaluation."""
    eval_seed: int = 1_000_003
    """Seed of the evaluation starts."""

    # -- execution
    lane_block: int = 0
    """Lanes batched together on a device; blocks run one after another (0: on CPU 4 for tiny networks, else 1, and 1
    with pools; all on GPU and TPU)."""


class HParams(NamedTuple):
    """Traced part of a run: scalars, or `[lanes]` arrays with one value per lane.

    None leaves a feature out of the program (or leaves the optimiser's own default in place).
    """

    learning_rate: float = 1e-3
    """Step size of the optimiser (at the start, if learning_rate_end is given)."""
    learning_rate_end: float | None = None
    """Step size at the end of a linear decay (None: constant)."""
    learning_rate_decay_updates: int = 20_000
    """Length of that decay, in updates."""
    discount: float = 0.99
    """Discount per agent step."""
    epsilon_start: float = 1.0
    """Exploration at the start (all along, if constant)."""
    epsilon_end: float = 0.05
    """Exploration at the end."""
    epsilon_decay_steps: int = 20_000
    """Length of the linear schedule, in epsilon_unit."""
    epsilon_decay: float = 0.995
    """Factor of the multiplicative schedule, per epsilon_unit."""
    target_period: int = 50
    """Updates between moves of the target network."""
    target_mixing: float = 1.0
    """Share of the online network in each move: 1 is a copy; small, with target_period 1, is a soft target."""
    huber_delta: float = 1.0
    """Where the Huber loss becomes linear."""
    max_grad_norm: float | None = None
    """Clip gradients to this global norm (None: no clipping)."""
    optimizer_eps: float | None = None
    """The optimiser's eps, for a loss averaged over the batch (None: optax's default)."""
    b1: float | None = None
    """First-moment decay of Adam-like optimisers (None: optax's default)."""
    b2: float | None = None
    """Second-moment decay of Adam-like optimisers (None: optax's default)."""
    rms_decay: float | None = None
    """Decay of RMSProp (None: optax's default)."""
    momentum: float | None = None
    """Momentum of SGD or RMSProp (None: optax's default)."""
    weight_decay: float | None = None
    """Weight decay of optimisers that have one (None: optax's default)."""


INTEGER_HPARAMS = frozenset({"learning_rate_decay_updates", "epsilon_decay_steps", "target_period"})
"""Hyperparameters that count something and are traced as int32; all others are float32."""

ONLY_WHERE: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "huber_delta": ("loss", lambda value: value == "huber", "huber"),
    "target_period": ("target_network", bool, "on"),
    "target_mixing": ("target_network", bool, "on"),
    "epsilon_from": ("epsilon_unit", lambda value: value == "env_steps", "env_steps"),
    "epsilon_decay": ("epsilon_schedule", lambda value: value == "multiplicative", "multiplicative"),
    "epsilon_decay_steps": ("epsilon_schedule", lambda value: value == "linear", "linear"),
    "epsilon_end": ("epsilon_schedule", lambda value: value != "constant", "linear or multiplicative"),
    "learning_rate_decay_updates": ("learning_rate_end", lambda value: value is not None, "given"),
}
"""A setting that matters only where another has a certain value: the other, the test, and that in words."""

OPTIMIZER_HPARAMS = {
    "optimizer_eps": "eps",
    "b1": "b1",
    "b2": "b2",
    "rms_decay": "decay",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
}
"""HParams fields, beside the learning rate, that are arguments of optax optimisers, and their names there."""


def asynchronous(config: Config) -> bool:
    """Whether a step waits for some of the environments only."""
    return config.pool_batch not in (None, config.num_envs)


def envs_per_step(config: Config) -> int:
    """Environments of a seed that step at a time, and so environment steps from one step to the next."""
    return config.pool_batch or config.num_envs


def own_rhythm(config: Config) -> bool:
    """Whether lanes step, train, freeze or rest each at times of its own. Batched, all branches would run for all."""
    by_episodes = config.train_unit == "episodes" or config.total_episodes is not None
    return by_episodes or config.freeze_when is not None or asynchronous(config)


def validate(config: Config, hparams: HParams) -> None:
    """Check every field and their combinations; what an environment allows is checked when it is made.

    Raises:
      ConfigError: one line naming the field and the remedy.
    """

    for field, wanted in field_types(Config).items():
        value = getattr(config, field)
        try:
            fitting = fits(wanted, value)
        except UnfitError as unfit:
            raise ConfigError(f"{field}: {value!r} is not possible; {unfit}.") from None
        if not fitting:
            raise ConfigError(f"{field}: {value!r} is not possible; use {as_type(wanted, value)!r}.")

    def require(condition: bool, field: str, remedy: str, value: Any = None) -> None:
        if not condition:
            value = getattr(config, field) if value is None else value
            raise ConfigError(f"{field}: {value!r} is not possible; {remedy}.")

    for field in [
        "num_envs",
        "action_repeat",
        "frame_stack",
        "frame_size",
        "batch_size",
        "replay_capacity",
        "train_every",
        "updates_per_train",
        "total_steps",
        "eval_every",
        "eval_episodes",
    ]:
        require(getattr(config, field) >= 1, field, "use an integer of at least 1")
    for field in ("max_episode_steps", "total_episodes"):
        require(getattr(config, field) is None or getattr(config, field) >= 1, field, "use at least 1, or leave it out")
    pieces = config.minibatch_size
    require(
        pieces is None or (pieces >= 1 and config.batch_size % pieces == 0),
        "minibatch_size",
        f"use a divisor of batch_size {config.batch_size}, or leave it out",
    )
    require(config.action_bins is None or config.action_bins >= 2, "action_bins", "use at least 2 bins")
    require(config.reward_clip is None or config.reward_clip > 0, "reward_clip", "use a positive bound")
    for field in ("sticky_actions", "eval_epsilon"):
        require(0.0 <= getattr(config, field) <= 1.0, field, "use a probability between 0 and 1")
    require(config.noop_max >= 1, "noop_max", "EnvPool plays one no-op at least: use 1 or more")
    require(
        config.pool_batch is None or 1 <= config.pool_batch <= config.num_envs,
        "pool_batch",
        f"use 1 to num_envs {config.num_envs}, or leave it out",
    )
    require(config.pool_threads >= 0, "pool_threads", "use 0 for one thread a core, or more")
    require(config.min_replay >= 0, "min_replay", "use 0 or more environment steps")
    require(
        config.batch_size <= config.replay_capacity,
        "batch_size",
        f"it is larger than replay_capacity {config.replay_capacity}: lower it or raise replay_capacity",
    )
    require(
        config.min_replay <= config.total_steps,
        "min_replay",
        f"learning would never start within total_steps {config.total_steps}: lower it or raise total_steps",
    )
    require(all(width >= 1 for width in config.hidden), "hidden", "use layer widths of at least 1")
    require(not config.dueling or config.hidden != (), "hidden", "a dueling head needs at least one hidden layer")
    require(
        config.activation in ACTIVATIONS,
        "activation",
        f"choose one of {', '.join(ACTIVATIONS)}",
    )
    require(config.eval_seed >= 0, "eval_seed", f"use 0 to {INT_MAX}")
    require(
        config.target_network or not config.double,
        "double",
        "without a target network there is no second opinion: use target_network too, or leave double out",
    )
    require(
        config.total_steps + config.eval_every + config.num_envs <= INT_MAX,
        "total_steps",
        f"with eval_every and num_envs it must stay below {INT_MAX}, for steps are counted in 32 bits",
    )
    require(
        config.lane_block >= 0 and (config.lane_block <= 1 or not own_rhythm(config)),
        "lane_block",
        "use 0 or more; 0 or 1 where each lane steps, trains, freezes or rests in its own time",
    )
    from dqn_jax.agent.optimizers import optimizer_factory

    factory, _ = optimizer_factory(config.optimizer)
    accepted = inspect.signature(factory).parameters

    for field, value in hparams._asdict().items():
        if value is None:
            require(HParams._field_defaults[field] is None, field, "give a number", "None")
            continue
        low, high, open_low = _HPARAM_RANGES[field]
        try:
            lanes = numbers(value)
        except UnfitError as unfit:
            raise ConfigError(f"{field}: {value!r} is not possible; {unfit}.") from None
        for x in lanes:
            inside = math.isfinite(x) and (x > low if open_low else x >= low) and x <= high
            bound = f"{'greater than' if open_low else 'at least'} {low:g}"
            bound += f" and at most {high:g}" if math.isfinite(high) else ""
            require(inside, field, f"use a number {bound}", x)
            try:
                check_float(x)
            except UnfitError as unfit:
                require(False, field, str(unfit), x)
            require(
                field not in INTEGER_HPARAMS or float(x).is_integer(), field, "it counts something: use an integer", x
            )
        if field in OPTIMIZER_HPARAMS and OPTIMIZER_HPARAMS[field] not in accepted:
            raise ConfigError(f"{field}: optimizer '{config.optimizer}' has no such setting; leave it out.")


_HPARAM_RANGES: dict[str, tuple[float, float, bool]] = {
    # field: (lowest, highest, whether the lowest is excluded)
    "learning_rate": (0.0, math.inf, True),
    "learning_rate_end": (0.0, math.inf, False),
    "learning_rate_decay_updates": (1, 2**31 - 1, False),
    "discount": (0.0, 1.0, False),
    "epsilon_start": (0.0, 1.0, False),
    "epsilon_end": (0.0, 1.0, False),
    "epsilon_decay_steps": (1, 2**31 - 1, False),
    "epsilon_decay": (0.0, 1.0, True),
    "target_period": (1, 2**31 - 1, False),
    "target_mixing": (0.0, 1.0, True),
    "huber_delta": (0.0, math.inf, True),
    "max_grad_norm": (0.0, math.inf, True),
    "optimizer_eps": (0.0, math.inf, False),
    "b1": (0.0, 1.0, False),
    "b2": (0.0, 1.0, False),
    "rms_decay": (0.0, 1.0, False),
    "momentum": (0.0, 1.0, False),
    "weight_decay": (0.0, math.inf, False),
}


@functools.cache
def field_types(settings: type) -> dict[str, Any]:
    """The types of the fields of `Config`, or of any other such class, by name."""
    return {name: kind for name, kind in typing.get_type_hints(settings).items() if not name.startswith("_")}
