"""`sweep` at the door: what it shows before anything runs, and what it refuses, in one line and exit code 2."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_metatok.cli import main


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """A sweep of four runs, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path, repository)


def write(folder: Path, repository: Path, **change: Any) -> Path:
    """A sweep file with changes."""
    content = {
        "configs": [str(repository / "conf" / "task" / "list_recall_nano.yaml")],
        "arms": {name: {"configs": [str(repository / "conf" / "arm" / f"{name}.yaml")]} for name in ("plain", "meta")},
        "seeds": [1, 2],
        "minutes": 2,
        **change,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line of a refusal."""
    assert main(["sweep", *map(str, arguments)]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    return found.err


def test_a_plan_shows_runs_cost_and_script_and_writes_nothing(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "plan", str(file)]) == 0
    text = capsys.readouterr().out
    assert "4 runs in runs/sweeps/small" in " ".join(text.split())
    assert "8 min 0 s one after the other" in text
    assert "#SBATCH --array=0-3\n" in text
    assert "#SBATCH --signal=USR1@120\n" in text
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_a_thousand_runs_are_planned_at_once(
    tmp_path: Path, repository: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = write(tmp_path, repository, seeds=list(range(500)))
    main(["sweep", "plan", str(file)])  # the names of options are in the cache now
    began = time.monotonic()
    assert main(["sweep", "plan", str(big)]) == 0
    assert time.monotonic() - began < 3
    assert "1000 runs" in capsys.readouterr().out


def test_mistakes_are_one_line(
    file: Path, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write(tmp_path, repository, grid={"model.positon": ["none"]})
    assert "small.yaml: model.positon: no such key of the configuration; did you mean 'model.position'?" in refused(
        capsys, "plan", wrong
    )
    missing = write(tmp_path, repository, configs=[str(repository / "conf" / "bas.yaml")])
    assert "bas.yaml: no such file; did you mean" in refused(capsys, "run", missing)
    assert "nosuch.yaml: no such file" in refused(capsys, "plan", "nosuch.yaml")
    write(tmp_path, repository)
    assert "sweep pln: expected one of plan, run" in refused(capsys, "pln", file)
    assert "--on=slrum: expected local or slurm; did you mean 'slurm'?" in refused(capsys, "run", file, "--on=slrum")
    assert "--workers=0: expected at least 1" in refused(capsys, "run", file, "--workers=0")
    assert "unknown option '--worker=2'; did you mean '--workers'?" in refused(capsys, "run", file, "--worker=2")
    assert "no sweep was started here" in refused(capsys, "status", file)
    assert "no sweep was started here" in refused(capsys, "collect", file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


def test_a_key_below_an_option_that_is_a_mapping_is_known(
    tmp_path: Path, repository: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = write(tmp_path, repository, grid={"data.task_options.n_lists": [[1, 2], [1, 3]]})
    assert main(["sweep", "plan", str(deep)]) == 0
    assert "8 runs" in capsys.readouterr().out


def test_without_slurm_the_line_says_what_to_use_instead(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["sweep", "run", str(file), "--on=slurm"]) == 2
    assert "sbatch: no such command: there is no SLURM here; expected --on local" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_a_sweep_reads_numbers_as_fit_does() -> None:
    """Whatever was imported before Lightning, which may turn its `Union[int, float]` round."""
    code = (
        "from typing import Optional, Union; Optional[Union[float, int]]; import lightning_metatok.cli.sweep, inspect\n"
        "from lightning.pytorch import Trainer\n"
        "print(inspect.signature(Trainer).parameters['limit_val_batches'].annotation)\n"
        "from lightning_metatok.cli.training_parser import LightningArgumentParser, read_integers_first\n"
        "parser = LightningArgumentParser(); parser.add_lightning_class_args(Trainer, 'trainer')\n"
        "read_integers_first(parser)\n"
        "for value in ('1', '0.5', 'null'): print(repr(parser.parse_args([f'--trainer.limit_val_batches={value}'])"
        ".trainer.limit_val_batches))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    turned, *values = done.stdout.splitlines()
    assert turned == "typing.Union[float, int, NoneType]"
    assert values == ["1", "0.5", "None"]
