"""Each seed's best networks: which they are, that they outlive a kill, and who plays them."""

import json
import shutil

import jax
import numpy as np
import pytest

import dqn_jax
from dqn_jax import ConfigError
from dqn_jax.cli.main import main
from dqn_jax.runs import arrays, best, checkpoint, play
from dqn_jax.runs.best import Best

TINY = {
    "seeds": 3,
    "num_envs": 2,
    "hidden": (8,),
    "lane_block": 1,
    "min_replay": 50,
    "replay_capacity": 200,
    "batch_size": 16,
    "total_steps": 650,
    "eval_every": 100,
    "eval_episodes": 10,
    "learning_rate": 0.01,
    "criteria": (),
}


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def test_strictly_better_evaluations_and_no_others_are_kept():
    kept, asked = Best(3), []

    def fetch(value):
        return lambda lanes: asked.append(lanes.tolist()) or {"w": np.full((len(lanes), 2), value)}

    nan = np.nan
    for step, returns in ((1, [1, nan, 5]), (2, [1, nan, 4]), (3, [2, -3, nan]), (4, [nan, -3, 6])):
        kept.update(step, np.array(returns, np.float32), fetch(step))
    assert asked == [[0, 1, 2], [0, 1], [2]]  # of those that are better, only
    assert kept.eval_return.tolist() == [2, -3, 6]
    assert kept.env_steps.tolist() == [3, 3, 4]
    assert kept.params["w"].tolist() == [[3, 3], [3, 3], [4, 4]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return dqn_jax.train("cartpole", out=tmp_path_factory.mktemp("a[x] $y{") / "[/red]x", **TINY)


def test_the_best_are_those_of_the_best_evaluations(finished):
    returns = finished.metrics.pivot(index="seed", columns="env_steps", values="eval_return")
    assert finished.summary["best_eval_return"] == pytest.approx(returns.max(axis=1).tolist(), rel=1e-6)
    assert finished.summary["best_env_steps"] == returns.idxmax(axis=1).tolist()  # the first of equal ones
    agents = play.load_agents(finished.run, "best")
    assert same(agents.params, finished.best_params)
    assert agents.env_steps.tolist() == finished.summary["best_env_steps"]
    assert not same(finished.best_params, finished.params)  # the test is of something
    config = finished.settings.config
    seen = {"episodes": 10, "epsilon": config.eval_epsilon, "seed": config.eval_seed}
    played = agents.driver.play(agents.params, **seen)
    np.testing.assert_allclose(played.returns.mean(axis=1), finished.summary["best_eval_return"], rtol=1e-6)


def test_a_run_that_goes_on_ends_with_the_same_best_networks(finished, tmp_path):
    run = tmp_path / "run"
    first = dqn_jax.train("cartpole", out=run, **{**TINY, "total_steps": 350})
    assert first.summary["best_env_steps"] != finished.summary["best_env_steps"]
    # As after a kill: the newest checkpoint is gone, and the best networks are of a step beyond the one left.
    max(checkpoint.folder_of(run).iterdir()).unlink()
    resumed = dqn_jax.train("cartpole", out=run, resume=True, **TINY)
    assert same(resumed.best_params, finished.best_params)
    assert resumed.summary["best_env_steps"] == finished.summary["best_env_steps"]
    one, other = (arrays.read_arrays(best.path_of(r)) for r in (run, finished.run))
    assert all(np.array_equal(one[name], other[name]) for name in other)
    best.path_of(run).unlink()  # killed before it was written
    again = dqn_jax.train("cartpole", out=run, resume=True, **TINY)
    assert same(play.load_agents(run, "best").params, again.best_params)


def test_evaluate_and_record_say_which_they_play(finished, tmp_path, capsys):
    run = str(finished.run)
    assert main(["evaluate", run, "--episodes", "2"]) == 0
    assert "last checkpoint, after 650 environment steps" in capsys.readouterr().out
    assert main(["evaluate", run, "--episodes", "2", "--checkpoint", "best"]) == 0
    out = capsys.readouterr().out
    assert "best checkpoint, after " in out
    assert "played anew" in out
    seed, steps = finished.settings.seeds[1], finished.summary["best_env_steps"][1]
    assert f"seed {seed}" in out
    assert f"{steps:,} steps" in out
    assert main(["evaluate", run, "--episodes", "2", "--checkpoint", "best", "--eval-seed", "1000003"]) == 0
    assert "flatter" in capsys.readouterr().out
    assert main(["evaluate", run, "--episodes", "2", "--checkpoint", "best", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["checkpoint"] == "best"
    assert result["env_steps"] == finished.summary["best_env_steps"]
    film = tmp_path / "film.gif"
    assert main(["record", run, "-o", str(film), "--checkpoint", "best", "--seed", str(seed)]) == 0
    assert f"seed {seed}, best checkpoint, after {steps:,} environment steps" in capsys.readouterr().out
    assert film.is_file()


def test_a_run_starts_from_the_best_networks_of_another(finished, tmp_path):
    still = {**TINY, "learning_rate": 1e-30, "learning_rate_end": 0.0, "total_steps": 150}
    result = dqn_jax.train("cartpole", out=tmp_path / "new", weights=finished.run, checkpoint="best", **still)
    for got, given in zip(*map(jax.tree.leaves, (result.params, finished.best_params)), strict=True):
        np.testing.assert_allclose(got, given, rtol=0, atol=1e-20)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["checkpoint"] == "best"
    with pytest.raises(ConfigError, match=r"^checkpoint: the run in"):
        dqn_jax.train("cartpole", out=tmp_path / "new", checkpoint="last", resume=True, **still)


@pytest.mark.parametrize("damage", ["gone", "flipped", "foreign"])
def test_best_networks_that_cannot_be_had_are_one_line(finished, tmp_path, damage, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    path = best.path_of(run)
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        arrays.save_networks(path, {"w": np.zeros((3, 1), np.float32)})
    assert main(["evaluate", str(run), "--checkpoint", "best"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dqn-jax: checkpoint: ")
    assert "--checkpoint last" in err
    assert len(err.splitlines()) == 1
