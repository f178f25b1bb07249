"""Pages say what was recorded: those whose records suffice are written anew, and come out as they lie there."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pandas as pd
import pytest

from experiments import pages
from experiments.atari import compare
from experiments.benchmark import __main__ as benchmark
from experiments.convergence import ablation, cartpole, deep_sea, landscape, overestimation, pendulum, staying
from experiments.convergence import common as convergence
from experiments.presets import measure as presets
from experiments.tutorials import __main__ as gallery


@pytest.fixture
def unchanged(tmp_path, monkeypatch):
    """Asserts that what a function writes in place of a recorded page has the page's text."""

    def check(module, attribute, write, page="README.md"):
        recorded = getattr(module, attribute)
        folder = recorded if recorded.is_dir() else recorded.parent
        monkeypatch.setattr(module, attribute, tmp_path if recorded.is_dir() else tmp_path / recorded.name)
        write()
        assert (tmp_path / page).read_text() == (folder / page).read_text()

    return check


def test_the_gallery_of_tutorials_comes_out_as_it_is(unchanged):
    unchanged(gallery, "PAGE", gallery.main)


def test_the_page_of_speed_comes_out_as_it_is(tmp_path, monkeypatch):
    recorded = benchmark.RESULTS
    for path in recorded.glob("*.csv"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    benchmark.main()
    page = (recorded / "README.md").read_text().replace("| target | |", "| target |  |")
    # The page was written from all digits of this row; six are recorded.
    page = page.replace("| 13,024,987 | 12,570,131 | 13,382,272 |", "| 13,025,000 | 12,570,100 | 13,382,300 |")
    sweeps = "| what | measured | target |"  # put together by hand from several rows
    assert sweeps in page
    assert (tmp_path / "README.md").read_text() == page.replace(f"{sweeps}  |", f"{sweeps} |")


def test_the_table_of_presets_comes_out_as_it_is(unchanged, tmp_path):
    for path in presets.RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    unchanged(presets, "RESULTS", presets.write_page)


def test_the_page_of_the_ablation_comes_out_as_it_is(tmp_path, monkeypatch):
    recorded = ablation.FOLDER
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    # Returns are of float32. And the page was written from all digits: the six of this one's record lie half-way.
    table = pd.read_csv(recorded / "ablation.csv", dtype={"worst_seed": "float32"})
    page = (recorded / "README.md").read_text().replace("41,087]", "41,088]")
    ablation.write_page(table, "2026-11-21, 2 CPU cores (cpu), jax 0.10.2, Python 3.11.7")
    assert (tmp_path / "README.md").read_text() == page


def test_the_page_of_the_deep_sea_comes_out_as_it_is(unchanged):
    folder = deep_sea.FOLDER
    when = (folder / "README.md").read_text().split(", measured ", 1)[1].split(". ", 1)[0]
    unchanged(deep_sea, "FOLDER", lambda: deep_sea.write_page(pd.read_csv(folder / "deep_sea.csv"), when))


@pytest.mark.parametrize("module", [overestimation, staying])
def test_the_page_of_an_experiment_on_tasks_comes_out_as_it_is(unchanged, module):
    folder = module.FOLDER
    unchanged(module, "FOLDER", lambda: module.write_page(pd.read_csv(folder / f"{folder.name}.csv")))


def test_the_comparison_with_published_returns_comes_out_as_it_is(unchanged, monkeypatch):
    monkeypatch.setattr(compare, "save_figure", lambda *arguments: None)
    names = ["breakout-hour", "ms-pacman-hour"]
    unchanged(compare, "FOLDER", lambda: compare.compare([compare.Run.load(n) for n in names], " ".join(names)))


@pytest.mark.parametrize(
    ("module", "phase", "columns"),
    [
        (landscape, "search", ("final", "worst")),
        (pendulum, "search", ("time",)),
        (pendulum, "confirm", ("time",)),
    ],
)
def test_the_best_of_a_sweep_are_those_of_its_records(module, phase, columns):
    folder = convergence.RESULTS / module.__name__.rpartition(".")[2]
    trials = pd.read_csv(folder / "trials.csv")
    view = SimpleNamespace(clock="env_steps", space=module.VARY)
    lines = pages.table(*convergence.ranking(trials[trials["phase"] == phase], view, columns=columns))
    assert lines in (folder / "README.md").read_text()


def test_the_tables_of_the_cartpole_search_are_those_of_its_records():
    table = cartpole.read_records()
    page = (cartpole.RECORDS.parent / "README.md").read_text()
    recorded = cartpole.recorded(table)
    assert f"{recorded.pop('solved'):.0%} of the 5,120 lanes solved it" in page
    for rows in recorded.values():
        assert pages.table(["x"], rows).split("\n", 2)[2] in page


def test_a_page_that_asks_for_a_fact_that_is_not_there_is_not_written(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="rules"):
        pages.write(tmp_path / "page.md", "atari/comparison.md.jinja", arguments="", rows=[])
    assert list(tmp_path.iterdir()) == []


def test_a_table_has_a_line_for_each_row():
    assert pages.table(["a", "b"], [[1, "x"], [2.5, ""]]) == "| a | b |\n|---|---|\n| 1 | x |\n| 2.5 |  |"


def test_every_experiment_has_a_page_and_every_template_an_experiment():
    templates = {path.relative_to(pages.ROOT) for path in pages.ROOT.rglob("*.md.jinja")}
    named = {Path(path.parent.name) / path.name for path in templates}
    assert templates == named  # beside the code
    code = "".join(path.read_text() for path in pages.ROOT.rglob("*.py")) + "".join(
        (pages.ROOT / path).read_text() for path in templates
    )
    for path in templates:
        name = path.name.removesuffix(".md.jinja")
        assert (pages.ROOT / path.parent / f"{name}.py").is_file() or str(path) in code or f'"{name}"' in code


def test_texts_show_intervals_and_count_those_that_never_got_there():
    assert pages.mean([1.0, 1.0, 1.0], 0) == "1"  # they show no spread
    assert pages.share([False] * 20) == "0% [0%, 17%]"
    assert pages.median([1.0, 2.0, None, None, None]).startswith("not reached [")
    assert pages.median([5.0] * 9) == "5 [5, 5]"
    assert pages.median([5.0] * 5) == "5"  # too few seeds
