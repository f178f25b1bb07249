"""Every tutorial experiment runs from end to end, with few steps: settings, statistics, figures, films, page."""

from __future__ import annotations

import dataclasses
import importlib
import re

import jax
import numpy as np
import pytest

import dqn_jax
from dqn_jax import files
from dqn_jax.config import validate
from dqn_jax.envs import make_env
from dqn_jax.presets import resolve_preset, with_overrides
from dqn_jax.prng import make_key
from experiments.tutorials import __main__ as gallery
from experiments.tutorials import common, pendulum, speed

NAMES = gallery.ORDER
TRAINED = {}  # by what makes another program


def experiment(name):
    return importlib.import_module(f"experiments.tutorials.{name}")


def variants(name):
    """Every preset and change that an experiment trains."""
    for label, value in experiment(name).VARIANTS.items():
        yield from (value.items() if isinstance(value, dict) else [(label, value)])


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_an_experiment_is_possible(name):
    seen = set()
    for label, (preset, changes) in variants(name):
        settings = {k: v for k, v in changes.items() if k != "criteria"}
        changed = with_overrides(resolve_preset(preset), settings)
        validate(changed.config, changed.hparams)
        assert make_env(changed.config).spec.num_actions >= 2
        seen.add((preset, repr(sorted(changes.items()))))
        assert label
    assert len(seen) >= 4


@pytest.fixture
def few_steps(monkeypatch, tmp_path):
    """Populations of two seeds that take a few hundred steps; each preset is trained once, whatever the changes."""

    def population(experiment, label, preset, **arguments):
        repeat = arguments.get("action_repeat", 1)
        seeds = min(arguments.get("seeds", 2), 24)
        key = (preset, repeat, arguments.get("freeze_when", "as it is"), arguments.get("env"), seeds)
        if key not in TRAINED:
            kept = {"freeze_when", "env", "criteria"} if preset != "tutorial-3" else {"action_repeat", "batch_size"}
            settings = {k: v for k, v in arguments.items() if k in kept}
            frames = 600 if preset.startswith("tutorial-3") else 400
            episodes = {} if resolve_preset(preset).config.total_episodes is None else {"total_episodes": 20}
            TRAINED[key] = dqn_jax.train(
                preset, seeds=range(10_000, 10_000 + seeds), total_steps=frames, eval_every=frames // 2,
                eval_episodes=2, **episodes, **settings,
            )  # fmt: skip
        return TRAINED[key]

    monkeypatch.setattr(common, "population", population)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_writes_its_page_figures_and_film(name, few_steps, monkeypatch):
    module = experiment(name)
    monkeypatch.setattr(module, "FOLDER", few_steps / name)
    if name == "keras_cartpole":
        monkeypatch.setattr(module, "SEARCH", {k: v[:1] for k, v in module.SEARCH.items()})
        monkeypatch.setattr(module, "SEARCH_SEEDS", 2)
    module.main()
    page = (few_steps / name / "README.md").read_text()
    linked = re.findall(r"\]\(([^)#]+\.(?:png|gif|csv))\)", page)
    assert len(linked) >= 3
    assert all((few_steps / name / file).stat().st_size > 100 for file in linked)
    assert "## Deviations from the document" in page
    assert "nan" not in page
    assert (few_steps / name / "seeds.csv").read_text().count("\n") > 5


def test_the_gallery_shows_all_five(few_steps, monkeypatch):
    for name in NAMES:
        summary = dict(name=name, title=f"Title of {name}", preset="tutorial-1", claim="claimed", film="trained.gif")
        summary |= dict(measured=f"measured of {name}", lessons={"Replay": (f"lesson of {name}", "a.png")})
        (few_steps / name).mkdir()
        files.write_json(few_steps / name / "summary.json", {**summary, "figure": "scores.png", "when": "today"})
    monkeypatch.setattr(speed, "FOLDER", few_steps / "speed")
    monkeypatch.setattr(gallery, "PAGE", few_steps / "README.md")
    row = dict(tutorial="tutorial-1", form="faithful", agents=20, runs=3, seconds=30.0, compile_seconds=5.0)
    row |= dict(agents_per_minute=40.0, env_steps_per_second=1e4, updates_per_second=1e5)
    monkeypatch.setattr(speed, "measure", lambda tutorial, form: {**row, "tutorial": tutorial + form})
    speed.main()
    gallery.main()
    page = (few_steps / "README.md").read_text()
    for name in NAMES:
        assert f"measured of {name}" in page
        assert f"lesson of {name}" in page
        assert f"results/{name}/trained.gif" in page
    assert "| `tutorial-5-vectorised` |" in page


def test_ten_test_runs_of_a_pendulum_that_is_always_pushed_one_way_are_those_of_a_plain_simulation(few_steps):
    # Three bins are -2, 0 and 2; a network whose weights are zero always takes the first: -2.
    result = dqn_jax.train(
        "tutorial-3", seeds=1, total_steps=250, eval_every=250, eval_episodes=1, action_bins=3, hidden=(4,)
    )
    result = dataclasses.replace(result, params=jax.tree.map(np.zeros_like, result.params))
    tests = pendulum.run_tests(result)
    starts = jax.vmap(jax.random.split)(jax.random.split(make_key(2_000_003), 10))[:, 0]
    env = make_env(result.settings.config)
    rewards, upright, still, lean = [], [], [], []
    for key in starts:
        inner = env.reset(key)[0].inner
        theta, velocity = float(inner.theta), float(inner.theta_dot)
        total = 0.0
        for _ in range(100):
            angle = (theta + np.pi) % (2 * np.pi) - np.pi
            total -= angle**2 + 0.1 * velocity**2 + 0.001 * 2.0**2
            velocity = np.clip(velocity + 0.05 * (15.0 * np.sin(theta) + 3.0 * -2.0), -8.0, 8.0)
            theta += 0.05 * velocity
        rewards.append(total / 100)
        lean.append(abs((theta + np.pi) % (2 * np.pi) - np.pi))
        upright.append(lean[-1] <= pendulum.UPRIGHT_ANGLE)
        still.append(upright[-1] and abs(velocity) <= pendulum.UPRIGHT_SPEED)
    np.testing.assert_allclose(tests.reward, [np.mean(rewards)], rtol=1e-3)
    np.testing.assert_allclose(tests.upright, [np.mean(upright)], atol=1e-6)
    np.testing.assert_allclose(tests.still, [np.mean(still)], atol=1e-6)
    np.testing.assert_allclose(tests.lean, [np.degrees(np.median(lean))], rtol=1e-2)
    assert pendulum.run_tests(result, policy="random").reward[0] != tests.reward[0]


def test_scores_are_one_row_per_seed_and_one_column_per_episode(few_steps):
    result = common.population("x", "y", "tutorial-5")
    table = common.scores(result, 30)
    for row, curve in zip(table, result.history.curves(), strict=True):
        played = len(curve.episode_return)
        np.testing.assert_array_equal(row[:played], curve.episode_return[:30])
        assert np.isnan(row[played:]).all()
