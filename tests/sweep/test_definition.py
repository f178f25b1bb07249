"""What a sweep was asked, as JSON: to the last digit, going on only so, and with seeds of which none is drawn twice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sweeping import (
    ASKED,
    VARY,
    crash_after,
    died,
    lanes_of_confirmation,
)
from sweeping import compiled as compiled  # a fixture

from dqn_jax.cli import options
from dqn_jax.config import Config, ConfigError
from dqn_jax.presets import resolve_preset
from dqn_jax.sweep import definition, runner, sweep
from dqn_jax.sweep.results import ranked


def test_a_sweep_from_before_a_setting_goes_on_with_its_default(whole):
    asked = json.loads((whole.directory / "sweep.json").read_text())
    older = {**asked, "config": {k: v for k, v in asked["config"].items() if k != "epsilon_from"}}
    assert definition.as_begun(asked, asked) == asked
    assert definition.as_begun(asked, older) == older
    changed = {**asked, "config": {**asked["config"], "epsilon_from": "learning"}}
    assert definition.as_begun(changed, older) == changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": ("learning_rate=0.0003,0.001",)}, r"vary\.learning_rate: this sweep has 0\.0003,.*, not 0\.0003,0"),
        ({"vary": (*VARY, "discount=0.9,0.99")}, r"vary\.discount: this sweep has nothing, not 0\.9,0\.99"),
        ({"seeds": 2}, r"seeds: this sweep has 0, 1, 2, not 0, 1;"),  # more of them would be lanes beside these
        ({"num_envs": 4, "discount": 0.5}, r"config\.num_envs: .*has 2, not 4 \(and 1 more settings differ\)"),
        ({"stop": "budget"}, "stop: this sweep has converged, not budget"),
        ({"prune": "halving"}, "prune"),
        ({"lane_block": 1}, r"config\.lane_block: this sweep has 0, not 1"),  # other blocks have other bits
    ],
    ids=str,
)
def test_a_sweep_goes_on_only_as_it_was_asked(compiled, whole, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sweep(**{**ASKED, **changes}, out=whole.directory, resume=True)
    assert "\n" not in str(caught.value)


def test_a_sweep_asks_for_what_it_was_asked_to_the_last_digit():
    asked = {**ASKED, "criteria": ("eval>=16926.55", "train5>=0.1234567891")}
    definitions = []
    sweep(**asked, out="nowhere", on_plan=lambda plan, definition: bool(definitions.append(definition)))
    assert definitions[0]["criteria"] == list(asked["criteria"])
    thresholds = [criterion.threshold for criterion in definition.rules_of(definitions[0]).criteria]
    assert thresholds == [16926.55, 0.1234567891]


def defined(**changes):
    found = []
    sweep(**{**ASKED, **changes}, out="nowhere", on_plan=lambda plan, definition: bool(found.append(definition)))
    return found[0]


def test_who_asks_who_settles_asks_for_the_whole_budget():
    assert defined()["stop"] == "converged"
    assert defined(criteria=("eval>=1x2", "settled>=1"))["stop"] == "budget"
    assert defined(criteria=("settled90%>=1",), stop="budget")["criteria"] == ["settled90%>=1"]
    with pytest.raises(ConfigError, match="stop: who leaves on convergence is not seen to settle, and settled>=1"):
        defined(criteria=("eval>=1x2", "settled>=1"), stop="converged")
    with pytest.raises(ConfigError, match=r"confirm_by: .*not seen to settle; use --stop budget"):
        defined(confirm=4, confirm_by=("settled",))
    with pytest.raises(ConfigError, match=r"confirm_by: epsilon<=0\.5 is not about returns"):
        defined(criteria=("epsilon<=0.5",), confirm=4, confirm_by=("settled",), stop="budget")
    assert defined(confirm=4, confirm_by=("env_steps", "settled"), stop="budget")["confirm"]["by"][1] == "settled"


def test_of_a_presets_criteria_settling_is_asked_where_lanes_stay_anyway():
    own = replace(resolve_preset(ASKED["preset"]), criteria=("eval>=1x2", "settled>=1"))
    plain = {"criteria": None, "preset": own}
    assert defined(**plain)["criteria"] == ["eval>=1x2"]
    assert defined(**plain, stop="budget")["criteria"] == ["eval>=1x2", "settled>=1"]


def test_what_varies_is_not_fixed_too():
    with pytest.raises(
        ConfigError, match=r"^discount: it is given one value and varies too; leave out --discount, or "
    ):
        sweep(**{**ASKED, "vary": ("discount=0.9,0.99",)}, discount=0.9, out="nowhere")


def test_no_sweep_to_go_on_with_is_said(tmp_path, compiled):
    with pytest.raises(ConfigError, match="is not a sweep"):
        sweep(**ASKED, out=tmp_path / "nowhere", resume=True)
    with pytest.raises(ConfigError, match="holds no sweep"):
        sweep(**ASKED, root=tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_begun_with_other_held_out_seeds_goes_on_with_them(tmp_path, compiled, monkeypatch):
    asked = {**ASKED, "seeds": 1, "confirm": 3, "confirm_best": 2}
    before = {"seeds": [1_000_000, 1_000_001, 1_000_002], "best": 2, "by": ["env_steps"]}
    with monkeypatch.context() as patch:
        patch.setattr(runner, "define", lambda *a, **k: {**definition.define(*a, **k), "confirm": before})
        died(tmp_path / "sweep", **asked | {"wave": None}, on_progress=crash_after(1))
    data = sweep(**asked, out=tmp_path / "sweep", resume=True).data
    assert sorted(set(lanes_of_confirmation(data)["seed"])) == before["seeds"]
    assert {config.eval_seed for config in compiled} == {1_000_003}  # and from the starts of the search
    assert ranked(data, phase="confirm")["lanes"].tolist() == [3, 3]
    with pytest.raises(ConfigError, match=r"confirm\.seeds: this sweep has 1000000"):
        sweep(**asked | {"confirm": 4}, out=tmp_path / "sweep", resume=True)


def test_no_stream_is_drawn_twice():
    """Seeds of evaluation starts are those of no lane, whatever is asked."""
    starts = {Config.eval_seed, options.Evaluate.eval_seed, definition._CONFIRM_EVAL_SEED}
    assert len(starts) == 3
    for count in (1, 100, definition._MOST_CONFIRM):
        held_out = range(definition._CONFIRM_SEED, definition._CONFIRM_SEED + count)
        assert not starts & set(held_out)
    assert held_out[-1] < 2**31
