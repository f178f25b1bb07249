"""The settings that did not vary."""

from __future__ import annotations

from dqn_jax import Config, HParams
from dqn_jax.config import show
from dqn_jax.report.settings import fixed_settings


def test_settings_that_did_not_vary_are_those_of_this_kind_of_environment():
    own = {name: getattr(Config, name) for name in ("eval_every", "frame_stack", "noop_max", "env_params", "sampling")}
    hparams = {"learning_rate": 0.5, "huber_delta": 1.0, "discount": HParams().discount}
    asked = {"config": {**own, "env": "CartPole-v1", "loss": "squared"}, "hparams": hparams, "vary": {"discount": ""}}
    _, table, rest = fixed_settings(asked)
    rows = {row[0].text: (row[1].text, row[2].text) for row in table.rows}
    assert set(rows) == {"env", "eval_every", "loss", "env_params", "sampling", "learning_rate"}
    assert rows["learning_rate"] == ("0.5", show(HParams().learning_rate))
    assert rows["eval_every"] == (show(Config.eval_every), "")
    assert rest.text == "Without a meaning here, and left out: frame_stack, noop_max, huber_delta."
    asked["config"]["env"] = "Pong-v5"
    assert "env_params" in fixed_settings(asked)[2].text
