"""The Atari experiments: what is kept of a run, and how it is set beside published curves."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest

import dqn_jax
from dqn_jax import cli, runs
from dqn_jax.presets import resolve_preset, with_overrides
from experiments.atari import train


def test_training_games_count_in_the_bin_they_ended_in():
    episodes = pd.DataFrame(
        [(0, 24_999, 1.0), (0, 25_000, 2.0), (0, 25_001, 5.0), (0, 90_000, -4.0), (3, 25_000, 7.0)],
        columns=["seed", "env_steps", "train_return"],
    )
    bins = train.training_returns(episodes, frames_per_step=4)
    assert bins.to_dict("list") == {
        "seed": [0, 0, 0, 3],
        "frames": [100_000, 200_000, 400_000, 100_000],
        "games": [2, 1, 1, 1],
        "mean_return": [1.5, 5.0, -4.0, 7.0],
    }


def test_a_run_on_another_game_is_recorded_with_its_score_and_what_was_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "RESULTS", tmp_path / "results")
    asked = []

    def trained(arguments):
        """In place of a game: CartPole under the settings that were asked for, but for the name of the environment."""
        asked.append(arguments)
        if "--resume" in arguments:
            return 0
        run = tmp_path / arguments[arguments.index("--out") + 1]
        options = dict(hidden=(4,), num_envs=2, total_steps=200, eval_every=100, eval_episodes=2, replay_capacity=200)
        options |= dict(min_replay=50, batch_size=4, seeds=2, criteria=("eval>=1",), max_episode_steps=30)
        dqn_jax.train("cartpole", out=run, save_episodes="--save-episodes" in arguments, **options)
        settings = runs.load_settings(run)
        game = with_overrides(resolve_preset("pong-fast"), {"env": "Breakout-v5", "learning_rate": 3e-4})
        runs.save_settings(run, runs.RunSettings(game.name, (0, 1), game.config, game.hparams, settings.criteria))
        summary = runs.read_json(run / "summary.json") | {"final_eval_return": [16.1, 1.7]}
        runs.write_json(run / "summary.json", summary)
        return 0

    monkeypatch.setattr(cli, "main", trained)
    line = "pong-fast --name hour --env Breakout-v5 --minutes 60 --learning-rate 3e-4".split()
    monkeypatch.setattr(sys, "argv", ["train", *line])
    train.main()
    [arguments] = asked
    assert arguments[:2] == ["train", "pong-fast"]
    for option, values in {
        "--max-minutes": ["60"],
        "--env": ["Breakout-v5"],
        "--criteria": ["eval>=16.1", "eval>=8.9", "eval>=30.5"],
        "--learning-rate": ["3e-4"],
    }.items():
        place = arguments.index(option) + 1
        assert arguments[place : place + len(values)] == values
    assert "--stop" not in arguments
    assert "--resume" not in arguments
    folder = tmp_path / "results" / "hour"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "metrics.csv", "training.csv", "curve.png"
    }  # fmt: skip
    page = (folder / "README.md").read_text()
    assert " ".join(line) in page
    assert "16.1, 1.7; random play 1.7, human 30.5 (dqn_zoo's), human-normalised 50%, 0%." in page
    assert "with `env Breakout-v5`, `learning_rate 0.0003`." in page
    assert "sticky actions 0, a lost life ends the bootstrap, exploration to 0.02 over 0.4M frames" in page
    assert pd.read_csv(folder / "training.csv").games.sum() == len(
        pd.read_csv(tmp_path / "runs/atari/hour/episodes.csv")
    )
    assert json.loads((folder / "config.json").read_text())["name"] == "pong-fast"

    train.main()  # again: it goes on with the run
    assert sorted(asked[1]) == sorted([*arguments, "--resume"])


def test_a_run_that_was_stopped_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "RESULTS", tmp_path / "results")
    asked = []
    monkeypatch.setattr(cli, "main", lambda arguments: asked.append(arguments) or 130)
    monkeypatch.setattr(sys, "argv", ["train", "pong-fast"])
    with pytest.raises(SystemExit, match="130"):
        train.main()
    assert asked[0][asked[0].index("--stop") + 1] == "converged"
    assert not (tmp_path / "results").exists()
