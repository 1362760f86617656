"""Every arm: trains, goes on from a checkpoint bit for bit, generates from it, and is exported."""

from pathlib import Path

import pytest
import torch

from tests.conf.test_conf import ARMS, AT_NANO, CONF, FOR_TASKS_ALONE, NANO, SMALL, SMALL_TASK
from tests.system.helpers import run, succeed


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Of the last checkpoint."""
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("arm", [pytest.param(path, id=path.stem) for path in ARMS])
def test_an_arm_goes_on_generates_and_is_exported(arm: Path, corpus: Path, tmp_path: Path) -> None:
    of_task = arm.stem in FOR_TASKS_ALONE
    base, small = (NANO, SMALL_TASK) if of_task else (CONF / "base.yaml", [*SMALL, f"--data.corpus={corpus}"])
    small = [*small, *AT_NANO.get(arm.stem, ()), "--model.optimizer.decay_steps=4"]
    options = ["fit", f"--config={base}", f"--config={arm}", *small]
    succeed(*options, f"--run_dir={tmp_path / 'whole'}", "--trainer.max_steps=4")
    parts = [f"--run_dir={tmp_path / 'parts'}", "--ckpt_path=auto"]
    for steps in (2, 4):
        torch.manual_seed(steps)  # what another process left in the generator must not matter
        succeed(*options, *parts, f"--trainer.max_steps={steps}")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert [name for name, weight in whole.items() if not torch.equal(weight, resumed[name])] == []

    checkpoint = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    if not of_task:
        generate = ["generate", "--ckpt_path", checkpoint, "--prompt", "the old miller", "--max_new_tokens", "3"]
        assert succeed(*generate, "--temperature", "0").startswith("the old miller")
    outcome = run("export", "--ckpt_path", checkpoint, "--to", tmp_path / "out")
    if outcome.code:
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    else:
        assert (tmp_path / "out" / "config.json").is_file()
