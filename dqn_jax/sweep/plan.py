"""What a sweep will run, before anything runs: compile groups, how many lanes fit, and the waves they go in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from dqn_jax.config import Config, ConfigError, HParams, show
from dqn_jax.devices import free_memory, host_device, size_text
from dqn_jax.lanes.driver import driver_for
from dqn_jax.lanes.memory import lane_bytes
from dqn_jax.presets import Preset
from dqn_jax.sweep.space import Group, Space, compile_groups

_CPU_WAVE = 256  # lanes: on CPU more at once are no faster, and what is found is known earlier
_MEMORY_SHARE = 0.7  # of what is free that lanes may take; the rest is for programs and the host's part


@dataclasses.dataclass(frozen=True)
class GroupPlan:
    """How one compile group runs: its lanes, in waves, and what each takes."""

    group: Group
    settings: dict[str, Any]  # what is static in it and differs from other groups
    lanes: int  # in all
    capacity: int  # lanes of a wave
    waves: tuple[tuple[tuple[int, int], ...], ...]  # (trial, seed) of the lanes of each
    bytes_per_lane: int
    steps: int  # environment steps of a lane that spends its budget


class Confirmation(NamedTuple):
    """What comes after the search: which trials is not known yet, so these are the most that it may be."""

    trials: int
    lanes: int
    waves: int
    programs: int  # each from other evaluation starts, and so compiled anew
    lane_steps: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """How all compile groups of a search run, on which devices, in how much memory."""

    groups: tuple[GroupPlan, ...]
    devices: int
    device_kind: str
    memory: int  # bytes that lanes may take, over all devices
    most: int  # lanes at once, however little they take
    programs_because_of: dict[str, int]  # static settings that vary, with how many values

    @property
    def lanes(self) -> int:
        """How many lanes the search has in all."""
        return sum(group.lanes for group in self.groups)

    @property
    def lane_steps(self) -> int:
        """Of the search, if every lane spends its budget."""
        return sum(group.lanes * group.steps for group in self.groups)

    def confirmation(self, definition: dict[str, Any]) -> Confirmation:
        """What confirming the best may take."""
        confirm = definition.get("confirm")
        if not confirm:
            return Confirmation(0, 0, 0, 0, 0)
        seeds, known = len(confirm["seeds"]), sum(len(group.group.trials) for group in self.groups)
        trials = min(confirm["best"] * len(confirm["by"]), definition.get("samples") or known)
        lanes, programs = trials * seeds, min(trials, len(self.groups))
        most = max(1, min(self.most, *(int(self.memory // group.bytes_per_lane) for group in self.groups)))
        whole = most - most % seeds if most >= seeds else most  # a trial's seeds stay together
        waves = -(-lanes // whole) + programs - 1
        return Confirmation(trials, lanes, waves, programs, lanes * max(group.steps for group in self.groups))

    @property
    def peak_bytes(self) -> int:
        """The most that lanes take at once."""
        return max(group.capacity * group.bytes_per_lane for group in self.groups)

    def as_json(self) -> dict[str, Any]:
        """What plan.json keeps of it."""
        return {
            "devices": self.devices,
            "device_kind": self.device_kind,
            "memory_bytes": self.memory,
            "peak_bytes": self.peak_bytes,
            "lane_steps": self.lane_steps,
            "programs": len(self.groups),
            "programs_because_of": self.programs_because_of,
            "groups": [
                {
                    "settings": group.settings,
                    "trials": len(group.group.trials),
                    "lanes": group.lanes,
                    "waves": len(group.waves),
                    "capacity": group.capacity,
                    "bytes_per_lane": group.bytes_per_lane,
                }
                for group in self.groups
            ],
        }


def make_plan(
    space: Space,
    groups: Sequence[Group],
    seeds: Sequence[int],
    *,
    wave: int | None = None,
    memory: float | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Plan:
    """Cut the groups into waves of whole trials, as far as memory allows.

    Args:
      space: what varies.
      groups: from `compile_groups`.
      seeds: of every trial.
      wave: most lanes at once (default: on CPU 256, on an accelerator what fits).
      memory: bytes for all lanes (default: most of what is free).
      devices: that they run on (default: all).

    Raises:
      ConfigError: if not even one lane fits on each device.
    """
    devices = list(devices if devices is not None else jax.local_devices())
    if wave is not None and wave < 1:
        raise ConfigError(f"wave: {wave} is not possible; use 1 or more lanes, or leave it out.")
    # Where lanes take their room; groups with replays in different places share the smaller limit.
    hosted = {group.config.replay_memory == "host" for group in groups}
    free = min(free_memory([host_device()] if in_host else devices) for in_host in hosted)
    limit = int(free * _MEMORY_SHARE) if memory is None else int(memory)
    most = wave or (_CPU_WAVE if devices[0].platform == "cpu" else 2**31)
    planned = []
    static = [name for name in space if name not in HParams._fields]
    # Hyperparameters that are left out in some trials split groups as well.
    optional = [name for name in space if len({trial.point[name] is None for g in groups for trial in g.trials}) > 1]
    for group in groups:
        bytes_per_lane = lane_bytes(group.config, group.trials[0].hparams)
        fits = limit // bytes_per_lane
        if fits < 1:
            raise ConfigError(
                f"memory: one lane takes {size_text(bytes_per_lane)} and there are {size_text(limit)}; lower "
                "replay_capacity (or num_envs, hidden), or give --memory-gb if you know better."
            )
        lanes = [(trial.number, seed) for trial in group.trials for seed in seeds]
        capacity = min(len(lanes), most, fits)
        # Waves of equal size, not full ones and a small rest; a trial's seeds stay together where they fit.
        together = len(seeds) if capacity >= len(seeds) else 1
        waves = -(-len(lanes) // (capacity - capacity % together))
        capacity = -(-len(lanes) // (waves * together)) * together
        cuts = range(0, len(lanes), capacity)
        point = group.trials[0].point
        planned.append(
            GroupPlan(
                group=group,
                settings={name: point[name] for name in (*static, *(n for n in optional if n not in static))},
                lanes=len(lanes),
                capacity=capacity,
                waves=tuple(tuple(lanes[cut : cut + capacity]) for cut in cuts),
                bytes_per_lane=bytes_per_lane,
                steps=_steps(group.config),
            )
        )
    because = {name: len({trial.point[name] for g in groups for trial in g.trials}) for name in static}
    because |= {name: 2 for name in optional if name not in static}
    kind = devices[0].device_kind
    return Plan(tuple(planned), len(devices), kind, limit, most, {k: v for k, v in because.items() if v > 1})


def fitted(config: Config) -> Config:
    """The same run with a replay no larger than it can ever fill: the numbers are the same, the memory is less."""
    return dataclasses.replace(
        config, replay_capacity=min(config.replay_capacity, max(_steps(config), config.batch_size))
    )


def _steps(config: Config) -> int:
    """Environment steps that a lane takes at most."""
    return driver_for(config).rhythm.last_step


def fitted_groups(
    preset: Preset, space: Space, drawn: Sequence[dict[str, Any]], numbers: Sequence[int] | None = None
) -> list[Group]:
    """Compile groups of points, under their numbers; replays no larger than they can fill."""
    numbers = range(len(drawn)) if numbers is None else numbers
    return [
        Group(fitted(group.config), tuple(trial._replace(number=numbers[trial.number]) for trial in group.trials))
        for group in compile_groups(preset, space, drawn)
    ]


def describe(plan: Plan, settings: dict[str, Any]) -> list[str]:
    """The plan in a few lines, for a person."""
    trials = sum(len(group.group.trials) for group in plan.groups)
    many = f"{len(plan.groups)} programs" if len(plan.groups) > 1 else "1 program"
    lines = [
        f"{trials} trials x {len(settings['seeds'])} seeds = {plan.lanes} lanes on {plan.devices} x {plan.device_kind};"
        f" {many} to compile; at most {size_text(plan.peak_bytes)} at once of {size_text(plan.memory)}"
    ]
    if plan.programs_because_of:
        causes = ", ".join(f"{name} ({count} values)" for name, count in plan.programs_because_of.items())
        lines.append(f"programs differ by: {causes}; everything else varies within a program")
    shown = plan.groups if len(plan.groups) <= 12 else plan.groups[:10]
    for group in shown:
        name = ", ".join(f"{k}={show(v)}" for k, v in group.settings.items()) or "all"
        lines.append(
            f"  {name}: {len(group.group.trials)} trials, {group.lanes} lanes in {len(group.waves)} wave"
            f"{'s' if len(group.waves) > 1 else ''} of up to {group.capacity}, {size_text(group.bytes_per_lane)} a lane"
        )
    if len(shown) < len(plan.groups):
        lines.append(f"  ... and {len(plan.groups) - len(shown)} more")
    steps, confirmation = plan.lane_steps, plan.confirmation(settings)
    if confirmation.lanes:
        steps += confirmation.lane_steps
        lines.append(
            f"then the best again on {len(settings['confirm']['seeds'])} held-out seeds: up to {confirmation.trials} "
            f"trials, {confirmation.lanes:,} lanes in {confirmation.waves} wave{'s' * (confirmation.waves > 1)}, "
            f"{confirmation.programs} more program{'s' * (confirmation.programs > 1)}"
        )
    fewer = settings.get("stop") != "budget" or settings.get("prune")
    lines.append(
        f"{'at most ' if fewer else ''}{steps:,} environment steps over all lanes"
        f"{'; fewer, as lanes leave before their budget ends' if fewer else ''}"
    )
    return lines
