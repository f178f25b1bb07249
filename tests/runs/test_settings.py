"""What is read from a run's folder: held against one schema and its digest, refused in one line with a true remedy."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from dqn_jax import Config, ConfigError, HParams, files, runs
from dqn_jax.cli.main import main
from dqn_jax.report import RunData
from dqn_jax.sweep.results import of_run

NONE = [None, None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that has ended."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    run.mkdir()
    hparams = HParams(learning_rate=np.array([1e-3, 2e-3]), max_grad_norm=None)
    runs.save_settings(run, runs.RunSettings("cartpole", (3, 4), Config(total_steps=2_000), hparams, ("eval>=475",)))
    names = ("epsilon", "loss", "td_error", "q_mean", "train_return", "eval_length", "eval_return")
    metrics = {"seed": [3, 3, 4, 4], "env_steps": [1_000, 2_000] * 2, "updates": [0, 100] * 2}
    metrics |= {"episodes": [10, 15, 20, 25], "seconds": [4.0, 8.0] * 2, **{name: 0.1 for name in names}}
    pd.DataFrame(metrics).to_csv(run / "metrics.csv", index=False)
    clocks = {name: NONE for name in ("env_steps", "updates", "episodes", "seconds", "stability")}
    summary = {
        "seeds": [3, 4], "complete": True, "env_steps": 2_000, "diverged": [], "final_eval_return": [1.0, None],
        "criteria": [{"name": "eval>=475", "threshold": 475.0, "converged": 0.0, **clocks}],
        "seconds": {"import": 1.0, "compile": 6.5, "run": 8.0},
    }  # fmt: skip
    runs.save_summary(run, summary)
    devices = {"platform": "cpu", "kind": "cpu", "count": 1}
    files.write_json(run / "provenance.json", {"devices": devices, "started": "2026-01-01T00:00:00", "seeds": [3, 4]})
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def edit(path, change):
    """Change the JSON in `path`, by somebody who knows to delete the digest."""
    value = json.loads(path.read_text())
    value.pop("digest", None)
    path.write_text(json.dumps(change(value)))


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("dqn-jax: ")
    return err


def test_settings_come_back_as_they_were(run):
    settings = runs.load_settings(run)
    assert settings.config == Config(total_steps=2_000)
    np.testing.assert_array_equal(settings.hparams.learning_rate, [1e-3, 2e-3])
    assert settings.hparams._replace(learning_rate=0) == HParams(learning_rate=0)
    edit(run / "config.json", lambda v: {k: x for k, x in v.items() if k != "checkpoint"})  # as earlier versions wrote
    assert runs.load_settings(run).seeds == (3, 4)


@pytest.mark.parametrize("text", ["", "0", "[]", '"a"', "null", "{", "NaN", "[" * 100_000, '{"format": 1}', "\x00"])
@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_what_is_no_such_file_is_one_line(run, name, text, capsys, tmp_path):
    (run / name).write_text(text)
    for arguments in (["report", str(run)], ["plot", str(run), "-o", str(tmp_path / "a.png")]):
        assert main(arguments) == 2
        assert f"run: {run / name} is damaged or not ours" in one_line(capsys)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", []),
        ("seeds", [-1]),
        ("seeds", ["3"]),
        ("seeds", 3),
        ("criteria", [1]),
        ("name", None),
        ("config.num_envs", "8"),
        ("config.num_envs", 1.5),
        ("config.num_envs", True),
        ("config.hidden", 64),
        ("config.loss", "cubed"),
        ("config.env_params", [["a"]]),
        ("config.total_steps", -5),
        ("config.mine", 1),
        ("hparams.learning_rate", "fast"),
        ("hparams.learning_rate", None),
        ("hparams.learning_rate", -1.0),
        ("hparams.learning_rate", []),
        ("hparams.target_period", 1.5),
        ("hparams.mine", 1),
        ("more", 1),
    ],
)
def test_wrong_settings_are_one_line(run, field, value, capsys):
    def change(settings):
        *above, last = field.split(".")
        (settings[above[0]] if above else settings)[last] = value
        return settings

    edit(run / "config.json", change)
    assert main(["evaluate", str(run)]) == 2
    assert field.split(".")[-1] in one_line(capsys)


def test_no_flipped_bit_changes_a_number_in_silence(run):
    def read(load):
        return json.dumps(files.plain(load(run)), default=lambda x: files.plain(vars(x)))

    rng, found, lines = np.random.default_rng(0), 0, []
    loaders = {
        "config.json": lambda r: [s := runs.load_settings(r), s.hparams._asdict()],
        "summary.json": lambda r: {k: v for k, v in runs.load_summary(r).items() if not k.startswith("dig")},
        "metrics.csv": lambda r: runs.load_metrics(r, (3, 4), ["env_steps"]).to_dict("list"),
    }
    for name, load in loaders.items():
        path = run / name
        data, expected = path.read_bytes(), read(load)
        for bit in rng.integers(0, 8 * len(data), 150):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(flipped)
            try:
                got = read(load)
            except ConfigError as error:
                found += 1
                lines.append(str(error).splitlines())
            else:
                assert got == expected
        path.write_bytes(data)
    assert found > 300
    assert {len(told) for told in lines} == {1}


def test_people_may_edit_what_they_say_they_did(run):
    path = run / "config.json"
    path.write_text(path.read_text().replace('"total_steps": 2000', '"total_steps": 4000'))
    with pytest.raises(ConfigError, match=r"digest differs.*delete its line .digest."):
        runs.load_settings(run)
    path.write_text(re.sub(r',\n "digest": .*', "", path.read_text()))
    assert runs.load_settings(run).config.total_steps == 4_000


def test_cut_metrics_and_missing_files_say_what_is_wrong(run, capsys, tmp_path):
    path, plot = run / "metrics.csv", ["plot", str(run), "-o", str(tmp_path / "a.png")]
    text = path.read_text()
    for damaged in (text[: len(text) // 2], "", text.replace("2000", "two", 1), "\x00\xff"):
        path.write_text(damaged)
        (run / "summary.json").unlink(missing_ok=True)  # of a run in progress: there is no digest to tell
        assert main(plot) == 2
        assert f"--resume --out {run}" in one_line(capsys)
    path.unlink()
    assert main(plot) == 2
    assert "no metrics yet; train for longer" in one_line(capsys)
    assert main(["report", str(run)]) == 2
    assert "no finished lanes yet (it was stopped)" in one_line(capsys)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"devices": 3}', '{"devices": {"count": 0}}', None])
def test_damaged_provenance_stops_nothing(run, text):
    path = run / "provenance.json"
    path.unlink() if text is None else path.write_text(text)
    assert len(of_run(run).lanes) == 2
    assert len(RunData.load(run).metrics) == 4
    runs.note_fresh_games(run, 500)
    assert json.loads(path.read_text())[runs.FRESH_GAMES] == [500]


def test_outputs_that_cannot_be_written_are_found_first(run, capsys, tmp_path):
    for arguments in (["plot", str(run)], ["record", str(run)]):
        suffix = "png" if arguments[0] == "plot" else "gif"
        assert main([*arguments, "-o", str(tmp_path / "nowhere" / f"a.{suffix}")]) == 2
        err = one_line(capsys)
        assert "there is no folder" in err
        assert "--resume" not in err
    (tmp_path / "file").write_text("")
    assert main(["report", str(run), "-o", str(tmp_path / "file" / "a")]) == 2
    assert "output: cannot create" in one_line(capsys)
    assert main(["benchmark", "cold", "--out", str(tmp_path / "nowhere" / "a.csv")]) == 2
    assert "there is no folder" in one_line(capsys)
