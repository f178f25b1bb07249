"""What each command of the command line takes; `arguments` reads these, their types and their texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from dqn_jax.cli.arguments import WORDS, Short
from dqn_jax.config import (
    Config,
    DeviceSettings,
    EnvSettings,
    EvaluationSettings,
    ExecutionSettings,
    ExplorationSettings,
    HParams,
    NetworkSettings,
    PoolSettings,
    ReplaySettings,
    RhythmSettings,
    RuleSettings,
    own_fields,
)
from dqn_jax.config.fields import EACH, Flag
from dqn_jax.sweep.question import Question


@dataclasses.dataclass
class Train:
    """Train one agent per seed, all at once, and write curves, summary, film and checkpoints."""

    preset: Annotated[str, WORDS]
    """A preset or an environment; 'dqn-jax list' shows all. Required, but for --resume."""
    config: Config
    hparams: HParams
    seeds: int
    """How many seeds."""
    criteria: tuple[str, ...]
    """Convergence criteria; the first one decides --stop. E.g. eval:475x3 train100:195 epsilon:0.01, or with a
    comparison, in quotes for the shell: 'eval>=475x3' 'epsilon<=0.01'. With x3 a time is that of the third in a
    row: first passage, which is not settling."""
    seed: int = 0
    """The first seed."""
    protocol: str | None = None
    """Play Atari as a paper does: nature, dopamine, machado or cleanrl; sets every knob of the game and of its
    evaluation, and further options change those. 'dqn-jax list' shows what."""
    out: Path | None = None
    """Folder of this run (default: runs/<name>/<stamp>)."""
    resume: bool = False
    """Go on with the run in --out, or with the newest run in runs/ (of this preset, if one is named). Its own settings
    are the defaults; --total-steps, --max-minutes, --stop and --criteria may be others."""
    weights: Path | None = None
    """Start from the networks of this run instead of fresh ones; replay, optimiser and exploration start anew."""
    checkpoint: Literal["last", "best"] = "last"
    """Which networks of --weights: the last, or each seed's best by its evaluations in training."""
    stop: Literal["budget", "converged"] = "budget"
    """'converged' ends the run once every seed has met the first criterion; total_steps is the cap."""
    max_minutes: float | None = None
    """Minutes of running, evaluations included, that bound the run (on a device by whole evaluations, at least one); a
    resumed run counts on."""
    save_episodes: bool = False
    """Also write episodes.csv, one row per finished training episode."""
    wandb: str | None = None
    """Log means over the seeds to this Weights & Biases project (needs the extra [wandb])."""
    json: bool = False
    """Print summary.json to standard output, and nothing else there."""


@dataclasses.dataclass
class Sweep:
    """Vary settings: many of them times many seeds train at once, and a report says how fast each converges."""

    preset: Annotated[str, WORDS]
    """What is varied: a preset or an environment; 'dqn-jax list' shows all. Required, but for --resume."""
    config: Config
    hparams: HParams
    question: Question
    wave: int | None = None
    """Most lanes at once (default: 256 on CPU, on an accelerator what fits)."""
    memory_gb: float | None = None
    """Memory for lanes (default: most of what is free)."""
    out: Path | None = None
    """Folder of this sweep (default: sweeps/<name>/<stamp>)."""
    resume: bool = False
    """Go on with the sweep in --out, or with the newest in sweeps/ (of this preset or --name, if given). What was asked
    is the default; --confirm may be added, and where it keeps the numbers more --samples and --seeds."""
    url: Annotated[str | None, Flag("--store")] = None
    """Keep the records in this database (SQLAlchemy URL, e.g. postgresql+psycopg://host/db); others can join there.
    A command line shows to everybody on the machine: leave the password to $PGPASSWORD, or the whole URL to another
    environment variable, e.g. --store env:DQN_JAX_STORE. No file or page holds it."""
    join: str | None = None
    """Work on the sweep in this database, asked elsewhere; give --name if there are several. All else is known."""
    engine: Literal["local", "ray"] = "local"
    """'ray' runs waves as tasks of a Ray cluster (needs the extra [cluster], and --store)."""
    workers: int | None = None
    """With --engine ray, tasks at once (default: one for each node)."""
    plan: bool = False
    """Only print what would run."""
    json: bool = False
    """Print the ranked trials as JSON to standard output, and nothing else there."""


