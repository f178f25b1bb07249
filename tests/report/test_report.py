"""The report of a sweep: the numbers in its tables, what it says in words, and that the page stands alone."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import re
import time
from pathlib import Path

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image
from synthetic import lane, sweep_of

from dqn_jax import Config, HParams, convergence, files, runs
from dqn_jax.config import ConfigError, show
from dqn_jax.report import comparison, report_command, space_figures, sweep_figures
from dqn_jax.report.caveats import caveats
from dqn_jax.report.importance import importance
from dqn_jax.report.settings import fixed_settings
from dqn_jax.report.values import number
from dqn_jax.report.view import View
from dqn_jax.runs import figures
from dqn_jax.sweep import results, tables
from dqn_jax.sweep.space import parse_space

END = synthetic.TOTAL_STEPS

# Trial 0 converges on all seeds, trial 1 on two (the third diverges early), trial 2 on one (one is pruned before that,
# one spends its budget).
HAND = [
    lane(0, 0, converged_env_steps=20_000, stability=1.0, final_return=480.0),
    lane(0, 1, converged_env_steps=30_000, stability=0.75, final_return=485.0),
    lane(0, 2, converged_env_steps=40_000, stability=0.5, final_return=490.0),
    lane(1, 0, converged_env_steps=10_000, stability=0.9, final_return=500.0),
    lane(1, 1, status="diverged", env_steps=5_000, final_return=np.nan),
    lane(1, 2, converged_env_steps=40_000, stability=0.7, final_return=500.0),
    lane(2, 0, converged_env_steps=40_000, stability=0.6, final_return=470.0),
    lane(2, 1, status="pruned", env_steps=30_000, final_return=50.0),
    lane(2, 2, final_return=100.0),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a folder that loads as the given sweep."""
    stored = {}
    monkeypatch.setattr("dqn_jax.sweep.records.load_data", lambda path: stored[path])

    def store(data, name="sweep"):
        path = tmp_path / name
        path.mkdir()
        (path / "sweep.json").write_text("{}")
        stored[path] = data
        return path

    return store


