"""A sweep on a server, mirrored into a folder."""

from __future__ import annotations

import pandas as pd
import pytest
from recording import Place, definition, record

from dqn_jax import ConfigError
from dqn_jax.sweep.records import create, export, load_data, open_store


def test_a_server_is_mirrored_into_a_directory(tmp_path, postgres):
    where = Place(None, postgres())
    remote = where.create(trials=4, waves=2)
    mirror = tmp_path / "mirror"
    for _ in range(3):
        export(remote, mirror)
        mirrored, opened = load_data(mirror), remote.data()
        for name in ("trials", "lanes", "curves"):
            pd.testing.assert_frame_equal(getattr(mirrored, name), getattr(opened, name))
        assert mirrored.settings == opened.settings
        if wave := remote.claim("me", 60):
            record(remote, wave, lanes=wave.lanes[1:])
            export(remote, mirror)
            record(remote, wave)
            remote.finish(wave.id)
    assert len(mirrored.lanes) == 8
    assert sorted(path.name for path in (mirror / "curves").iterdir()) == ["unit-00000.parquet", "unit-00001.parquet"]
    with pytest.raises(ConfigError, match=r"mirrors 'study' at postgresql\S+; go on with it by --store URL"):
        open_store(mirror)
    with pytest.raises(ConfigError, match="holds another sweep"):
        export(where.create(name="other"), mirror)


def test_a_new_sweep_on_a_server_has_its_mirror_at_once(tmp_path, postgres):
    remote = create(tmp_path / "mirror", postgres(), definition())
    assert load_data(tmp_path / "mirror").lanes.empty
    with remote.lock():
        pass
