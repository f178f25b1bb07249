"""`Config`, the static part of a run, in parts: what changes shapes or program structure.

Changing a field compiles a new program. Each function names the part that it reads, and the type checker refuses it all
others; `Config` is the parts side by side, flat. What a field may be stands beside its type (see `fields`).
"""

# Annotations are types here and not texts, for `fields` reads them: no `from __future__ import annotations`.

import dataclasses
from typing import Annotated, Literal

from dqn_jax.config.fields import Bounds, OnlyWhere
from dqn_jax.config.values import INT_MAX

Sampling = Literal["with_replacement", "without_replacement", "latest"]

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adam": ("b1", "b2", "optimizer_eps"),
    "adamw": ("b1", "b2", "optimizer_eps", "weight_decay"),
    "nadam": ("b1", "b2", "optimizer_eps"),
    "radam": ("b1", "b2", "optimizer_eps"),
    "lion": ("b1", "b2", "weight_decay"),
    "rmsprop": ("rms_decay", "momentum", "optimizer_eps"),
    "rmsprop_centered": ("rms_decay", "momentum", "optimizer_eps"),
    "sgd": ("momentum",),
}
"""Optimisers, and the hyperparameters that each has beside learning rate and clipping."""

_Count = Annotated[int, Bounds(1, remedy="use an integer of at least 1")]
_Cap = Annotated[int | None, Bounds(1, remedy="use at least 1, or leave it out")]
_Probability = Annotated[float, Bounds(0, 1, remedy="use a probability between 0 and 1")]


@dataclasses.dataclass(frozen=True)
class EnvSettings:
    """What is played, and how actions and rewards pass between environment and agent: on devices and in pools."""

    env: str = "CartPole-v1"
    """Environment by its gymnax name ('CartPole-v0' is CartPole-v1 with a 200-step cap), or by its EnvPool name
    ('Pong-v5'; 'envpool:CartPole-v1' where gymnax has the name too)."""
    max_episode_steps: _Cap = None
    """Episode cap in environment frames (default: the environment's own)."""
    action_repeat: _Count = 1
    """Frames each action is held for (frame skip); rewards are summed."""
    action_bins: Annotated[int | None, Bounds(2, remedy="use at least 2 bins")] = None
    """Evenly spaced bins for one bounded continuous action; needed by Pendulum and MountainCarContinuous."""
    reward_shift: float = 0.0
    """Added to the learnt reward of every step, before all else: with -1, and -1 for terminal_reward, CartPole's steps
    are worth nothing and its fall costs 1."""
    terminal_reward: float | None = None
    """Reward given in place of the environment's on the step that terminates (not on a time limit)."""
    time_limit_terminates: bool = False
    """Learn as if a time limit were a termination: the slip of many tutorials, here to be compared with."""
    reward_scale: float = 1.0
    """Factor on the learnt reward; logged returns stay raw."""
    reward_clip: Annotated[float | None, Bounds(0, open=True, remedy="use a positive bound")] = None
    """Clip the learnt reward to [-x, x], after scaling; logged returns stay raw."""
    sticky_actions: _Probability = 0.0
    """Probability that the previous action is repeated instead of the chosen one."""
    num_envs: _Count = 8
    """Environments each seed steps at once."""


@dataclasses.dataclass(frozen=True)
class DeviceSettings(EnvSettings):
    """What only environments on the device (gymnax) have besides."""

    env_params: tuple[tuple[str, float], ...] = ()
    """Environment parameters to change, as name value pairs, e.g. 'gravity 9.0 length 0.7'."""
    clear_replay: bool = False
    """Throw the stored transitions away after each training."""
    train_unit: Literal["env_steps", "episodes"] = "env_steps"
    """What train_every counts: environment steps, or finished episodes ('at the end of each episode')."""
    freeze_when: str | None = None
    """A training criterion (train5>195) at which a seed stops learning and acts greedily from then on."""
    total_episodes: _Cap = None
    """Training episodes per seed, after which it rests (default: no limit but total_steps)."""


