"""Two processes with DDP see the batches, and reach the losses, of one process with twice the batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.helpers import curve, succeed


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(quick: list[str], repository: Path, tmp_path: Path) -> None:
    """Within 1e-4: gradients are summed in another order. DDP needs fresh processes."""
    options = [*quick, "--ablation.multiples=[1,2]", "--trainer.log_every_n_steps=1"]
    succeed("fit", *options, "--data.batch_size=8", f"--run_dir={tmp_path}/one")
    command = [sys.executable, "-m", "lightning_metatok", "fit", *options, "--data.batch_size=4"]
    ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", f"--run_dir={tmp_path}/two"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([*command, *ddp], capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done
    for name in ("loss/val", "bits_per_byte/val", "ablation/dropped_2x", "throughput/tokens"):
        one, two = (curve(tmp_path / folder, name) for folder in ("one", "two"))
        assert [step for step, _ in one] == [step for step, _ in two]
        assert [value for _, value in two] == pytest.approx([value for _, value in one], rel=1e-4), name
    assert len(list((tmp_path / "two").glob("events.*"))) == 1