@dataclasses.dataclass
class Join:
    """Work on a sweep that was asked elsewhere, by its database alone."""

    join: str
    """The database, as given to --store: a URL, or env:NAME if the environment variable NAME holds it."""
    name: str | None = None
    """Name of the sweep, if the database has several."""


@dataclasses.dataclass
class Report:
    """Write one page about a sweep or a run, or compare two: ranking, intervals, figures, cost, provenance."""

    path: Annotated[tuple[Path, ...], WORDS]
    """One or two folders of sweeps or runs, or above them (then the newest in each)."""
    output: Annotated[Path | None, Short("-o")] = None
    """Folder for report.html, trials.csv and figures/ (default: report/ in the sweep; ./report to compare)."""
    by: Literal["env_steps", "updates", "episodes", "seconds", "final_return", "settled"] = "env_steps"
    """What trials are ranked by; settled: by the time to settle, as if that were the first criterion."""
    criteria: tuple[str, ...] = ()
    """Read the recorded evaluations by these criteria instead of the sweep's own; the first one decides. E.g.
    settled95%:475."""
    label: Annotated[tuple[str, ...], EACH] = ()
    """What a sweep or run is called; once for each, in their order (default: its name, and what sets it apart)."""
    csv: bool = False
    """Print the ranked table as CSV to standard output, and nothing else; writes files only with --output."""
    json: bool = False
    """Print the report as JSON to standard output, and nothing else; writes files only with --output."""


@dataclasses.dataclass
class Evaluate:
    """Play fresh episodes with every seed's trained agent."""

    run: Annotated[Path, WORDS]
    """Folder of a run or a sweep, or one above it (then the newest in it)."""
    trial: int | None = None
    """Of a sweep, which of the trials that it confirmed (default: the winner)."""
    checkpoint: Literal["last", "best"] = "last"
    """Which networks: the last, or each seed's best by its evaluations in training."""
    episodes: int = 100
    """Episodes per seed."""
    epsilon: float | None = None
    """Exploration (default: that of the run's own evaluations); 0 is the greedy policy."""
    eval_seed: int = 2_000_003
    """Seed of the starts; another than in training, so that these episodes are new."""
    json: bool = False
    """Print the result as JSON to standard output, and nothing else there."""


@dataclasses.dataclass
class Record:
    """Film one episode of a trained agent, or of a random policy on the same environment."""

    run: Annotated[Path, WORDS]
    """Folder of a run or a sweep, or one above it (then the newest in it)."""
    output: Annotated[Path, Short("-o")] = Path("film.gif")
    """The film: .gif or .mp4."""
    checkpoint: Literal["last", "best"] = "last"
    """Which networks: the last, or the seed's best by its evaluations in training."""
    trial: int | None = None
    """Of a sweep, which of the trials that it confirmed (default: the winner)."""
    seed: int | None = None
    """Which seed's agent (default: the one with the median final evaluation)."""
    random: bool = False
    """Film a policy that chooses at random."""
    start: int = 0
    """Seed of the episode's start."""
    q_values: bool = False
    """Draw the Q-values of all actions beside the picture."""


@dataclasses.dataclass
class Plot:
    """Draw the curves of one or several runs."""

    run: Annotated[tuple[Path, ...], WORDS]
    """Folders of runs, or above them (then the newest run in each)."""
    output: Annotated[Path, Short("-o")] = Path("curves.png")
    """The figure: .png, .svg or .pdf."""
    x: Literal["env_steps", "updates", "episodes", "seconds"] = "env_steps"
    """Horizontal axis."""
    y: Literal["eval_return", "train_return", "eval_length", "loss", "td_error", "q_mean", "epsilon"] = "eval_return"
    """Vertical axis."""
    aggregate: Literal["mean", "iqm"] = "mean"
    """Mean or interquartile mean over the seeds."""
    label: Annotated[tuple[str, ...], EACH] = ()
    """What a run is called; once for each, in their order (default: its name, and what sets it apart)."""


