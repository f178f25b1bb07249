"""Folders of sweeps and runs, and the page, CSV or JSON made of them."""

from __future__ import annotations

import csv
import io
import json

import pytest
import synthetic
from reporting import page_of, write_run

from dqn_jax.config import ConfigError
from dqn_jax.report import report_command
from dqn_jax.sweep import results


def test_machines_get_the_same_table(folder, tmp_path):
    path = folder(synthetic.sweep(9, 3))
    table = results.ranked(synthetic.sweep(9, 3))
    rows = list(csv.DictReader(io.StringIO(report_command([path], csv=True))))
    search = [row for row in rows if row["phase"] == "search"]
    assert [int(row["trial"]) for row in search] == table["trial"].tolist()
    assert {row["hidden"] for row in search} == {"64x64", "120x84"}
    assert float(search[0]["time"]) == pytest.approx(table["time"][0])
    assert {row["phase"] for row in rows} == {"search", "confirm"}
    found = json.loads(report_command([path], json=True))
    assert [row["trial"] for row in found["trials"]] == table["trial"].tolist()
    assert found["trials"][0]["time_high"] == pytest.approx(table["time_high"][0])
    assert found["best"] == found["confirmed"][0]["trial"]
    assert list(tmp_path.glob("**/report.html")) == []
    with pytest.raises(ConfigError, match="one format"):
        report_command([path], csv=True, json=True)


def test_a_run_is_a_sweep_with_one_trial(tmp_path):
    run = write_run(tmp_path / "run")
    data = results.load(tmp_path)  # the newest below
    assert data.lanes["status"].tolist() == ["budget", "budget"]
    assert data.lanes["converged"].tolist() == [True, False]
    assert data.lanes["converged_seconds"].tolist()[0] == 4.0  # two devices worked four seconds for two lanes
    assert data.lanes["final_return"].tolist() == [470.0, 200.0]
    assert data.lanes["best_return"].tolist() == [480.0, 200.0]
    assert json.loads(data.lanes["moments"][0]) == [[1000, 0, 10, 4.0]]
    page = page_of([tmp_path])
    assert (run / "report" / "report.html").is_file()
    assert page.table("converged")[0]["mean environment steps"].startswith("1,500")
    assert "1 of 2 seeds" in page.text
    assert "6.5 s (programs: 1)" in page.text
    assert json.loads(report_command([run], json=True))["trials"][0]["share"] == 0.5


# Two lanes in a run of 8 seconds. Of four devices they leave two idle; on one they share its seconds.
@pytest.mark.parametrize(("devices", "at_work"), [(1, 1), (2, 2), (4, 2)])
def test_only_devices_with_a_lane_of_the_run_count(tmp_path, devices, at_work):
    data = results.load(write_run(tmp_path / "run", devices=devices))
    assert data.lanes["device_seconds"].tolist() == [8.0 * at_work / 2] * 2
    assert data.curves["seconds"].tolist() == [4.0 * at_work / 2, 8.0 * at_work / 2] * 2
    assert data.lanes["converged_seconds"].tolist()[0] == 4.0 * at_work / 2
    assert json.loads(data.lanes["moments"][0]) == [[1000, 0, 10, 4.0 * at_work / 2]]
    cost = f"{8 * at_work} device-seconds on {at_work} x cpu"
    assert cost in page_of([tmp_path]).text


def test_what_cannot_be_reported_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        results.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no sweep and no run"):
        results.load(tmp_path)
    with pytest.raises(ConfigError, match=r"no finished lanes yet \(it was stopped\); go on with --resume"):
        results.load(write_run(tmp_path / "stopped", complete=False))
    with pytest.raises(ConfigError, match="give one to report on, or two"):
        report_command([tmp_path] * 3)
