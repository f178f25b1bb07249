"""The networks of confirmed lanes are kept."""

from __future__ import annotations

import pytest
from sweeping import (
    ASKED,
    RATES,
    CrashError,
    assert_networks_are_those_of,
    died,
    lanes_of_confirmation,
)
from sweeping import compiled as compiled  # a fixture

from dqn_jax.config import ConfigError
from dqn_jax.sweep import sweep, winners
from dqn_jax.sweep.records import open_store
from dqn_jax.sweep.results import ranked


def test_the_networks_of_confirmed_lanes_are_kept_whenever_they_leave_and_whoever_dies(tmp_path, compiled):
    asked = {**ASKED, "vary": ("learning_rate=0.0003",), "seeds": 1, "confirm": 4, "confirm_best": 1}
    out = tmp_path / "sweep"

    def crash(progress):
        if progress.wave == 1 and progress.phase == "run" and progress.running < 4:
            raise CrashError

    died(out, **asked | {"wave": None}, on_progress=crash)
    before = {(trial, seed) for phase, trial, seed in open_store(out).recorded() if phase == "confirm"}
    assert 0 < len(before) < 4
    assert all(winners.path_of(out, *lane).is_file() for lane in before)
    data = sweep(**asked, out=out, resume=True).data
    held_out = lanes_of_confirmation(data)
    assert held_out["env_steps"].nunique() > 1
    assert_networks_are_those_of(out, held_out)
    # A single finalist is reported on all of its seeds.
    table = ranked(data, phase="confirm")
    assert (table["trial"].tolist(), table["lanes"].tolist()) == (list(ranked(data)["trial"][:1]), [4])
    winner = winners.load(out)
    assert winner.settings.seeds == tuple(held_out["seed"])
    assert winner.settings.hparams.learning_rate == RATES[winner.trial]
    with pytest.raises(ConfigError, match=r"^trial: .* confirmed \d, not 77"):
        winners.load(out, 77)
    path = winners.path_of(out, winner.trial, 10_000_002)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=r"^run: .*seed-10000002.npz is damaged"):
        winners.load(out)
    path.unlink()
    with pytest.raises(ConfigError, match=r"^run: .* does not have the networks of trial \d, seed 10000002: "):
        winners.load(out)


def test_a_sweep_that_confirms_nothing_keeps_no_networks(whole):
    assert not (whole.directory / "networks").exists()
    with pytest.raises(ConfigError, match=r"^run: .* keeps no networks: .*--resume --confirm 10"):
        winners.load(whole.directory)
