"""What a sweep found, as tables, and the statistics of each of its trials.

A *trial* is one point of the search space; a *lane* is one trial with one seed; a *curve* is a lane's evaluations.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import convert

from dqn_jax import convergence
from dqn_jax.config import Config, ConfigError, HParams, suggest
from dqn_jax.envs.bounds import value_bound
from dqn_jax.presets import Preset, with_overrides
from dqn_jax.runs import load_metrics, load_provenance, load_settings, load_summary
from dqn_jax.runs.schemas import Devices, Provenance
from dqn_jax.sweep import records
from dqn_jax.sweep.rejudged import judged, settling_of, with_settling
from dqn_jax.sweep.tables import CLOCKS, CURVE_COLUMNS, LANE_COLUMNS, MEASURES, RANKINGS, SWEEP_FILES, SweepData

if TYPE_CHECKING:
    import pandas as pd

_WORST = 0.1  # the quantile over seeds that says how bad it can get


def find(path: Path) -> Path:
    """The folder of the sweep or the run at `path`, or of the newest one below it.

    Raises:
      ConfigError: if there is none.
    """
    if not path.exists():
        raise ConfigError(f"report: {path} does not exist; give the folder of a sweep or a run.")
    names = (*SWEEP_FILES, "config.json")
    found = [file.parent for depth in ("", "*/", "*/*/") for name in names for file in path.glob(depth + name)]
    if not found:
        raise ConfigError(f"report: {path} holds no sweep and no run; give a folder with sweep.json or config.json.")
    return path if path in found else max(found, key=lambda folder: (folder.name, folder.stat().st_mtime))


def load(path: Path) -> SweepData:
    """The sweep or the run that `find` finds.

    Raises:
      ConfigError: if there is none, or it is a run that has not finished.
    """
    folder = find(path)
    if not any((folder / name).is_file() for name in SWEEP_FILES):
        return of_run(folder)
    return records.load_data(folder)


def of_run(run: Path) -> SweepData:
    """A run as a sweep with one trial.

    Raises:
      ConfigError: if it has not finished.
    """
    import pandas as pd

    settings, summary = load_settings(run), load_summary(run)
    if summary is None or not summary["complete"]:
        raise ConfigError(f"report: {run} has no finished lanes yet (it was stopped); go on with --resume --out {run}.")
    metrics = load_metrics(run, settings.seeds, {"env_steps", "updates", "episodes", "seconds", "eval_return"})
    if list(settings.seeds) != summary["seeds"]:
        raise ConfigError(f"report: the files in {run} are of different seeds; choose another run.")
    provenance = load_provenance(run, lambda line: print(f"dqn-jax: {line}", file=sys.stderr))
    try:
        told = convert(provenance, Provenance).devices
    except ValueError:
        told = Devices()
    devices = min(told.count, len(settings.seeds))  # at work: a lane is on one device
    lanes, curves = _lanes_of_run(summary, devices, metrics)
    config = dataclasses.asdict(settings.config)
    spent = summary["env_steps"] >= config["total_steps"]
    asked = {
        "name": settings.name,
        "preset": settings.name,
        "vary": {},
        "seeds": list(settings.seeds),
        "criteria": list(settings.criteria),
        "stop": "budget" if spent or config["total_episodes"] else "converged",
        "config": config,
        "hparams": settings.hparams._asdict(),
    }
    plan = {
        "devices": devices,
        "device_kind": told.kind,
        "compiled": [{"seconds": summary["seconds"]["compile"]}],
    }
    trials = pd.DataFrame(index=pd.RangeIndex(1, name="trial"))
    return SweepData(
        name=settings.name,
        settings=asked,
        plan=plan,
        provenance=provenance,
        trials=trials,
        lanes=lanes,
        curves=curves,
    )


def _lanes_of_run(summary: dict[str, Any], devices: int, metrics: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    seeds = summary["seeds"]
    share = devices / len(seeds)  # of the run's seconds: all lanes worked for all of them
    curves = metrics.assign(trial=0, phase="search", seconds=metrics["seconds"] * share)
    curves = curves[list(CURVE_COLUMNS)].astype(CURVE_COLUMNS)
    last = curves.groupby("seed", sort=False).last()
    criteria = [c | {"seconds": [None if s is None else s * share for s in c["seconds"]]} for c in summary["criteria"]]
    nothing = {key: [None] * len(seeds) for key in ("env_steps", "updates", "episodes", "seconds", "stability")}
    first = criteria[0] if criteria else nothing
    times = {f"converged_{key}": pd.Series(first[key], dtype="float64").to_numpy() for key in CLOCKS}
    moments = [
        [None if c["env_steps"][i] is None else [c[key][i] for key in CLOCKS] for c in criteria]
        for i in range(len(seeds))
    ]
    table = {
        "trial": 0,
        "seed": seeds,
        "phase": "search",
        "status": ["diverged" if seed in summary["diverged"] else "budget" for seed in seeds],
        **{key: last[key].to_numpy() for key in ("env_steps", "updates", "episodes")},
        "device_seconds": last["seconds"].to_numpy(),
        "converged": np.isfinite(times["converged_env_steps"]),
        **times,
        "stability": pd.Series(first["stability"], dtype="float64").to_numpy(),
        "final_return": last["eval_return"].to_numpy(),
        "best_return": curves.groupby("seed", sort=False)["eval_return"].max().to_numpy(),
        "moments": [json.dumps(moment) for moment in moments],
    }
    return pd.DataFrame(table)[list(LANE_COLUMNS)].astype(LANE_COLUMNS), curves


def finished(data: SweepData) -> SweepData:
    """Only the trials that have all their seeds, so that no statistic is over the seeds that happened to be fast.

    In a sweep that still runs, the lanes that have finished are the ones that converged first.
    """
    asked = {"search": data.settings["seeds"], "confirm": (data.settings.get("confirm") or {"seeds": ()})["seeds"]}
    needed = data.lanes["phase"].map({phase: len(seeds) for phase, seeds in asked.items()}).astype("int64")
    counts = data.lanes.groupby(["phase", "trial"])["seed"].transform("size").astype("int64")
    whole = data.lanes[counts >= needed].reset_index(drop=True)
    kept = whole[["phase", "trial"]].drop_duplicates()
    return dataclasses.replace(data, lanes=whole, curves=data.curves.merge(kept, on=["phase", "trial"]))


def value_bounds(data: SweepData) -> np.ndarray:
    """`[lanes]`, what the mean Q-value of each cannot pass (see `bounds.value_bound`); NaN where nothing bounds it."""
    preset = Preset(data.name, "", Config(**data.settings["config"]), HParams(**data.settings["hparams"]))
    seeds = list(data.settings["seeds"])
    bounds: dict[int, np.ndarray] = {}
    for trial, point in zip(data.trials.index, data.trials.to_dict("records"), strict=True):
        given = {str(name): None if value != value else value for name, value in point.items()}
        changed = with_overrides(preset, given)
        bounds[int(trial)] = value_bound(changed.config, changed.hparams, len(seeds))
    own = [
        # A run's lanes may differ in discount; those of a sweep's trial do not, whichever their seeds.
        bounds[trial][seeds.index(seed) if seed in seeds else 0]
        for trial, seed in data.lanes[["trial", "seed"]].itertuples(index=False)
    ]
    return np.asarray(own, np.float64)


def above_bound(data: SweepData) -> np.ndarray:
    """`[lanes]`, bool, whether a lane's mean Q-value was ever beyond what a value can be."""
    furthest = data.curves["q_mean"].abs().groupby([data.curves[key] for key in ("phase", "trial", "seed")]).max()
    reached = furthest.reindex(list(data.lanes[["phase", "trial", "seed"]].itertuples(index=False, name=None)))
    return reached.to_numpy(np.float64) > value_bounds(data)


