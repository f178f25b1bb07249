"""Settings that must be made before jax starts."""

from __future__ import annotations

import collections
from pathlib import Path

import jax
from hypothesis import settings
from servers import postgres  # noqa: F401 - a fixture

jax.config.update("jax_num_cpu_devices", 2)  # sharding over devices is tested on any machine
jax.config.update("jax_numpy_rank_promotion", "raise")  # a silent [B] against [B, 1] is the classic DQN bug
jax.config.update("jax_debug_key_reuse", True)  # a key consumed twice is an error, wherever it happens

from dqn_jax.devices import cache_dir  # noqa: E402 - importing gymnax starts jax, so the number of devices comes first

jax.config.update("jax_compilation_cache_dir", str(cache_dir()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# Compiling takes longer than any deadline, and a failure must come back on every machine.
settings.register_profile("dqn_jax", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("dqn_jax")


SLOW = Path(__file__).with_name("slow.txt")  # one test in a line, parameters apart: those that --quick leaves out
SLOW_SECONDS = 0.5


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="leave out the tests in slow.txt")
    parser.addoption(
        "--record-slow", action="store_true", help=f"write slow.txt: all that take {SLOW_SECONDS} s or more"
    )


def _without_parameters(nodeid):
    return nodeid.partition("[")[0]


def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        slow = set(SLOW.read_text().split())
        left_out = [i for i in items if _without_parameters(i.nodeid) in slow and not i.get_closest_marker("quick")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--record-slow"):
        seconds = collections.Counter()
        for report in (r for reports in terminalreporter.stats.values() for r in reports if hasattr(r, "duration")):
            seconds[_without_parameters(report.nodeid)] += report.duration
        SLOW.write_text("".join(f"{test}\n" for test in sorted(seconds) if seconds[test] >= SLOW_SECONDS))


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: part of --quick, however long it takes")
    # rlax imports tensorflow_probability, which still reads a deprecated name of jax while it is imported.
    config.addinivalue_line("filterwarnings", "ignore:jax.core.pytype_aval_mappings is deprecated:DeprecationWarning")
