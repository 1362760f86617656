"""`probe` writes a table and a figure a finding beside the run, shows them in TensorBoard, and refuses in one line."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_metatok.probes import PROBES
from tests.bad_input.conftest import Refused, contents, refused  # noqa: F401  (fixture)
from tests.system.helpers import TINY_TASK, run, succeed

TINY = [
    *TINY_TASK,
    "--lengths.n=8",
    "--positions.n=8",
    "--embedding.n=8",
    "--placement.n=8",
    "--lengths.multiples=[1]",
    "--positions.multiples=[1]",
    "--embedding.multiples=[1]",
    "--placement.multiples=[1]",
]

QUICK = [
    "--probe.described.trials=[{block: {keys: target}}]",
    "--probe.lens.steps=3",
    "--probe.lens.layers=[1]",
    "--probe.readout.furthest=1",
    "--probe.readout.layers=[1]",
    "--probe.attention.layers=[1]",
    "--probe.cosine.layers=[1]",
    "--probe.sharpening.layers=[1]",
    "--probe.sharpening.queries=2",
    "--probe.rate_distortion.width=1",
]


def trained(repository: Path, folder: Path, arm: str) -> Path:
    """The checkpoint of a run of two steps on list recall."""
    conf = repository / "conf"
    succeed(
        *("fit", f"--config={conf / 'task' / 'list_recall_nano.yaml'}", f"--config={conf / 'arm' / f'{arm}.yaml'}"),
        *(*TINY, f"--run_dir={folder}"),
    )
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="session")
def meta(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(repository, tmp_path_factory.mktemp("probed") / "meta", "meta-every")


@pytest.fixture(scope="session")
def plain(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(repository, tmp_path_factory.mktemp("probed") / "plain", "plain")


@pytest.mark.slow
def test_every_probe_leaves_a_table_a_figure_and_an_image_in_tensorboard(
    meta: Path, repository: Path, tmp_path: Path
) -> None:
    before = contents(meta.parent.parent)
    full = repository / "conf" / "probe" / "full.yaml"
    out = succeed(
        *("probe", "--ckpt_path", meta, f"--config={full}", "--examples=150", *QUICK),
        f"--run_dir={tmp_path}",
    )
    folder = tmp_path / "probe"
    about = json.loads((folder / "probe.json").read_text())
    assert about["step"] == 2
    assert about["examples"] == 150
    assert set(about["seconds"]) == set(PROBES)
    for name in about["findings"]:
        table = pd.read_csv(folder / f"{name}.csv")
        assert len(table)
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f" {name} " in out
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {f"probe/{name}" for name in about["findings"]}
    assert all(events.Images(f"probe/{name}")[0].step == 2 for name in about["findings"])
    names = {"probe.json", *(f"{n}.{end}" for n in about["findings"] for end in ("csv", "png"))}
    left = {path.name for path in folder.iterdir()} - names
    assert all(name.startswith("events.out.tfevents.") for name in left), left
    after = contents(meta.parent.parent)
    assert {name: after[name] for name in before} == before, "the run itself is only read"
    assert not (meta.parent.parent / "probe").exists()


def test_interventions_of_a_yaml_are_asked(meta: Path, repository: Path, tmp_path: Path) -> None:
    described = repository / "conf" / "probe" / "described.yaml"
    succeed("probe", "--ckpt_path", meta, f"--config={described}", "--examples=40", f"--run_dir={tmp_path}")
    table = pd.read_csv(tmp_path / "probe" / "described.csv")
    said = yaml.safe_load(described.read_text())["probe"]["described"]["trials"]
    assert list(table.trial) == ["intact", *(trial["name"] for trial in said)]


@pytest.mark.slow
def test_findings_go_beside_the_run_and_all_that_cannot_be_asked_is_said(plain: Path) -> None:
    out = succeed("probe", "--ckpt_path", plain, "--examples=150", *QUICK)
    assert "probe: left out cosine: the data of this checkpoint have no meta-tokens" in out
    assert "probe: left out knockout: the model has neither" in out
    folder = plain.parent.parent / "probe"
    assert {path.stem for path in folder.glob("*.csv")} == {path.stem for path in folder.glob("*.png")}
    assert not (folder / "cosine.csv").exists()
    assert "left out, as there are none" in out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(meta: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("one", "two"):
        succeed(
            "probe", "--ckpt_path", meta, "--probes=[cosine,eviction]", "--examples=40", f"--run_dir={tmp_path}/{name}"
        )
        tables.append({path.name: path.read_text() for path in (tmp_path / name / "probe").glob("*.csv")})
    assert tables[0] == tables[1]
    assert set(tables[0]) == {"cosine.csv", "eviction.csv"}


def test_options_reach_their_probe(meta: Path, tmp_path: Path) -> None:
    succeed("probe", "--ckpt_path", meta, "--probes=[cosine]", "--probe.cosine.layers=[1]", "--examples=40",
            "--probe.cosine.furthest=3", f"--run_dir={tmp_path}")  # fmt: skip
    table = pd.read_csv(tmp_path / "probe" / "cosine.csv")
    assert set(table.layer) == {1}
    assert set(table.distance) == {1, 2, 3}


def test_the_full_config_names_every_option_with_its_default(repository: Path) -> None:
    given = yaml.safe_load((repository / "conf" / "probe" / "full.yaml").read_text())
    for name, options in given["probe"].items():
        probe = PROBES[name]()
        for key, value in options.items():
            assert getattr(probe, key) == value, (name, key)
    with_options = {name for name, probe in PROBES.items() if vars(probe())}
    assert set(given["probe"]) == with_options
    assert given["probes"] is None


REFUSED = [
    ("--probes=[cosin]", "--probes=cosin: expected one of"),
    ("--probes=[cosin]", "did you mean 'cosine'?"),
    ("--probe.cosin.layers=[0]", "unknown option '--probe.cosin.layers'; did you mean 'probe.cosine.layers'?"),
    ("--probe.cosine.layer=[0]", "did you mean"),
    ("--probe.cosine.layers=[7]", "probe.cosine.layers=[7]: no layer 7; expected numbers from 0 to 1"),
    ("--probe.attention.heads=[2]", "probe.attention.heads=[2]: no head 2; expected numbers from 0 to 1"),
    ("--probe.cosine.layers=x", "probe.cosine.layers"),
    ("--examples=20", "--examples=20: probe.eviction expected at least 30 for an interval"),
    ("--examples=0", "--examples=0: expected 1 or more"),
    ("--examples=x", "examples=x: expected int"),
    ("--probe_seed=-1", "--probe_seed=-1: expected a seed from 0 to"),
    ("--config=nowhere.yaml", "--config=nowhere.yaml: no such file"),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("option", "expected"), REFUSED)
def test_a_mistake_is_one_line_and_writes_nothing(
    option: str,
    expected: str,
    meta: Path,
    refused: Refused,  # noqa: F811
    tmp_path: Path,
) -> None:
    line = refused("probe", "--ckpt_path", meta, option, f"--run_dir={tmp_path / 'elsewhere'}")
    assert expected in line
    assert not (tmp_path / "elsewhere").exists()


def test_a_probe_that_needs_meta_tokens_refuses_when_it_is_named(plain: Path, refused: Refused) -> None:  # noqa: F811
    line = refused("probe", "--ckpt_path", plain, "--probes=[cosine]")
    assert "--probes=cosine: the data of this checkpoint have no meta-tokens; expected a checkpoint" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--ckpt_path: expected a checkpoint to probe"),
        (["--ckpt_path=nowhere.ckpt"], "--ckpt_path=nowhere.ckpt: no such file"),
    ],
)
def test_a_missing_checkpoint_is_named(arguments: list[str], expected: str, refused: Refused) -> None:  # noqa: F811
    assert expected in refused("probe", *arguments)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process that trains in `folder`; its pid."""
    script = (
        "import sys, pathlib\n"
        "from lightning_metatok.lit.run.lock import RunLock\n"
        "RunLock().take(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_locked_run_folder_is_refused(meta: Path, tmp_path: Path) -> None:
    with held(meta.parent.parent) as pid:
        outcome = run("probe", "--ckpt_path", meta, "--examples=40", "--probes=[eviction]")
        assert outcome.code == 2
        assert re.search(rf"process {pid} on .* trains here", outcome.err)
        assert outcome.err.count("\n") == 1
        # Another folder is free.
        succeed("probe", "--ckpt_path", meta, "--examples=40", "--probes=[eviction]", f"--run_dir={tmp_path}")


def test_nothing_is_half_written_when_a_folder_cannot_be_written(meta: Path, tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("a file stands in the way")
    outcome = run("probe", "--ckpt_path", meta, "--examples=40", "--probes=[eviction]", f"--run_dir={tmp_path}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"run_dir={tmp_path}: cannot make the folder probe in it: File exists" in outcome.err
    assert {path.name for path in tmp_path.iterdir()} <= {"probe", "run.lock"}
