"""The record of a run, and the last words of its log."""

import json
import time
from pathlib import Path

import pytest

from lightning_metatok import signals
from lightning_metatok.sweep import SweepFolder
from lightning_metatok.sweep.folder import begin, end
from lightning_metatok.sweep.processes import Process
from lightning_metatok.sweep.record import PIECE, State, last_lines, last_values, read_state


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Where records can be written."""
    for name in ("states", "logs", "runs"):
        (tmp_path / name).mkdir()
    return SweepFolder(tmp_path)


def test_a_record_says_who_runs_it_since_when_and_when_it_ended(folder: SweepFolder) -> None:
    before = time.time()
    begun = begin(folder, "x", "7_3")
    assert (begun.state, begun.attempt, begun.job, begun.process) == ("running", 1, "7_3", Process.this())
    assert begun.ended is None
    assert begun.started is not None
    assert before <= begun.started <= time.time()
    assert folder.written_state("x") == begun
    time.sleep(0.05)
    done = end(folder, "x", begun, 0)
    assert folder.written_state("x") == done
    assert done.ended is not None
    assert begun.started + 0.05 <= done.ended <= time.time()
    assert done.spent_s == pytest.approx(done.ended - begun.started)
    assert (done.state, done.exit_code, done.pid, done.process, done.job) == ("done", 0, None, None, "7_3")
    again = end(folder, "x", begin(folder, "x", None), 143)
    assert (again.attempt, again.state) == (2, "stopped")
    assert again.spent_s > done.spent_s


def test_a_run_that_is_noted_by_its_starter_and_by_itself_is_one_attempt(folder: SweepFolder) -> None:
    noted = begin(folder, "x", None, Process.this())
    assert begin(folder, "x", None) == noted
    assert begin(folder, "x", "7_0").attempt == 2  # the same process, in a job
    assert begin(folder, "x", None, Process(1, "elsewhere", "s")).attempt == 3
    end(folder, "x", noted, 1)
    assert begin(folder, "x", None).attempt == 2


@pytest.mark.parametrize("number", [*signals.SIGNALS, 9, 11])
def test_a_signal_that_takes_a_checkpoint_stops_and_others_fail(folder: SweepFolder, number: int) -> None:
    (folder.path / "logs" / "x.log").write_text("one\nlast word\n")
    ended = end(folder, "x", begin(folder, "x", None), 128 + number)
    assert ended.state == ("stopped" if number in signals.SIGNALS else "failed")
    assert ended.why == ("" if number in signals.SIGNALS else "last word")


def test_no_record_is_waiting_and_older_ones_are_read(tmp_path: Path) -> None:
    assert read_state(tmp_path / "x.json") == State()
    (tmp_path / "x.json").write_text('{"state": "running", "attempt": 2, "pid": 5, "host": "elsewhere"}')
    found = read_state(tmp_path / "x.json")
    assert (found.process_start, found.lives()) == ("", True)
    assert not State("running", 1, None, "elsewhere").lives()
    assert not State("running", 1, 5, None).lives()


@pytest.mark.parametrize("wanted", [None, [], ["a"], ["a", "b"], ["nosuch"]])
def test_the_last_value_of_each_key_in_the_order_of_their_first(tmp_path: Path, wanted: list[str] | None) -> None:
    lines = [{"step": 1, "a": 1}, {"step": 2, "b": 2}, {"step": 3, "a": 3}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = last_values(tmp_path, wanted)
    assert found is not None
    if wanted in (None, ["nosuch"]):
        assert list(found.items()) == [("step", 3), ("a", 3), ("b", 2)]
    assert found["step"] == 3
    assert all(found[key] == {"a": 3, "b": 2}[key] for key in wanted or () if key != "nosuch")
    assert ("b" in found) == (wanted not in ([], ["a"]))


def test_a_long_log_is_read_from_its_end_piece_by_piece(tmp_path: Path) -> None:
    lines = [json.dumps({"step": i, f"k{i}": "ü" * 50}) for i in range(3000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert (tmp_path / "metrics.jsonl").stat().st_size > 3 * PIECE
    everything = last_values(tmp_path)
    assert everything is not None
    assert len(everything) == 3001
    assert last_values(tmp_path, ["k0"]) == everything
    (tmp_path / "metrics.jsonl").write_text("{damaged\n" + "\n".join(lines))
    assert last_values(tmp_path, ["k1"]) == {key: everything[key] for key in everything if key != "k0"}
    assert last_values(tmp_path, ["nosuch"]) is None
    assert last_values(tmp_path) is None


@pytest.mark.parametrize(
    "text", ['{"a": 1', '{"a": 1\n"b": 2}\n', '{"a": 1}{"b": 2}\n', "5\n", "[1]\n", '"x"\n', "[" * 100_000]
)
@pytest.mark.parametrize("wanted", [None, ["a"]])
def test_a_log_that_is_not_lines_of_objects_cannot_be_read(tmp_path: Path, text: str, wanted: list[str] | None) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    assert last_values(tmp_path, wanted) is None


def test_a_log_that_is_not_there_or_a_folder_cannot_be_read(tmp_path: Path) -> None:
    assert last_values(tmp_path) is last_values(tmp_path, []) is None
    assert last_lines(tmp_path / "x") == []
    (tmp_path / "metrics.jsonl").mkdir()
    assert last_values(tmp_path) is last_values(tmp_path, []) is None
    assert last_lines(tmp_path / "metrics.jsonl") == []


def test_the_last_lines_are_those_of_the_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 9000 + "\nlast\n")
    assert last_lines(tmp_path / "log")[:2] == ["", "last"]
    assert len(last_lines(tmp_path / "log")[2]) < 8192
