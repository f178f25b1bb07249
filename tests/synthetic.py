"""A sweep nobody ran: tables as a sweep writes them, the same for the same arguments."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS, SweepData

TOTAL_STEPS = 100_000
EVAL_EVERY = 5_000
VARY = {
    "learning_rate": "log(0.0001,0.01)",
    "discount": "uniform(0.9,0.999)",
    "batch_size": "32,64,128",
    "hidden": "64x64,120x84",
    "max_grad_norm": "none,1,10",
}


def lane(trial: int, seed: int, **changes: Any) -> dict[str, Any]:
    """One lane that spent its budget of 100,000 steps without converging, but for `changes`."""
    own: dict[str, Any] = {
        "trial": trial,
        "seed": seed,
        "phase": "search",
        "status": "budget",
        "env_steps": TOTAL_STEPS,
        "device_seconds": 10.0,
        "converged_env_steps": np.nan,
        "stability": np.nan,
        "final_return": 100.0,
        **changes,
    }
    at = own["converged_env_steps"]
    derived = {
        "updates": own["env_steps"] // 8,
        "episodes": own["env_steps"] // 100,
        "converged": bool(np.isfinite(at)),
        "converged_updates": at / 8,
        "converged_episodes": at / 100,
        "converged_seconds": own["device_seconds"] * at / own["env_steps"],
        "best_return": own["final_return"],
        "moments": json.dumps([None]),
    }
    return {column: {**derived, **own}[column] for column in LANE_COLUMNS}


def lanes_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as `lane` makes them, in the order of SweepData."""
    table = pd.DataFrame(rows, columns=list(LANE_COLUMNS)).astype(LANE_COLUMNS)
    order = table["phase"].map({"search": 0, "confirm": 1})
    return table.assign(order=order).sort_values(["order", "trial", "seed"], ignore_index=True).drop(columns="order")


def curves_of(lanes: pd.DataFrame) -> pd.DataFrame:
    """Evaluations of each lane: rising to where it converges (or to its final return), flat afterwards."""
    parts = []
    for row in lanes.to_dict("records"):
        steps = np.arange(EVAL_EVERY, row["env_steps"] + 1, EVAL_EVERY)
        rise = row["converged_env_steps"] if row["converged"] else TOTAL_STEPS
        noise = 15 * np.sin(0.7 * row["seed"] + steps / 9_000)
        returns = row["final_return"] * np.minimum(steps / rise, 1.0) + noise
        share = steps / max(row["env_steps"], 1)
        part = {
            "trial": row["trial"],
            "seed": row["seed"],
            "phase": row["phase"],
            "env_steps": steps,
            "updates": steps // 8,
            "episodes": steps // 100,
            "seconds": row["device_seconds"] * share,
            "eval_return": returns,
            "eval_length": returns,
            "train_return": 0.9 * returns,
            "loss": np.exp(-steps / TOTAL_STEPS),
            "td_error": np.exp(-steps / TOTAL_STEPS),
            "q_mean": steps / TOTAL_STEPS,
        }
        parts.append(pd.DataFrame(part))
    if not parts:
        return pd.DataFrame(columns=list(CURVE_COLUMNS)).astype(CURVE_COLUMNS)
    return pd.concat(parts, ignore_index=True)[list(CURVE_COLUMNS)].astype(CURVE_COLUMNS)