@dataclasses.dataclass
class Benchmark:
    """Measure speed: medians of several runs, and ratios from one process or from pinned pairs."""

    parts: Annotated[
        tuple[
            Literal["update", "population", "cold", "env", "sweep", "family", "minatar", "pqn", "atari", "replay"], ...
        ],
        WORDS,
    ] = (
        "update",
        "population",
        "cold",
        "env",
    )
    """What to measure."""
    repeats: int = 5
    """Runs of each, of which the median counts."""
    out: Path | None = None
    """Also write the table to this CSV file."""


@dataclasses.dataclass
class List:
    """Show the presets, environments, protocols and criteria, or those that a word is in; or one preset's settings."""

    word: Annotated[str | None, WORDS] = None
    """Show only what this word is in; of a preset or an environment, also its settings."""


@dataclasses.dataclass
class Help:
    """Explain a command."""

    command: Annotated[str | None, WORDS] = None
    """The command."""


_ENV, _POOL, _NETWORK = "environment", "Atari and other environments of a pool (EnvPool)", "network"
_RULE, _REPLAY, _EXPLORATION = "learning rule", "replay and cadence", "exploration"
_EVALUATION, _RUNNING = "budget and evaluation", "run"

_SETTINGS = {
    _ENV: (
        "env env_params max_episode_steps action_repeat action_bins reward_shift terminal_reward time_limit_terminates "
        "reward_scale reward_clip sticky_actions num_envs"
    ),
    _POOL: (
        "protocol obs_key frame_stack frame_size grayscale life_loss noop_max fire_reset full_action_space "
        "pool_options pool_threads pool_batch"
    ),
    _NETWORK: "torso hidden activation dueling compute_dtype weight_init",
    _RULE: (
        "double loss huber_delta discount n_step optimizer learning_rate learning_rate_end learning_rate_decay_updates "
        "max_grad_norm optimizer_eps b1 b2 rms_decay momentum weight_decay target_network target_period target_mixing"
    ),
    _REPLAY: (
        "replay replay_capacity batch_size priority_exponent priority_eps importance_exponent importance_exponent_end "
        "importance_anneal_updates rollout_length trace_decay minibatch_size replay_memory sampling "
        "clear_replay min_replay train_unit train_every updates_per_train freeze_when"
    ),
    _EXPLORATION: (
        "epsilon_schedule epsilon_unit epsilon_from epsilon_start epsilon_end epsilon_decay_steps epsilon_decay"
    ),
    _EVALUATION: (
        "total_steps total_episodes max_minutes stop criteria eval_every eval_episodes eval_epsilon eval_seed"
    ),
}
_RUN = "seeds seed out resume weights checkpoint save_episodes wandb lane_block json"
_SWEEP = "vary sampler samples sample_seed batch seeds seed stability_steps prune prune_eta"
_CONFIRM = "confirm confirm_best confirm_by"
_SWEEP_RUN = "name out resume url join engine workers wave memory_gb lane_block plan json"

_TOPIC_OF: dict[type, str] = {
    EnvSettings: _ENV,
    DeviceSettings: _ENV,
    PoolSettings: _POOL,
    NetworkSettings: _NETWORK,
    RuleSettings: _RULE,
    ReplaySettings: _REPLAY,
    RhythmSettings: _REPLAY,
    ExplorationSettings: _EXPLORATION,
    EvaluationSettings: _EVALUATION,
    ExecutionSettings: _RUNNING,
    HParams: _RULE,
}


def _sorted_out(topics: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Names by topic; a setting that none of them names stands last in that of its part."""
    found = {topic: names.split() for topic, names in topics.items()}
    named = {name for names in found.values() for name in names}
    for part, topic in _TOPIC_OF.items():
        found[topic] += [name for name in own_fields(part) if name not in named]
    return dict(found)


TOPICS: dict[str, dict[str, Sequence[str]]] = {
    "train": _sorted_out({_RUNNING: _RUN, **_SETTINGS}),
    "sweep": _sorted_out({"what varies": _SWEEP, "confirmation": _CONFIRM, _RUNNING: _SWEEP_RUN, **_SETTINGS}),
}
"""Options of a command by topic, in the order of its help."""

COMMANDS: dict[str, Any] = {
    "list": List,
    "train": Train,
    "sweep": Sweep,
    "report": Report,
    "evaluate": Evaluate,
    "record": Record,
    "plot": Plot,
    "benchmark": Benchmark,
    "help": Help,
}
