"""What may be typed, and what is said of what may not."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Literal

import pytest

import dqn_jax
from dqn_jax import presets
from dqn_jax.cli import catalogue
from dqn_jax.cli import main as cli
from dqn_jax.cli.arguments import EACH, WORDS, Short, command_line, filled, flat, help_text, options_of, parse
from dqn_jax.cli.options import COMMANDS, TOPICS, Sweep, Train
from dqn_jax.config import ConfigError, whole_number
from dqn_jax.config.elsewhere import meant_by
from dqn_jax.convergence import parse_criterion
from dqn_jax.sweep.space import parse_space


@dataclasses.dataclass
class Command:
    """Do it."""

    what: Annotated[str, WORDS]
    """What to do."""
    steps: int = 5
    """Steps."""
    rate: float | None = None
    """Rate."""
    kind: Literal["a", "b"] | None = None
    """Kind."""
    widths: tuple[int, ...] = (1, 2)
    """Widths."""
    pairs: tuple[tuple[str, float], ...] = ()
    """Pairs."""
    on: bool = True
    """On."""
    label: Annotated[tuple[str, ...], EACH] = ()
    """Labels."""
    out: Annotated[Path | None, Short("-o")] = None
    """Out."""


def typed(line):
    return parse(Command, "it", shlex.split(line), lambda word: word == "cartpole").values


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("", {}),
        ("cartpole --steps 7", {"what": "cartpole", "steps": 7}),
        ("--steps 7 cartpole", {"what": "cartpole", "steps": 7}),
        ("--widths 3 4 cartpole", {"what": "cartpole", "widths": (3, 4)}),
        ("--on cartpole", {"what": "cartpole", "on": True}),
        ("--no-on", {"on": False}),
        ("--steps=1e6", {"steps": 1_000_000}),
        ("--steps 1_000_000", {"steps": 1_000_000}),
        ("--rate -1e-3", {"rate": -1e-3}),
        ("--rate none", {"rate": None}),
        ("--kind b --kind none", {"kind": None}),
        ("--widths 64x32", {"widths": (64, 32)}),
        ("--widths", {"widths": ()}),
        ("--pairs gravity 9.8 length 1", {"pairs": (("gravity", 9.8), ("length", 1.0))}),
        ("--label a --label b=c cartpole", {"label": ("a", "b=c"), "what": "cartpole"}),
        ("-o x", {"out": Path("x")}),
    ],
)
def test_only_what_is_typed_is_there_in_its_own_type(line, values):
    assert typed(line) == values
    instance = filled(Command("else"), values)
    assert flat(instance) == {**flat(Command("else")), **values}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--steps 1.5e0", "--steps: '1.5e0' is not a whole number"),
        ("--steps 1e99999999", "--steps: '1e99999999' is not a whole number"),
        ("--steps", r"--steps: it needs a value \(INT\)"),
        ("--rate x", "--rate: 'x' is not a number"),
        ("--kind c", "--kind: 'c' is not possible; choose a, b"),
        ("--stepps 3", "--stepps: there is no such option. Did you mean --steps"),
        ("--pairs gravity", "--pairs: it takes pairs"),
        ("--on=yes", "--on: it takes no value; write --on or --no-on"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(line, message):
    with pytest.raises(ConfigError, match=message):
        typed(line)


def test_help_says_what_is_required_and_what_the_defaults_are():
    text = help_text(Command, "it WHAT [options]", {"topic": ["rate", "on"]}, {"steps": 5, "rate": 1e-3, "on": True})
    assert "WHAT                    What to do. (required)" in text
    assert "--steps INT             Steps. (default: 5)" in text
    assert text.index("topic:") < text.index("--rate FLOAT")
    assert "--on, --no-on" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_every_option_has_a_topic_and_a_text(name):
    options = options_of(COMMANDS[name])
    named = [option for names in TOPICS[name].values() for option in names]
    assert len(named) == len(set(named))
    assert {option for option in options if options[option].flags} <= set(named)
    assert all(option.text for option in options.values())


@pytest.mark.parametrize("arguments", [[], ["help"], ["help", "train"], ["sweep", "--help"], ["help", "report"]])
def test_help_fits_the_screen(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: dqn-jax ")
    assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dqn_jax {dqn_jax.__version__}\n"


def test_whole_numbers_are_exact():
    assert whole_number("9007199254740993") == 9007199254740993
    with pytest.raises(ValueError, match="1e-3"):
        whole_number("1e-3")


@pytest.mark.parametrize("name", ["lr", "gamma", "buffer_size", "tau", "n_envs", "batch", "learning_starts"])
def test_names_of_other_code_bases_suggest_ours_everywhere(name):
    (ours,) = meant_by(name)
    with pytest.raises(ConfigError, match=f"Did you mean --{ours.replace('_', '-')}"):
        parse(Train, "train", [f"--{name.replace('_', '-')}", "1"])
    with pytest.raises(ConfigError, match=f"Did you mean '{ours}'"):
        presets.with_overrides(presets.PRESETS["cartpole"], {name: 1})
    with pytest.raises(ConfigError, match=f"Did you mean '{ours}'"):
        parse_space([f"{name}=1,2"])


def test_a_whole_float_is_a_number_of_steps_from_python_too():
    config = presets.with_overrides(presets.PRESETS["cartpole"], {"total_steps": 1e6, "discount": 1.0}).config
    assert type(config.total_steps) is int
    assert config.total_steps == 1_000_000


def test_several_meanings_of_a_name_are_all_suggested():
    with pytest.raises(ConfigError, match="Did you mean --epsilon-start or --epsilon-end or --epsilon-decay-steps"):
        parse(Sweep, "sweep", ["--epsilon", "0.1"])


def test_a_newline_in_an_argument_leaves_one_line(capsys):
    assert cli.main(["train", "cart\npole"]) == 2
    assert cli.main(["train", "cartpole", "--torso\n", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "cart\\npole" in lines[0]


@pytest.mark.parametrize("arguments", [["cartpole", "cartpole"], ["cartpole", "--seeds", "2", "cartpole"]])
def test_a_preset_twice_is_refused(arguments, capsys):
    assert cli.main(["train", *arguments]) == 2
    assert "'cartpole' is one too many" in capsys.readouterr().err


# -- criteria in a spelling that shells leave alone


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("eval:475x3", "eval>=475x3"),
        ("eval:-110", "eval>=-110"),
        ("train100:195", "train100>=195"),
        ("epsilon:0.01", "epsilon<=0.01"),
        ("loss:0.1x5", "loss<=0.1x5"),
        ("td_error:0.5x5", "td_error<=0.5x5"),
    ],
)
def test_a_colon_means_the_comparison_of_its_kind(text, name):
    assert parse_criterion(text) == parse_criterion(name)
    assert parse_criterion(text).name == name


@pytest.mark.parametrize("text", ["eval", "train100", "epsilon", "td_error"])
def test_what_a_shell_leaves_of_a_criterion_is_explained_in_one_line(text, capsys):
    assert cli.main(["train", "cartpole", "--criteria", text]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"criteria: '{text}' says no threshold: unquoted, the shell took > or < as a redirection" in err


# -- what there is


def test_list_is_filtered_by_a_word_and_shows_the_settings_of_a_preset(capsys):
    assert cli.main(["list", "acrobot"]) == 0
    out = capsys.readouterr().out
    assert "Acrobot-v1" in out
    assert "pendulum" not in out
    assert "Settings of acrobot" in out
    assert "epsilon_decay_steps         18000         (default 20000)" in out
    assert cli.main(["list", "nothing-like-it"]) == 2
    assert "nothing-like-it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cartpole", "tutorial-4"])
def test_the_command_that_is_the_same_as_a_preset_is(name):
    preset = presets.resolve_preset(name)
    words = shlex.split("\n".join(catalogue._wrapped(catalogue.equivalent(preset))))
    assert words[:3] == ["dqn-jax", "train", preset.config.env]
    values = parse(Train, "train", words[2:]).values
    bare = presets.resolve_preset(values["preset"])
    same = filled(Train("", bare.config, bare.hparams, bare.seeds, bare.criteria), values)
    assert (same.config, same.hparams, same.seeds, same.criteria) == (
        preset.config,
        preset.hparams,
        preset.seeds,
        preset.criteria,
    )
    assert command_line({"seeds": 3, "double": False}, Train) == ["--seeds", "3", "--no-double"]