@dataclasses.dataclass(frozen=True)
class PoolSettings(EnvSettings):
    """What only environments of a pool (EnvPool: Atari and others) have besides."""

    obs_key: str | None = None
    """Of a task that gives several arrays, the one to observe (default: 'image', where there is one)."""
    frame_stack: _Count = 1
    """Newest frames that make one observation; they are stacked on the device."""
    frame_size: _Count = 84
    """Height and width that Atari frames are resized to, in pixels."""
    grayscale: bool = True
    """Atari frames in grey; false: in colour, three channels each."""
    life_loss: Literal["ignore", "bootstrap", "episode"] = "ignore"
    """What losing a life does: nothing, stop the bootstrap while the game goes on, or end the episode and reset."""
    noop_max: Annotated[int, Bounds(1, remedy="EnvPool plays one no-op at least: use 1 or more")] = 30
    """Atari games start with 1 to so many no-ops."""
    fire_reset: bool = False
    """Press FIRE at the start of Atari games that wait for it."""
    full_action_space: bool = False
    """All 18 Atari actions instead of those that the game uses."""
    pool_options: tuple[tuple[str, str], ...] = ()
    """Further EnvPool options, as name value pairs, e.g. 'mode 1 difficulty 0'."""
    pool_threads: Annotated[int, Bounds(0, remedy="use 0 for one thread a core, or more")] = 0
    """Threads that step the pool (0: one for each core)."""
    pool_batch: int | None = None
    """Environments that a step waits for, the first that are ready. With fewer than num_envs the pool is asynchronous:
    none waits for the slowest, and a run's numbers are never the same twice."""
    replay_memory: Literal["device", "host"] = "device"
    """Where a pool's frames are kept: with the network, or in the host's memory, from which batches are sent."""


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The network from observations to Q-values: `networks.QNetwork`."""

    torso: Literal["auto", "mlp", "minatar", "nature", "dqn2013", "impala", "hadamax"] = "auto"
    """'mlp', 'minatar' (3x3 convolution), the pixel networks 'nature', 'dqn2013', 'impala' and 'hadamax' (which has
    GELU and layer normalisation of its own), or 'auto' (by the observation's shape: nature for pixels, minatar for
    other [H, W, C] observations)."""
    hidden: Annotated[tuple[int, ...], Bounds(1, remedy="use layer widths of at least 1")] = (120, 84)
    """Widths of the hidden dense layers."""
    activation: Literal["relu", "tanh", "gelu", "silu"] = "relu"
    """Activation of every layer but the last."""
    layer_norm: bool = False
    """Layer normalisation of every convolution's and hidden dense layer's output, before its activation."""
    dueling: bool = False
    """Dueling head: separate value and advantage streams."""
    atoms: Annotated[
        int,
        Bounds(2, remedy="use at least 2"),
        OnlyWhere("loss", "categorical", "hl_gauss", "quantile", "implicit_quantile"),
    ] = 51
    """Atoms or classes between v_min and v_max (categorical, hl_gauss), quantiles (quantile), or fractions drawn for
    each look at an observation (implicit_quantile)."""
    noisy: bool = False
    """Noisy dense layers (factorised noise, drawn anew for every batch of every network), which explore by themselves:
    lower epsilon with them."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; weights, losses and optimiser stay float32."""
    weight_init: Literal["lecun_normal", "glorot_uniform", "he_normal"] = "lecun_normal"
    """Initial weights of dense layers: flax's default, Keras's default, or He's for ReLU."""


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """How the network learns from a batch."""

    double: bool = False
    """Double Q-learning: the online network chooses the next action, the target network values it."""
    loss: Literal["squared", "huber", "categorical", "hl_gauss", "quantile", "implicit_quantile"] = "squared"
    """What is learnt of returns, and how: their mean, by the squared or Huber loss of the TD error, or as the classes
    of HL-Gauss; or their distribution, in the atoms of C51 (categorical), the quantiles of QR-DQN or those of IQN."""
    target: Literal["greedy", "expected_sarsa", "munchausen", "advantage"] = "greedy"
    """What a step is worth: the best next action; a mean over those that exploration ends with; Munchausen's soft
    policy with its log as a reward; or the best, less a share of what the action taken falls short by (advantage
    learning)."""
    optimizer: str = "adam"
    """Optimiser by its optax name (adam, rmsprop, sgd, adamw, radam, nadam, lion), or 'rmsprop_centered'."""
    target_network: bool = True
    """Whether targets come from a second network, moved by target_period and target_mixing."""


@dataclasses.dataclass(frozen=True)
class ReplaySettings:
    """What is remembered, and how much of it is looked at."""

    replay: Literal["uniform", "prioritized", "rollout"] = "uniform"
    """How the past is learnt from: transitions drawn uniformly; or by priority, the absolute TD error when each was
    last learnt from; or the newest rollout_length steps of all environments, with lambda-returns as targets, and then
    never again (PQN)."""
    replay_capacity: Annotated[_Count, OnlyWhere("replay", "uniform", "prioritized")] = 20_000
    """Transitions kept by the replay."""
    batch_size: Annotated[_Count, OnlyWhere("replay", "uniform", "prioritized")] = 128
    """Transitions drawn from the replay at a time."""
    rollout_length: Annotated[_Count, OnlyWhere("replay", "rollout")] = 32
    """Steps of each environment in a rollout. Agents train when one is full, updates_per_train times on all of it,
    newly shuffled each time."""
    minibatch_size: int | None = None
    """Transitions per gradient step: what was drawn is fitted in pieces of this size, one after another (default:
    all at once; 1 is the sample-by-sample fit of many tutorials)."""
    n_step: _Count = 1
    """Rewards summed before the bootstrap."""
    sampling: Annotated[Sampling, OnlyWhere("replay", "uniform")] = "with_replacement"
    """How a batch is drawn: uniformly with or without replacement, or the newest transitions in their order."""


