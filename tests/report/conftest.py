"""What all tests of reports have."""

from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a folder that loads as the given sweep."""
    stored = {}
    monkeypatch.setattr("dqn_jax.sweep.records.load_data", lambda path: stored[path])

    def store(data, name="sweep"):
        path = tmp_path / name
        path.mkdir()
        (path / "sweep.json").write_text("{}")
        stored[path] = data
        return path

    return store
