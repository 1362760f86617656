"""Two processes with DDP see the prompts of a task, and end its phases, as one process with twice the batch does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.helpers import curve, succeed
from tests.system.test_tasks import TINY


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(repository: Path, tmp_path: Path) -> None:
    """Within 1e-4: gradients are summed in another order. Ranks have different numbers of answers."""
    curriculum = "[{options: {n_lists: [2, 2]}, accuracy: 0.05}, {}]"  # of eight items, guessing is right more often
    options = [f"--config={repository}/conf/task/list_recall_nano.yaml", *TINY, "--data.task_options.pool=8",
               f"--data.curriculum={curriculum}"]  # fmt: skip
    succeed("fit", *options, "--data.batch_size=8", f"--run_dir={tmp_path}/one")
    ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", f"--run_dir={tmp_path}/two"]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_metatok", "fit", *options, "--data.batch_size=4", *ddp],
        capture_output=True, text=True, timeout=240, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    for name in ("loss/val", "accuracy/exact/val", "curriculum/accuracy", "curriculum/phase", "throughput/tokens"):
        one, two = (curve(tmp_path / folder, name) for folder in ("one", "two"))
        assert [step for step, _ in one] == [step for step, _ in two]
        assert [value for _, value in two] == pytest.approx([value for _, value in one], rel=1e-4), name
    assert {phase for _, phase in curve(tmp_path / "one", "curriculum/phase")} == {1, 2}
