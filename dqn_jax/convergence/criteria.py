"""When has an agent converged? Criteria, the moment each was reached, and how stable it stayed after.

Pure NumPy on curves, ours or anybody's. "Not reached" is kept as None and never dropped. A criterion is dated at the
last of its readings (`x3`: at the third evaluation in a row), and says when it was first met, not that it stayed so:
that is what `settled` asks, and `stability` measures.

A criterion is written as text, `kind comparison threshold`, which shells need in quotes, or `kind:threshold`, which
they leave alone: at least for returns (`eval:475x3`, `train100:195`), at most for the others (`epsilon:0.01`).

    eval>=475x3       evaluation mean at least 475 in 3 evaluations in a row
    settled>=475      from there on every evaluation mean at least 475, to the end of the budget
    settled95%>=475   from there on 95 % of them
    train100>=195     mean of the last 100 training episodes at least 195, in the order in which they ended. Of several
                      environments side by side short episodes end first, and count more often than long ones
    train5>195        mean of the last 5 training episodes above 195
    epsilon<=0.01     exploration has come down to 0.01 at the end of an episode
    loss<=0.1x5       mean loss of a chunk at most 0.1 in 5 readings in a row
    td_error<=0.5x5   mean absolute TD error likewise
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dqn_jax.config import ConfigError, exact, suggest
from dqn_jax.convergence.settling import held_after, held_interval, settled_from

KINDS = {
    "eval": "evaluation mean over its episodes, compared in N evaluations in a row (eval>=475x3)",
    "settled": "from there on every evaluation mean, or a share, to the end of the budget (settled95%>=475)",
    "train": "mean of the last N training episodes, as they ended: side by side, short ones end first (train100>=195)",
    "epsilon": "exploration, read at the end of each episode (epsilon<=0.01)",
    "loss": "mean loss between evaluations, in N readings in a row (loss<=0.1x5)",
    "td_error": "mean absolute TD error between evaluations, in N readings in a row (td_error<=0.5x5)",
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_EXAMPLES = "e.g. eval:475x3, train100:195, epsilon:0.01, or in quotes 'eval>=475x3'"
_AT_MOST = ("epsilon", "loss", "td_error")  # what ':' means for them; for the others it is at least
_LONGEST_WINDOW = 1_000_000
_PATTERN = re.compile(
    r"\s*([a-z_]+?)(?:(\d+)|(\d+(?:\.\d+)?)\s*%)?\s*(>=|<=|>|<|:)\s*([-+0-9.eE]+?)(?:\s*x\s*(\d+))?\s*"
)


class Moment(NamedTuple):
    """How far training was when something happened."""

    env_steps: int
    updates: int
    episodes: int
    seconds: float


class Curve(NamedTuple):
    """One seed's history. C evaluations (chunks), E finished training episodes.

    Seconds are run seconds of the whole population, compilation excluded.
    """

    env_steps: np.ndarray  # [C]
    updates: np.ndarray  # [C]
    episodes: np.ndarray  # [C]
    seconds: np.ndarray  # [C]
    eval_return: np.ndarray  # [C], mean over the evaluation's episodes
    loss: np.ndarray  # [C], mean since the last evaluation; NaN without updates
    td_error: np.ndarray  # [C]
    episode_env_steps: np.ndarray  # [E], in the order in which the episodes ended
    episode_updates: np.ndarray  # [E]
    episode_epsilon: np.ndarray  # [E]
    episode_return: np.ndarray  # [E], raw
    whole: bool = True  # it goes to the end of its budget; of one that was cut nobody knows whether it settles
    finite: bool = True  # the agent has not diverged; one that has does not settle, whatever it does by chance


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A convergence criterion; see the module's text form."""

    kind: str
    comparison: str
    threshold: float
    window: int  # readings in a row; for 'train' the episodes averaged
    percent: float = 100.0  # for 'settled', how many of the evaluations from there on hold

    @property
    def settles(self) -> bool:
        """Whether it asks what only the end of the budget can tell."""
        return self.kind == "settled"

    @property
    def dated(self) -> str:
        """At which moment it counts as met, as a sentence to stand where times are shown."""
        if self.settles:
            which = "every one" if self.percent == 100 else f"{exact(self.percent)} % of them"
            return (
                f"{self.name} is dated at the first evaluation from which {which} to the end of the budget "
                f"meet{'s' * (self.percent == 100)} it, and depends on that budget."
            )
        if self.kind == "train":
            at = f"the first episode after which the mean of the last {self.window} meets it"
        else:
            reading = {"eval": "evaluation", "epsilon": "episode"}.get(self.kind, "reading")
            at = f"the {_ordinal(self.window)} {reading}{' in a row' if self.window > 1 else ''} that meets it"
        return f"{self.name} is dated at {at}: first passage, which is not settling."

    @property
    def name(self) -> str:
        """The canonical text form; `parse_criterion` makes the same criterion of it."""
        level = exact(self.threshold)
        if self.kind == "train":
            return f"train{self.window}{self.comparison}{level}"
        if self.settles:
            share = "" if self.percent == 100 else f"{exact(self.percent)}%"
            return f"settled{share}{self.comparison}{level}"
        return f"{self.kind}{self.comparison}{level}" + (f"x{self.window}" if self.window > 1 else "")

    def holds(self, value: Any) -> Any:
        """Whether `value` (any shape) meets the threshold; NaN never does."""
        return _COMPARISONS[self.comparison](value, self.threshold)

    def settling(self) -> Criterion | None:
        """The settling at its threshold: itself if it is one; None if it is not about returns."""
        if self.settles:
            return self
        return Criterion("settled", self.comparison, self.threshold, 1) if self.kind in ("eval", "train") else None


