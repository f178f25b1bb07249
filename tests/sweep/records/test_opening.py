"""How sweeps are made and opened, and what is none."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys

import pytest
import sqlalchemy as sa
from recording import VARY, Death, Place, assert_whole, definition, run_all
from servers import free_port

from dqn_jax import ConfigError, RunError
from dqn_jax.sweep.definition import unlike
from dqn_jax.sweep.records import create, load_data, open_store
from dqn_jax.sweep.results import find, load


def test_what_is_not_a_sweep_is_refused(tmp_path, postgres):
    with pytest.raises(ConfigError, match="is not a sweep"):
        open_store(tmp_path)
    with pytest.raises(ConfigError, match="is not a sweep"):
        load_data(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no sweep of dqn_jax"):
        open_store(postgres())
    for name in ("store.sqlite", "sweep.json"):
        (tmp_path / name).write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(RunError, match="file is not a database"):
        open_store(tmp_path)
    with pytest.raises(ConfigError, match="is not empty"):
        create(tmp_path, None, definition())


def test_a_directory_may_have_any_name(tmp_path):
    odd = Place(tmp_path / "a b?c#d%e{f}&g=h:i@j", None)
    run_all(odd.create())
    assert_whole(odd.open())
    assert sorted(path.name for path in tmp_path.iterdir()) == [odd.directory.name]


def test_differences_name_the_field(place):
    new = place.create()
    assert unlike(new.definition, definition(vary=VARY)) == []
    wanted = definition(seeds=(0, 1, 2), vary={**VARY, "discount": "0.9"}, sampler="sobol")
    assert unlike(new.definition, wanted) == [
        ("vary.discount", "uniform(0.9,0.999)", "0.9"),
        ("seeds", [0, 1], [0, 1, 2]),
        ("sampler", None, "sobol"),
    ]


KILLED_CREATIONS = """
import json, os, signal, sys
from pathlib import Path
import sqlalchemy as sa
import optuna
from dqn_jax import ConfigError
from dqn_jax.sweep.records import create, load_data, open_store

folder, stride, definition = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
create(folder / "first", None, definition)  # all that is imported late
left = [-1]

def step(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

sa.event.listen(sa.Engine, "before_cursor_execute", step)
sa.event.listen(sa.Engine, "commit", step)
sys.addaudithook(lambda name, _: step() if name in ("open", "os.rename", "os.remove", "os.mkdir") else None)
at, states = 1, []
while True:
    directory = folder / str(at)
    child = os.fork()
    if child == 0:
        left[0] = at
        create(directory, None, definition)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    try:
        open_store(directory)
    except ConfigError as error:
        assert "is not a sweep" in str(error) or "start it there without --resume" in str(error), error
        states.append("free")
        create(directory, None, definition)
    else:
        states.append("whole")
        try:
            create(directory, None, definition)
        except ConfigError as error:
            assert "is not empty" in str(error) and "--resume" in str(error)
    assert load_data(directory).name == definition["name"]
    with open_store(directory).lock():
        pass
    assert sorted(path.name for path in directory.iterdir()) == ["store.sqlite", "sweep.json"]
    at += stride
print(json.dumps(states))
"""


def test_a_creation_that_is_killed_leaves_a_folder_that_can_be_used(tmp_path):
    arguments = [str(tmp_path), "19", json.dumps(definition())]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_CREATIONS, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert len(states) > 5
    assert states == sorted(states)  # first nothing, then everything
    assert set(states) == {"free", "whole"}


def test_what_a_creation_fails_with_leaves_no_folder(tmp_path):
    with pytest.raises(RunError, match="refused"):
        create(tmp_path / "mirror", f"postgresql://me@127.0.0.1:{free_port()}/sweeps", definition())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not empty; choose another folder, or go on with the sweep in it"):
        create(tmp_path / "mine", None, definition())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_sweep_is_its_store_and_the_copy_is_made_again(folder):
    folder.create()
    copy = folder.directory / "sweep.json"
    kept = copy.read_text()
    for spoil in (copy.unlink, lambda: copy.write_text("half of"), lambda: copy.write_bytes(b"\xff")):
        spoil()
        assert find(folder.directory.parent) == folder.directory
        assert load(folder.directory).name == "study"
        assert copy.read_text() == kept
        assert folder.open().name == "study"
    (folder.directory / "store.sqlite").unlink()
    for attempt in (folder.open, lambda: load(folder.directory)):
        with pytest.raises(ConfigError, match=r"store\.sqlite is missing, and with it all that was found"):
            attempt()


def test_a_creation_at_a_url_that_is_killed_can_be_done_again(place):
    url = place.url or f"sqlite:///{place.directory}.sqlite"
    left = [0]

    def step(*_):
        left[0] -= 1
        if left[0] == 0:
            raise Death

    sa.event.listen(sa.Engine, "before_cursor_execute", step)
    try:
        for at in itertools.count(1, 15):
            left[0] = at
            with contextlib.suppress(Death):
                create(None, url, definition())
                break
    except ConfigError:
        pass  # it died when all was done
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", step)
    with pytest.raises(ConfigError, match="has a study 'study' already"):
        create(None, url, definition())
    assert at > 60
    assert Place(None, url).open().lanes().empty
