"""A run with another optimiser than AdamW goes on like one that never stopped, and says what it cannot go on from."""

from pathlib import Path

import pytest
import torch

from tests.system.helpers import curve, run, succeed
from tests.system.torture import TEXT, differences

SCHEDULE_FREE = ["--model.optimizer.name=schedulefree.AdamWScheduleFree", "--model.optimizer.schedule=constant"]
MUON = ["--model.optimizer.name=muon", "--model.optimizer.options.momentum=0.9"]


@pytest.mark.parametrize(("options", "stop"), [(MUON, 3), (SCHEDULE_FREE, 4)], ids=["muon", "schedule-free"])
def test_the_end_is_the_same(options: list[str], stop: int, quick: list[str], tmp_path: Path) -> None:
    """Schedule-free weights are rounded where a checkpoint turns them: it stands where both runs have one."""
    given = ["fit", *quick, *TEXT, "--model.optimizer.decay_steps=12", *options]
    succeed(*given, f"--run_dir={tmp_path / 'whole'}")
    succeed(*given, f"--run_dir={tmp_path / 'run'}", f"--trainer.max_steps={stop}")
    succeed(*given, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto")
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_what_is_kept_and_validated_is_the_average(quick: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    succeed("fit", *quick, *TEXT, *SCHEDULE_FREE, f"--run_dir={folder}")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    groups = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["train_mode"] for group in groups] == [False, False]
    refused = run("validate", f"--ckpt_path={checkpoint}")
    assert refused.code == 2
    assert "names schedulefree.AdamWScheduleFree, which would be imported and run; --trust allows it" in refused.err
    succeed("validate", f"--ckpt_path={checkpoint}", "--trust")
    assert curve(folder / "validate", "loss/val") == [curve(folder, "loss/val")[-1]]


def test_the_state_of_another_optimizer_is_refused(fitted: Path, checkpoint: Path, tmp_path: Path) -> None:
    outcome = run("fit", f"--config={fitted / 'config.yaml'}", f"--ckpt_path={checkpoint}", *MUON[:1],
                  f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=30")  # fmt: skip
    assert outcome.code == 2
    assert "model.optimizer.name=muon: expected adamw, whose state" in outcome.err
    assert outcome.err.count("\n") == 1