def _ordinal(number: int) -> str:
    """A place in words: first, second, third, 4th, and so on."""
    few = {1: "first", 2: "second", 3: "third"}
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return few.get(number, f"{number}{suffix}")


def parse_criterion(text: str) -> Criterion:
    """A criterion from its text form.

    Raises:
      ConfigError: saying what is wrong and how a criterion is written.
    """
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None and isinstance(text, str) and re.fullmatch(rf"({'|'.join(KINDS)})[\d.%]*", text.strip()):
        raise ConfigError(
            f"criteria: '{text}' says no threshold: unquoted, the shell took > or < as a redirection to or from "
            f"a file; write {text.strip()}:THRESHOLD or quote it, e.g. eval:475x3 or 'eval>=475x3'."
        )
    if match is None:
        raise ConfigError(f"criteria: '{text}' is not a criterion; write {_EXAMPLES}.")
    kind, episodes, percent, comparison, number, repeats = match.groups()
    if kind not in KINDS:
        raise ConfigError(
            f"criteria: '{kind}' in '{text}' is unknown.{suggest(kind, KINDS)} Kinds: {', '.join(KINDS)}."
        )
    try:
        threshold = float(number)
    except ValueError:
        raise ConfigError(f"criteria: '{number}' in '{text}' is not a number.") from None
    if not math.isfinite(threshold):
        raise ConfigError(f"criteria: '{number}' in '{text}' is too large; use a finite number.")
    if kind == "settled" and (episodes or repeats):
        raise ConfigError(
            f"criteria: '{text}': settled counts every evaluation to the end; leave out the count, or give a share: "
            "settled95%>=475."
        )
    if percent is not None and (kind != "settled" or not 0 < float(percent) <= 100):
        raise ConfigError(f"criteria: '{percent}%' in '{text}' is not possible; a share above 0 goes with settled.")
    if (kind == "train") != (episodes is not None) or (kind == "train" and repeats is not None):
        raise ConfigError(f"criteria: '{text}': episodes go with train (train100>=195), repeats with the others (x3).")
    if comparison == ":":
        comparison = "<=" if kind in _AT_MOST else ">="
    window = int(episodes or repeats or 1)
    if not 1 <= window <= _LONGEST_WINDOW:
        raise ConfigError(f"criteria: the count in '{text}' must be at least 1, and at most {_LONGEST_WINDOW}.")
    return Criterion(kind, comparison, threshold, window, 100.0 if percent is None else float(percent))


def parse_criteria(texts: str | Sequence[str]) -> list[Criterion]:
    """Criteria from their text forms: several, or one text with blanks between them.

    Raises:
      ConfigError: as `parse_criterion`.
    """
    if not isinstance(texts, str | Sequence):
        raise ConfigError(f"criteria: {texts!r} is no list of criteria; write e.g. ('eval>=475x3', 'train100>=195').")
    return [parse_criterion(text) for text in (texts.split() if isinstance(texts, str) else texts)]


def settling_among(criteria: Sequence[Criterion]) -> Criterion | None:
    """What settling means where these are the criteria: the first of them that asks it, else that at the threshold of
    the first one; None if that is not about returns, or there is none."""
    for criterion in criteria:
        if criterion.settles:
            return criterion
    return criteria[0].settling() if criteria else None