@dataclasses.dataclass(frozen=True)
class RhythmSettings:
    """When an agent trains, and how many gradient steps it makes each time."""

    min_replay: Annotated[int, Bounds(0, remedy="use 0 or more environment steps")] = 1_000
    """Environment steps taken before learning starts."""
    train_every: Annotated[_Count, OnlyWhere("replay", "uniform", "prioritized")] = 8
    """Train after every so many train_unit."""
    updates_per_train: _Count = 1
    """Batches drawn and fitted each time; with a rollout, passes over it."""


@dataclasses.dataclass(frozen=True)
class ExplorationSettings:
    """How actions are chosen; the schedule of epsilon and what it counts, whose numbers are hyperparameters."""

    exploration: Literal["epsilon_greedy", "boltzmann"] = "epsilon_greedy"
    """What is chosen where epsilon's coin does not choose at random: the greatest Q-value, or by the softmax of
    Q-values over the temperature."""
    acting_network: Literal["online", "target"] = "online"
    """Whose Q-values are acted on while learning: the online network's, or the target network's, which is the same
    from one move to the next (with soft targets: the slow average)."""
    epsilon_schedule: Literal["linear", "multiplicative", "constant"] = "linear"
    """linear (over epsilon_decay_steps), multiplicative (times epsilon_decay), or constant (epsilon_start)."""
    epsilon_unit: Literal["env_steps", "updates", "trainings", "episodes"] = "env_steps"
    """What the schedule counts; 'trainings' are the times of training, each updates_per_train updates."""
    epsilon_from: Annotated[Literal["start", "learning"], OnlyWhere("epsilon_unit", "env_steps")] = "start"
    """Where environment steps are counted from: the first of all, or the first after min_replay."""


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How long an agent trains, and when, on what and how greedily it is measured."""

    total_steps: _Count = 200_000
    """Environment steps (agent decisions) per seed, warm-up included; rounded up to whole evaluations."""
    eval_every: _Count = 5_000
    """Environment steps between evaluations, per seed."""
    eval_episodes: _Count = 100
    """Episodes per evaluation, one per evaluation environment, on the same starts every time."""
    eval_epsilon: _Probability = 0.0
    """Exploration during evaluation, epsilon-greedy whatever explores in training."""
    eval_noise: Annotated[bool, OnlyWhere("noisy", True)] = False
    """Noisy layers draw noise in evaluations and films too, instead of playing by their mean weights."""
    eval_seed: Annotated[int, Bounds(0, remedy=f"use 0 to {INT_MAX}")] = 1_000_003
    """Seed of the evaluation starts."""


@dataclasses.dataclass(frozen=True)
class ExecutionSettings:
    """How lanes are laid out: numbers do not depend on it."""

    lane_block: int = 0
    """Lanes batched together on a device; blocks run one after another (0: on CPU 4 for tiny networks, else 1, and 1
    with pools; all on GPU and TPU)."""


@dataclasses.dataclass(frozen=True)
class Config(
    ExecutionSettings,
    EvaluationSettings,
    ExplorationSettings,
    RhythmSettings,
    ReplaySettings,
    RuleSettings,
    NetworkSettings,
    PoolSettings,
    DeviceSettings,
):
    """Static part of a run: its parts side by side."""


def changed(settings: object, part: type) -> list[str]:
    """The fields that `part` has of its own and that are not at their defaults in `settings`, a Config or a part."""
    return [name for name in own_fields(part) if getattr(settings, name, getattr(part, name)) != getattr(part, name)]


def own_fields(part: type) -> list[str]:
    """The names of the fields that a part has of its own, without those of the parts that it extends."""
    return list(part.__annotations__)


def asynchronous(settings: PoolSettings) -> bool:
    """Whether a step waits for some of the environments only."""
    return settings.pool_batch not in (None, settings.num_envs)


def envs_per_step(settings: PoolSettings) -> int:
    """Environments of a seed that step at a time, and so environment steps from one step to the next."""
    return settings.pool_batch or settings.num_envs


def transitions_drawn(config: Config) -> int:
    """How many make a batch: `batch_size`, or with a rollout all that it has."""
    return config.rollout_length * config.num_envs if config.replay == "rollout" else config.batch_size


def steps_between(config: Config) -> int:
    """Environment steps from one time of training to the next, where they count: `train_every`, or a rollout's."""
    return config.rollout_length * config.num_envs if config.replay == "rollout" else config.train_every


def updates_per_batch(config: Config) -> int:
    """Gradient steps made of what is drawn at a time."""
    drawn = transitions_drawn(config)
    return drawn // (config.minibatch_size or drawn)


def updates_each_time(config: Config) -> int:
    """Gradient steps of one time of training."""
    return config.updates_per_train * updates_per_batch(config)


def own_rhythm(config: Config) -> bool:
    """Whether lanes step, train, freeze or rest each at times of its own. Batched, all branches would run for all."""
    by_episodes = config.train_unit == "episodes" or config.total_episodes is not None
    return by_episodes or config.freeze_when is not None or asynchronous(config)
