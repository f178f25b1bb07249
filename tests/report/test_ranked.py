"""Confirmed trials and the ranking, on the page."""

from __future__ import annotations

import synthetic
from reporting import confirmed, page_of

from dqn_jax.report.view import View
from dqn_jax.sweep import results


def test_confirmed_trials_show_all_numbers_and_only_they_are_called_best(folder):
    # The half that chooses flatters trial 1; the other half would have it the other way round.
    data = confirmed((60_000, 50_000), (55_000, 58_000), choosing=4)
    table = results.ranked(data, phase="confirm")
    assert [table[name].tolist() for name in ("rank", "trial", "time", "lanes")] == [
        [1, 2],
        [1, 0],
        [58_000, 55_000],
        [4, 4],
    ]
    assert results.ranked(data, phase="choice")["time"].tolist() == [50_000, 60_000]
    page = page_of([folder(data)])
    (first, second) = page.table("converged, held-out")
    assert (first["trial"], second["trial"]) == ("1", "0")
    for where, mean in (("held-out", "58,000"), ("chosen on", "50,000"), ("search", "30,000")):
        assert first[f"mean environment steps, {where}"].startswith(mean)
    assert "Best, confirmed on 4 seeds that played no part in choosing it: trial 1" in page.text
    assert "Best: trial 1, by 4 held-out seeds; reported: 4 held-out seeds." in page.text
    assert "the first 4 of them choose among these" in page.text
    assert "All held-out seeds chose" not in page.text
    assert "Leading in the search" not in page.text
    view = View.of(data)
    assert view.lanes(1)["seed"].tolist() == [104, 105, 106, 107]


def test_a_sweep_whose_held_out_seeds_all_chose_says_so(folder):
    page = page_of([folder(confirmed((60_000, 50_000), (60_000, 50_000)))])
    rows = page.table("converged, held-out")
    assert [row["trial"] for row in rows] == ["1", "0"]
    assert "mean environment steps, chosen on" not in rows[0]
    assert "Best of 2 on 8 held-out seeds, which also chose it: trial 1" in page.text
    assert "All held-out seeds chose among the 2 finalists and are reported too" in page.text
    assert "played no part in choosing it" not in page.text


def test_curves_cut_at_convergence_have_no_final_return(folder):
    page = page_of([folder(synthetic.sweep(12, 3, stop="converged", prune=False, confirm=False))])
    assert "Lanes left when they converged" in page.text
    assert "final IQM" not in page.text
    assert "final" not in page.ids
    assert "Pruning was on" not in page.text
