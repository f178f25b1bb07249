"""Do replay, a target network, Double DQN and dueling matter? The tutorials' claims, tested one piece at a time.

    .venv/bin/python -m experiments.convergence.ablation

Claim checked: "replay and a target network are what makes Q-learning with networks stable; Double and dueling make it
better". Each task's tuned recipe, with Double, a soft target and a replay, against itself with one thing changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import dqn_jax
from dqn_jax import convergence, files
from experiments import pages
from experiments.convergence.common import PLAIN, RESULTS, improvement
from experiments.figures import COLOURS, save_figure
from experiments.training import trained

SEEDS = 30
FOLDER = RESULTS / "ablation"
FIRST_SEED = 20_000  # no setting was chosen on seeds from here on
VARIANTS: dict[str, dict[str, Any]] = {
    "as tuned": {},
    "no replay: the newest batch only": {"replay": False},
    "no target network": {"target_network": False, "double": False},
    "neither replay nor target": {"replay": False, "target_network": False, "double": False},
    "no Double": {"double": False},
    "dueling added": {"dueling": True},
}
# The presets before they stayed where they converged (`staying` asks what does that): plain Double DQN, tuned.
_TUNED: dict[str, Any] = PLAIN | {"hidden": (120, 84)}
RECIPES: dict[str, dict[str, Any]] = {
    "cartpole": _TUNED
    | {"batch_size": 128, "learning_rate_end": 5e-5, "learning_rate_decay_updates": 33_000, "epsilon_end": 0.083},
    "acrobot": _TUNED,
    "mountaincar": _TUNED,
}


def train(preset: str, variant: str, *, replay: bool = True, **changes: Any) -> dqn_jax.TrainResult:
    """One population, kept in runs/convergence/ablation; what was trained before is not again."""
    if not replay:
        changes["replay_capacity"] = RECIPES[preset].get("batch_size", dqn_jax.PRESETS[preset].config.batch_size)
    out = Path("runs/convergence/ablation") / f"{preset}-{list(VARIANTS).index(variant)}"
    result = trained(out, preset, seeds=SEEDS, seed=FIRST_SEED, **RECIPES[preset] | changes)
    print(f"{preset}, {variant}: {result.converged.sum()} of {SEEDS} converged", flush=True)
    return result


def facts(result: dqn_jax.TrainResult) -> dict[str, Any]:
    """What one population is compared by."""
    criterion = result.summary["criteria"][0]
    horizon = float(result.history.env_steps[-1])
    times = np.array([horizon if t is None else t for t in criterion["env_steps"]], float)
    speed = convergence.time_to_convergence(times, result.converged, horizon)
    curves = result.history.reading("eval_return")
    final = np.asarray(result.summary["final_eval_return"], float)
    return {
        "speed": speed,
        "times": times,
        "final": final,
        "final_iqm": convergence.interquartile_mean(final),
        "final95": convergence.interquartile_mean_interval(final),
        "area": convergence.area_under_curve(np.asarray(result.history.env_steps), curves),
        "curves": curves,
        "env_steps": np.asarray(result.history.env_steps),
    }


def main() -> None:
    """Train every variant of every recipe, and write results/ablation: table, figure and page."""
    found = {
        preset: {variant: facts(train(preset, variant, **changes)) for variant, changes in VARIANTS.items()}
        for preset in RECIPES
    }
    table = measure(found)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with files.atomic(FOLDER / "ablation.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    save_figure(FOLDER / "curves.png", 11, 3.6, lambda figure: draw(figure, found))
    write_page(table, pages.machine())


def measure(found: dict[str, dict[str, dict[str, Any]]]) -> pd.DataFrame:
    """One row for each preset and variant, with the ends of intervals as `<name>_low` and `<name>_high`."""
    rows = []
    for preset, variants in found.items():
        base = variants["as tuned"]
        for variant, fact in variants.items():
            speed = fact["speed"]
            estimates = {
                "converged": (speed.share, speed.share95),
                "mean_env_steps": (speed.restricted_mean, speed.restricted_mean95),
                "final_iqm": (fact["final_iqm"], fact["final95"]),
                "worst_seed": fact["final"].min(),
                "faster": improvement(-fact["times"], -base["times"]),
                "higher_area": improvement(fact["area"], base["area"]),
            }
            row: dict[str, Any] = {"preset": preset, "variant": variant, "seeds": SEEDS}
            for name, estimate in estimates.items():
                if isinstance(estimate, tuple):
                    row[name], (row[f"{name}_low"], row[f"{name}_high"]) = estimate
                else:
                    row[name] = estimate
            rows.append(row)
    return pd.DataFrame(rows)


def write_page(table: pd.DataFrame, measured: str) -> None:
    """Write results/ablation/README.md from rows of `measure`."""
    variants = {preset: list(map(line, own.to_dict("records"))) for preset, own in table.groupby("preset", sort=False)}
    pages.write(
        FOLDER / "README.md", "convergence/ablation.md.jinja", measured=measured, seeds=SEEDS, variants=variants
    )


def line(row: dict[Any, Any]) -> list[str]:
    """A row of `measure` as one of the page."""

    def estimate(name: str, text: str) -> str:
        return f"{text} [{text}, {text}]".format(*(row[name + end] for end in ("", "_low", "_high")))

    same = row["variant"] == "as tuned"
    return [
        row["variant"],
        estimate("converged", "{:.0%}"),
        estimate("mean_env_steps", "{:,.0f}"),
        estimate("final_iqm", "{:.1f}"),
        f"{row['worst_seed']:.1f}",
        "" if same else estimate("faster", "{:.0%}"),
        "" if same else estimate("higher_area", "{:.0%}"),
    ]


def draw(figure: Figure, found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Mean evaluation return of every variant with its band, one panel per environment."""
    for axis, (preset, variants) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        for colour, (variant, fact) in zip(COLOURS, variants.items(), strict=False):
            curves = np.nan_to_num(fact["curves"], nan=float(np.nanmin(fact["curves"])))
            low, high = convergence.mean_interval(curves)
            axis.plot(fact["env_steps"], curves.mean(axis=0), color=colour, lw=1.6, label=variant)
            axis.fill_between(fact["env_steps"], low, high, color=colour, alpha=0.15, lw=0)
        axis.set_title(preset, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axis.set_xlim(left=0)
    figure.axes[0].set_ylabel("evaluation return")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
