"""Where the sweeps of these tests are kept."""

from __future__ import annotations

import pytest
from recording import Place


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return Place(tmp_path / "sweep", None)
    return Place(None, request.getfixturevalue("postgres")())


@pytest.fixture
def folder(tmp_path):
    return Place(tmp_path / "sweep", None)
