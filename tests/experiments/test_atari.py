"""The Atari experiments: what is kept of a run, and how it is set beside published curves."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest

import dqn_jax
from dqn_jax import files, runs
from dqn_jax.cli import main as cli
from dqn_jax.config import ConfigError
from dqn_jax.presets import GAMES, resolve_preset, with_overrides
from experiments import pages
from experiments.atari import compare, train


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
    monkeypatch.setattr(
        "dqn_jax.runs.recorder.Recorder.film", lambda *_: None
    )  # a film of CartPole takes longer than all else
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
        summary = files.read_json(run / "summary.json") | {"final_eval_return": [16.1, 1.7]}
        runs.save_summary(run, summary)
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
        "--learning-rate": ["3e-4"],
    }.items():
        place = arguments.index(option) + 1
        assert arguments[place : place + len(values)] == values
    assert "--stop" not in arguments
    assert "--criteria" not in arguments  # those of the game
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


def test_a_game_may_be_spelt_as_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    record(tmp_path, "own", [(0, 1_000_000, 2, 30.0)], env_steps=250_000, env="ms-pacman")
    assert compare.Run.load("own").game == "MsPacman"
    summary = dict(env_steps=250_000, updates=[1], seconds={"run": 60.0}, final_eval_return=[6951.6], seeds=[0])
    facts = train.measure(runs.load_settings(tmp_path / "own"), {**summary, "criteria": []})
    pages.write(tmp_path / "page.md", "atari/run.md.jinja", name="own", arguments="", measured="", note="", **facts)
    assert "human-normalised 100%" in (tmp_path / "page.md").read_text()


def record(folder, name, bins, *, env_steps, **settings):
    """A result as `train` writes it: `bins` are rows of seed, frames, games and mean_return."""
    (folder / name).mkdir(parents=True)
    preset = with_overrides(resolve_preset("pong-fast"), settings)
    seeds = tuple(sorted({row[0] for row in bins}))
    runs.save_settings(folder / name, runs.RunSettings(preset.name, seeds, preset.config, preset.hparams, ()))
    pd.DataFrame({"seed": seeds, "env_steps": env_steps}).to_csv(folder / name / "metrics.csv", index=False)
    pd.DataFrame(bins, columns=["seed", "frames", "games", "mean_return"]).to_csv(
        folder / name / "training.csv", index=False
    )


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    monkeypatch.setattr(compare, "FOLDER", tmp_path / "comparison")
    record(
        tmp_path, "two-seeds",
        [
            (0, 100_000, 3, 1.0), (0, 1_000_000, 1, 5.0),  # (3 + 5) / 4 = 2
            (0, 1_100_000, 2, 6.0), (0, 2_000_000, 1, 9.0),  # (12 + 9) / 3 = 7
            (1, 900_000, 2, 4.0), (1, 1_500_000, 5, 9.0),  # 4 and 9
            (0, 2_100_000, 1, 50.0), (1, 2_100_000, 1, 50.0),  # of a million that has not been played to its end
        ],
        env_steps=530_000, env="Breakout-v5",
    )  # fmt: skip
    like = {"sticky_actions": 0.25, "life_loss": "ignore", "epsilon_end": 0.01, "epsilon_decay_steps": 250_000}
    record(tmp_path, "one-seed", [(7, 600_000, 4, -20.0)], env_steps=250_000, **like)
    return tmp_path


def test_training_returns_stand_beside_published_ones_at_the_frames_both_have(results, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compare", "two-seeds", "one-seed"])
    compare.main()
    table = pd.read_csv(results / "comparison" / "comparison.csv")
    assert list(table.game) == ["Breakout", "Breakout", "Pong"]
    assert list(table.frames) == [1_000_000, 2_000_000, 1_000_000]
    assert list(table.seeds) == [2, 2, 1]
    np.testing.assert_allclose(table.ours, [3, 8, -20])
    # Two seeds, each 1 from their mean: with one degree of freedom Student's t is 12.706 standard errors.
    np.testing.assert_allclose(table.low, [3 - 12.7062, 8 - 12.7062, np.nan], atol=1e-4)
    np.testing.assert_allclose(table.high, [3 + 12.7062, 8 + 12.7062, np.nan], atol=1e-4)
    # As Dopamine published: Breakout 1.81 and 7.11, Pong -20.19.
    np.testing.assert_allclose(table.published, [1.81, 7.11, -20.19])
    np.testing.assert_allclose(table.difference, [1.19, 0.89, 0.19])
    page = (results / "comparison" / "README.md").read_text()
    assert "| Breakout | two-seeds | 2M | 8 [-4.706, 20.71] | 7.11 ± 0.93 | +0.89 | no |" in page
    assert "| Pong | one-seed | 1M | -20 (one seed) | -20.19 ± 0.09 | +0.19 | yes |" in page
    assert (
        "| two-seeds | sticky actions 0, a lost life ends the bootstrap, exploration to 0.02 over 0.4M frames |" in page
    )
    assert "| published | sticky actions 0.25, lives not told, exploration to 0.01 over 1M frames |" in page
    assert (results / "comparison" / "comparison.png").stat().st_size > 20_000


def test_a_run_is_compared_as_its_record_is(results, monkeypatch):
    # The same games one by one: 4 of -20 that end with frame 600,000.
    run = results / "run"
    run.mkdir()
    for file in ("config.json", "metrics.csv"):
        (run / file).write_text((results / "one-seed" / file).read_text())
    with pytest.raises(ConfigError, match=r"kept no training games; .*--save-episodes"):
        compare.Run.load(str(run))
    pd.DataFrame({"seed": 7, "env_steps": [149_900] * 4, "train_return": -20.0}).to_csv(run / "episodes.csv")
    pd.testing.assert_frame_equal(compare.Run.load(str(run)).returns, compare.Run.load("one-seed").returns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_steps": 249_999}, "has no million frames yet"),
        ({"env": "Tetris-v5"}, "Tetris has no published curve; there are curves of Pong, Breakout"),
    ],
)
def test_what_cannot_be_compared_is_one_line(results, monkeypatch, changes, message):
    record(results, "odd", [(0, 100_000, 1, 1.0)], **{"env_steps": 250_000, **changes})
    monkeypatch.setattr(sys, "argv", ["compare", "odd"])
    with pytest.raises(SystemExit, match=message):
        compare.main()
    assert not (results / "comparison").exists()


def test_the_published_curves_are_those_of_our_presets():
    table = pd.read_csv(compare.PUBLISHED)
    assert {f"{game}-v5" for game in table.game} == set(GAMES.values())
    assert (table.groupby("game").frames_millions.apply(list).str[:20].apply(lambda x: x == list(range(1, 21)))).all()
    assert set(table.runs) == {5}
