"""Files that are whole or not there: temporary names, permissions, errors in one line."""

import errno
import os
import stat

import pytest

from dqn_jax import ConfigError, RunError, files


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(TypeError), files.atomic(path) as temporary:
        temporary.write_bytes("half")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_temporary_names_cannot_be_guessed_and_permissions_are_those_of_new_files(tmp_path):
    path, names = tmp_path / ("long name" * 25 + ".png"), set()
    old = os.umask(0o027)
    try:
        for _ in range(2):
            with files.atomic(path, durable=False) as temporary:
                assert temporary.parent == tmp_path
                assert temporary.suffix == ".png"
                names.add(temporary.name)
                temporary.write_text("x")
    finally:
        os.umask(old)
    assert len(names) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_in_the_way_is_not_followed(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.write_text("keep")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "guessed")
    (tmp_path / ".a.guessed.tmp.txt").symlink_to(mine)
    with pytest.raises(FileExistsError), files.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("over it")
    assert mine.read_text() == "keep"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "make it writable"), (errno.ENOENT, "create the folder again")],
)
def test_a_failed_write_is_one_line_with_its_own_remedy(tmp_path, number, remedy):
    line = rf"^out: cannot write to .*; {remedy}, then go on with --resume.$"
    with pytest.raises(RunError, match=line), files.clear_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_unwritable_outputs_are_found_before_the_work(tmp_path):
    files.check_writable(tmp_path / "new.png", "output")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"^output: there is no folder .*nowhere; create it"):
        files.check_writable(tmp_path / "nowhere" / "new.png", "output")
    with pytest.raises(ConfigError, match="is a folder"):
        files.check_writable(tmp_path, "output")


def test_what_a_killed_writer_left_is_cleared_and_nothing_else(tmp_path):
    left = files._temporary(tmp_path / "a.npz")
    for name in (".hidden", "mine.tmp", ".mine.tmp.npz"):
        (tmp_path / name).write_text("keep")
    files.clear_unfinished(tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 3
