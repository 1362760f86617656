"""Memory from block to block: begun where the text begins, gone on over a resume, the same on any number of ranks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_metatok.cli.replay import _read
from lightning_metatok.errors import NonFiniteError, UserError
from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM, Trainer
from lightning_metatok.lit.callbacks import NonFinite
from lightning_metatok.lit.carried_memory import CarriedMemory

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
MODEL = {"recurrence": "rmt", "recurrence_options": {"segment": 10, "memory": 2, "carry": True}, "mechanism": "none"}
ROWS = 160
DATA = {"contiguous": True, "meta_fraction": 0.0, "batch_size": ROWS}
"""The text has three blocks of 40 tokens for each of so many rows."""


class Memories(Callback):
    """What each micro-batch began with, and what it left."""

    def __init__(self) -> None:
        self.before: list[torch.Tensor | None] = []
        self.after: list[torch.Tensor | None] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.before.append(pl_module.model.carried_BMD)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.after.append(pl_module.model.carried_BMD)


def fit(
    model: MetaTokenLM, data: MetaTokenDataModule, steps: int, folder: Path, *others: Callback, **options: Any
) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    torch.manual_seed(0)
    trainer = Trainer(accelerator="cpu", precision="32-true", max_steps=steps, enable_checkpointing=False,
                      default_root_dir=folder, callbacks=list(others), **{**quiet, **options})  # fmt: skip
    trainer.fit(model, datamodule=data, ckpt_path=folder / "at.ckpt" if (folder / "at.ckpt").exists() else None)
    return trainer


def test_it_goes_on_and_begins_anew_with_the_text(make_data: Any, make_model: Any, tmp_path: Path) -> None:
    data, seen = make_data(**DATA), Memories()
    assert [data.begins_anew(step) for step in range(7)] == [True, False, False] * 2 + [True]
    trainer = fit(make_model(**MODEL), data, 4, tmp_path, seen, accumulate_grad_batches=2)
    assert sum(isinstance(callback, CarriedMemory) for callback in trainer.callbacks) == 1
    assert [memory is None for memory in seen.before] == [True, False, False] * 2 + [True, False]
    for written, read in zip(seen.after, seen.before[1:], strict=False):
        assert read is None or torch.equal(read, written)  # type: ignore[arg-type]
    assert not torch.equal(seen.before[1], seen.before[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_run_is_the_one_that_never_stopped(at: int, make_data: Any, make_model: Any, tmp_path: Path) -> None:
    whole = make_model(**MODEL)
    fit(whole, make_data(**DATA), 5, tmp_path)
    fit(make_model(**MODEL), make_data(**DATA), at, tmp_path).save_checkpoint(tmp_path / "at.ckpt")
    saved = torch.load(tmp_path / "at.ckpt", weights_only=True)["callbacks"]["CarriedMemory"]["memory"]
    assert saved is None if at % 3 == 0 else saved.shape == (ROWS, 2, make_model().config.d_model)
    again = make_model(**MODEL)
    fit(again, make_data(**DATA), 5, tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True))


def test_another_number_of_rows_is_refused(make_data: Any, make_model: Any, tmp_path: Path) -> None:
    fit(make_model(**MODEL), make_data(**DATA), 1, tmp_path).save_checkpoint(tmp_path / "at.ckpt")
    with pytest.raises(UserError, match=r"data\.batch_size=80 on 1 ranks: expected 160 rows in all"):
        fit(make_model(**MODEL), make_data(**{**DATA, "batch_size": ROWS // 2}), 2, tmp_path)


def test_a_replayed_step_begins_with_the_memory_it_had(make_data: Any, make_model: Any, tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 1:
                pl_module.model.memory_MD.grad.view(-1)[0] = float("inf")

    seen = Memories()
    with pytest.raises(NonFiniteError):
        fit(make_model(**MODEL), make_data(**DATA), 3, tmp_path, seen, Spoil(), NonFinite())
    record, _, _ = _read(next((tmp_path / "nonfinite").iterdir()), False)
    assert torch.equal(record["memories"][0], seen.before[1])


@pytest.mark.parametrize("options", [{}, {"contiguous": True, "shuffle_buffer": 8, "tokenizer": "gpt2"}], ids=str)
def test_shuffled_text_is_refused(options: dict[str, Any], make_data: Any, make_model: Any) -> None:
    with pytest.raises(UserError, match=r"data\.contiguous=true"):
        make_model(**MODEL).check_data(make_data(**{"meta_fraction": 0.0, **options}))


SCRIPT = """
import sys, torch, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from tests.lit.test_carried_memory import DATA, MODEL, ROWS, fit
from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM
options = dict(validation_fraction=0.3, vocab_size=320, block_size=40) | DATA | {"batch_size": ROWS // 2}
data = MetaTokenDataModule(corpus=sys.argv[1], **options)
torch.manual_seed(0)
model = MetaTokenLM(n_layers=2, n_heads=2, d_model=32, vocab_size=320, max_positions=512, **MODEL)
trainer = fit(model, data, int(sys.argv[3]), Path(sys.argv[2]), devices=2, strategy="ddp")
trainer.save_checkpoint(Path(sys.argv[2]) / "at.ckpt")
"""


@pytest.mark.slow
def test_two_ranks_carry_what_one_does_and_each_goes_on_with_its_own(
    corpus: Path, make_data: Any, tmp_path: Path, repository: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    torch.manual_seed(0)
    model = MetaTokenLM(n_layers=2, n_heads=2, d_model=32, vocab_size=320, max_positions=512, **MODEL)
    fit(model, make_data(**DATA), 5, tmp_path / "one").save_checkpoint(tmp_path / "one" / "at.ckpt")
    (script := tmp_path / "script.py").write_text(SCRIPT)
    for steps in ("2", "5"):
        command = [sys.executable, str(script), str(corpus), str(tmp_path / "two"), steps]
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name / "at.ckpt", weights_only=True) for name in ("one", "two"))
    for key, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], weight, atol=1e-5, rtol=1e-4)
    memories = [ckpt["callbacks"]["CarriedMemory"]["memory"] for ckpt in (one, two)]
    torch.testing.assert_close(memories[1], memories[0], atol=1e-4, rtol=1e-3)
