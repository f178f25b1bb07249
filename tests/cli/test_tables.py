"""What a person sees at the end of a run or a sweep."""

from __future__ import annotations

import re
from types import SimpleNamespace

from synthetic import lane, sweep_of

from dqn_jax.cli.tables import summary_tables, sweep_tables


def test_settings_of_which_no_seed_converged_show_no_time(capsys, monkeypatch):
    """The mean of seeds that all spent their budget is the budget, with no width: not a measurement."""
    monkeypatch.setenv("COLUMNS", "80")
    lanes = [lane(0, s, converged_env_steps=20_000 + 5_000 * s) for s in range(4)] + [lane(1, s) for s in range(4)]
    sweep_tables(SimpleNamespace(data=sweep_of(lanes), directory=None))
    lines = capsys.readouterr().out.splitlines()
    first, second = (next(line for line in lines if line.split()[:1] == [trial]) for trial in ("0", "1"))
    assert "27,500 (" in first
    assert "0 of 4        0  > 100,000 (none converged)" in second
    assert "dated at the third evaluation in a row that meets it" in " ".join(lines)


def test_a_sweep_shows_who_settled_beside_who_converged_where_that_was_seen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lanes = [lane(0, s, converged_env_steps=20_000, final_return=500.0) for s in range(4)]
    lanes += [lane(1, s, converged_env_steps=30_000, final_return=100.0) for s in range(4)]  # and then fell
    sweep_tables(SimpleNamespace(data=sweep_of(lanes), directory=None))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["trial", "converged", "settled", "env", "steps"] in [line[:5] for line in lines]
    assert ["0", "4", "of", "4", "4"] in [line[:5] for line in lines]
    assert ["1", "4", "of", "4", "0"] in [line[:5] for line in lines]
    sweep_tables(SimpleNamespace(data=sweep_of(lanes, stop="converged"), directory=None))
    assert "settled " not in capsys.readouterr().out


def test_the_summary_of_a_run_shows_no_time_and_no_interval_that_it_does_not_have(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    criteria = [
        {"name": name, "converged": share, **dict.fromkeys(("env_steps", "updates", "episodes", "seconds"), times)}
        | {"threshold": 475.0, "stability": [None] * 5}
        for name, share, times in (("eval>=475x3", 0.0, [None] * 5), ("train100>=195", 0.4, [1, 2, None, None, None]))
    ]
    summary = {
        "preset": "p", "env": "e", "seeds": list(range(5)), "criteria": criteria, "env_steps": 1000, "diverged": [],
        "final_eval": {"mean": 9.0, "interval95": [None, None], "worst": 9.0, "worst_seed": 0},
        "best_eval_return": [9.0] * 5, "best_env_steps": [500] * 5, "final_eval_return": [9.0] * 5,
        "throughput": {"env_steps_per_second": 1.0, "updates_per_second": 1.0}, "fell_back": [], "above_bound": [],
        "seconds": {"import": 1.0, "compile": 1.0, "run": 1.0},
    }  # fmt: skip
    summary_tables(SimpleNamespace(summary=summary, run=None))
    out = capsys.readouterr().out
    assert "none of 5  " in out
    assert re.search(r"2 of 5 +> 1,000 ", out)
    assert "mean 9.0, worst" in out
    assert "eval>=475x3 is dated at the third evaluation" in " ".join(out.split())
    assert "not settling" in " ".join(out.split())
