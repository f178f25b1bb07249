"""The shape of the house, read from its imports: they point one way, files stay short, tests mirror folders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dqn_jax"
LEVELS = (  # from the ground up; each imports only those below it
    "interrupt _import_time types prng config",
    "agent replay convergence files devices",
    "envs",
    "films presets",
    "lanes",
    "runs",
    "drive",
    "training",
    "sweep",
    "report benchmark",
    "cli __main__",
)
BESIDE = {  # of one level, who may import whom
    "prng": {"types"},
    "_import_time": {"interrupt"},
    "__main__": {"cli"},
}
LONGEST = 450  # lines of a file
SEAMS = ("lanes", "runs", "agent", "replay")
MOST_ANY = 0.5  # in 100 lines of those


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The modules that a module imports, lazily or for types alone too; a face and a module in it are told apart."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            if node.module in MODULES:
                found |= {f"{node.module}.{a.name}" for a in node.names} & MODULES.keys()
                if any(f"{node.module}.{a.name}" not in MODULES for a in node.names):
                    found.add(node.module)
    return found - {name}


GRAPH = {name: imports(name) for name in MODULES}


def unit(name: str) -> str:
    """The folder, or the file at the ground, that a module is of."""
    return name.split(".")[1] if "." in name else ""


def test_levels_name_every_folder_and_file():
    there = {unit(name) for name in MODULES} - {""}
    assert there == set(" ".join(LEVELS).split())
    assert len(LEVELS) <= 11


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
    level = {u: i for i, units in enumerate(LEVELS) for u in units.split()}
    own = unit(name)
    if own == "":  # the face of the package: what it gives is above it, and nothing in it is imported from there
        return
    for other in GRAPH[name]:
        there = unit(other)
        if there == "":
            assert (own, other) == ("cli", "dqn_jax"), f"{name} imports the package's own face"  # for its version
        elif there != own:
            assert level[there] < level[own] or there in BESIDE.get(own, ()), f"{name} imports {other}"


def test_nothing_goes_round_in_circles():
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(GRAPH[name] - {"dqn_jax"}):
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(MODULES.keys() - {"dqn_jax"}):
        visit(name, ())


def test_folders_with_a_face_are_imported_by_it_or_by_module():
    """Inside a folder no module imports the folder's own face, which imports it."""
    for name, others in GRAPH.items():
        package = name.rpartition(".")[0]
        assert package == "dqn_jax" or package not in others, f"{name} imports {package}"


def test_no_module_shares_its_name_with_what_its_folder_gives():
    """`dqn_jax.train` would be the function, and the module behind it could not be reached."""
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            tree = ast.parse(path.read_text())
            given = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
            given |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            hidden = {other for other in given if f"{name}.{other}" in MODULES and f"{name}.{other}" not in GRAPH[name]}
            assert not hidden, f"{name} hides {hidden}"


def test_files_are_short():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_one_place_tells_kinds_of_environment_apart():
    switch = re.compile(r"isinstance\([^)]*(Loop|Population|Driver)\b|kind_of\(")
    assert [n for n, path in MODULES.items() if n != "dqn_jax.lanes.driver" and switch.search(path.read_text())] == []


@pytest.mark.parametrize("folder", SEAMS)
def test_the_type_checker_guards_the_seams(folder):
    texts = [path.read_text() for name, path in MODULES.items() if unit(name) == folder]
    lines = sum(len(text.splitlines()) for text in texts)
    assert 100 * sum(len(re.findall(r"\bAny\b", text)) for text in texts) / lines < MOST_ANY


def test_nothing_takes_more_than_six_arguments_by_position():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                given = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
                assert len(given) <= 6, f"{name}: {node.name}({', '.join(given)})"
            if isinstance(node, ast.Call):
                given = [ast.unparse(a) for a in node.args if not isinstance(a, ast.Starred)]
                assert len(given) <= 6, f"{name}: {ast.unparse(node.func)}({', '.join(given)})"


def test_tests_mirror_the_folders():
    tests = Path(__file__).parent
    for path in tests.glob("*/test_*.py"):
        folder = path.relative_to(tests).parts[0]
        assert folder == "experiments" or (PACKAGE / folder).is_dir(), path
    for path in tests.glob("test_*.py"):
        assert not (PACKAGE / path.stem.removeprefix("test_")).is_dir(), path


def test_no_annotation_is_evaluated_by_hand():
    assert [n for n, path in MODULES.items() if re.search(r"(?<![\w.])eval\(", path.read_text())] == []


def test_the_map_in_the_readme_is_the_list_of_folders():
    text = (PACKAGE.parent / "README.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text[text.index("Imports point down this list") :], re.MULTILINE)
    named = [re.findall(r"`(\w+)(?:/|\.py)`", row) for row in rows]
    level = {u: i for i, units in enumerate(LEVELS) for u in units.split()}
    assert {name for row in named for name in row} == set(level) - {"_import_time", "__main__"}
    lowest = [min(level[name] for name in row) for row in named]
    assert lowest == sorted(lowest, reverse=True)
