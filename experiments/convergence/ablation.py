"""Do replay, a target network, Double DQN and dueling matter? The tutorials' claims, tested one piece at a time.

    .venv/bin/python -m experiments.convergence.ablation

Claim checked: "replay and a target network are what makes Q-learning with networks stable; Double and dueling make it
better". Each preset, tuned with Double, a soft target and a replay, against itself with one thing changed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import dqn_jax
from dqn_jax import convergence, files
from experiments.common import COLOURS, machine, markdown_table, save_figure
from experiments.convergence.common import RESULTS

SEEDS = 30
FIRST_SEED = 20_000  # no setting was chosen on seeds from here on
VARIANTS: dict[str, dict[str, Any]] = {
    "as tuned": {},
    "no replay: the newest batch only": {"replay": False},
    "no target network": {"target_network": False, "double": False},
    "neither replay nor target": {"replay": False, "target_network": False, "double": False},
    "no Double": {"double": False},
    "dueling added": {"dueling": True},
}
PRESETS = ("cartpole", "acrobot", "mountaincar")


def train(preset: str, variant: str, *, replay: bool = True, **changes: Any) -> dqn_jax.TrainResult:
    """One population, kept in runs/convergence/ablation; what was trained before is not again."""
    if not replay:
        changes["replay_capacity"] = dqn_jax.PRESETS[preset].config.batch_size
    out = Path("runs/convergence/ablation") / f"{preset}-{list(VARIANTS).index(variant)}"
    resume = (out / "config.json").is_file()
    result = dqn_jax.train(preset, seeds=SEEDS, seed=FIRST_SEED, out=out, resume=resume, **changes)
    if result.interrupted:
        sys.exit(130)
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


def improvement(other: np.ndarray, base: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Probability that the variant does better than the preset on a random seed, seeds paired."""
    interval = convergence.probability_of_improvement_interval(other, base, paired=True)
    return convergence.probability_of_improvement(other, base), interval


def main() -> None:
    """Train everything and write results/ablation."""
    folder = RESULTS / "ablation"
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        preset: {variant: facts(train(preset, variant, **changes)) for variant, changes in VARIANTS.items()}
        for preset in PRESETS
    }
    rows, sections = [], []
    for preset, variants in found.items():
        base = variants["as tuned"]
        lines = []
        for variant, fact in variants.items():
            speed = fact["speed"]
            faster, faster95 = improvement(-fact["times"], -base["times"])
            better, better95 = improvement(fact["area"], base["area"])
            row = {
                "preset": preset,
                "variant": variant,
                "seeds": SEEDS,
                "converged": speed.share,
                "converged_low": speed.share95[0],
                "converged_high": speed.share95[1],
                "mean_env_steps": speed.restricted_mean,
                "mean_env_steps_low": speed.restricted_mean95[0],
                "mean_env_steps_high": speed.restricted_mean95[1],
                "final_iqm": fact["final_iqm"],
                "final_iqm_low": fact["final95"][0],
                "final_iqm_high": fact["final95"][1],
                "worst_seed": fact["final"].min(),
                "faster": faster,
                "faster_low": faster95[0],
                "faster_high": faster95[1],
                "higher_area": better,
                "higher_area_low": better95[0],
                "higher_area_high": better95[1],
            }
            rows.append(row)
            same = variant == "as tuned"
            lines.append(
                [
                    variant,
                    f"{speed.share:.0%} [{speed.share95[0]:.0%}, {speed.share95[1]:.0%}]",
                    "{:,.0f} [{:,.0f}, {:,.0f}]".format(speed.restricted_mean, *speed.restricted_mean95),
                    f"{fact['final_iqm']:.1f} [{fact['final95'][0]:.1f}, {fact['final95'][1]:.1f}]",
                    f"{fact['final'].min():.1f}",
                    "" if same else f"{faster:.0%} [{faster95[0]:.0%}, {faster95[1]:.0%}]",
                    "" if same else f"{better:.0%} [{better95[0]:.0%}, {better95[1]:.0%}]",
                ]
            )
        header = ["variant", "converged", "mean steps to convergence", "final return (IQM)", "worst seed"]
        sections.append(f"## {preset}\n\n" + markdown_table([*header, "faster", "more area"], lines))
    with files.atomic(folder / "ablation.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g")
    save_figure(folder / "curves.png", 11, 3.6, lambda figure: draw(figure, found))
    text = [
        "# Replay, target network, Double, dueling: what happens without them?",
        f"`.venv/bin/python -m experiments.convergence.ablation`, measured {machine()}. Each preset (Double DQN with a "
        f"soft target and a replay) against itself with one thing changed and nothing tuned again, {SEEDS} seeds that "
        "chose nothing, no early stopping. Brackets: 95 % intervals over seeds. *Faster* and *more area*: the "
        "probability that the variant converges sooner, or has more area under its evaluation curve, than the preset "
        "on a random seed (ties count half, 50 % is no difference; seeds paired). Seeds that never converged count as "
        "slowest.",
        "![evaluation return](curves.png)",
        *sections,
    ]
    with files.atomic(folder / "README.md") as path:
        path.write_text("\n\n".join(text) + "\n")


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
