"""The doctor's report: complete, true to this process, the same for people and for programs."""

import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from lightning_metatok import __version__, doctor, runtime


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


def test_versions_are_those_of_the_running_process(report: doctor.Report) -> None:
    assert report["versions"]["lightning-metatok"] == __version__
    assert report["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(doctor.PACKAGES) < set(report["versions"])


def test_a_package_that_is_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-distribution",))
    assert doctor._versions()["no-such-distribution"] == "not installed"


def test_cpu_and_precision_are_what_training_will_use(report: doctor.Report) -> None:
    assert report["cpu"]["threads torch uses"] == torch.get_num_threads()
    assert 1 <= report["cpu"]["cores for this process"] <= (os.cpu_count() or 1)
    assert report["cpu"]["bf16 in hardware"] == runtime.cpu_has_bf16()
    assert report["training"]["precision that auto takes"] == runtime.resolve_precision("auto")


def test_an_allocator_that_the_user_tuned_is_reported_as_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert doctor._cpu()["allocator"] == "set by the user's environment"


def test_the_reference_backend_ran_and_the_others_say_why_not(report: doctor.Report) -> None:
    backends = report["attention backends"]
    assert backends["reference"] == "ok"
    assert backends["sdpa"] == "ok"
    assert all(isinstance(reason, str) and reason for reason in backends.values())


def test_gpus_are_listed_as_torch_sees_them(report: doctor.Report) -> None:
    listed = [name for name in report["gpu"] if name.startswith("cuda:")]
    assert len(listed) == torch.cuda.device_count()
    assert listed or report["gpu"]["found"].startswith("none")


def test_slurm_is_found_by_asking_sbatch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._slurm() == {"sbatch": "not found"}

    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\n[ "$1" = --version ] && echo slurm 24.05.1\n')
    sbatch.chmod(0o755)
    assert doctor._slurm() == {"sbatch": "slurm 24.05.1"}

    sbatch.write_text("#!/bin/sh\nexit 3\n")
    assert doctor._slurm() == {"sbatch": "no answer: exit code 3"}


def test_the_cache_is_measured_where_the_environment_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(folder))
    assert doctor._cache()["size in MiB"] == 0
    assert not folder.exists(), "looking must not create the folder"

    (folder / "blocks").mkdir(parents=True)
    (folder / "blocks" / "tokens.bin").write_bytes(bytes(3 << 20))
    cache = doctor._cache()
    assert cache["folder"] == str(folder)
    assert cache["size in MiB"] == 3
    # Others write to the same disk meanwhile.
    assert cache["free on its disk in GiB"] == pytest.approx(shutil.disk_usage(folder).free / doctor.GIB, abs=1)


def test_json_holds_the_same_report_as_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main("doctor", ["--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert doctor.main("doctor", []) == 0
    table = capsys.readouterr().out
    for section, rows in as_json.items():
        assert section in table
        assert all(name in table for name in rows)
