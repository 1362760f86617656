"""A run killed any number of times, anywhere, ends as one that never was; one asked to stop stops at a step border.

`make torture` runs all of it, `make test` a short part. With $LIGHTNING_METATOK_TORTURE, a folder, cases that the same
code has passed are skipped the next time, and torture.json in a folder named after the code holds the numbers.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.files import write_atomically
from lightning_metatok.lit.checkpoints.folder import link_last, newest_valid
from lightning_metatok.lit.checkpoints.io import fault_of, read_state
from tests.system import damage
from tests.system.helpers import lines
from tests.system.torture import PHASES, Child, Undisturbed, differences, events, launch

CASES = 30
"""Runs of the whole torture, killed 1, 2 or 3 times each: 60 kills."""
REPORT = "LIGHTNING_METATOK_TORTURE"


class Report:
    """Numbers of the whole torture: one file a case, and their sums, in a folder named after the code."""

    def __init__(self) -> None:
        self.folder = Path(os.environ[REPORT]) / fingerprint() if REPORT in os.environ else None
        self.cases: dict[str, dict[str, Any]] = {}
        if self.folder is not None:
            self.cases = {path.stem: json.loads(path.read_text()) for path in sorted(self.folder.glob("*-*.json"))}

    def skip_if_done(self, case: str) -> None:
        """A case that this very code has passed before need not run again."""
        if case in self.cases:
            pytest.skip(f"passed before: {self.folder}/{case}.json")

    def add(self, case: str, numbers: dict[str, Any]) -> None:
        print(f"\n{case}: {numbers}", flush=True)
        self.cases[case] = numbers
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{case}.json", json.dumps(numbers) + "\n")
            write_atomically(self.folder / "torture.json", json.dumps(self.sums(), indent=1) + "\n")

    def sums(self) -> dict[str, dict[str, float]]:
        """Counts and seconds over all cases of a kind."""
        sums: dict[str, dict[str, float]] = {}
        for case, numbers in sorted(self.cases.items()):
            kind = sums.setdefault(case.split("-")[0], {"runs": 0})
            kind["runs"] += 1
            for name, value in numbers.items():
                for key, number in [(f"in {one}", 1) for one in value] if isinstance(value, list) else [(name, value)]:
                    kind[key] = round(kind.get(key, 0) + number, 1)
        return sums


def fingerprint() -> str:
    """What the package and these tests are, in twelve digits."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted([*(root / "lightning_metatok").rglob("*.py"), *Path(__file__).parent.glob("*torture.py")]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    numbers = Report()
    yield numbers
    for kind, sums in numbers.sums().items():
        print(f"\ntorture, {kind}: {', '.join(f'{value:g} {name}' for name, value in sums.items())}", flush=True)


def environment(undisturbed: Undisturbed, kind: str, tmp_path: Path, *, fresh_cache: bool) -> dict[str, str]:
    """The cache of the undisturbed run or an empty one, and temporary files on another file system."""
    cache = tmp_path / "cache" if fresh_cache else undisturbed.folder / f"{kind}-cache"
    elsewhere = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    return {"LIGHTNING_METATOK_CACHE": str(cache), **elsewhere}


def strike(
    child: Child, draw: random.Random, phase: str, seconds: dict[str, float], number: int, *, group: bool = False
) -> bool:
    """Send signal `number` at a random moment of a random one of the next such phases; False: the child was done."""
    which = draw.randrange(4) if phase == "training" else int(group)  # behind the sanity check, where workers start
    if not child.wait_for(phase, which):
        return False
    time.sleep(draw.random() * seconds[phase])
    child.strike(number, group=group)
    return True


def killed_run(undisturbed: Undisturbed, kind: str, phases: list[str], workers: int, seed: int, tmp_path: Path) -> int:
    """Kill a run in each of `phases` in turn, let it end, compare; return the number of kills that struck."""
    whole, seconds = undisturbed(kind)
    draw, kills, run = random.Random(seed), 0, tmp_path / "run"
    around = environment(undisturbed, kind, tmp_path, fresh_cache="cache" in phases)
    command = [*undisturbed.commands[kind], f"--data.num_workers={workers}", f"--run_dir={run}", "--ckpt_path=auto"]
    for phase in sorted(phases, key=lambda phase: (phase != "cache", phase == "end")):
        child = launch(command, tmp_path / "log", around)
        strike(child, draw, phase, seconds, signal.SIGKILL)
        code = child.wait()
        assert code in (0, -signal.SIGKILL), child.log.read_text()
        kills += code != 0
    child = launch(command, tmp_path / "log", around)
    assert child.wait() == 0, child.log.read_text()
    assert differences(run, whole) == []
    return kills