def first_run(holds: np.ndarray, length: int) -> int | None:
    """Index of the last of the first `length` True values in a row in `holds` `[C]`, or None."""
    run = 0
    for i, good in enumerate(holds):
        run = run + 1 if good else 0
        if run == length:
            return i
    return None


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values at each place, `[E]`; NaN before there are that many."""
    values = np.asarray(values, np.float64)
    means = np.full(values.shape, np.nan)
    if len(values) >= window:
        means[window - 1 :] = np.lib.stride_tricks.sliding_window_view(values, window).mean(axis=-1)
    return means


def time_to(criterion: Criterion, curve: Curve) -> Moment | None:
    """The moment the criterion was first met, or None if it was not (or, of settling, if that is not known)."""
    if criterion.kind in ("train", "epsilon"):
        values = curve.episode_epsilon
        if criterion.kind == "train":
            values = trailing_mean(curve.episode_return, criterion.window)
        window = 1 if criterion.kind == "train" else criterion.window
        index = first_run(criterion.holds(values), window)
        if index is None:
            return None
        env_steps = int(curve.episode_env_steps[index])
        # Seconds are only read between chunks; within one, steps take equal time.
        seconds = np.interp(env_steps, np.r_[0, curve.env_steps], np.r_[0.0, curve.seconds])
        return Moment(env_steps, int(curve.episode_updates[index]), index + 1, float(seconds))
    index = _index(criterion, curve)
    if index is None:
        return None
    return Moment(
        int(curve.env_steps[index]), int(curve.updates[index]), int(curve.episodes[index]), float(curve.seconds[index])
    )


def _index(criterion: Criterion, curve: Curve) -> int | None:
    """Of a criterion on readings, the one at which it is dated."""
    holds = criterion.holds(_readings(criterion, curve))
    if not criterion.settles:
        return first_run(holds, criterion.window)
    index = int(settled_from(holds, criterion.percent)) if curve.whole and curve.finite else -1
    return None if index < 0 else index


def stability(criterion: Criterion, curve: Curve) -> float | None:
    """Share of the evaluations after first passage that meet the threshold again: how much of it stayed.

    Return criteria look at later evaluations, loss and TD-error criteria at later readings; for settling, first passage
    is the first evaluation that meets it, settled or not. None if it was never met, nothing came after, or the
    criterion is about epsilon.
    """
    return stability_since(criterion, curve, None if criterion.settles else time_to(criterion, curve))


def stability_since(criterion: Criterion, curve: Curve, moment: Moment | None) -> float | None:
    """`stability`, where it is known when the criterion was first met (of settling, that is read off the curve)."""
    if criterion.settles:
        share = float(held_after(criterion.holds(curve.eval_return)))
        return None if math.isnan(share) else share
    if moment is None or criterion.kind == "epsilon":
        return None
    later = _readings(criterion, curve)[curve.env_steps > moment.env_steps]
    return float(np.mean(criterion.holds(later))) if len(later) else None


def _readings(criterion: Criterion, curve: Curve) -> np.ndarray:
    return {"loss": curve.loss, "td_error": curve.td_error}.get(criterion.kind, curve.eval_return)


class Collapse(NamedTuple):
    """A fall after success, in episodes counted from 1."""

    solved: int  # the episode at which the trailing mean was first high again before the fall
    began: int  # the episode at which it was first low
    ended: int | None  # the episode at which it was high again; None if it never was


def collapses(episode_return: np.ndarray, *, high: float, low: float, window: int = 10) -> list[Collapse]:
    """Every time the mean of the last `window` episodes fell from at least `high` to at most `low`.

    Args:
      episode_return: `[E]`, returns of training episodes in order.
      high: level that counts as success, and as recovery.
      low: level that counts as collapsed; below `high`.
      window: episodes averaged.
    """
    found: list[Collapse] = []
    solved: int | None = None
    for i, mean in enumerate(trailing_mean(episode_return, window), start=1):
        if mean >= high:
            if found and found[-1].ended is None:
                found[-1] = found[-1]._replace(ended=i)
            solved = i if solved is None else solved
        elif mean <= low and solved is not None:
            found.append(Collapse(solved, i, None))
            solved = None
    return found


def summarize(criterion: Criterion, curves: Sequence[Curve]) -> dict[str, Any]:
    """One criterion over many seeds.

    `converged` is the share of seeds that reached it (settled, for settling: None where curves were cut before the end
    of their budget, so that nobody knows); every other measure is a list with one entry per seed, None where it was not
    reached. `stays` is the mean of `stability` over the seeds that have one, with its interval.
    """
    moments = [time_to(criterion, curve) for curve in curves]
    known = not criterion.settles or all(curve.whole or not curve.finite for curve in curves)
    summary: dict[str, Any] = {
        "name": criterion.name,
        "threshold": criterion.threshold,
        "converged": float(np.mean([moment is not None for moment in moments])) if known else None,
    }
    for field in Moment._fields:
        summary[field] = [None if moment is None else getattr(moment, field) for moment in moments]
    summary["stability"] = [stability(criterion, curve) for curve in curves]
    stays = np.array([share for share in summary["stability"] if share is not None])
    ends = [None if math.isnan(end) else end for end in held_interval(stays)]
    summary["stays"] = {"mean": float(stays.mean()) if len(stays) else None, "interval95": ends}
    return summary
