"""Curves on their way from the database to a file."""

from __future__ import annotations

import errno
import os

import pytest
from recording import Death, assert_whole, record

from dqn_jax import RunError


def test_death_while_the_curves_are_written_loses_nothing(folder, monkeypatch):
    new = folder.create(waves=1)
    wave = new.claim("me", 60)
    record(new, wave)
    with monkeypatch.context() as patched:

        def die(*_):
            raise Death

        patched.setattr(os, "fsync", die)
        with pytest.raises(Death):
            new.finish(wave.id)
    assert_whole(folder.open())
    (folder.directory / "curves" / "unit-00000.parquet").write_bytes(b"half of one")  # it counts once the wave is done
    assert_whole(folder.open())
    folder.open().finish(wave.id)
    assert_whole(folder.open())


def test_a_full_disk_under_the_curves_is_one_line_too(folder, monkeypatch):
    new = folder.create(waves=1)
    wave = new.claim("me", 60)
    record(new, wave)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left on device\); free space, then go on with --resume"):
            new.finish(wave.id)
    assert_whole(folder.open())
    new.finish(wave.id)
    assert_whole(folder.open())
