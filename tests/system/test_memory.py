"""A run's memory does not grow with the number of its validations."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.helpers import succeed

RUN = """
import gc, sys
from pathlib import Path
from lightning.pytorch import Callback
from lightning_metatok.cli import main
from lightning_metatok.lit.callbacks import FinalTable

def measure(self, trainer, module):
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    print("MEASURED", resident, len(gc.get_objects()), flush=True)

FinalTable.on_validation_end = measure  # the last callback of all
sys.exit(main(sys.argv[1:]))
"""
VALIDATIONS, SETTLED = 30, 10
MEGABYTE = 1e6


@pytest.mark.slow
def test_memory_is_flat_over_twenty_validations(debug: list[str], repository: Path, tmp_path: Path) -> None:
    """Each used to leave 0.9 MB in circles that Python had not looked at: 18 MB here. The allocator may have 5 MB."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux says how much memory is resident now")
    steps = [f"--trainer.max_steps={VALIDATIONS}", "--trainer.val_check_interval=1", "--sample.max_new_tokens=2"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, "fit", *debug, *steps, f"--run_dir={tmp_path / 'run'}"],
        capture_output=True, text=True, check=False, cwd=repository,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = [list(map(int, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("MEASURED")]
    resident, objects = zip(*measured[-VALIDATIONS:], strict=True)
    assert max(resident[SETTLED:]) - resident[SETTLED] < 5 * MEGABYTE, resident
    assert max(objects[SETTLED:]) - objects[SETTLED] < 2000, objects


def test_the_collector_sees_everything_again_after_a_run(quick: list[str], tmp_path: Path) -> None:
    before = gc.get_freeze_count()
    succeed("fit", *quick, "--trainer.max_steps=5", "--trainer.val_check_interval=5", f"--run_dir={tmp_path / 'run'}")
    assert gc.get_freeze_count() == 0 <= before
