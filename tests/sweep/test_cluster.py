"""A real Ray cluster of two nodes and a real PostgreSQL server on this machine; and workers that join by URL alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from dqn_jax import ConfigError
from dqn_jax.config import Config, HParams
from dqn_jax.presets import Preset
from dqn_jax.sweep import sweep

PRESET = Preset(
    "small",
    "",
    Config(
        env="CartPole-v1", num_envs=4, hidden=(8,), lane_block=1, batch_size=8, train_every=4, min_replay=40,
        total_steps=1_000, eval_every=100, eval_episodes=2, replay_capacity=500,
    ),
    HParams(),
    ("eval>=20x2",),
)  # fmt: skip
VARY = {"learning_rate": "log(1e-3,1e-1)"}
ASKED = {"samples": 8, "seeds": 3, "wave": 3, "confirm": 2, "confirm_best": 1}


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Without what depends on the machine's speed."""
    table = table.drop(columns=[name for name in table.columns if "seconds" in name])
    if "moments" in table:
        moments = table["moments"].map(lambda text: [m and m[:3] for m in json.loads(text)])
        table = table.assign(moments=moments.map(str))
    return table


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return sweep(PRESET, VARY, **ASKED, out=tmp_path_factory.mktemp("local") / "sweep").data


def assert_same(data, local):
    pd.testing.assert_frame_equal(comparable(data.lanes), comparable(local.lanes))
    pd.testing.assert_frame_equal(comparable(data.curves), comparable(local.curves))
    assert data.trials.equals(local.trials)


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_that_loses_a_node_half_way_ends_with_the_numbers_of_a_local_sweep(
    local, postgres, tmp_path, monkeypatch
):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    killed_at = []

    def kill_a_node(progress):
        if not killed_at and 0 < sum(progress.lanes.values()) < 20:
            cluster.remove_node(doomed, allow_graceful=False)
            killed_at.append(sum(progress.lanes.values()))

    try:
        result = sweep(
            PRESET, VARY, **ASKED, name="on-ray", url=postgres(), out=tmp_path / "mirror", engine="ray", workers=2,
            on_progress=kill_a_node,
        )  # fmt: skip
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed_at, "the node was to die in the middle"
    assert result.finished
    assert_same(result.data, local)


JOIN = (
    "import sys; from dqn_jax.cli.main import main; "
    "sys.exit(main(['sweep', '--join', sys.argv[1], '--name', sys.argv[2]]))"
)


def test_workers_join_by_the_url_alone_and_one_may_die(local, postgres, tmp_path):
    url = postgres()
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    helpers = []

    def join_and_kill(progress):
        if not helpers:
            helpers.extend(
                subprocess.Popen([sys.executable, "-c", JOIN, url, "joined"], env=environment) for _ in range(2)
            )
        elif len(helpers) == 2 and sum(progress.lanes.values()) > 6:
            helpers[0].send_signal(signal.SIGKILL)
            helpers.append(None)

    result = sweep(PRESET, VARY, **ASKED, name="joined", url=url, out=tmp_path / "mirror", on_progress=join_and_kill)
    began = time.monotonic()
    assert helpers[1].wait(timeout=120) == 0, "a worker that finds nothing left to do ends well"
    assert time.monotonic() - began < 100
    helpers[0].wait()
    assert result.finished
    assert_same(result.data, local)


def test_ray_needs_records_that_all_nodes_reach(tmp_path):
    with pytest.raises(ConfigError, match=r"engine: .*--store"):
        sweep(PRESET, VARY, **ASKED, out=tmp_path / "sweep", engine="ray")
    assert not (tmp_path / "sweep").exists()
