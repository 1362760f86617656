"""Every verb of `sweep` on a folder that is odd, incomplete or damaged: one line that names it, or the answer."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_metatok.cli import main
from lightning_metatok.cli.sweep_file import Sweep, read_sweep
from lightning_metatok.sweep.folder import begin, end
from tests.cli.test_sweep import refused, write

ASKING = ("status", "cancel", "collect")
VERBS = (*ASKING, "run", "retry")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Sweep:
    """A sweep of four runs that are all done, so that no verb starts anything."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, repository)
    sweep = read_sweep(file, None)
    sweep.folder.write_plan(sweep.runs, file.read_text(), sweep.code, [], file.name)
    for run in sweep.runs:
        sweep.folder.run_folder(run.name).mkdir()
        (sweep.folder.run_folder(run.name) / "metrics.jsonl").write_text('{"step": 1, "loss/val": 0.5}\n')
        end(sweep.folder, run.name, begin(sweep.folder, run.name, None), 0)
    return sweep


def put(path: Path, content: str | bytes | None) -> None:
    """A file with that content, or a folder where a file belongs."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if content is None:
        (path / "x").mkdir(parents=True)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


ODD = ['{"runs": [', "", "[]", "null", "5", '{"runs": 5}', b"\xff\xfe", "[" * 100_000, '{"runs": [{"id": 1}]}']
TRAVERSAL = {"id": "x", "label": "../../../a", "axes": {}, "configs": [], "options": {}}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("content", [*ODD, json.dumps({"runs": [TRAVERSAL], "code": "c", "finished": []})])
@pytest.mark.parametrize("verb", [*ASKING, "retry"])
def test_a_damaged_plan_is_a_line(
    started: Sweep, capsys: pytest.CaptureFixture[str], verb: str, content: str | bytes
) -> None:
    put(started.folder.path / "plan.json", content)
    assert "plan.json: damaged; `lightning-metatok sweep run FILE` writes it anew" in refused(
        capsys, verb, started.file
    )


@pytest.mark.parametrize("change", [{"code": 5}, {"code": "../x"}, {"finished": "loss"}, {"finished": [1]}])
def test_a_plan_with_values_of_other_kinds_is_a_line(
    started: Sweep, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    plan = started.folder.path / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **change}))
    assert "plan.json: damaged" in refused(capsys, "status", started.file)


@pytest.mark.parametrize("key", ["axes", "options", "configs"])
def test_a_plan_with_a_run_of_other_kinds_is_a_line(
    started: Sweep, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    plan = started.folder.path / "plan.json"
    content = json.loads(plan.read_text())
    content["runs"][0][key] = [5]
    plan.write_text(json.dumps(content))
    assert "plan.json: damaged" in refused(capsys, "status", started.file)


def test_run_writes_a_damaged_plan_anew(started: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    put(started.folder.path / "plan.json", "{")
    assert main(["sweep", "run", str(started.file)]) == 0
    assert "4 runs: 4 done, 0 to run" in capsys.readouterr().err
    assert [run.name for run in started.folder.read_plan()[0]] == [run.name for run in started.runs]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("verb", ["run", "status", "cancel", "collect", "retry"])
@pytest.mark.parametrize("what", ["file", "empty", "missing", "below a file"])
def test_a_folder_where_no_sweep_lives_is_a_line(
    started: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, what: str
) -> None:
    place = tmp_path / "place"
    if what in ("file", "below a file"):
        place.write_text("x")
    elif what == "empty":
        place.mkdir()
    folder = place / "below" if what == "below a file" else place
    if verb == "run" and what in ("empty", "missing"):
        return  # it would start there
    line = refused(capsys, verb, started.file, f"--folder={folder}")
    assert str(folder) in line
    assert ("cannot be written" if verb == "run" else "no sweep was started here") in line


@pytest.mark.parametrize("name", [".lock", "plan.json", "sweep.yaml", "runs", "states", "specs", "logs", "submissions"])
def test_what_stands_in_the_way_of_writing_is_named(
    started: Sweep, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = started.folder.path / name
    put(path, "x" if path.is_dir() else None)
    line = refused(capsys, "run", started.file)
    assert "cannot be written" in line
    assert str(started.folder.path) in line


def test_an_unwritable_folder_is_a_line(started: Sweep, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        line = run_as_nobody(started, tmp_path)
    else:
        started.folder.path.chmod(0o500)
        done = subprocess.run(
            [sys.executable, "-m", "lightning_metatok", "sweep", "run", str(started.file)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        line = done.stderr
        started.folder.path.chmod(0o700)
    assert line.count("\n") == 1
    assert "cannot be written: Permission denied" in line


def run_as_nobody(started: Sweep, tmp_path: Path) -> str:
    """The folder as another user meets it."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from lightning_metatok.errors import UserError\n"
        "from lightning_metatok.sweep.folder import SweepFolder\n"
        f"os.chdir({str(started.folder.path)!r}); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    with SweepFolder(Path('.')).held(): pass\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.one_in(4)
@pytest.mark.parametrize("content", [*ODD[:7], '{"state": "dancing"}', '{"state": "done", "attempt": "x"}', None])
@pytest.mark.parametrize("verb", ASKING)
def test_a_damaged_record_is_named_and_stops_nothing(
    started: Sweep, capsys: pytest.CaptureFixture[str], verb: str, content: str | bytes | None
) -> None:
    put(started.folder.path / "states" / f"{started.runs[0].name}.json", content)
    assert main(["sweep", verb, str(started.file)]) == 0
    out = capsys.readouterr().out
    if verb == "status":
        assert f"states/{started.runs[0].name}.json cannot be read" in out
        assert "4 runs: 3 done, 1 damaged" in out


