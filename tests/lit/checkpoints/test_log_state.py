"""Logs damaged after a checkpoint are what they were, as far as it knows them; the rest is a gap that is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from lightning_metatok.event_file import PATTERN, EventFile, whole_records
from lightning_metatok.lit.checkpoints.log_state import METRICS, TAIL, LogState, mend_logs
from tests.system import damage

STEP = 2000


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder whose two logs are longer than what a checkpoint carries, and what one at step 2000 says about them."""
    folder, state = tmp_path_factory.mktemp("logs") / "run", LogState()
    folder.mkdir()
    events = EventFile(folder)
    for step in range(1, STEP + 1):
        with (folder / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, "loss/train": 1 / step, "loss/val": 2 / step}) + "\n")
        events.add_event(
            Event(step=step, summary=Summary(value=[Summary.Value(tag="loss/train", simple_value=1 / step)]))
        )
        if step == STEP // 2:
            state(folder)
    events.close()
    assert min(path.stat().st_size for path in folder.iterdir()) > 1.2 * TAIL
    return folder, state(folder)


def test_what_is_read_in_pieces_is_what_is_read_at_once(logs: tuple[Path, dict[str, Any]]) -> None:
    folder, saved = logs
    again = LogState()(folder)
    assert again["logs"] == saved["logs"]
    assert {name: end["sha256"] for name, end in again["log_ends"].items()} == {
        name: end["sha256"] for name, end in saved["log_ends"].items()
    }


def test_a_log_that_shrank_while_it_was_written_is_described_as_it_is(tmp_path: Path) -> None:
    state = LogState()
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step": 2}\n')
    state(tmp_path)
    (tmp_path / METRICS).write_text('{"step": 3}\n')
    assert state(tmp_path)["log_ends"][METRICS]["sha256"] == LogState()(tmp_path)["log_ends"][METRICS]["sha256"]


def mended(logs: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str) -> tuple[Path, int, list[str]]:
    folder, saved = logs
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    with (run / METRICS).open("a") as file:
        file.write('{"step": 2001, "loss/train": 0.0}\n')
    damage.LOGS[kind](run)
    said: list[str] = []
    lost, gaps = mend_logs(run, saved, STEP, said.append)
    assert len(said) == 1, "it is noticed, and the log that is sound is not complained about"
    assert bool(lost) == bool(gaps)
    return run, lost, said


def damaged_late(run: Path, kind: str) -> None:
    """Damage within what the checkpoint carries."""
    path = run / METRICS if "metrics" in kind or "line" in kind else damage.event_file(run)
    if "garbage" in kind:
        damage.scramble(path, 0.9)
    else:
        damage.cut(path, 0.9)


@pytest.mark.parametrize("kind", [kind for kind in damage.LOGS if "no " not in kind and "two" not in kind])
def test_damage_near_the_end_is_mended_bit_for_bit(
    kind: str, logs: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(damage.LOGS, kind, lambda run: damaged_late(run, kind))
    run, lost, (said,) = mended(logs, tmp_path, kind)
    assert (lost, "mended" in said) == (0, True)
    for path in logs[0].iterdir():
        assert (run / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", damage.LOGS)
def test_damage_anywhere_leaves_what_can_be_read_and_the_old_file(
    kind: str, logs: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, lost, (said,) = mended(logs, tmp_path, kind)
    rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()] if (run / METRICS).exists() else []
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert all(step <= STEP for step in steps)
    (events,) = list(run.glob(PATTERN)) or [None]
    content = events.read_bytes() if events else b""
    assert whole_records(content) == len(content)
    if kind == "two event files":
        assert lost == 0
    elif "mended" in said:
        assert (run / METRICS).read_bytes() == (logs[0] / METRICS).read_bytes()
    else:
        assert lost == sum(logs[1]["logs"].values()) - len(content) - sum(len(json.dumps(row)) + 1 for row in rows)
        assert f"{METRICS if 'event' not in kind else 'events.out'}" in said
        assert "the gap is marked" in said
    aside = run / "put-aside"
    if "garbage" in kind or "two" in kind:
        assert len(list(aside.iterdir())) == 1
        assert not list(aside.glob("*tfevents*")), "TensorBoard would show it"
    # The next start finds what this one left.
    again: list[str] = []
    mend_logs(run, LogState()(run), STEP, again.append)
    assert again == []


def test_lines_are_kept_around_bytes_that_came_between(logs: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, saved = logs
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    whole = (folder / METRICS).read_bytes()
    (run / METRICS).write_bytes(b"\xff\x00\n[1]\n" + whole + b'{"step": 2001}\n')
    said: list[str] = []
    assert mend_logs(run, saved, STEP, said.append) == (0, [])
    assert (run / METRICS).read_bytes() == whole
    assert "mended" in said[0]


def test_events_behind_the_checkpoint_go_where_those_before_it_are_not_what_they_were(
    logs: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, saved = logs
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    other = EventFile(tmp_path / "other")  # whole records, but others
    for step in range(1, 2 * STEP):
        value = Summary.Value(tag="loss/train", simple_value=0.0)
        other.add_event(Event(step=step, summary=Summary(value=[value])))
    other.close()
    shutil.copyfile(other.path, damage.event_file(run))
    mend_logs(run, saved, STEP, lambda _: None)
    content = damage.event_file(run).read_bytes()
    assert whole_records(content) == len(content) <= saved["logs"][damage.event_file(run).name]


def test_a_gap_is_marked_once_however_often_a_run_begins_there(tmp_path: Path) -> None:
    path, saved = tmp_path / METRICS, {"logs": {METRICS: 1000}}  # as checkpoints before this: lengths alone
    path.write_text('{"step": 1, "loss/val": 3.0}\n{"step": 2, "loss/va')
    for _ in range(2):
        lost, gaps = mend_logs(tmp_path, saved, 2, lambda _: None)
        assert len(gaps) == 1
        assert path.read_text() == '{"step": 1, "loss/val": 3.0}\n'
        assert lost == 1000 - path.stat().st_size
        with path.open("a") as file:
            file.write(f'{{"step": 2, "log/lost_bytes": {lost}}}\n')


def test_a_log_that_begins_after_the_checkpoint_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"step": 9}\n')
    assert mend_logs(tmp_path, {"logs": {}, "log_ends": {}}, 3, lambda line: pytest.fail(line)) == (0, [])
    assert not (tmp_path / METRICS).exists()
