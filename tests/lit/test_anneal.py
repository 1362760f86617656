"""What changes from step to step by itself is a function of the step: trained, stored, and the same after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_metatok.lit import MetaTokenLM, Trainer
from tests.lit.one_step import QUIET

ANNEALED: dict[str, Any] = {"mechanism": "own_qkv", "mechanism_options": {"anneal": [1, 5]}}


class Follow(Callback):
    """Notes the share of their own weights in each micro-batch, and saves at a step."""

    def __init__(self, save: Path | None = None) -> None:
        self.save, self.mixes = save, []  # type: ignore[var-annotated]

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.mixes.append(float(module.model.blocks[1].attention.share.m))
        if self.save is not None and trainer.global_step == 3 and not self.save.exists():
            trainer.save_checkpoint(self.save)


def fit(module: MetaTokenLM, data: Any, follow: Follow, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
    options = {"max_steps": 7, "limit_val_batches": 0, "accelerator": "cpu", "precision": "32-true", **QUIET}
    Trainer(**options, callbacks=[follow], accumulate_grad_batches=2).fit(module, datamodule=data, ckpt_path=checkpoint)
    return module.model.state_dict()


@pytest.mark.filterwarnings("ignore")
def test_weights_of_extra_tokens_are_mixed_out_by_step_and_a_resume_goes_on(
    make_data: Any, make_model: Any, tmp_path: Path
) -> None:
    save, whole, later = tmp_path / "at-3.ckpt", Follow(tmp_path / "at-3.ckpt"), Follow()
    torch.manual_seed(0)
    expected = fit(make_model(**ANNEALED), make_data(), whole)
    assert whole.mixes[::2] == whole.mixes[1::2] == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    stored = torch.load(save, weights_only=True)["state_dict"]
    assert float(stored["model.blocks.0.attention.share.m"]) == 0.75
    torch.manual_seed(1)
    resumed = fit(make_model(**ANNEALED), make_data(), later, save)
    assert later.mixes == whole.mixes[6:]
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