def halves(settings: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Held-out seeds in two: those that choose among the finalists, and those whose numbers are reported.

    What leads on some seeds is flattered by them, held out or not: with several finalists the numbers of the chosen
    one are of seeds that had no say. A single finalist is chosen by the search (no seeds in the first half). In sweeps
    from before there were halves all seeds did both.
    """
    confirm = settings.get("confirm") or {"seeds": ()}
    seeds = list(confirm["seeds"])
    if "choosing" not in confirm:
        return seeds, seeds
    return seeds[: confirm["choosing"]], seeds[confirm["choosing"] :]


def in_phase(settings: dict[str, Any], table: pd.DataFrame, phase: str) -> pd.DataFrame:
    """Rows (of lanes or curves) of the search, or of the confirmation: "choice", on the seeds that choose among the
    finalists; "confirm", on the seeds that are reported."""
    if phase == "search":
        return table[table["phase"] == phase]
    choosing, reported = halves(settings)
    return table[(table["phase"] == "confirm") & table["seed"].isin(choosing if phase == "choice" else reported)]


def budgets(lanes: pd.DataFrame, clock: str, total_steps: int) -> np.ndarray:
    """What the whole budget of environment steps costs each lane on the clock, `[S]`, whatever became of others.

    One that spent it has told. One that left early (diverged, pruned or converged) would have gone on at its own pace.
    """
    own, steps = lanes[CLOCKS[clock]].to_numpy(np.float64), lanes["env_steps"].to_numpy(np.float64)
    if clock == "env_steps":
        return np.maximum(own, total_steps)
    early = (lanes["status"] != "budget").to_numpy()
    return own * np.where(early, np.maximum(total_steps / np.maximum(steps, 1), 1.0), 1.0)


def horizon(data: SweepData, clock: str = "env_steps") -> float:
    """How long the longest lane had: where axes end. No trial is charged with it but by the lane itself."""
    return float(budgets(data.lanes, clock, data.settings["config"]["total_steps"]).max())


def outcomes(lanes: pd.DataFrame, clock: str, total_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each lane met the first criterion, or how long it is known not to have.

    A lane that spent its budget or diverged will never converge, so it counts as not converged up to its own cost of
    the whole budget, however early it left: to treat a diverged one as merely lost from sight would flatter its
    settings. One that was pruned might have converged later; it is censored where it was pruned.

    Args:
      lanes: S of them.
      clock: one of CLOCKS.
      total_steps: their budget.

    Returns:
      times `[S]`, converged `[S]`, and their own costs of the whole budget `[S]`.
    """
    ends, converged = budgets(lanes, clock, total_steps), lanes["converged"].to_numpy(bool)
    pruned = (lanes["status"] == "pruned").to_numpy()
    seen = f"unmet_{clock}" if f"unmet_{clock}" in lanes else CLOCKS[clock]  # see `rejudged`
    unmet = np.where(pruned, lanes[seen].to_numpy(np.float64), ends)
    return np.where(converged, lanes[f"converged_{clock}"].to_numpy(np.float64), unmet), converged, ends


def with_scores(data: SweepData) -> pd.DataFrame:
    """The lanes, with `score` (final return) and `area` (under the evaluation curve, as its mean over the budget).

    Both are NaN unless the lane had the whole budget to get there: a curve that was cut where it converged or was
    pruned has neither. A diverged lane counts with the lowest evaluation that the sweep has seen, from where it
    diverged to the end.
    """
    lanes = data.lanes.assign(score=np.nan, area=np.nan)
    if data.settings["stop"] != "budget":
        return lanes
    end, lowest = horizon(data), float(data.curves["eval_return"].min())
    steps, returns = (data.curves[name].to_numpy(np.float64) for name in ("env_steps", "eval_return"))
    rows_of = data.curves.groupby(["phase", "trial", "seed"]).indices
    area = np.full(len(lanes), np.nan)
    for i, (phase, trial, seed, status) in enumerate(
        lanes[["phase", "trial", "seed", "status"]].itertuples(index=False)
    ):
        rows = rows_of.get((phase, trial, seed), np.empty(0, int))
        x, y = steps[rows], np.nan_to_num(returns[rows], nan=lowest)
        if status == "diverged":
            x, y = np.r_[x, x[-1:], end], np.r_[y, lowest if len(x) else [], lowest]
        if len(x) > 1 and x[-1] > x[0]:
            area[i] = convergence.area_under_curve(x, y)
    whole = lanes["status"] != "pruned"
    score = lanes["final_return"].where(lanes["status"] != "diverged", lowest)
    return lanes.assign(score=score.where(whole), area=np.where(whole, area, np.nan))


def ranked(data: SweepData, by: str = "env_steps", phase: str = "search") -> pd.DataFrame:
    """Finished trials, best first, one row each; every estimate `x` has its 95 % interval in `x_low` and `x_high`.

    Phases: "search"; "confirm", the finalists on the held-out seeds that are reported, in the order that the others
    gave them; "choice", the finalists on those others (see `halves`).

    Columns: rank, trial, what varies, then
      lanes, converged, diverged, pruned: how many seeds, and how they ended (diverged ones may have converged before);
      share: of lanes converged;
      time: restricted mean time to convergence on the clock: a lane that does not converge counts with what its whole
        budget costs it (see `budgets`), so that no trial's time depends on another's;
      per_solved: what all lanes of the trial took together for each that converged; infinite if none did;
      median: Kaplan-Meier median time, NaN if fewer than half converged;
      stability: share of the evaluations after first passage that met the threshold, mean over seeds that got there
        and went on;
      settled, settled_share, settled_time: how many seeds settled, their share of all, and the restricted mean of the
        environment steps that took. None and NaN where lanes left early, or criteria are not about returns;
      final: interquartile mean of the final return; worst: its 10 % quantile over seeds (an interval needs 36);
        final_mean: its mean; lowest: that of the worst seed; area: mean over the budget. NaN unless every lane had the
        whole budget;
      lane_seconds: device-seconds a lane took on average; device_seconds: all of them together.

    The best by environment steps have the smallest time; by other clocks the smallest cost per solved seed. By
    "settled" they are ranked by environment steps as if settling were the first criterion.

    A trial of which a seed still runs is left out (see `finished`); without any finished trial there are no rows and no
    columns. An end of an interval that nothing is known about is NaN (see convergence/intervals): both with one seed,
    and where all seeds agree. Trials of equal time are in order of the share converged, then (of settling) of what
    held, then of their best evaluations.

    Raises:
      ConfigError: if they cannot be ranked by this.
    """
    import pandas as pd

    if by not in RANKINGS:
        raise ConfigError(f"by: there is no ranking by '{by}'.{suggest(by, RANKINGS)} Choose {', '.join(RANKINGS)}.")
    if by == "final_return" and data.settings["stop"] != "budget":
        raise ConfigError("by: lanes left when they converged, so final returns say nothing; rank by a time instead.")
    data, by = judged(data, by)
    settles = any(criterion.settles for criterion in convergence.parse_criteria(data.settings["criteria"][:1]))
    seen = settling_of(data) is not None
    data, rows = with_settling(finished(data)), []
    if in_phase(data.settings, data.lanes, phase).empty:
        return pd.DataFrame()
    clock = "env_steps" if by == "final_return" else by
    budget, lanes = data.settings["config"]["total_steps"], in_phase(data.settings, with_scores(data), phase)
    for trial, own in lanes.groupby("trial"):
        times, converged, ends = outcomes(own, clock, budget)
        result = convergence.time_to_convergence(times, converged, ends)
        row: dict[str, Any] = {
            "trial": trial,
            "lanes": len(own),
            "converged": int(converged.sum()),
            "diverged": int((own["status"] == "diverged").sum()),
            "pruned": int((own["status"] == "pruned").sum()),
            **_estimate("share", result.share, result.share95),
            **_estimate("time", result.restricted_mean, result.restricted_mean95),
            **_estimate("per_solved", result.per_solved, result.per_solved95),
            **_estimate("median", result.median, result.median95),
        }
        score = own["score"].to_numpy(np.float64)
        score = np.full(len(score), np.nan) if np.isnan(score).any() else score  # none of these over some seeds only
        held = own["stability"].dropna().to_numpy(np.float64)
        row |= _estimate("stability", held.mean() if len(held) else None, convergence.held_interval(held))
        row |= _settled(own, budget, seen=seen and not row["pruned"])
        row |= _estimate("final", convergence.interquartile_mean(score), convergence.interquartile_mean_interval(score))
        row |= _mean("final_mean", pd.Series(score)) | {"lowest": float(score.min())}
        row |= _estimate("worst", float(np.quantile(score, _WORST)), _quantile_interval(score))
        row |= _mean("area", own["area"]) | _mean("lane_seconds", own["device_seconds"])
        row["device_seconds"] = float(own["device_seconds"].sum())
        row["best_return"] = float(own["best_return"].mean())
        rows.append(row)
    table = pd.DataFrame(rows)
    keys = {MEASURES[by] if by != "final_return" else "time": True, "share": False}
    keys |= {"stability": False} if settles else {}
    keys |= {"best_return": False, "trial": True}
    if by == "final_return":
        keys = {"final": False, **keys}
    table = table.sort_values(list(keys), ascending=list(keys.values()), ignore_index=True)
    choosing, reported = halves(data.settings)
    if phase == "confirm" and choosing != reported:
        chosen = ranked(data, by, "choice" if choosing else "search")["trial"]
        table = table.set_index("trial").loc[chosen[chosen.isin(table["trial"])]].reset_index()
    varied = data.trials.loc[table["trial"]].reset_index(drop=True)
    table = pd.concat([table[["trial"]], varied, table.drop(columns=["trial", "best_return"])], axis=1)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def _settled(own: pd.DataFrame, budget: float, *, seen: bool) -> dict[str, Any]:
    """How many of a trial's lanes settled, and in how many environment steps; nothing where their end was not seen."""
    if not seen:
        nothing = (None, (None, None))
        return {"settled": np.nan, **_estimate("settled_share", *nothing), **_estimate("settled_time", *nothing)}
    times = own["settled_env_steps"].to_numpy(np.float64)
    settled = ~np.isnan(times)
    ends = np.maximum(own["env_steps"].to_numpy(np.float64), budget)
    found = convergence.time_to_convergence(np.where(settled, times, ends), settled, ends)
    return {
        "settled": int(settled.sum()),
        **_estimate("settled_share", found.share, found.share95),
        **_estimate("settled_time", found.restricted_mean, found.restricted_mean95),
    }


def _estimate(name: str, value: float | None, interval: Any) -> dict[str, float]:
    numbers = (value, *interval)
    return {
        name + end: np.nan if number is None else float(number)
        for end, number in zip(("", "_low", "_high"), numbers, strict=True)
    }


def _mean(name: str, values: pd.Series) -> dict[str, float]:
    """A mean over seeds with its interval; NaN if a seed has no value."""
    numbers = values.to_numpy(np.float64)
    return (
        _estimate(name, numbers.mean(), convergence.mean_interval(numbers))
        if len(numbers)
        else _estimate(name, None, (None, None))
    )


def _quantile_interval(scores: np.ndarray) -> tuple[float, float]:
    """Both ends or none: of a few seeds the lower end is unknown, which is the one that matters."""
    interval = convergence.quantile_interval(scores, _WORST)
    return (np.nan, np.nan) if np.isnan(interval).any() else interval
