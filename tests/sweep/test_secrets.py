"""No password of a database's URL reaches a file, a page or a screen, however it is spelled."""

from __future__ import annotations

import json
import sqlite3
import sys
import traceback

import pytest
import sqlalchemy as sa
from servers import free_port, postgres_server
from sweeping import CRITERIA, ENV, TINY
from sweeping import compiled as compiled  # a fixture

from dqn_jax import ConfigError, RunError
from dqn_jax.cli.main import main
from dqn_jax.runs.redact import redact
from dqn_jax.sweep.records import create, errors, load_data, open_store
from dqn_jax.sweep.records.url import with_password

SECRET = "hunter2+Q/x"  # decoded; every spelling of it has "hunter2" in it
SPELLED = "hunter2%2BQ%2Fx"
FLAGS = [
    word
    for name, value in TINY.items()
    for word in ("--" + name.replace("_", "-"), str(value[0] if isinstance(value, tuple) else value))
]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("postgresql://me:hunter2@host:5432/db?x=a@b", "postgresql://me:***@host:5432/db?x=a@b"),
        ("--store=postgresql+psycopg://me:hunter2@host/db", "--store=postgresql+psycopg://me:***@host/db"),
        ("postgresql://me:hunter2@hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hunter2/hunter2?hunter2#hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hunter2 hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:hunter2@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?password=hunter2&a=b", "postgresql://host/db?password=***&a=b"),
        ("--join=postgresql://host/db?a=b&passwd=hunter2 hunter2", "--join=postgresql://host/db?a=b&passwd=***"),
        ("postgresql://host/db?p%61ssword=hunter2", "postgresql://host/db?p%61ssword=***"),
        ("postgresql://host/db?PWD=hunter2&sslpassword=hunter2", "postgresql://host/db?PWD=***&sslpassword=***"),
        ("postgresql://host/db?options=-c%20my.password%3Dhunter2", "postgresql://host/db?options=***"),
        ("postgresql://host/db?options=-c%20my.password=hunter2", "postgresql://host/db?options=-c%20my.password=***"),
        ("password=hunter2", "password=***"),
        *[
            (harmless, harmless)
            for harmless in (
                "postgresql://me@host:5432/db?options=-csearch_path%3Dmine",
                "sqlite:////a/b@c:d/e.sqlite",
                "env:DQN_JAX_STORE",
                "--criteria=eval>=475x3",
                "--vary=hidden=64x64,120x84",
                "C:/some/where:else@x",
            )
        ],
    ],
)
def test_arguments_are_redacted(argument, shown):
    assert redact(argument) == shown


def with_secret(url, spelling):
    """The URL with the secret, in front of the host or as a parameter."""
    if spelling == "user":
        return url.replace("dqn@", f"dqn:{SPELLED}@")
    return f"{url}{'&' if '?' in url else '?'}password={SPELLED}"


def files_with_secret(folder):
    return [path for path in folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_a_sweep_by_url_keeps_and_shows_no_password(tmp_path, monkeypatch, capfd, compiled, postgres):
    monkeypatch.chdir(tmp_path)
    server = postgres()
    url, other = with_secret(server, "parameter"), with_secret(server, "user")
    asked = ["sweep", ENV, *FLAGS, "--seeds", "2", "--criteria", *CRITERIA, "--vary", "learning_rate=0.001,0.01"]
    commands = [
        [*asked, f"--store={url}", "--out", "mirror"],
        [*asked, "--store", other, "--out", "mirror", "--resume", "--json"],
        [*asked, "--store", url, "--out", "elsewhere"],  # refused: the name is taken
        ["sweep", "--join", url],
        ["sweep", f"--join={other}", "--name", "nobody"],  # refused
        ["report", "mirror"],
        [*asked, "--out", "mirror", "--resume"],  # refused: it is a mirror
    ]
    codes = []
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["dqn-jax", *command])
        codes.append(main(command))
    assert codes == [0, 0, 2, 0, 2, 0, 2]
    out, err = capfd.readouterr()
    assert "hunter2" not in out + err
    assert "postgresql" in err
    assert (tmp_path / "mirror" / "report" / "report.html").is_file()
    assert files_with_secret(tmp_path) == []
    flags = json.loads((tmp_path / "mirror" / "provenance.json").read_text())["flags"]
    assert any("***" in flag for flag in flags)
    # A mirror that an earlier version made holds the secret as it was given; it is shown redacted, and still known.
    (tmp_path / "mirror" / "provenance.json").write_text(json.dumps({"flags": ["dqn-jax", f"--store={url}"]}))
    assert "hunter2" not in str(load_data(tmp_path / "mirror").provenance)
    with sqlite3.connect(tmp_path / "mirror" / "store.sqlite") as connection:
        connection.execute("UPDATE dqn_jax_sweeps SET origin = ?, format = 1, digest = NULL", [str(url)])
    connection.close()
    with pytest.raises(ConfigError, match="mirrors") as error:
        open_store(tmp_path / "mirror")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("spelling", ["user", "parameter"])
def test_errors_and_their_tracebacks_show_no_password(spelling, capfd, monkeypatch):
    url = with_secret(f"postgresql://dqn@127.0.0.1:{free_port()}/db", spelling)
    for bad in (url, url + "?no_such=1", url.replace("127.0.0.1", "no.such.host.invalid"), url + "&sslmode=odd"):
        for attempt in (lambda bad=bad: open_store(bad), lambda bad=bad: create(None, bad, {"name": "x"})):
            try:
                attempt()
            except (ConfigError, RunError):
                assert "hunter2" not in traceback.format_exc()
            else:
                pytest.fail("nothing is there")
        assert main(["sweep", "--join", bad]) in (1, 2)
    out, err = capfd.readouterr()
    assert "hunter2" not in out + err
    # What a driver may say of itself.
    location = sa.make_url(url)
    with pytest.raises(RunError) as error, errors.clear_database_errors("there", location):
        raise sa.exc.OperationalError(f"SELECT '{SECRET}'", None, OSError(f"bad {SPELLED} or {SECRET}"))
    assert str(error.value).startswith("store: cannot use there (bad *** or ***);")
    assert error.value.__cause__ is None
    with pytest.raises(ConfigError, match="write it as %40") as error:
        open_store("postgresql://dqn:half@hunter2@host/db")
    assert "hunter2" not in str(error.value)


def test_a_password_or_a_whole_url_comes_from_the_environment(monkeypatch):
    definition = {"name": "study", "vary": {"batch_size": "32,64"}, "seeds": [0], "config": {"total_steps": 10}}
    with postgres_server(SECRET) as server:
        url = f"{server}/postgres"
        with pytest.raises(RunError, match="no password supplied"):
            create(None, url, definition)
        monkeypatch.setenv("PGPASSWORD", SECRET)
        assert create(None, url, definition).name == "study"
        for_others = with_password(url)
        monkeypatch.delenv("PGPASSWORD")
        assert open_store(for_others).name == "study"
        assert with_password(for_others) == for_others
        monkeypatch.setenv("DQN_JAX_STORE", with_secret(url, "user"))
        assert open_store("env:DQN_JAX_STORE").name == "study"
    with pytest.raises(ConfigError, match="environment variable 'NOT_THERE' holds no URL"):
        open_store("env:NOT_THERE")
