"""Dynamics: what is logged is what a recording says, and reading changes nothing."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_metatok.data import remove_meta
from lightning_metatok.lit.callbacks import Dynamics
from lightning_metatok.lit.callbacks.dynamics import without_meta
from lightning_metatok.model.recording import recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs


def fitted(tmp_path: Path, make_data: Any, make_model: Any, **arm: Any) -> tuple[Any, Any, Any, dict[str, list[float]]]:
    torch.manual_seed(0)
    data, model = make_data(), make_model(**arm)
    logger = lightning.pytorch.loggers.TensorBoardLogger(tmp_path, name="", version="")
    callback = Dynamics(enabled=True, rows=3)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=4, val_check_interval=2, use_distributed_sampler=False, callbacks=[callback],
        logger=logger, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("dynamics/")]
    return data, model, callback, {tag: [event.value for event in events.Scalars(tag)] for tag in tags}


def test_what_is_logged_is_what_a_recording_says(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    _, model, callback, curves = fitted(tmp_path, make_data, make_model)
    batch = callback._batch
    assert batch is not None
    assert len(batch.tokens_BT) == 3
    assert all(len(values) == 2 for values in curves.values()), "at both validations"
    model.eval()
    with torch.no_grad(), recorded(model.model) as recording:
        nll_BT = model.nll(batch)
    for i, layer in enumerate(recording.layers):
        probs = layer["self_attention"].probs_BNTT
        first = probs[:, :, 1:, 0].mean()
        assert curves[f"dynamics/on_first/layer_{i}"][-1] == pytest.approx(first.item(), rel=1e-4)
        assert 0 < curves[f"dynamics/on_meta/layer_{i}"][-1] < 1
        assert 1 <= curves[f"dynamics/rank_of_meta/layer_{i}"][-1] <= model.config.d_model
    mean = nll_BT.sum() / (batch.targets_BT >= 0).sum()
    assert curves["dynamics/loss"][-1] == pytest.approx(mean.item(), rel=1e-5)
    assert curves["dynamics/loss_without_meta"][-1] != curves["dynamics/loss"][-1]


def test_the_bare_text_is_the_same_text(make_data: Any) -> None:
    data = make_data()
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    bare = without_meta(batch)
    assert bare is not None
    assert torch.equal(bare.tokens_BT, remove_meta(batch.tokens_BT, batch.meta_mask_BT))
    assert sorted(bare.targets_BT[bare.targets_BT >= 0].tolist()) == sorted(
        batch.targets_BT[batch.targets_BT >= 0].tolist()
    )
    assert without_meta(bare) is None


def test_without_it_nothing_is_read_and_with_it_training_is_the_same(
    tmp_path: Path, make_data: Any, make_model: Any
) -> None:
    _, model, _, _ = fitted(tmp_path / "a", make_data, make_model)
    torch.manual_seed(0)
    plain_data, plain = make_data(), make_model()
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=4, val_check_interval=2, use_distributed_sampler=False, logger=False,
        callbacks=[Dynamics()], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(plain, datamodule=plain_data)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
