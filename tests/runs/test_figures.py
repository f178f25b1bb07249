"""Figures of runs: what they are called, that one evaluation is seen, and that names are drawn as they are."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dqn_jax.report import RunData, plot_runs


def run_data(name="cartpole", *, chunks=3, seeds=3, **changes):
    rows = [(s, 1000 * (c + 1), 100.0 * s + c) for s in range(seeds) for c in range(chunks)]
    metrics = pd.DataFrame(rows, columns=["seed", "env_steps", "eval_return"])
    settings = {"env": "CartPole-v1", "learning_rate": 1e-3, **changes.pop("settings", {})}
    return RunData(name, seeds, metrics, [], settings, **{"stamp": "20260101", "date": "2026-01-01"} | changes)


def text_of(runs, path, monkeypatch, **options):
    """The words of the figure, drawn as words."""
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")
    plot_runs(runs, path / "figure.svg", **options)
    return re.findall(r"<text[^>]*>([^<]*)</text>", (path / "figure.svg").read_text())


def test_a_figure_names_its_environment_its_date_and_its_runs(tmp_path, monkeypatch):
    runs = [run_data(), run_data(settings={"learning_rate": 1e-2}, date="2026-02-03")]
    words = text_of(runs, tmp_path, monkeypatch)
    assert "CartPole-v1, 2026-01-01 to 2026-02-03" in words
    assert "cartpole, learning_rate 0.001: mean of 3 seeds" in words
    assert "cartpole, learning_rate 0.01: mean of 3 seeds" in words
    assert "new: mean of 3 seeds" in text_of(runs, tmp_path, monkeypatch, labels=["old", "new"])


@pytest.mark.parametrize("name", ["a$x_{$", "_hidden", "[/red]<b>&amp;", "two\nlines", "caf\u00e9 \u6f22"])
def test_names_are_drawn_as_they_are(tmp_path, monkeypatch, name):
    words = text_of([run_data(name, settings={"env": name})], tmp_path, monkeypatch)
    shown = " ".join(name.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert any(word.strip() == f"{shown}: mean of 3 seeds" for word in words)
    assert any(word.strip() == f"{shown}, 2026-01-01" for word in words)


def test_a_run_with_one_evaluation_is_seen(tmp_path):
    def coloured(chunks, name):
        plot_runs([run_data(chunks=chunks)], tmp_path / name)
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB"), int)[60:]  # below title and legend
        return int((picture[..., 2] - picture[..., 0] > 60).sum())  # blue pixels

    assert coloured(1, "one.png") > 300
