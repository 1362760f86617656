"""`report` and `dashboard` at the door: a sweep's folder in, a page or event files out; mistakes in one line."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_metatok.cli import main
from lightning_metatok.cli.sweep_file import read_sweep
from lightning_metatok.report.dashboard import write_dashboard
from lightning_metatok.sweep.folder import DONE, State
from tests.report import studies
from tests.report.studies import Values, ablation
from tests.written_runs import write_run


@pytest.fixture
def sweep(tmp_path: Path, repository: Path) -> list[str]:
    """Arguments that name a sweep of two arms and two seeds; one run is not finished."""
    file = tmp_path / "small.yaml"
    arms = {name: {"configs": [str(repository / "conf" / "arm" / f"{name}.yaml")]} for name in ("plain", "meta")}
    config = repository / "conf" / "task" / "list_recall_nano.yaml"
    content: dict[str, Any] = {"configs": [str(config)], "arms": arms, "seeds": [1, 2], "collect": ["answers/full_1x"]}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    read = read_sweep(file, tmp_path / "sweep")
    read.folder.write_plan(read.runs, file.read_text(), read.code, [])
    for run in read.runs[:3]:
        arm, seed = run.axes["arm"], run.axes["seed_everything"]
        last = {"answers/full_1x": 0.5 + seed / 10, "answers/full_2x": 0.25, "throughput/tokens_per_s": 100.0}
        write_run(read.folder.run_folder(run.name), arm, seed=seed, values=[0.1, 0.2], last=last)
        read.folder.write_state(run.name, State(DONE, 1, spent_s=10.0))
    return [str(file), f"--folder={read.folder.path}"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line of a refusal."""
    assert main([str(argument) for argument in arguments]) == 2
    found = capsys.readouterr()
    assert (found.out, found.err.count("\n")) == ("", 1)
    return found.err


def test_a_report_of_a_sweep_goes_into_its_folder(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *sweep]) == 0
    folder = tmp_path / "sweep" / "report"
    assert capsys.readouterr().out == f"{folder / 'report.html'}: 3 runs, 2 conditions\n"
    text = (folder / "report.md").read_text()
    assert "**1 of 4 runs are left out** because they are not finished (1 waiting)." in text
    assert "| plain | 1,000 | 10 (10 to 10) |" in text