SHORT = [
    ("text", 0, ["checkpoint", "training"]),
    ("text", 2, ["validation", "end"]),
    ("task", 0, ["cache", "checkpoint", "training"]),
]


@pytest.mark.parametrize(("kind", "workers", "phases"), SHORT)
def test_a_killed_run_ends_as_one_that_never_was(
    kind: str, workers: int, phases: list[str], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    killed_run(undisturbed, kind, phases, workers, len(phases), tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("case", range(CASES))
def test_sixty_kills(case: int, undisturbed: Undisturbed, report: Report, tmp_path: Path) -> None:
    name = f"kill-{case:02}"
    report.skip_if_done(name)
    number, workers, kind = 1 + case % 3, (0, 2)[case // 3 % 2], ("text", "task")[case // 6 % 2]
    for attempt in range(8):
        draw = random.Random(1000 * case + attempt)
        phases = [PHASES[case % 5], *(draw.choice(PHASES[1:4]) for _ in range(number - 1))]
        folder = tmp_path / str(attempt)
        folder.mkdir()
        since = time.monotonic()
        # Every run is compared, also one that was done before the last kill came; only one with all kills counts.
        if killed_run(undisturbed, kind, phases, workers, 1000 * case + attempt, folder) == number:
            report.add(name, {"kills": number, "where": phases, "attempts": attempt + 1,
                              f"kills with {workers} workers": number,
                              "seconds": time.monotonic() - since})  # fmt: skip
            return
    pytest.fail("the run was always done before the last kill")


def stopped_run(
    undisturbed: Undisturbed, kind: str, number: int, phase: str, seed: int, tmp_path: Path, workers: int = 0
) -> float:
    """Ask a run to stop, with `workers` its whole process group, then let it go on; the seconds until it stopped."""
    whole, seconds = undisturbed(kind)
    run = tmp_path / "run"
    around = environment(undisturbed, kind, tmp_path, fresh_cache=phase == "cache")
    command = [*undisturbed.commands[kind], f"--data.num_workers={workers}", f"--run_dir={run}", "--ckpt_path=auto"]
    child = launch(command, tmp_path / "log", around)
    assert strike(child, random.Random(seed), phase, seconds, number, group=workers > 0)
    since = time.monotonic()
    assert child.wait() == 128 + number, child.log.read_text()
    took = time.monotonic() - since
    found = newest_valid(run / "checkpoints", lambda message: pytest.fail(message))
    assert workers == 0 or found is not None
    said = child.log.read_text()
    assert f"stopped by {signal.Signals(number).name} at step" in said
    assert "Traceback" not in said
    # The checkpoint is that of the last step made: nothing is made twice.
    made = max((line["step"] for line in lines(run) if "loss/train" in line), default=0) if found else 0
    assert made == (0 if found is None else read_state(found, key="x")["global_step"])
    child = launch(command, tmp_path / "log", around)
    assert child.wait() == 0, child.log.read_text()
    assert differences(run, whole) == []
    return took


def test_a_run_that_is_asked_to_stop_saves_and_goes_on(undisturbed: Undisturbed, tmp_path: Path) -> None:
    stopped_run(undisturbed, "text", signal.SIGTERM, "training", 1, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("case", range(20))
def test_twenty_signals(case: int, undisturbed: Undisturbed, report: Report, tmp_path: Path) -> None:
    name = f"signal-{case:02}"
    report.skip_if_done(name)
    number, kind = (signal.SIGTERM, signal.SIGUSR1)[case % 2], ("text", "task")[case // 2 % 2]
    phase = PHASES[case // 4 % 4]
    took = stopped_run(undisturbed, kind, number, phase, case, tmp_path)
    report.add(name, {"signals": 1, "where": [phase, signal.Signals(number).name], "seconds to stop": took})


# -- damaged logs and checkpoints


def few(kinds: Iterable[str]) -> list[Any]:
    """The kinds, of which `make test` tries the first two; `make torture` tries all."""
    return [pytest.param(kind, marks=pytest.mark.torture if i > 1 else ()) for i, kind in enumerate(kinds)]


@pytest.fixture(scope="module")
def stopped_at_8(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the task that stopped after step 8 of 12, with checkpoints of steps 4 and 8."""
    run = tmp_path_factory.mktemp("damage") / "run"
    options = ["--model.optimizer.decay_steps=12", "--trainer.max_steps=8", f"--run_dir={run}"]
    child = launch([*undisturbed.commands["task"], *options], run.with_name("log"))
    assert child.wait() == 0, child.log.read_text()
    return run


def go_on(undisturbed: Undisturbed, run: Path) -> tuple[int, str]:
    """Let the run go on to step 12; exit code, and what it said."""
    child = launch([*undisturbed.commands["task"], f"--run_dir={run}", "--ckpt_path=auto"], run.with_name("log"))
    return child.wait(), child.log.read_text()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its name alone."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", few(damage.LOGS))
def test_damaged_logs_are_mended_and_it_is_said(
    kind: str, stopped_at_8: Path, undisturbed: Undisturbed, report: Report, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_at_8, run, symlinks=True)
    damage.LOGS[kind](run)
    code, said = go_on(undisturbed, run)
    assert code == 0, said
    assert "lightning-metatok: warning: " in said
    assert "Traceback" not in said
    assert differences(run, undisturbed("task")[0]) == []
    report.add(f"logs-{kind}", {"damaged": 1})


def test_a_gap_that_cannot_be_mended_is_marked_in_both_logs(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The events of a text run hold pictures: damage lies before what a checkpoint carries of them."""
    run, command = tmp_path / "run", [*undisturbed.commands["text"], "--model.optimizer.decay_steps=12"]
    child = launch([*command, "--trainer.max_steps=8", f"--run_dir={run}"], tmp_path / "log")
    assert child.wait() == 0, child.log.read_text()
    damage.scramble(damage.event_file(run), damage.EARLY)
    child = launch([*command, f"--run_dir={run}", "--ckpt_path=auto"], tmp_path / "log")
    assert child.wait() == 0, child.log.read_text()
    assert "the gap is marked" in child.log.read_text()
    assert [line["step"] for line in lines(run) if line.get("log/lost_bytes", 0) > 0] == [8]
    found = events(damage.event_file(run))
    assert [step for step, tag, _ in found if tag == "log/lost_bytes/text_summary"] == [8]
    assert max(step for step, tag, _ in found if tag == "loss/train") == 12, "TensorBoard shows what came after"


@pytest.mark.parametrize("kind", few(damage.CHECKPOINTS))
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_taken(
    kind: str, stopped_at_8: Path, undisturbed: Undisturbed, report: Report, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_at_8, run, symlinks=True)
    damage.CHECKPOINTS[kind](run)
    left = {path.name: contents(path) if path.is_dir() else path.read_bytes()
            for path in (run / "checkpoints").glob("step-8.*")}  # fmt: skip
    code, said = go_on(undisturbed, run)
    assert code == 0, said
    assert "step-8.ckpt is skipped: " in said
    assert "Traceback" not in said
    assert differences(run, undisturbed("task")[0]) == []
    aside = run / "checkpoints" / "put-aside"
    assert {path.name: contents(path) if path.is_dir() else path.read_bytes() for path in aside.iterdir()} == left
    report.add(f"checkpoints-{kind}", {"damaged": 1})


NOTHING_VALID = ("only last.ckpt", "only a link to nothing", "a missing disk")


@pytest.mark.parametrize("kind", [*NOTHING_VALID, *few(damage.CHECKPOINTS)])
def test_where_no_checkpoint_is_valid_nothing_is_deleted(
    kind: str, stopped_at_8: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_at_8, run, symlinks=True)
    folder = run / "checkpoints"
    if kind == "a missing disk":
        shutil.rmtree(folder)
        folder.symlink_to(tmp_path / "not-mounted")
    elif kind.startswith("only"):
        content = (folder / "last.ckpt").read_bytes()
        for path in folder.glob("step-*"):
            path.unlink()
        if kind == "only last.ckpt":  # a copy that followed links
            (folder / "last.ckpt").unlink()
            (folder / "last.ckpt").write_bytes(content)
    else:
        for step in (8, 4):
            link_last(folder / f"step-{step}.ckpt")
            damage.CHECKPOINTS[kind](run)
    before = contents(run)
    code, said = go_on(undisturbed, run)
    assert (code, len(said.splitlines())) == (2, 1), said
    assert str(folder) in said or "not-mounted" in said
    assert contents(run) == before
    if kind != "only a link to nothing":
        return
    assert "to start over, move " in said
    folder.rename(tmp_path / "moved")  # what the line says
    code, said = go_on(undisturbed, run)
    assert code == 0, said
    assert differences(run, undisturbed("task")[0]) == []


@pytest.mark.torture
@pytest.mark.parametrize("case", range(20))
def test_twenty_signals_to_the_process_group(
    case: int, undisturbed: Undisturbed, report: Report, tmp_path: Path
) -> None:
    name = f"group-{case:02}"
    report.skip_if_done(name)
    number = (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)[case % 5]
    kind, phase = ("text", "task")[case % 2], ("training", "training", "validation", "checkpoint")[case // 5]
    took = stopped_run(undisturbed, kind, number, phase, 100 + case, tmp_path, workers=2)
    report.add(name, {"signals": 1, "where": [phase, signal.Signals(number).name], "seconds to stop": took})


# -- a full disk


def fill(disk: Path, leave: int) -> Path:
    """Leave `leave` bytes free on the disk."""
    state = os.statvfs(disk)
    filling = disk / "filling"
    filling.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - leave)))
    return filling


@pytest.mark.parametrize("leave", [0, 40_000, 200_000])
def test_a_disk_that_fills_up_during_a_checkpoint_costs_nothing_valid(
    leave: int, undisturbed: Undisturbed, small_disk: Path, tmp_path: Path
) -> None:
    whole, _ = undisturbed("task")
    around = environment(undisturbed, "task", tmp_path, fresh_cache=False)
    run = small_disk / "run"
    command = [*undisturbed.commands["task"], f"--run_dir={run}", "--ckpt_path=auto"]
    child = launch(command, tmp_path / "log", around)
    assert child.wait_for("checkpoint", 1)
    child.strike(signal.SIGSTOP)  # else it may take what is being measured
    filling = fill(small_disk, leave)
    child.strike(signal.SIGCONT)
    code = child.wait()
    assert code in (0, 2), child.log.read_text()
    if code == 2:
        assert "No space left on device" in child.log.read_text()
        assert "Traceback" not in child.log.read_text()
    found = newest_valid(run / "checkpoints", lambda _: None)
    assert found is not None
    filling.unlink()
    child = launch(command, tmp_path / "log", around)
    assert child.wait() == 0, child.log.read_text()
    assert differences(run, whole) == []


def test_a_disk_that_is_full_when_data_are_prepared_costs_nothing(
    undisturbed: Undisturbed, small_disk: Path, tmp_path: Path
) -> None:
    whole, _ = undisturbed("text")
    around = {"LIGHTNING_METATOK_CACHE": str(small_disk / "cache")}
    command = [*undisturbed.commands["text"], f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto"]
    filling = fill(small_disk, 60_000)
    child = launch(command, tmp_path / "log", around)
    assert child.wait() == 2, child.log.read_text()
    assert len(child.log.read_text().splitlines()) == 1
    filling.unlink()
    child = launch(command, tmp_path / "log", around)
    assert child.wait() == 0, child.log.read_text()
    assert differences(tmp_path / "run", whole) == []


def test_what_last_points_at_is_valid_once_a_run_is_done(undisturbed: Undisturbed) -> None:
    for kind in ("text", "task"):
        assert fault_of((undisturbed(kind)[0] / "checkpoints" / "last.ckpt").resolve()) is None
