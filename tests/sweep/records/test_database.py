"""The databases under records: servers that are away, URLs, formats."""

from __future__ import annotations

import time

import psycopg
import pytest
from recording import Place, assert_whole, definition, run_all, study_of
from servers import free_port

from dqn_jax import ConfigError, RunError
from dqn_jax.sweep.records import create, database, open_store


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    start = time.monotonic()
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/sweeps"
    for attempt in (lambda: open_store(url), lambda: create(None, url, definition())):
        with pytest.raises(RunError, match=r"cannot use postgresql\S+127\.0\.0\.1.*refused") as error:
            attempt()
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
    assert time.monotonic() - start < 10


def test_a_server_may_be_away_for_a_while(postgres, monkeypatch):
    new = Place(None, postgres()).create()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    connect, left = new.engine.dialect.connect, [True, True, False]

    def away(*args, **kwargs):
        if left.pop(0):
            raise psycopg.OperationalError("the database system is starting up")
        return connect(*args, **kwargs)

    monkeypatch.setattr(new.engine.dialect, "connect", away)
    assert len(new.points()) == 4
    assert left == []


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "nonsense://x", "postgresql"])
def test_a_url_that_cannot_be_used_is_refused(url):
    with pytest.raises(ConfigError, match=r"store: this is not the URL of a database"):
        create(None, url, definition())


def test_a_newer_format_is_refused(place, monkeypatch):
    place.create()
    monkeypatch.setattr(database, "FORMAT", 0)
    with pytest.raises(ConfigError, match=r"was written by a newer dqn_jax \(format 2\); update dqn_jax"):
        place.open()


def test_an_unknown_version_of_optunas_tables_is_refused(place):
    new = place.create()
    with new.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    with pytest.raises(ConfigError, match=r"store: The runtime optuna version .* is no longer compatible"):
        place.open()


def test_a_database_holds_several_sweeps(postgres):
    where = Place(None, postgres())
    where.create(trials=2, waves=1)
    where.create(trials=3, waves=1, name="second", seeds=[5])
    with pytest.raises(ConfigError, match=r"has 2 sweeps \(study, second\); choose one by its name"):
        where.open()
    with pytest.raises(ConfigError, match=r"has no sweep 'secnd'. Did you mean 'second'\? It has study, second"):
        open_store(where.url, "secnd")
    with pytest.raises(ConfigError, match=r"has a study 'second' already"):
        where.create(name="second")
    for name, lanes in (("study", 4), ("second", 3)):
        opened = open_store(where.url, name)
        run_all(opened)
        assert len(opened.lanes()) == lanes
        assert_whole(opened)
    storage = study_of(opened)._storage
    storage.delete_study(storage.get_study_id_from_name("study"))
    assert where.open().name == "second"
    assert where.create(trials=2, waves=1).lanes().empty