class Page(html.parser.HTMLParser):
    """Well-formed or an error; what it shows and what it loads."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.images, self.ids, self.scripts = [], [], [], [], 0
        self.text, self.tables, self.titles = "", [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [v for k, v in attributes.items() if k in ("src", "href", "action", "data", "poster", "srcset")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.scripts += tag == "script"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            return
        if self.open and self.open[-1] == "title" and "svg" in self.open:
            self.titles.append(data)
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def table(self, column):
        """The first table with this heading: its rows as dictionaries."""
        found = next(table for table in self.tables if column in table[0])
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def page_of(*arguments, **keywords):
    """The parsed page, after checking that it needs nothing from elsewhere."""
    path = report_command(*arguments, **keywords)
    text = Path(path).read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith(("#", "data:image/svg+xml,")) for link in page.links)
    assert not re.search(r"url\((?!%23)", text)  # but for what is inside a figure
    assert "@import" not in text
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    return page


# -- numbers -----------------------------------------------------------------------------------------------


def test_the_ranked_table_has_the_numbers_worked_out_by_hand():
    table = results.ranked(sweep_of(HAND)).set_index("trial")
    assert table.index.tolist() == [0, 1, 2]
    assert table["rank"].tolist() == [1, 2, 3]
    # 1: a diverged seed counts with the whole horizon. 2: at 40,000 two are still watched, one of which converges then.
    assert table["time"].tolist() == pytest.approx([30_000, (50_000 + END) / 3, 40_000 + 0.5 * (END - 40_000)])
    assert table["share"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert table[["converged", "diverged", "pruned"]].to_numpy().tolist() == [[3, 0, 0], [2, 1, 0], [1, 0, 1]]
    assert table.loc[1, ["share_low", "share_high"]].tolist() == pytest.approx(convergence.share_interval([1, 0, 1]))
    low, high = table.loc[0, ["time_low", "time_high"]]
    assert 0 < low < 30_000 < high < END
    assert table["stability"].tolist() == pytest.approx([0.75, 0.8, 0.6])
    assert table.loc[0, "final"] == pytest.approx(485.0)
    assert table.loc[0, "worst"] == pytest.approx(481.0)
    assert np.isnan(table.loc[2, "final"])  # a pruned seed has no final return, so the trial has none
    assert table["device_seconds"].tolist() == [30, 30, 30]


def test_the_interval_of_a_share_stays_within_it():
    lanes = [lane(0, seed, converged_env_steps=20_000, stability=s) for seed, s in enumerate([1.0, 0.4, 1.0, 1.0])]
    row = results.ranked(sweep_of(lanes)).iloc[0]
    assert 0.0 <= row["stability_low"] < row["stability"] < row["stability_high"] == 1.0


def test_a_diverged_seed_has_the_lowest_score_and_area_of_the_sweep():
    data = sweep_of(HAND)
    lowest = float(data.curves["eval_return"].min())
    lanes = results.with_scores(data)
    diverged = lanes[lanes["status"] == "diverged"].iloc[0]
    assert (diverged["score"], diverged["area"]) == (lowest, pytest.approx(lowest))
    assert np.isnan(lanes.loc[lanes["status"] == "pruned", ["score", "area"]].to_numpy()).all()
    own = data.curves[(data.curves["trial"] == 0) & (data.curves["seed"] == 0)]
    area = np.trapezoid(own["eval_return"], own["env_steps"]) / (END - synthetic.EVAL_EVERY)
    assert lanes["area"][0] == pytest.approx(area)


def test_other_clocks_rank_by_their_own_times():
    lanes = [
        lane(0, 0, converged_env_steps=20_000, device_seconds=50.0),  # 10 device-seconds
        lane(1, 0, converged_env_steps=40_000, device_seconds=10.0),  # 4
        lane(2, 0, device_seconds=20.0),
    ]
    data = sweep_of(lanes)
    assert results.ranked(data)["trial"].tolist() == [0, 1, 2]
    by_seconds = results.ranked(data, "seconds").set_index("trial")
    assert by_seconds["time"].to_dict() == pytest.approx({1: 4.0, 0: 10.0, 2: 20.0})  # what it spent itself
    assert list(by_seconds.index) == [1, 0, 2]
    assert results.ranked(data, "updates").set_index("trial")["time"].to_dict() == {0: 2500, 1: 5000, 2: 12_500}
    assert by_seconds[["time_low", "time_high", "final_low"]].isna().all(axis=None)  # one seed has no interval
    with pytest.raises(ConfigError, match="Did you mean 'env_steps'"):
        results.ranked(data, "env_step")


@pytest.mark.parametrize("clock", tables.RANKINGS)
def test_the_numbers_of_a_trial_do_not_depend_on_other_trials(clock):
    """A third trial, dearer than both, must not decide the order of two."""
    two = [
        lane(0, 0, converged_env_steps=20_000, device_seconds=9.0),
        lane(0, 1, device_seconds=10.0),
        lane(1, 0, converged_env_steps=60_000, device_seconds=10.0),
        lane(1, 1, converged_env_steps=60_000, device_seconds=10.0),
    ]
    third = [lane(2, s, device_seconds=1000.0, episodes=900_000, updates=900_000, final_return=100.0) for s in (0, 1)]
    alone, beside = (
        results.ranked(sweep_of(lanes), clock).set_index("trial").drop(columns="rank") for lanes in (two, two + third)
    )
    assert alone.index.tolist() == [trial for trial in beside.index if trial != 2]
    pd.testing.assert_frame_equal(alone, beside.loc[alone.index])


def test_settings_whose_failures_are_cheap_do_not_lead():
    lanes = [
        *(lane(0, s, converged_env_steps=50_000, device_seconds=8.0) for s in range(3)),  # 4 seconds each
        lane(1, 0, converged_env_steps=50_000, device_seconds=4.0),
        *(lane(1, s, device_seconds=4.0) for s in (1, 2)),  # less on average, but two of three fail
        *(lane(2, s, device_seconds=0.1) for s in range(3)),
    ]
    table = results.ranked(sweep_of(lanes), "seconds")
    assert table["trial"].tolist() == [0, 1, 2]
    assert table["per_solved"].tolist() == pytest.approx([4.0, 10.0, np.inf])
    assert table["time"].tolist() == pytest.approx([4.0, 10 / 3, 0.1])


def test_a_lane_is_charged_its_own_cost_of_the_whole_budget():
    lanes = [
        lane(0, 0, converged_env_steps=20_000, env_steps=20_000, device_seconds=2.0, status="converged"),
        lane(0, 1, device_seconds=8.0),
        lane(0, 2, status="diverged", env_steps=25_000, device_seconds=3.0),
        lane(1, 0, status="pruned", env_steps=10_000, device_seconds=1.0),
        lane(1, 1, converged_env_steps=50_000, device_seconds=10.0),
        lane(1, 2, converged_env_steps=50_000, device_seconds=10.0),
    ]
    data = sweep_of(lanes)
    assert results.budgets(data.lanes, "seconds", END).tolist() == [10.0, 8.0, 12.0, 10.0, 10.0, 10.0]
    assert results.budgets(data.lanes, "env_steps", END).tolist() == [END] * 6
    times, _, _ = results.outcomes(data.lanes, "seconds", END)
    assert times.tolist() == [2.0, 8.0, 12.0, 1.0, 5.0, 5.0]
    table = results.ranked(data, "seconds").set_index("trial")
    assert table.loc[0, "time"] == pytest.approx((2 + 8 + 12) / 3)
    assert table.loc[0, "per_solved"] == pytest.approx(2 + 8 + 12)
    assert table.loc[0, "per_solved_low"] < 22 < table.loc[0, "per_solved_high"]
    assert table.loc[1, "per_solved"] == pytest.approx(5.5)  # what they took


def test_final_returns_rank_only_where_every_lane_had_its_budget():
    data = sweep_of(HAND)
    assert results.ranked(data, "final_return")["trial"].tolist() == [0, 1, 2]
    cut = sweep_of(HAND, stop="converged")
    assert results.ranked(cut)[["final", "worst", "area"]].isna().all(axis=None)
    with pytest.raises(ConfigError, match="rank by a time"):
        results.ranked(cut, "final_return")


def test_of_trials_that_never_converged_the_better_evaluations_come_first():
    data = sweep_of([lane(t, s, final_return=r) for t, r in enumerate((50.0, 90.0, 70.0)) for s in range(2)])
    assert results.ranked(data)["trial"].tolist() == [1, 2, 0]
    assert results.ranked(data)["time"].tolist() == [END] * 3


def test_trials_with_seeds_still_running_are_left_out():
    data = sweep_of([lane(0, 0), lane(0, 1), lane(1, 0, converged_env_steps=5_000)], seeds=[0, 1])
    whole = results.finished(data)
    assert set(whole.lanes["trial"]) == set(whole.curves["trial"]) == {0}
    assert results.ranked(data)["trial"].tolist() == [0]
    assert results.ranked(sweep_of([lane(0, 0)], seeds=[0, 1])).empty
    view = View.of(data)
    assert view.left_out == 1
    assert any("1 of 2 trials" in text for text in caveats(view))
    with pytest.raises(ConfigError, match="no trial with all its seeds finished"):
        View.of(sweep_of([lane(0, 0)], seeds=[0, 1]))
    with pytest.raises(ConfigError, match="no finished lanes yet"):
        View.of(sweep_of([]))


def test_a_thousand_trials_would_rank_in_seconds():
    data = synthetic.sweep(200, confirm=False)
    start = time.process_time()
    assert len(results.ranked(data)) == 200
    assert time.process_time() - start < 4  # about 0.7 on one slow core


# -- importance and values ---------------------------------------------------------------------------------


def test_importance_finds_the_hyperparameter_that_matters():
    rng = np.random.default_rng(0)
    rates = 1e-4 * 100 ** rng.random(80)
    trials = pd.DataFrame(
        {"learning_rate": rates, "batch_size": rng.choice([32, 64], 80), "hidden": [(64, 64), (120, 84)] * 40}
    )
    space = parse_space(["learning_rate=log(1e-4,1e-2)", "batch_size=32,64", "hidden=64x64,120x84"])
    found = importance(space, trials, np.abs(np.log10(rates / 1e-3)))
    assert found.names[0] == "learning_rate"
    assert found.shares.sum() == pytest.approx(1.0)
    assert found.low[0] > 0.5
    assert np.all(found.low <= found.high)
    assert "at least 8" in importance(space, trials[:7], np.arange(7.0))
    assert "too few" in importance(space, trials, np.ones(80))
    assert "more than one value" in importance(space, trials.assign(batch_size=32, hidden=[(64, 64)] * 80), rates)


def test_values_read_as_they_are_given():
    values = (None, np.nan, (64, 64), [120, 84], True, 0.00012345, 32, np.float64(1.0), "adam")
    assert [show(value) for value in values] == [
        "none",
        "none",
        "64x64",
        "120x84",
        "true",
        "0.0001234",
        "32",
        "1",
        "adam",
    ]
    assert [number(x) for x in (0.0, 28_500.0, 0.12345, 99.0, 1e-5, np.nan)] == [
        "0", "28,500", "0.1235", "99", "1e-05", "-"
    ]  # fmt: skip


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_says_what_the_tables_say(folder):
    path = folder(sweep_of(HAND, prune={"rule": "halving", "eta": 3}))
    page = page_of([path])
    rows = page.table("converged")
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["mean environment steps"] == "30,000 [5,159, 85,412]"
    assert rows[1]["converged"] == "2 of 3 [9%, 99%]"
    assert rows[2]["final IQM"] == "-"
    assert "Pruning was on (halving, eta 3). Lanes stopped early because they looked slow: 1, of 1 trials." in page.text
    assert "This biases convergence statistics" in page.text
    assert "Lanes that diverged (to values that are not finite): 1." in page.text
    assert "count as never converged, up to the full horizon." in page.text
    assert "Lanes that spent their budget without converging: 1." in page.text
    assert "Leading in the search, not confirmed" in page.text
    assert "Best" not in page.text
    assert page.scripts == 1
    assert sum(title.startswith("trial 2: 1 of 3") for title in page.titles) == 4
    figures = path / "report" / "figures"
    names = {"survival", "learning", "values", "slices", "stability", "cost", "profile"}
    assert {file.name for file in figures.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for name in names:
        with Image.open(figures / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
        assert (figures / f"{name}.svg").read_text().rstrip().endswith("</svg>")
    assert sum(link.startswith("data:") for link in page.links) == 2 * len(names)  # for a screen and for a telephone


def confirmed(choice, reported, **confirm):
    """Three trials of a search; the first two on held-out seeds: 100 to 103, then 104 to 107."""
    held_out = [
        lane(t, 100 + s, phase="confirm", converged_env_steps=(choice if s < 4 else reported)[t])
        for t in (0, 1)
        for s in range(8)
    ]
    search = [lane(t, s, converged_env_steps=m) for t, m in ((0, 20_000), (1, 30_000), (2, 90_000)) for s in range(2)]
    return sweep_of(search + held_out, confirm={"seeds": list(range(100, 108)), "best": 2, **confirm})


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


def test_without_seeds_that_choose_the_leader_of_the_search_is_reported():
    data = confirmed((60_000, 50_000), (60_000, 50_000), choosing=0)
    assert results.ranked(data, phase="confirm")["trial"].tolist() == [0, 1]
    assert results.ranked(data, phase="confirm")["lanes"].tolist() == [8, 8]


def test_curves_cut_at_convergence_have_no_final_return(folder):
    page = page_of([folder(synthetic.sweep(12, 3, stop="converged", prune=False, confirm=False))])
    assert "Lanes left when they converged" in page.text
    assert "final IQM" not in page.text
    assert "final" not in page.ids
    assert "Pruning was on" not in page.text


def test_names_are_text_whatever_is_in_them(folder):
    data = sweep_of(HAND)
    name = "<script>alert('$x$')</script> & co"
    data.settings["hparams"]["note"] = "</td><b>"
    renamed = type(data)(
        name, *(getattr(data, f) for f in ("settings", "plan", "provenance", "trials", "lanes", "curves"))
    )
    page = page_of([folder(renamed)])
    assert name in page.text
    assert page.scripts == 1


def test_each_mark_says_which_trial_it_is():
    data = sweep_of(HAND, {"learning_rate": [1e-3, 2e-3, 4e-3], "discount": [0.9, 0.95, 0.99]})
    view = View.of(data)
    drawn = [
        *(draw(view) for draw in (space_figures.slices, space_figures.parallel_coordinates, sweep_figures.cost)),
        *(draw([view]) for draw in (sweep_figures.survival, sweep_figures.learning_curves, sweep_figures.profile)),
        sweep_figures.stability(view),
    ]
    titles = [title for chart in drawn for title in chart.told]
    trial = "trial 1: 2 of 3 [9%, 99%] converged, mean environment steps 50,000 ["
    found = [title for title in titles if title.startswith(trial) and "; learning_rate 0.002, discount 0.95" in title]
    assert len(found) == 6  # survival, slices, parallel coordinates, stability, profile, cost
    assert any(title.endswith("; device-seconds 30") for title in found)
    assert any("; stability 0.8" in title for title in found)
    assert any(title.startswith("mean of trial 0: 3 of 3") for title in titles)
    assert "trial 1, seed 2: converged at 40,000 environment steps, last evaluation 500" in titles
    assert "trial 1, seed 1: not converged, last evaluation -, diverged" in titles

    # The dots are where the points are: in both panels at one height, and what is slower is higher.
    svg = drawn[0].svg()
    assert 'viewBox="0 0 648 ' in svg
    overlay = drawn[0].overlay()
    assert 'viewBox="0 0 648.0 ' in overlay
    dots = {
        title: [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", rest)]
        for title, rest in re.findall(r"<title>(trial \d)[^<]*</title>(.*?)</g>", overlay)
    }
    assert {len(places) for places in dots.values()} == {2}
    assert all(places[0][1] == places[1][1] for places in dots.values())
    (x0, y0), (x1, y1), (x2, y2) = (dots[f"trial {i}"][0] for i in range(3))
    assert (y0 - y1) / (y1 - y2) == pytest.approx(1.0, abs=0.05)  # 30,000, 50,000 and 70,000 steps
    assert (x1 - x0) / (x2 - x1) == pytest.approx(1.0, abs=0.05)  # 0.001, 0.002 and 0.004 on a logarithmic axis


def test_dots_stand_out_from_white():
    def contrast(colour):  # WCAG 2: of graphical objects at least 3
        channels = np.asarray(matplotlib.colors.to_rgb(colour))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)

    ramp = sweep_figures._dark_is_good(reverse=False)
    assert min(contrast(ramp(share)) for share in np.linspace(0, 1, 21)) > 3
    assert min(map(contrast, [*figures.COLOURS, sweep_figures._GREY])) > 3


def test_a_large_sweep_stays_light(folder):
    path = folder(synthetic.sweep(210, 2))
    page = page_of([path])
    assert len(page.table("median")) == 50
    assert "The best 50 of 210 trials; trials.csv beside this page has all." in page.text
    assert (path / "report" / "report.html").stat().st_size < 2_500_000
    assert len(pd.read_csv(path / "report" / "trials.csv")) == 213  # three of them confirmed


DEGENERATE = {
    "one trial, one seed": sweep_of([lane(0, 0, converged_env_steps=50_000)]),
    "nothing converged": sweep_of([lane(t, s) for t in range(9) for s in range(2)]),
    "all at once": sweep_of([lane(t, s, converged_env_steps=50_000) for t in range(9) for s in range(2)]),
    "all diverged": sweep_of([lane(t, 0, status="diverged", env_steps=1_000, final_return=np.nan) for t in range(2)]),
    "all pruned": sweep_of([lane(t, s, status="pruned", env_steps=5_000) for t in range(2) for s in range(2)]),
    "one value": sweep_of(
        [lane(t, 0, converged_env_steps=10_000) for t in range(2)],
        {"batch_size": [32, 32], "max_grad_norm": [None] * 2},
    ),
    "no criterion": sweep_of([lane(0, s) for s in range(3)], {}, criteria=[]),
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_sweeps_are_reported(folder, name):
    page = page_of([folder(DEGENERATE[name])])
    assert not re.search(r"\bnan\b", page.text)
    if name in ("nothing converged", "all diverged", "all pruned"):
        assert "No seed of any trial converged" in page.text
        assert "none by 100,000" in page.text
        assert "Leading" not in page.text
    if name == "one trial, one seed":
        assert page.table("converged")[0]["mean environment steps"] == "50,000"  # no interval of one seed


def test_values_that_no_policy_is_worth_and_seeds_that_fell_are_said_first(folder):
    ends = [500.0, 300.0, 480.0, 200.0]
    lanes = [lane(0, s, converged_env_steps=20_000.0, stability=0.5, final_return=r) for s, r in enumerate(ends)]
    data = sweep_of(lanes, {}, criteria=["eval>=475"])
    data.settings["hparams"]["discount"] = 0.98  # of CartPole's rewards of 1: 50 at most
    data.curves["q_mean"] = np.where(data.curves["seed"] < 3, 300.0, 40.0) * data.curves["env_steps"] / END
    page = page_of([folder(data)])
    assert "At the last evaluation 2 of 4 seeds were below 475; converged, then fell: 2 of 4." in page.text
    assert "Mean Q passed its bound in 3 of 4 seeds, up to 300: no policy is worth more than 50 here" in page.text
    assert "Mean Q passed what any policy can be worth in 3 of 4 lanes" in page.text
    assert "seed 3: mean Q 40 at the end, 40 at most" in page.titles
    assert "no policy is worth more than 50" in page.titles


def test_without_a_criterion_the_page_says_how_to_give_one_and_shows_returns(folder):
    page = page_of([folder(sweep_of([lane(0, s, final_return=100.0 * s) for s in range(3)], {}, criteria=[]))])
    assert "Nothing says what converged means on CartPole-v1" in page.text
    assert "--criteria gives one, such as 'eval>=475'" in page.text
    assert "Last evaluation of 3 seeds: mean 100, worst seed 0, best 200" in page.text
    assert "ranked by" not in page.text
    assert "fell" not in page.text


def test_one_evaluation_is_a_point_in_every_figure_over_time():
    data = sweep_of([lane(0, s, final_return=100.0 * s) for s in range(3)], {}, criteria=[])
    view = View.of(dataclasses.replace(data, curves=data.curves[data.curves["env_steps"] == END]))
    for chart in (sweep_figures.learning_curves([view]), sweep_figures.values(view)):
        marked = [line.get_marker() for line in chart.axes[0].lines if len(line.get_xdata()) == 1]
        assert len(marked) == 4  # three seeds and their mean
        assert set(marked) <= {".", "o"}


def test_settings_that_did_not_vary_are_those_of_this_kind_of_environment():
    own = {name: getattr(Config, name) for name in ("eval_every", "frame_stack", "noop_max", "env_params", "sampling")}
    hparams = {"learning_rate": 0.5, "huber_delta": 1.0, "discount": HParams().discount}
    asked = {"config": {**own, "env": "CartPole-v1", "loss": "squared"}, "hparams": hparams, "vary": {"discount": ""}}
    _, table, rest = fixed_settings(asked)
    rows = {row[0].text: (row[1].text, row[2].text) for row in table.rows}
    assert set(rows) == {"env", "eval_every", "loss", "env_params", "sampling", "learning_rate"}
    assert rows["learning_rate"] == ("0.5", show(HParams().learning_rate))
    assert rows["eval_every"] == (show(Config.eval_every), "")
    assert rest.text == "Without a meaning here, and left out: frame_stack, noop_max, huber_delta."
    asked["config"]["env"] = "Pong-v5"
    assert "env_params" in fixed_settings(asked)[2].text


def test_machines_get_the_same_table(folder, tmp_path):
    path = folder(synthetic.sweep(9, 3))
    table = results.ranked(synthetic.sweep(9, 3))
    rows = list(csv.DictReader(io.StringIO(report_command([path], csv=True))))
    search = [row for row in rows if row["phase"] == "search"]
    assert [int(row["trial"]) for row in search] == table["trial"].tolist()
    assert {row["hidden"] for row in search} == {"64x64", "120x84"}
    assert float(search[0]["time"]) == pytest.approx(table["time"][0])
    assert {row["phase"] for row in rows} == {"search", "confirm"}
    found = json.loads(report_command([path], json=True))
    assert [row["trial"] for row in found["trials"]] == table["trial"].tolist()
    assert found["trials"][0]["time_high"] == pytest.approx(table["time_high"][0])
    assert found["best"] == found["confirmed"][0]["trial"]
    assert list(tmp_path.glob("**/report.html")) == []
    with pytest.raises(ConfigError, match="one format"):
        report_command([path], csv=True, json=True)


# -- two of them -------------------------------------------------------------------------------------------


def test_two_sweeps_are_compared_by_the_best_trial_of_each(folder):
    fast = [10_000.0, 20_000.0, np.nan, 40_000.0]
    slow = [20_000.0, 30_000.0, np.nan, np.nan]
    a, b = (
        sweep_of([lane(0, s, converged_env_steps=t, final_return=r) for s, t in enumerate(times)], {}, name=name)
        for name, times, r in (("a", fast, 300.0), ("b", slow, 200.0))
    )
    # Of 16 pairs a is faster in 4 (10,000), 3 (20,000), 0 (never) and 2 (40,000); it ties in 1 and, never, in 2.
    expected = (4 + 3 + 2 + 0.5 * (1 + 2)) / 16
    found = {one.measure: one for one in comparison.comparisons(View.of(a), View.of(b))}
    steps = found["fewer environment steps to convergence"]
    assert steps.probability == pytest.approx(expected)
    assert steps.paired
    assert steps.low <= expected <= steps.high
    assert found["higher final return"].probability == 1.0
    page = page_of([folder(a, "a"), folder(b, "b")], output=folder(a, "out"))
    assert f"{100 * expected:.0f}%" in page.table("probability")[0]["probability"]
    assert "The same seeds were used on both sides" in page.text
    assert "chosen on the seeds shown, their numbers are too good." in page.text


def test_what_cannot_be_compared_is_not(folder):
    a = sweep_of([lane(0, s, converged_env_steps=5_000) for s in range(3)], {})
    b = sweep_of([lane(0, s + 9, converged_env_steps=5_000) for s in range(3)], {}, stop="converged")
    found = comparison.comparisons(View.of(a), View.of(b))
    assert {one.paired for one in found} == {False}
    assert "higher final return" not in {one.measure for one in found}
    other = sweep_of([lane(0, 0, converged_env_steps=5_000)], {}, criteria=["eval>=100"])
    assert [one.measure for one in comparison.comparisons(View.of(a), View.of(other))] == ["higher final return"]
    page = page_of([folder(a, "a"), folder(other, "b")], output=folder(a, "out"))
    assert "eval>=475x3 in A and eval>=100 in B, so times are not compared" in page.text


@pytest.mark.parametrize(
    ("changes", "words", "returns_too"),
    [
        ({"env": "CartPole-v0"}, "different tasks (env CartPole-v1 and CartPole-v0)", True),
        ({"max_episode_steps": 200}, "different tasks (max_episode_steps none and 200)", True),
        ({"sticky_actions": 0.25}, "different tasks (sticky_actions 0 and 0.25)", True),
        ({"eval_every": 1_000}, "evaluated differently (eval_every 5000 and 1000)", False),
        ({"eval_epsilon": 0.05}, "evaluated differently (eval_epsilon 0 and 0.05)", True),
        ({"total_steps": 50_000}, "The budgets differ (total_steps 100000 and 50000)", True),
        ({"eval_seed": 5, "reward_scale": 0.1}, "", False),
    ],
)
def test_numbers_on_two_rulers_are_not_compared(folder, changes, words, returns_too):
    lanes = [lane(0, s, converged_env_steps=5_000) for s in range(3)]
    a = sweep_of(lanes, {})
    b = sweep_of(lanes, {}, config={**a.settings["config"], **changes})
    measures = {one.measure for one in comparison.comparisons(View.of(a), View.of(b))}
    assert ("fewer environment steps to convergence" in measures) == (not words)
    assert ("higher final return" in measures) == (not returns_too)
    page = page_of([folder(a, "a"), folder(b, "b")], output=folder(a, "out"))
    assert words in page.text


def test_a_sweep_that_varied_its_ruler_says_so(folder):
    a = sweep_of(HAND, {"total_steps": [10_000, 50_000, 100_000]}, vary={"total_steps": "10000,50000,100000"})
    assert "What varied includes how trials were measured (total_steps)" in page_of([folder(a)]).text
    assert comparison.comparisons(View.of(a), View.of(sweep_of(HAND))) == []


# -- runs and folders --------------------------------------------------------------------------------------


def write_run(run, *, complete=True, devices=2):
    run.mkdir()
    settings = runs.RunSettings(
        "cartpole", (3, 4), Config(total_steps=2_000, eval_every=1_000), HParams(), ("eval>=475",)
    )
    runs.save_settings(run, settings)
    steps = [1_000, 2_000]
    metrics = pd.DataFrame(
        {
            "seed": np.repeat([3, 4], 2),
            "env_steps": steps * 2,
            "updates": [0, 100, 0, 100],
            "episodes": [10, 15, 20, 25],
            "seconds": [4.0, 8.0] * 2,
            **{name: 0.1 for name in ("epsilon", "loss", "td_error", "q_mean", "train_return", "eval_length")},
            "eval_return": [480.0, 470.0, 100.0, 200.0],
        }
    )
    metrics.to_csv(run / "metrics.csv", index=False)
    criterion = {
        "name": "eval>=475", "threshold": 475.0, "converged": 0.5, "env_steps": [1_000, None], "updates": [0, None],
        "episodes": [10, None], "seconds": [4.0, None], "stability": [0.0, None],
    }  # fmt: skip
    summary = {
        "seeds": [3, 4], "complete": complete, "env_steps": 2_000, "criteria": [criterion], "diverged": [],
        "seconds": {"import": 1.0, "compile": 6.5, "run": 8.0},
    }  # fmt: skip
    files.write_json(run / "summary.json", summary)
    files.write_json(
        run / "provenance.json", {"devices": {"platform": "cpu", "kind": "cpu", "count": devices}, "seeds": [3, 4]}
    )
    return run


def test_a_run_is_a_sweep_with_one_trial(tmp_path):
    run = write_run(tmp_path / "run")
    data = results.load(tmp_path)  # the newest below
    assert data.lanes["status"].tolist() == ["budget", "budget"]
    assert data.lanes["converged"].tolist() == [True, False]
    assert data.lanes["converged_seconds"].tolist()[0] == 4.0  # two devices worked four seconds for two lanes
    assert data.lanes["final_return"].tolist() == [470.0, 200.0]
    assert data.lanes["best_return"].tolist() == [480.0, 200.0]
    assert json.loads(data.lanes["moments"][0]) == [[1000, 0, 10, 4.0]]
    page = page_of([tmp_path])
    assert (run / "report" / "report.html").is_file()
    assert page.table("converged")[0]["mean environment steps"].startswith("1,500")
    assert "1 of 2 seeds" in page.text
    assert "6.5 s (programs: 1)" in page.text
    assert json.loads(report_command([run], json=True))["trials"][0]["share"] == 0.5


# Two lanes in a run of 8 seconds. Of four devices they leave two idle; on one they share its seconds.
@pytest.mark.parametrize(("devices", "at_work"), [(1, 1), (2, 2), (4, 2)])
def test_only_devices_with_a_lane_of_the_run_count(tmp_path, devices, at_work):
    data = results.load(write_run(tmp_path / "run", devices=devices))
    assert data.lanes["device_seconds"].tolist() == [8.0 * at_work / 2] * 2
    assert data.curves["seconds"].tolist() == [4.0 * at_work / 2, 8.0 * at_work / 2] * 2
    assert data.lanes["converged_seconds"].tolist()[0] == 4.0 * at_work / 2
    assert json.loads(data.lanes["moments"][0]) == [[1000, 0, 10, 4.0 * at_work / 2]]
    cost = f"{8 * at_work} device-seconds on {at_work} x cpu"
    assert cost in page_of([tmp_path]).text


def test_what_cannot_be_reported_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        results.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no sweep and no run"):
        results.load(tmp_path)
    with pytest.raises(ConfigError, match=r"no finished lanes yet \(it was stopped\); go on with --resume"):
        results.load(write_run(tmp_path / "stopped", complete=False))
    with pytest.raises(ConfigError, match="give one to report on, or two"):
        report_command([tmp_path] * 3)