@pytest.mark.one_in(4)
@pytest.mark.parametrize("content", ["{", "", "[]", '{"job": "7"}', '{"job": "7", "names": [5]}', b"\xff", None])
@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_note_of_a_job_is_a_line(
    started: Sweep, capsys: pytest.CaptureFixture[str], verb: str, content: str | bytes | None
) -> None:
    put(started.folder.path / "submissions" / "1.json", content)
    assert main(["sweep", verb, str(started.file)]) == 2
    assert "submissions/1.json: damaged; expected the job and its runs" in capsys.readouterr().err.splitlines()[-1]


def test_other_files_among_the_notes_of_jobs_are_nothing(started: Sweep) -> None:
    (started.folder.path / "submissions" / "notes.json").write_text("{")
    assert main(["sweep", "status", str(started.file)]) == 0


def exec_cases() -> dict[str, Callable[[Sweep], list[str]]]:
    """What somebody may call, by hand or from an old script."""

    def with_spec(content: str | bytes | None) -> Callable[[Sweep], list[str]]:
        def make(sweep: Sweep) -> list[str]:
            put(sweep.folder.path / "specs" / "one-1.json", content)
            return [str(sweep.folder.path), "one-1"]

        return make

    return {
        "expected the folder of a sweep and the name of a run, got 0 arguments": lambda s: [],
        "got 1 arguments": lambda s: [str(s.folder.path)],
        "got 3 arguments": lambda s: [str(s.folder.path), "a", "b"],
        "nosuch: no such run in": lambda s: [str(s.folder.path), "nosuch"],
        "../plan: no such run in": lambda s: [str(s.folder.path), "../plan"],
        "one: no such run in nowhere": lambda s: ["nowhere", "one"],
        "one: no such run in small.yaml": lambda s: ["small.yaml", "one"],
        "one-1.json: damaged; ": with_spec("{"),
        "one-1.json: damaged": with_spec('{"code": "c", "fit": "--x"}'),
        "specs/one-1.json: damaged": with_spec('{"code": "../c", "fit": []}'),
        "/one-1.json: damaged": with_spec('{"code": "c", "fit": [1]}'),
        "one-1.json: damaged; `lightning-metatok sweep run": with_spec(None),
        "small/specs/one-1.json: damaged": with_spec(b"\xff"),
    }


@pytest.mark.parametrize("message", exec_cases())
def test_exec_by_hand_is_a_line(started: Sweep, capsys: pytest.CaptureFixture[str], message: str) -> None:
    (started.folder.path / "specs").mkdir(exist_ok=True)
    assert message in refused(capsys, "exec", *exec_cases()[message](started))


def test_exec_where_no_record_can_be_written_is_a_line(started: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    put(started.folder.path / "specs" / "one-1.json", '{"code": "c", "fit": []}')
    put(started.folder.path / "states", "x")
    assert "cannot be written" in refused(capsys, "exec", started.folder.path, "one-1")


@pytest.mark.parametrize("out", ["folder.csv", "nowhere/t.csv", "small.yaml/t.csv", "t.xls"])
def test_a_table_that_cannot_be_written_is_a_line(started: Sweep, capsys: pytest.CaptureFixture[str], out: str) -> None:
    Path("folder.csv").mkdir()
    assert f"--out={out}: " in refused(capsys, "collect", started.file, f"--out={out}")
    assert not list(Path().glob(".*.tmp"))


@pytest.mark.parametrize("verb", VERBS)
def test_a_path_that_no_file_system_has_is_a_line(
    started: Sweep, capsys: pytest.CaptureFixture[str], verb: str, repository: Path, tmp_path: Path
) -> None:
    for option in ("--folder=", "--folder= ", f"--folder={'x' * 300}", f"--folder={'x/' * 2100}", "--out="):
        assert "expected a path that a file system can have" in refused(capsys, verb, started.file, option)
    assert "no such file" in refused(capsys, verb, "x" * 300)
    assert "no such file" in refused(capsys, verb, started.file / "x" / "y.yaml")
    for folder in ("a\0b", "x" * 300):
        file = write(tmp_path, repository)
        file.write_text(file.read_text() + f"folder: {json.dumps(folder)}\n")
        assert "expected a path that a file system can have" in refused(capsys, verb, file)
    file = write(tmp_path, repository, configs=["x" * 300])
    assert "no such file" in refused(capsys, verb, file)


def test_a_folder_that_python_cannot_search_is_refused_before_anything_is_written(
    started: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for on, name in (("local", "a:b"), ("slurm", "a:b"), ("slurm", "a\\b"), ("slurm", "a\nb")):
        assert "expected a " in refused(capsys, "run", started.file, f"--folder={tmp_path / name}", f"--on={on}")
        assert not (tmp_path / name).exists()


def test_a_plan_is_shown_where_slurm_would_refuse_the_folder(
    started: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "plan", str(started.file), f"--folder={tmp_path / '[/b]%:smile:'}"]) == 0
    out = capsys.readouterr().out
    assert "4 runs in" in " ".join(out.split())
    assert "refused: folder=" in out
    assert "[/b]%:smile:" in out
