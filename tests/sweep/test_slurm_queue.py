"""What `squeue` says of a sweep's jobs, and which of its runs that are."""

import json
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.sweep import SweepFolder, slurm
from lightning_metatok.sweep.slurm import GONE, Submission, submissions, waiting_or_running
from lightning_metatok.sweep.spec import Resources

HANDED_IN = [Submission("7", ("a", "b", "c")), Submission("9", ("a", "d"))]


def test_jobs_of_the_sweep_that_wait_or_run_are_its_runs() -> None:
    listed = "7|0|RUNNING\n 7|2|PENDING \n9|1|COMPLETING\n"
    assert waiting_or_running(listed, HANDED_IN) == {"a": "7_0", "c": "7_2", "d": "9_1"}


@pytest.mark.parametrize(
    "line",
    ["8|0|RUNNING", "7|N/A|RUNNING", "7|3|RUNNING", "7|-1|RUNNING", "7||RUNNING", "", "7", "slurm_load_jobs error"],
)
def test_other_lines_are_none_of_its_runs(line: str) -> None:
    assert waiting_or_running(f"{line}\n7|1|RUNNING\n", HANDED_IN) == {"b": "7_1"}


@pytest.mark.parametrize("state", GONE)
def test_jobs_that_are_over_are_not_waited_for(state: str) -> None:
    assert waiting_or_running(f"7|0|{state}\n", HANDED_IN) == {}


def fake(place: Path, name: str, script: str) -> None:
    """A command of SLURM."""
    (place / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / name).chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep, on a machine whose SLURM notes how it was called."""
    made = SweepFolder(tmp_path / "sweep")
    made.write_plan([], "", "c", [])
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, answer in (("sbatch", "echo '12;cluster'"), ("squeue", 'echo "12|0|RUNNING"; echo "12|1|PENDING"')):
        fake(commands, name, f'printf "%s\\0" "$@" > {commands}/{name}.called; {answer}')
    fake(commands, "scancel", f'printf "%s\\0" "$@" > {commands}/scancel.called')
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return made


def called(folder: SweepFolder, name: str) -> list[str]:
    """The arguments of the last call."""
    return (folder.path.parent / "bin" / f"{name}.called").read_text().split("\0")[:-1]


def test_what_is_handed_in_is_noted_under_the_next_number(folder: SweepFolder) -> None:
    assert slurm.queue(folder) is None
    assert slurm.cancel(folder) == 0
    assert slurm.submit(folder, Resources(), ["a", "b"], folder.code("c")) == Submission("12", ("a", "b"))
    notes = folder.path / "submissions"
    assert called(folder, "sbatch") == ["--parsable", str(notes / "1.sh")]
    assert (notes / "1.names").read_text() == "a\nb\n"
    assert "#SBATCH --array=0-1\n" in (notes / "1.sh").read_text()
    slurm.submit(folder, Resources(), ["d"], folder.code("c"))
    (notes / "1.json").unlink()
    slurm.submit(folder, Resources(), ["e"], folder.code("c"))
    assert sorted(path.name for path in notes.glob("*.json")) == ["2.json", "3.json"]
    assert [found.names for found in submissions(folder)] == [("d",), ("e",)]


def test_the_queue_is_asked_for_all_jobs_of_the_user_and_cancelled_by_task(folder: SweepFolder) -> None:
    slurm.submit(folder, Resources(), ["a", "b"], folder.code("c"))
    assert slurm.queue(folder) == {"a": "12_0", "b": "12_1"}
    assert "--me" in called(folder, "squeue")
    assert "--array" in called(folder, "squeue")
    assert slurm.cancel(folder) == 2
    assert called(folder, "scancel") == ["12_0", "12_1"]


def test_nothing_in_the_queue_is_cancelled_without_a_call(folder: SweepFolder) -> None:
    slurm.submit(folder, Resources(), ["a"], folder.code("c"))
    fake(folder.path.parent / "bin", "squeue", "true")
    assert slurm.cancel(folder) == 0
    assert not (folder.path.parent / "bin" / "scancel.called").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'no such partition' >&2; exit 1", "no such partition"),
        ("echo told; exit 1", "told"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_refusal_of_slurm_is_passed_on_and_nothing_is_noted(folder: SweepFolder, script: str, said: str) -> None:
    fake(folder.path.parent / "bin", "sbatch", script)
    with pytest.raises(UserError, match=f"sbatch: {said}"):
        slurm.submit(folder, Resources(), ["a"], folder.code("c"))
    assert submissions(folder) == []


def test_notes_come_back_by_number(folder: SweepFolder) -> None:
    for number in (10, 9):
        content = json.dumps({"job": str(number), "names": ["a"]})
        (folder.path / "submissions" / f"{number}.json").write_text(content)
    assert [found.job for found in submissions(folder)] == ["9", "10"]
