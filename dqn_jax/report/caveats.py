"""What to bear in mind of a report's numbers, in plain words."""

from __future__ import annotations

from typing import Any

from dqn_jax.report.view import View
from dqn_jax.sweep import ruler


def caveats(view: View) -> list[str]:
    """What was pruned, diverged, censored or cut, and what that does to the numbers."""
    settings, lanes, texts = view.data.settings, view.data.lanes, []
    counts = lanes["status"].value_counts()
    if len(view.table) < len(view.data.trials):
        texts.append(
            f"The sweep has not finished: {len(view.table):,} of {len(view.data.trials):,} trials have all their "
            f"seeds. Finished lanes of the others, {view.left_out:,}, are left out: the lanes that finish first are "
            "those that converged first."
        )
    if names := ruler.varied(view.space):
        texts.append(
            f"What varied includes how trials were measured ({', '.join(names)}): a ranking compares only trials that "
            "share its values, and whoever leads across them may owe it to the ruler. (Sweeps of today refuse this.)"
        )
    if prune := settings.get("prune"):
        pruned = lanes[lanes["status"] == "pruned"]
        texts.append(
            f"Pruning was on ({prune['rule']}, eta {prune['eta']}). Lanes stopped early because they looked slow: "
            f"{len(pruned):,}, of {pruned['trial'].nunique():,} trials. This biases convergence statistics: the pruned "
            "lanes are censored where they stopped, which would be harmless only if that had nothing to do with how "
            "they were doing. Use pruned sweeps to find good settings, and a sweep without pruning to compare times. "
            + _compared(prune)
        )
    if diverged := int(counts.get("diverged", 0)):
        before = int((lanes["status"].eq("diverged") & lanes["converged"]).sum())
        texts.append(
            f"Lanes that diverged (to values that are not finite): {diverged:,}. They count as never converged, up to "
            "the full horizon" + (f", but for {before:,} that had met the criterion before." if before else ".")
        )
    if view.criterion is not None and (never := int((lanes["status"].eq("budget") & ~lanes["converged"]).sum())):
        texts.append(
            f"Lanes that spent their budget without converging: {never:,}. They count as not converged up to it, and "
            "are never dropped."
        )
    if count := int(view.above_bound.sum()):
        texts.append(
            f"Mean Q passed what any policy can be worth in {count:,} of {len(view.above_bound):,} lanes: their "
            "bootstrap fed on its own errors. Their returns are as measured, but may not last."
        )
    if not view.with_budget:
        steps = settings.get("stability_steps") or 0
        texts.append(
            "Lanes left when they converged. Final returns and areas under the curve would be of curves that were "
            "cut there, so neither is given; learning curves end where the first seed left."
            + (
                f" Each went on for {steps:,} environment steps, which stability is measured on."
                if steps
                else " Stability after convergence was not measured (--stability-steps does)."
            )
        )
    if len(view.confirmed) > 1 and view.chosen_on_reported:
        texts.append(
            f"All held-out seeds chose among the {len(view.confirmed)} finalists and are reported too, so the numbers "
            "of the best one are somewhat too good: of several the luckiest leads. (Sweeps of today choose on one half "
            "and report the other.)"
        )
    if view.confirmed.empty and len(view.table) > 1 and view.table["converged"].any():
        texts.append(
            "No trial was confirmed on held-out seeds. The leading numbers are too good: of many trials the luckiest "
            "leads."
        )
    return texts


def _compared(prune: dict[str, Any]) -> str:
    """What pruning compared a trial with."""
    if "among" not in prune:
        among = "with those of its own wave and program only, of which the best part went on however good they were"
    else:
        among = (
            "with all that had reached the same rung: those beside it in its wave, and those of waves that had ended "
            "when its own began, of whatever program; the earliest waves were compared with the fewest"
        )
    if prune["rule"] == "hyperband":
        drawn = "drawn at random" if "among" in prune else "its number modulo their number, in a grid a hyperparameter"
        among += f"; and only within its bracket ({drawn})"
    return f"A trial was compared {among}."
