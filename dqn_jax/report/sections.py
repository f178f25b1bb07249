"""What a report on one sweep or run says: its sections in their order, and how to read them."""

from __future__ import annotations

from dqn_jax.report import drawn, ranked
from dqn_jax.report.caveats import caveats
from dqn_jax.report.origin import asked, provenance
from dqn_jax.report.page import Content, Points, Section
from dqn_jax.report.short import in_short
from dqn_jax.report.view import View

_FEW_SEEDS = 10  # below which a reader is told what an interval cannot know


def content_of(view: View) -> Content:
    """Title, subtitle, sections and footer of the page on one sweep or run."""
    settings = view.data.settings
    trials, lanes = len(view.table), len(view.data.lanes)
    what = f"{trials:,} trials, {lanes:,} lanes" if view.space else f"{lanes:,} seeds"
    env = settings["config"].get("env", settings.get("preset"))
    subtitle = f"{env}: {what}" + (f", ranked by {view.clock_words}" if view.space else "")
    sections = [
        Section("short", "In short", [Points(in_short(view)), *_warnings(view)]),
        asked(view),
        ranked.confirmed(view),
        ranked.ranking(view),
        drawn.survival(view),
        drawn.learning(view),
        drawn.hyperparameters(view),
        drawn.sensitivity(view),
        drawn.final(view),
        drawn.cost(view),
        Section("bear-in-mind", "How to read this", [Points(_reading(view), "short")]),
        provenance(view),
    ]
    return view.label, subtitle, [section for section in sections if section.items], _footer(view)


def _footer(view: View) -> str:
    version, started = (view.data.provenance.get(key) or "unknown" for key in ("dqn_jax", "started"))
    return f"dqn_jax version {version}; started: {started}. Every interval is a 95 % interval."


def _warnings(view: View) -> list[Points]:
    texts = caveats(view)
    return [Points(texts, "warn")] if texts else []


def _reading(view: View) -> list[str]:
    fewest = int(view.table["lanes"].min())
    texts = [
        "A lane is one trial with one seed. 95 % intervals over seeds: of means Student's t, reaching further where "
        "seeds are skewed (Hall); of shares and medians exact; of times put together from the share that converged and "
        "the times of those. They are not corrected for the number of trials compared.",
    ]
    if fewest == 1:
        texts.append(
            "A trial with one seed has no interval of its own: nothing says how far another seed would be off."
        )
    elif fewest < _FEW_SEEDS:
        texts.append(
            f"With {fewest} seeds an interval is wide, and says nothing of a kind of failure that none of them met. "
            "Where all seeds agree, and for a median of fewer than 6 or a 10 % quantile of fewer than 36, none is "
            "shown."
        )
    if view.clock != "env_steps":
        texts.append(
            "On this clock a lane that never converged counts with its own cost of the whole budget; one that diverged "
            "or was pruned before, as if it had gone on at its own pace."
        )
    if view.clock == "seconds":
        texts.append(
            "Seconds are a lane's share of the time the devices worked; they depend on the machine and on the lanes "
            "beside it."
        )
    texts.append(
        "Later ones that hold: the mean, over the seeds that got there and went on, of the share of the evaluations "
        "after first passage that met the threshold."
    )
    if view.settles or view.table["settled"].notna().any():
        texts.append(
            "Settled is not first passage: from there on every evaluation (or the stated share) meets the threshold, "
            "to the end of the budget. It is known at that end only, and a longer budget has more evaluations to fall "
            "at: compare it between equal budgets."
        )
    if view.with_budget:
        texts.append(
            "Final return is an interquartile mean over seeds, 'worst 10 %' their 10 % quantile, area the mean of the "
            "evaluation curve over the budget; a diverged seed counts with the lowest evaluation of the sweep, and a "
            "trial with pruned seeds has none of these."
        )
    return texts
