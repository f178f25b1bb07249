"""The parts of Config: one field has one home, and what a function does not name it cannot read."""

from __future__ import annotations

import dataclasses
import typing

import jax
import pytest

from dqn_jax.config import (
    Config,
    DeviceSettings,
    EnvSettings,
    EvaluationSettings,
    ExecutionSettings,
    ExplorationSettings,
    HParams,
    NetworkSettings,
    PoolSettings,
    ReplaySettings,
    RhythmSettings,
    RuleSettings,
    asynchronous,
    changed,
    envs_per_step,
    own_fields,
    own_rhythm,
)

PARTS = (
    EnvSettings,
    DeviceSettings,
    PoolSettings,
    NetworkSettings,
    RuleSettings,
    ReplaySettings,
    RhythmSettings,
    ExplorationSettings,
    EvaluationSettings,
    ExecutionSettings,
)


def test_config_is_static_and_hyperparameters_are_traced():
    assert hash(Config()) == hash(Config())
    assert Config() == Config()
    assert Config() != Config(double=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().double = True
    assert len(jax.tree.leaves(HParams())) == sum(value is not None for value in HParams())
    assert not set(HParams._fields) & {field.name for field in dataclasses.fields(Config)}


def test_config_is_its_parts_side_by_side():
    flat = [name for part in PARTS for name in own_fields(part)]
    assert len(set(flat)) == len(flat)
    assert flat == [field.name for field in dataclasses.fields(Config)] == list(dataclasses.asdict(Config()))
    for part in PARTS:
        assert isinstance(Config(), part)
        for field in dataclasses.fields(part):
            assert getattr(part(), field.name) == getattr(Config(), field.name)


@pytest.mark.parametrize("part", PARTS)
def test_annotations_are_types_that_need_no_evaluation(part):
    assert not any(isinstance(hint, str) for hint in part.__annotations__.values())
    assert typing.get_type_hints(part, include_extras=True).items() >= part.__annotations__.items()


def test_what_was_changed_is_told_by_part():
    config = Config(n_step=3, frame_stack=4, sampling="latest", num_envs=2)
    assert changed(config, PoolSettings) == ["frame_stack"]
    assert changed(config, DeviceSettings) == []
    assert changed(config, ReplaySettings) == ["n_step", "sampling"]
    assert changed(config, EnvSettings) == ["num_envs"]
    assert changed(config, RuleSettings) == []
    assert changed(PoolSettings(num_envs=3), DeviceSettings) == []  # which it does not have


@pytest.mark.parametrize(("batch", "waits", "steps"), [(None, False, 8), (8, False, 8), (3, True, 3)])
def test_environments_that_step_at_a_time(batch, waits, steps):
    settings = PoolSettings(num_envs=8, pool_batch=batch)
    assert (asynchronous(settings), envs_per_step(settings)) == (waits, steps)
    assert own_rhythm(Config(num_envs=8, pool_batch=batch)) == waits


@pytest.mark.parametrize("changes", [{"train_unit": "episodes"}, {"total_episodes": 3}, {"freeze_when": "train5>1"}])
def test_lanes_may_have_a_rhythm_of_their_own(changes):
    assert own_rhythm(Config(**changes))
    assert not own_rhythm(Config())


def test_the_type_checker_refuses_what_is_of_another_part(tmp_path):
    code = tmp_path / "foreign.py"
    code.write_text(
        "from dqn_jax.config import Config, EnvSettings\n"
        "def read(settings: EnvSettings) -> int:\n"
        "    return settings.num_envs + settings.train_every\n"
        "read(Config())\n"
    )
    checker = pytest.importorskip("mypy.api")
    text, _, _ = checker.run([str(code)])  # with the settings, and so the cache, of the whole project
    errors = [line for line in text.splitlines() if ": error:" in line]
    assert len(errors) == 1, text
    assert '"EnvSettings" has no attribute "train_every"' in errors[0]
