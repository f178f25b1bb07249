"""Whole sweeps that others are compared with, run once."""

from __future__ import annotations

import pytest
from sweeping import (
    ASKED,
    programs_of,
)

from dqn_jax.sweep import sweep, worker


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The sweep that others are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
        return sweep(**ASKED, out=tmp_path_factory.mktemp("sweep") / "whole")


@pytest.fixture(scope="session")
def spent(tmp_path_factory):
    """The same, but all lanes stay to the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
        return sweep(**ASKED, stop="budget", out=tmp_path_factory.mktemp("sweep") / "spent")
