"""A run killed any number of times, anywhere, ends as one that never was; one asked to stop stops at a step border.

`make torture` runs all of it, `make test` a short part. With $LIGHTNING_METATOK_TORTURE, a folder, finished cases are
skipped the next time, and torture.json there holds the numbers.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.lit.checkpoint_io import fault_of, newest_valid, read_state
from lightning_metatok.lit.run_folder import write_atomically
from tests.system.helpers import lines
from tests.system.torture import PHASES, Child, differences, durations, launch

CASES = 30
"""Runs of the whole torture, killed 1, 2 or 3 times each: 60 kills."""
REPORT = "LIGHTNING_METATOK_TORTURE"
TEXT = [
    *("--model.dropout=0.1", "--data.batch_size=2", "--trainer.accumulate_grad_batches=2", "--trainer.max_steps=12"),
    *("--trainer.val_check_interval=8", "--trainer.log_every_n_steps=1", "--data.validation_blocks=4"),
]
TASK = [
    *("--model.n_layers=1", "--model.n_heads=2", "--model.d_model=16", "--model.dropout=0.1"),
    *("--model.optimizer.warmup_steps=0", "--model.optimizer.lr=2e-2", "--data.batch_size=8"),
    *("--data.validation_examples=24", "--data.test_examples=24", "--trainer.max_steps=12"),
    *("--trainer.val_check_interval=4", "--trainer.log_every_n_steps=1", "--trainer.precision=32-true"),
    "--data.curriculum=[{options: {n_lists: [2, 2]}, steps: 5}, {options: {n_lists: [2, 3]}}]",
]


class Undisturbed:
    """The runs that others are compared with, each made when it is first asked for."""

    def __init__(self, quick: list[str], repository: Path, folder: Path) -> None:
        self.folder = folder
        self.commands = {
            "text": ["fit", *quick, *TEXT],
            "task": ["fit", f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}", *TASK],
        }
        self._seconds: dict[str, dict[str, float]] = {}

    def __call__(self, kind: str) -> tuple[Path, dict[str, float]]:
        """The folder of the run, and the seconds that its phases took."""
        run = self.folder / kind
        if kind not in self._seconds:
            cache = {"LIGHTNING_METATOK_CACHE": str(self.folder / f"{kind}-cache")}
            child = launch([*self.commands[kind], f"--run_dir={run}"], self.folder / f"{kind}.log", cache)
            assert child.wait() == 0, child.log.read_text()
            self._seconds[kind] = durations(child)
        return run, self._seconds[kind]


@pytest.fixture(scope="module")
def undisturbed(quick: list[str], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(quick, repository, tmp_path_factory.mktemp("undisturbed"))


class Report:
    """Numbers of the whole torture, one file a case and their sums."""

    def __init__(self) -> None:
        self.folder = Path(os.environ[REPORT]) if REPORT in os.environ else None

    def done(self, case: str) -> bool:
        return self.folder is not None and (self.folder / f"{case}.json").exists()

    def add(self, case: str, numbers: dict[str, Any]) -> None:
        print(f"{case}: {numbers}")
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{case}.json", json.dumps(numbers) + "\n")
        sums: dict[str, Any] = {}
        for path in sorted(self.folder.glob("*-*.json")):
            kind = sums.setdefault(path.stem.split("-")[0], {"runs": 0})
            kind["runs"] += 1
            for name, value in json.loads(path.read_text()).items():
                if isinstance(value, list):
                    for one in value:
                        kind[f"in {one}"] = kind.get(f"in {one}", 0) + 1
                elif isinstance(value, int | float):
                    kind[name] = round(kind.get(name, 0) + value, 1)
        write_atomically(self.folder / "torture.json", json.dumps(sums, indent=1) + "\n")


@pytest.fixture(scope="module")
def report() -> Report:
    return Report()


def environment(undisturbed: Undisturbed, kind: str, tmp_path: Path, *, fresh_cache: bool) -> dict[str, str]:
    """The cache of the undisturbed run or an empty one, and temporary files on another file system."""
    cache = tmp_path / "cache" if fresh_cache else undisturbed.folder / f"{kind}-cache"
    return {"LIGHTNING_METATOK_CACHE": str(cache), "TMPDIR": "/dev/shm"}


def strike(child: Child, draw: random.Random, phase: str, seconds: dict[str, float], number: int) -> bool:
    """Send signal `number` at a random moment of a random one of the next such phases; False: the child was done."""
    which = draw.randrange(4) if phase == "training" else 0
    if not child.wait_for(phase, which):
        return False
    time.sleep(draw.random() * seconds[phase])
    child.strike(number)
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
    if report.done(name):
        return
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


def stopped_run(undisturbed: Undisturbed, kind: str, number: int, phase: str, seed: int, tmp_path: Path) -> float:
    """Ask a run to stop, then let it go on; return the seconds that it took to stop."""
    whole, seconds = undisturbed(kind)
    run = tmp_path / "run"
    around = environment(undisturbed, kind, tmp_path, fresh_cache=phase == "cache")
    command = [*undisturbed.commands[kind], f"--run_dir={run}", "--ckpt_path=auto"]
    child = launch(command, tmp_path / "log", around)
    assert strike(child, random.Random(seed), phase, seconds, number)
    since = time.monotonic()
    assert child.wait() == 128 + number, child.log.read_text()
    took = time.monotonic() - since
    found = newest_valid(run / "checkpoints", lambda message: pytest.fail(message))
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
    if report.done(name):
        return
    number, kind = (signal.SIGTERM, signal.SIGUSR1)[case % 2], ("text", "task")[case // 2 % 2]
    phase = PHASES[case // 4 % 4]
    took = stopped_run(undisturbed, kind, number, phase, case, tmp_path)
    report.add(name, {"signals": 1, "where": [phase, signal.Signals(number).name], "seconds to stop": took})


# -- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


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
    filling = fill(small_disk, leave)
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
