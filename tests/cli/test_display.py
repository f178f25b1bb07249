"""What a person sees while something runs, at the width of an ordinary terminal."""

from __future__ import annotations

import os

import numpy as np
import pytest
from rich.console import Console

from dqn_jax.cli.display import SweepDisplay, TrainDisplay
from dqn_jax.sweep import SweepProgress
from dqn_jax.training import Progress


def shown(renderable, width):
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=width, file=nowhere)
        console.print(renderable)
        return console.export_text().splitlines()


def progress(**changes):
    known = dict(
        phase="train",
        env_steps=1_234_500,
        total_steps=2_500_000,
        share_done=0.49,
        seconds=7_200.0,
        lane_steps_per_second=1.23e6,
        train_return=np.array([12_345.6, 12_345.6]),
        eval_return=np.array([23_456.7, 23_456.7]),
        converged=np.array([True, False]),
        diverged=np.array([False, True]),
        above_bound=np.array([False, False]),
    )
    return Progress(**{**known, **changes})


@pytest.mark.parametrize(
    "name", ["cartpole", "tutorial-1-vectorised", "a-preset-with-a-name-that-is-far-too-long-" * 3]
)
@pytest.mark.parametrize("width", [80, 60])
def test_bar_percentage_and_time_left_of_a_run_stay_on_the_screen(name, width):
    display = TrainDisplay(name, 20, enabled=True)  # not entered: nothing is drawn by itself
    assert "compiling" in "\n".join(shown(display._screen(), width))
    display.update(progress())
    first, *rest = shown(display._screen(), width)
    assert first.startswith(name[:8])
    assert "━━━━" in first
    assert " 49%  2 h 4 min left" in first
    text = " ".join(" ".join(rest).split())
    assert "1,234,500 steps | 1.2M/s | train 12345.6 eval 23456.7 | 50% converged | diverged 1" in text


def test_where_nothing_says_what_converged_means_no_share_is_told():
    display = TrainDisplay("fourrooms", 20, enabled=True)
    display.update(progress(judged=False))
    assert "converged" not in " ".join(shown(display._screen(), 80))


@pytest.mark.parametrize(("above", "words"), [([True, False], "1 seed"), ([True, True], "2 seeds")])
def test_progress_says_in_how_many_seeds_mean_q_is_above_its_bound(above, words):
    display = TrainDisplay("cartpole", 2, enabled=True)
    display.update(progress(above_bound=np.array(above)))
    text = " ".join(" ".join(shown(display._screen(), 80)).split())
    assert text.endswith(f"Q above its bound: {words}")


@pytest.mark.parametrize("name", ["lr", "a-sweep-with-a-name-that-is-far-too-long-" * 3])
@pytest.mark.parametrize("width", [80, 60])
def test_bar_percentage_and_time_left_of_a_sweep_stay_on_the_screen(name, width):
    known = SweepProgress(
        phase="run",
        group={"hidden": (64, 64), "batch_size": 32},
        wave=1,
        waves=4,
        lanes={"converged": 1200, "diverged": 3},
        running=7,
        waiting=1190,
        env_steps=25_000,
        total_steps=100_000,
        lane_steps_per_second=123_456.0,
        seconds=59.0,
        seconds_left=7300.0,
        best=({"learning_rate": 1.23456e-3, "epsilon_decay_steps": 12_345, "target_mixing": 0.1234}, 31_500.0),
    )
    first, *rest = shown(SweepDisplay(name, enabled=True)._screen(known), width)
    assert first.startswith("sweep " + name[:2])
    assert "━━━━" in first
    assert " 50%  2 h 1 min left" in first
    text = " ".join(" ".join(rest).split())
    for part in ("2 of 4", "7 running, 1,200 converged, 3 diverged, 1,190 waiting", "123k lane-steps/s"):
        assert part in text


def test_no_name_or_setting_is_taken_for_markup(capsys):
    display = TrainDisplay("[/red]x[bold]", 1, enabled=True)
    display.warn("[/red] is a folder")
    assert shown(display._screen(), 80)[0].startswith("[/red]x[bold] x 1 seeds")
    assert "[/red] is a folder" in capsys.readouterr().err
