"""`trainer.limit_train_batches` says how long an epoch is; the next one goes on where it ended."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM, TaskDataModule, Trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Keep(Callback):
    """Keeps what is trained on and when a validation comes; saves at the steps that it is told."""

    def __init__(self, folder: Path, *steps: int) -> None:
        self.seen: list[torch.Tensor] = []
        self.validated: list[int] = []
        self.folder, self.steps = folder, steps

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.seen.append(batch.tokens_BT)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.validated.append(trainer.global_step)

    def on_step_border(self, trainer: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def trained(
    kind: str, corpus: Path, keep: Keep, checkpoint: Path | None = None, workers: int = 0, **options: Any
) -> Keep:
    """Train six steps of two rows."""
    data: Any
    if kind == "text":
        sizes = {"vocab_size": 320, "block_size": 40, "validation_fraction": 0.3, "validation_blocks": 2}
        data = MetaTokenDataModule(corpus=str(corpus), batch_size=2, num_workers=workers, **sizes)
    else:
        data = TaskDataModule(task="copying", batch_size=2, validation_examples=2, num_workers=workers)
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    module = MetaTokenLM(n_layers=1, n_heads=2, d_model=16, vocab_size=data.tokenizer.vocab_size, max_positions=512)
    given = {"max_steps": 6, "limit_val_batches": 0, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    trainer = Trainer(callbacks=[keep], **{**QUIET, **given, **options})
    trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    assert trainer.global_step == 6
    return keep


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether these are the same batches."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["text", "task"])
def test_batches_are_those_of_a_run_without_epochs(kind: str, workers: int, corpus: Path, tmp_path: Path) -> None:
    without = trained(kind, corpus, Keep(tmp_path)).seen
    limited = trained(kind, corpus, Keep(tmp_path), workers=workers, limit_train_batches=2).seen
    assert len({tuple(tokens_BT.flatten().tolist()) for tokens_BT in limited}) == 6
    assert same(limited, without)


@pytest.mark.parametrize("kind", ["text", "task"])
def test_so_are_those_of_accumulated_steps(kind: str, corpus: Path, tmp_path: Path) -> None:
    without = trained(kind, corpus, Keep(tmp_path), accumulate_grad_batches=2).seen
    limited = trained(kind, corpus, Keep(tmp_path), accumulate_grad_batches=2, limit_train_batches=4).seen
    assert len(limited) == 12
    assert same(limited, without)


@pytest.mark.parametrize("kind", ["text", "task"])
@pytest.mark.parametrize("step", [3, 4], ids=["within an epoch", "at its end"])
def test_a_run_goes_on_where_its_epoch_stood(step: int, kind: str, corpus: Path, tmp_path: Path) -> None:
    whole = trained(kind, corpus, Keep(tmp_path, step), limit_train_batches=4).seen
    rest = trained(kind, corpus, Keep(tmp_path), tmp_path / f"{step}.ckpt", limit_train_batches=4).seen
    assert same(rest, whole[step:])


def test_validations_come_after_as_many_steps_as_ever(corpus: Path, tmp_path: Path) -> None:
    options = {"val_check_interval": 3, "limit_val_batches": 1}
    without = trained("text", corpus, Keep(tmp_path), **options)
    limited = trained("text", corpus, Keep(tmp_path), limit_train_batches=2, **options)
    assert without.validated == limited.validated == [3, 6]


def test_an_epoch_that_cuts_a_step_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^trainer\.limit_train_batches=3: expected a multiple of .*=2, so that .*$"):
        Trainer(limit_train_batches=3, accumulate_grad_batches=2, **QUIET)