@pytest.mark.slow
def test_a_report_of_run_folders(tmp_path: Path) -> None:
    names = [(arm, seed) for arm in ("plain", "meta") for seed in (1, 2)]
    runs = [str(write_run(tmp_path / f"{arm}{seed}", arm, seed=seed, values=[0.4])) for arm, seed in names]
    assert main(["report", "--runs", *runs, "--out", str(tmp_path / "out")]) == 0
    assert "| meta − plain |" in (tmp_path / "out" / "report.md").read_text()
    assert main(["report", "--runs", *runs, "--out", str(tmp_path / "out"), "--solved=0.4"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| plain | 2 of 2 | 10 | – | – |" in text
    assert "runs with 0.4 of exact answers or more" in text


@pytest.mark.parametrize("verb", ["report", "dashboard"])
def test_mistakes_are_one_line(verb: str, sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    run = write_run(tmp_path / "run", values=[0.4])
    assert "expected a sweep file or --runs RUN [RUN ...]" in refused(capsys, verb)
    assert "expected a sweep file or --runs" in refused(capsys, verb, *sweep, "--runs", run)
    assert "--solved=1.5: expected a share of exact answers" in refused(capsys, verb, *sweep, "--solved=1.5")
    assert f"{verb} --runs: expected --out FOLDER, too" in refused(capsys, verb, "--runs", run)
    assert f"--out={file}: expected a folder, this is a file" in refused(capsys, verb, *sweep, f"--out={file}")
    assert "no such file" in refused(capsys, verb, f"{sweep[0]}x")
    assert "no sweep was started here" in refused(capsys, verb, sweep[0], f"--folder={tmp_path / 'empty'}")
    assert "file: no such folder" in refused(capsys, verb, "--runs", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_run_is_named(sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run, *_) = sorted((tmp_path / "sweep" / "runs").glob("plain-*"))
    (run / "arm.json").write_text("{")
    assert f"{run}/arm.json: expected a JSON object" in refused(capsys, "report", *sweep)
    (run / "metrics.jsonl").write_text("{")
    assert f"{run}: metrics.jsonl cannot be read" in refused(capsys, "report", *sweep)


def test_nothing_finished(sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "sweep" / "states").iterdir():
        path.write_text(json.dumps({"state": "failed"}))
    assert "expected at least one finished run, there are 3 failed, 1 waiting" in refused(capsys, "report", *sweep)


def read(folder: Path) -> EventAccumulator:
    """What TensorBoard reads in a folder."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_a_dashboard_overlays_conditions_and_has_a_row_a_run(sweep: list[str], tmp_path: Path) -> None:
    out = tmp_path / "sweep" / "dashboard"
    for _ in range(2):  # the second takes the place of the first
        assert main(["dashboard", *sweep, "--no_serve", "true"]) == 0
    assert [path.name for path in out.parent.glob("*dashboard*")] == ["dashboard"]
    assert sorted(path.name for path in out.iterdir()) == ["meta", "plain", "runs", "summary"]
    assert all(len(names) <= 1 for _, _, names in os.walk(out))
    plain = read(out / "plain")
    tag = "by length/as trained"
    points = [[(e.step, round(e.value, 6)) for e in plain.Scalars(f"{tag}/{name}")] for name in ("mean", "low", "high")]
    assert points == [[(100, 0.65), (200, 0.25)], [(100, 0.6), (200, 0.25)], [(100, 0.7), (200, 0.25)]]

    summary = read(out / "summary")
    (event,) = summary.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    series = [one for part in layout.category for chart in part.chart for one in chart.margin.series]
    written = {name for folder in ("plain", "meta") for name in read(out / folder).Tags()["scalars"]}
    assert {tag for one in series for tag in (one.value, one.lower, one.upper)} <= written
    names = ["1 lengths", "2 differences", "3 solving", "4 curves"]
    assert summary.Tags()["images"] == [f"report/{name}" for name in names]

    rows = {}
    for folder in sorted((out / "runs").glob("*/*")):
        data = read(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        found = HParamsPluginData.FromString(data).session_start_info.hparams
        rows[found["arm"].string_value, found["seed"].number_value] = read(folder).Scalars("final/answers/full_1x")[0]
    assert {key: round(event.value, 6) for key, event in rows.items()} == {
        ("plain", 1): 0.6,
        ("plain", 2): 0.7,
        ("meta", 1): 0.6,
    }


def test_readings_are_runs_of_their_own_and_no_chart_has_two_tags(tmp_path: Path) -> None:
    values: Values = {
        (arm, position): {seed: ablation(3.0 + seed / 10, 3.5) | ablation(3.2, 4.0, 2) for seed in (1, 2)}
        for arm in ("kept", "dropped")
        for position in ("rotary", "alibi")
    }
    write_dashboard(studies.sweep(tmp_path / "runs", ["arm", "model.position"], values), tmp_path / "out")
    condition = tmp_path / "out" / "dropped, rotary"
    assert sorted(path.name for path in condition.iterdir() if path.is_dir()) == ["read dropped", "read kept"]
    found = read(condition / "read kept").Scalars("by length/rotary/mean")
    assert [(e.step, round(e.value, 6)) for e in found] == [(64, 3.15), (128, 3.2)]
    (event,) = read(tmp_path / "out" / "summary").Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    # TensorBoard says "Missing Tags" where a run has not exactly all three or none of a chart's tags.
    assert all(len(chart.margin.series) <= 1 for part in layout.category for chart in part.chart)
    data = read(next((tmp_path / "out" / "runs").glob("*/1"))).SummaryMetadata("_hparams_/session_start_info")
    row = HParamsPluginData.FromString(data.plugin_data.content).session_start_info.hparams
    assert set(row) == {"arm", "seed", "model.position"}
    content = read(tmp_path / "out" / "summary").SummaryMetadata("_hparams_/experiment").plugin_data.content
    columns = HParamsPluginData.FromString(content).experiment.hparam_infos
    assert [column.name for column in columns] == ["arm", "seed", "model.position"]


def test_a_dashboard_writes_over_nothing_else(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    found = refused(capsys, "dashboard", *sweep, f"--out={mine}", "--no_serve=true")
    assert f"--out={mine}: expected a new folder, or one that `dashboard` wrote" in found
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_a_taken_port_is_refused_before_anything_is_written(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port={port}: Address already in use" in refused(capsys, "dashboard", *sweep, f"--port={port}")
    assert "expected 1 to 65535" in refused(capsys, "dashboard", *sweep, "--port=70000")
    assert "--no_serve=maybe: expected true or false" in refused(capsys, "dashboard", *sweep, "--no_serve=maybe")
    assert not (tmp_path / "sweep" / "dashboard").exists()
