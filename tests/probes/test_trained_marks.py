"""The recipe in which marks must carry: it is learned, and the probes say of the trained model that they do."""

from pathlib import Path

import pandas as pd
import pytest

from tests.system.helpers import curve, run

RECIPE = Path(__file__).resolve().parents[2] / "conf" / "task" / "window_recall_nano.yaml"


@pytest.mark.slow
def test_marks_of_a_trained_model_carry(tmp_path: Path) -> None:
    """Seed 1 is right in all of 1,000 prompts at step 350."""
    folder = tmp_path / "run"
    # It takes long enough to say on stderr how far it is.
    outcome = run("fit", f"--config={RECIPE}", "--seed_everything=1", "--trainer.max_steps=350", f"--run_dir={folder}")
    assert outcome.code == 0, outcome
    assert curve(folder, "accuracy/exact/val")[-1][1] > 0.95
    probes = "--probes=[eviction,paths,knockout,patching]"
    outcome = run("probe", f"--ckpt_path={folder}/checkpoints/last.ckpt", probes, "--examples=128")
    assert outcome.code == 0, outcome
    tables = {path.stem: pd.read_csv(path) for path in (folder / "probe").glob("*.csv")}
    right = {name: tables[name].set_index("trial").accuracy.to_dict() for name in ("eviction", "paths", "knockout")}
    assert right["eviction"]["marks"] > 0.9 > 0.1 > right["eviction"]["target"]
    assert right["paths"]["question_target"] > 0.9 > 0.1 > right["paths"]["question_marks"]
    assert right["knockout"]["opening"] > 0.9 > 0.1 > right["knockout"]["closing"]
    assert right["knockout"]["silent"] < 0.1
    marks = tables["patching"].query("group == 'marks'").groupby("place").follows.max()
    assert marks["after_self_attention"] > 0.9 > 0.1 > marks["before"]
