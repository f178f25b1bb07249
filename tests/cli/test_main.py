"""The command line from end to end, and every kind of bad input: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dqn_jax.cli.main import main
from dqn_jax.runs import arrays, checkpoint

TINY = (
    "--hidden 8 --lane-block 1 --batch-size 8 --replay-capacity 200 --min-replay 50 --num-envs 2 --train-every 2 "
    "--total-steps 450 --eval-every 200 --eval-episodes 3 --max-episode-steps 60"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "cartpole", "--seeds", "2", "--out", str(out), *TINY]) == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("trian", ["trian", "Did you mean 'train'"]),
        ("train", ["preset", "dqn-jax train cartpole"]),
        ("train cartpol", ["cartpol", "Did you mean 'cartpole'"]),
        ("train CartPole-v9", ["CartPole-v9", "Did you mean 'CartPole-v"]),
        ("train cartpole acrobot", ["'acrobot' is one too many"]),
        ("train MNISTBandit-bsuite", ["MNISTBandit-bsuite", "network"]),
        ("train Reacher-misc", ["Reacher-misc", "discrete"]),
        ("train cartpole --batch-sise 3", ["--batch-sise", "Did you mean --batch-size"]),
        ("train cartpole --seeds x", ["--seeds", "x"]),
        ("train cartpole --seed 1.5", ["--seed", "1.5"]),
        ("train cartpole --seed -1", ["seed", "between 0 and"]),
        ("train cartpole --seeds 0", ["seeds", "1 or more"]),
        ("train cartpole --learning-rate -1", ["learning_rate", "-1", "greater than 0"]),
        ("train cartpole --learning-rate nan", ["learning_rate", "nan"]),
        ("train cartpole --discount 1.5", ["discount", "at most 1"]),
        ("train cartpole --batch-size 300 --replay-capacity 200", ["batch_size", "replay_capacity 200"]),
        ("train cartpole --min-replay 2000000", ["min_replay", "total_steps"]),
        ("train cartpole --train-every 0", ["train_every", "at least 1"]),
        ("train cartpole --updates-per-train 0", ["updates_per_train", "at least 1"]),
        ("train cartpole --num-envs 0", ["num_envs", "at least 1"]),
        ("train cartpole --target-period 0", ["target_period", "at least 1"]),
        ("train cartpole --target-mixing 0", ["target_mixing", "greater than 0"]),
        ("train cartpole --optimizer adm", ["optimizer", "Did you mean 'adam'"]),
        ("train cartpole --optimizer sgd --b1 0.9", ["b1", "sgd"]),
        ("train cartpole --activation rely", ["activation", "relu"]),
        ("train cartpole --loss hubr", ["--loss", "huber"]),
        ("train cartpole --hidden 0", ["hidden", "at least 1"]),
        ("train cartpole --criteria evil>=475", ["criteria", "evil", "Did you mean 'eval'"]),
        ("train cartpole --criteria eval475", ["criteria", "eval475", "eval>=475x3"]),
        ("train cartpole --criteria train>=195", ["criteria", "train100>=195"]),
        ("train cartpole --stop converged --criteria", ["stop", "criterion"]),
        ("train cartpole --max-minutes 0", ["max_minutes", "positive"]),
        ("train cartpole --max-minutes nan", ["max_minutes", "positive"]),
        ("train cartpole --action-bins 5", ["action_bins", "discrete actions"]),
        ("train cartpole --env Pendulum-v1", ["action_bins", "continuous"]),
        ("train Pendulum-v1 --action-bins 1", ["action_bins", "at least 2"]),
        ("train cartpole --env-params gravty 9", ["env_params", "Did you mean 'gravity'"]),
        ("train cartpole --torso minatar", ["torso", "minatar"]),
        ("train cartpole --sticky-actions 2", ["sticky_actions", "between 0 and 1"]),
        ("train cartpole --resume --out nowhere", ["nowhere", "does not exist"]),
        ("evaluate nowhere", ["nowhere", "does not exist"]),
        ("evaluate .", ["no run", "config.json"]),
        ("plot", ["run", "at least one"]),
        ("plot nowhere", ["nowhere", "does not exist"]),
        ("record nowhere -o film.gif", ["nowhere", "does not exist"]),
        ("record nowhere -o film.avi", ["output", ".gif or .mp4"]),
        ("benchmark speed", ["speed"]),
        ("benchmark --repeats 0", ["repeats", "1 or more"]),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(arguments, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("dqn-jax: ")
    for name in names:
        assert name in err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_in_a_fresh_process_has_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dqn_jax", "train", "cartpole", "--discount", "2"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "dqn-jax: discount: 2.0 is not possible; use a number at least 0 and at most 1.\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "cartpole", "--help"]])
def test_help_is_on_standard_output(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert not code
    out = capsys.readouterr().out
    assert "train" in out
    if len(arguments) > 1:
        assert "--learning-rate FLOAT" in out
        assert "--updates-per-train INT" in out


def test_list_shows_presets_environments_and_criteria(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for word in ("cartpole", "pendulum", "CartPole-v0", "Breakout-MinAtar", "FourRooms-misc", "Pong-v5", "td_error"):
        assert word in out


def test_train_prints_a_summary_and_where_the_files_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "CartPole-v1", "--seeds", "2", *TINY]) == 0
    out = capsys.readouterr().out
    assert "eval>=475x3" in out
    assert "none of 2" in out
    assert "runs/CartPole-v1/" in out
    assert main(["train", "CartPole-v1", "--seeds", "2", "--resume", *TINY]) == 0  # a finished run resumes to itself
    assert len(list((tmp_path / "runs" / "CartPole-v1").iterdir())) == 1


def test_json_is_the_only_thing_on_standard_output(tmp_path, capsys):
    assert main(["train", "cartpole", "--seeds", "2", "--json", "--out", str(tmp_path / "run"), *TINY]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == json.loads((tmp_path / "run" / "summary.json").read_text())


def test_occupied_folder_is_refused_and_left_alone(run, capsys):
    before = sorted(run.rglob("*"))
    assert main(["train", "cartpole", "--seeds", "2", "--out", str(run), *TINY]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_evaluate_gives_every_seed_new_episodes(run, capsys):
    assert main(["evaluate", str(run.parent), "--episodes", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["seeds"] == [0, 1]
    assert all(1 <= mean <= 60 for mean in result["mean_return"])
    low, high = result["interval95"]
    if len(set(result["mean_return"])) == 1:  # agents that fall at once: nothing tells how much seeds differ
        assert low is high is None
    else:
        assert low <= result["mean"] <= high
    assert main(["evaluate", str(run), "--episodes", "4"]) == 0
    assert "seed 1" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--episodes", "0"]) == 2
    assert main(["evaluate", str(run), "--epsilon", "2"]) == 2


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_record_films_trained_and_random_policies(run, tmp_path, name, capsys):
    for extra in ([], ["--random"], ["--seed", "1"], ["--q-values"]):
        assert main(["record", str(run), "-o", str(tmp_path / name), *extra]) == 0
        frames = int(capsys.readouterr().out.split()[-2])
        if name.endswith(".gif"):
            with Image.open(tmp_path / name) as film:
                assert film.n_frames == frames
        else:
            assert (tmp_path / name).read_bytes()[4:8] == b"ftyp"
    for extra, field in ((["--seed", "7"], "seed"), (["--q-values", "--random"], "q_values")):
        assert main(["record", str(run), "-o", str(tmp_path / name), *extra]) == 2
        assert capsys.readouterr().err.startswith(f"dqn-jax: {field}: ")


def test_plot_overlays_several_runs(run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    for suffix, extra in (("png", []), ("svg", ["--aggregate", "iqm", "--x", "seconds", "--y", "train_return"])):
        figure = tmp_path / f"both.{suffix}"
        assert main(["plot", str(run), str(other), "-o", str(figure), *extra]) == 0
        assert figure.stat().st_size > 5_000
    with Image.open(tmp_path / "both.png") as picture:
        assert np.asarray(picture).std() > 5  # not a blank page
    assert main(["plot", str(run), "-o", str(tmp_path / "curve.txt")]) == 2


def damaged_config(run):
    (run / "config.json").write_text("{ not json")


def newer_config(run):
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**settings, "format": 99}))


def foreign_config(run):
    (run / "config.json").write_text('{"model": "resnet"}')


def no_checkpoints(run):
    shutil.rmtree(run / "checkpoints")


@pytest.mark.parametrize("damage", [damaged_config, newer_config, foreign_config, no_checkpoints])
def test_unreadable_or_foreign_run_is_one_clear_line(run, tmp_path, damage, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    damage(broken)
    assert main(["evaluate", str(broken)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dqn-jax: run: ")
    assert len(err.strip().splitlines()) == 1


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kernels(leaf):
    """Every `[i, o]` kernel of a population of two as `[1, i, o]`: other shapes in the same order."""
    return leaf[:, None] if leaf.ndim == 3 else leaf


def halves(leaf):
    return leaf.astype(np.float16) if leaf.dtype == np.float32 else leaf


def longer_keys(leaf):
    return np.concatenate([leaf, leaf], axis=1) if leaf.dtype == np.uint32 else leaf


@pytest.mark.parametrize(
    "change",
    [lambda leaves: leaves[1:], *(lambda leaves, f=f: [f(x) for x in leaves] for f in (kernels, halves, longer_keys))],
    ids=["a leaf less", "kernels", "halves", "keys"],
)
def test_a_checkpoint_of_another_version_is_refused_in_one_line_and_nothing_is_lost(run, tmp_path, change, capsys):
    older = tmp_path / "older"
    shutil.copytree(run, older)
    newest = max((older / "checkpoints").iterdir())
    saved = arrays.read_arrays(newest)
    leaves = [saved[name] for name in sorted(saved) if name.startswith("lane")]
    changed = change(leaves)
    assert len(changed) < len(leaves) or any(
        x.shape != y.shape or x.dtype != y.dtype for x, y in zip(leaves, changed, strict=True)
    )
    checkpoint.save(newest.parent, int(newest.stem), changed, {})
    before = contents(older)
    new = ["train", "cartpole", "--seeds", "2", *TINY, "--out"]
    for arguments in (
        [*new, str(older), "--resume"],
        ["evaluate", str(older)],
        ["record", str(older), "-o", str(tmp_path / "film.gif")],
        [*new, str(tmp_path / "new"), "--weights", str(older)],
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"dqn-jax: run: the checkpoint {older}/checkpoints/{newest.name} does not fit this version" in err
        assert err.splitlines()[-1].endswith(
            "use the one that wrote it (provenance.json says which), or start a new run."
        )
        assert len([line for line in err.splitlines() if line != "cartpole x 2 seeds: compiling"]) == 1
    assert contents(older) == before
    assert [path.name for path in tmp_path.iterdir()] == ["older"]


def test_wandb_stays_off_and_says_what_it_needs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cartpole", "--wandb", "project"]) == 2
    assert "dqn_jax[wandb]" in capsys.readouterr().err
