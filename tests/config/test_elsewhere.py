"""Names of other code bases lead to ours."""

from __future__ import annotations

from dqn_jax.config import SETTINGS, meant_by
from dqn_jax.config.elsewhere import ELSEWHERE


def test_every_name_there_leads_to_a_setting_or_an_option_here():
    known = {*SETTINGS, "seeds", "out", "max_minutes"}
    assert set(ELSEWHERE) <= known
    assert not known & {name for names in ELSEWHERE.values() for name in names.split()}


def test_names_are_read_as_people_write_them():
    assert meant_by("gamma") == meant_by("Gamma") == ["discount"]
    assert meant_by("buffer-size") == ["replay_capacity"]
    assert meant_by("epsilon") == ["epsilon_start", "epsilon_end", "epsilon_decay_steps"]
    assert meant_by("nothing") == []