def sweep_of(lanes: list[dict[str, Any]], trials: dict[str, list[Any]] | None = None, **settings: Any) -> SweepData:
    """A sweep of these lanes; `trials` maps each setting that varies to its values, `settings` change sweep.json."""
    table = lanes_table(lanes)
    count = int(table["trial"].max()) + 1 if len(table) else 1
    trials = {"learning_rate": [1e-4 * (i + 1) for i in range(count)]} if trials is None else trials
    asked: dict[str, Any] = {
        "format": 1,
        "name": "synthetic",
        "preset": "cartpole",
        "vary": {name: VARY.get(name, "") for name in trials},
        "sampler": "sobol",
        "samples": count,
        "sample_seed": 0,
        "seeds": sorted(set(table["seed"][table["phase"] == "search"].tolist())),
        "confirm": None,
        "criteria": ["eval>=475x3"],
        "stop": "budget",
        "stability_steps": 0,
        "prune": None,
        "config": {"env": "CartPole-v1", "total_steps": TOTAL_STEPS, "eval_every": EVAL_EVERY, "batch_size": 64},
        "hparams": {"learning_rate": 1e-3, "discount": 0.99},
        **settings,
    }
    group = {"trials": 20, "lanes": 100, "waves": 1, "capacity": 128, "bytes_per_lane": 123_456}
    plan = {
        "groups": [{"settings": {"batch_size": size}, **group} for size in (32, 64, 128)],
        "compiled": [{"phase": "search", "capacity": 128, "seconds": 6.5} for _ in range(3)],
        "devices": 2,
        "device_kind": "cpu",
    }
    provenance = {"started": "2026-01-01T00:00:00+00:00", "dqn_jax": "0.1.0", "git_commit": "0" * 40}
    index = pd.RangeIndex(count, name="trial")
    columns = {name: pd.Series(values, index=index, dtype=object) for name, values in trials.items()}
    return SweepData("synthetic", asked, plan, provenance, pd.DataFrame(columns, index=index), table, curves_of(table))


def sweep(
    count: int = 60,
    seeds: int = 5,
    *,
    confirm: bool = True,
    choosing: bool = True,
    prune: bool = True,
    stop: str = "budget",
) -> SweepData:
    """A whole sweep: most trials converge on some seeds, some never, some diverge, some are pruned."""
    rng = np.random.default_rng(0)
    trials: dict[str, list[Any]] = {
        "learning_rate": list(1e-4 * 100 ** rng.random(count)),
        "discount": list(0.9 + 0.099 * rng.random(count)),
        "batch_size": [(32, 64, 128)[i % 3] for i in range(count)],
        "hidden": [((64, 64), (120, 84))[i % 2] for i in range(count)],
        "max_grad_norm": [(None, 1.0, 10.0)[i % 3] for i in range(count)],
    }
    rows = []
    for trial in range(count):
        miss = abs(np.log10(trials["learning_rate"][trial] / 1.5e-3))  # decades from the best learning rate
        for seed in range(seeds):
            rows.append(_outcome(rng, trial, seed, miss, prune and trial % 6 == 5, stop))
    if confirm:
        best = sorted(range(count), key=lambda t: abs(np.log10(trials["learning_rate"][t] / 1.5e-3)))[:3]
        for trial in best:
            for seed in range(100, 100 + 4 * seeds):
                rows.append({**_outcome(rng, trial, seed, 0.2, False, stop), "phase": "confirm"})
    return sweep_of(
        rows,
        trials,
        stop=stop,
        prune={"rule": "halving", "eta": 3} if prune else None,
        confirm={"seeds": list(range(100, 100 + 4 * seeds)), "best": 3, **({"choosing": 2 * seeds} if choosing else {})}
        if confirm
        else None,
    )


def _outcome(rng: np.random.Generator, trial: int, seed: int, miss: float, pruned: bool, stop: str) -> dict[str, Any]:
    moment = EVAL_EVERY * np.ceil((20_000 + 60_000 * miss) * rng.lognormal(0.0, 0.25) / EVAL_EVERY)
    if pruned and moment > 30_000:
        return lane(trial, seed, status="pruned", env_steps=30_000, device_seconds=3.0, final_return=60.0)
    if miss > 0.7 and rng.random() < 0.3:
        return lane(trial, seed, status="diverged", env_steps=45_000, device_seconds=4.5, final_return=np.nan)
    if moment >= TOTAL_STEPS:
        return lane(trial, seed, final_return=200.0 + 20 * rng.normal())
    if stop == "converged":
        seconds = 10.0 * moment / TOTAL_STEPS
        changes = {"status": "converged", "env_steps": int(moment), "device_seconds": seconds}
    else:
        changes = {"stability": float(np.clip(rng.normal(0.9 - 0.2 * miss, 0.1), 0, 1))}
    return lane(trial, seed, converged_env_steps=moment, final_return=490.0 - 60 * miss * rng.random(), **changes)
