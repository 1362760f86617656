"""One bad micro-batch stops the run or is left out; the weights never take it, and the others are none the wiser."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_metatok.data import Batch
from lightning_metatok.errors import NonFiniteError, UserError
from lightning_metatok.lit import Trainer
from lightning_metatok.lit.callbacks import NonFinite

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
BAD = 3
"""The optimiser step with a bad micro-batch."""


class Spoil(Callback):
    """Spoils the gradients of step BAD, or its loss and with it the gradients."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        if self.what == "loss" and trainer.global_step + 1 == BAD:
            loss.mul_(float("nan"))

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.what == "gradient" and trainer.global_step + 1 == BAD:
            next(pl_module.model.parameters()).grad.view(-1)[0] = float("inf")

    def on_train_batch_end(self, *args: Any) -> None:
        self.weights.append({name: value.clone() for name, value in args[1].state_dict().items()})


def fit(tmp_path: Path, make_data: Any, make_model: Any, action: Any, what: str) -> tuple[NonFinite, Spoil]:
    torch.manual_seed(0)
    guard, spoil = NonFinite(action), Spoil(what)
    trainer = Trainer(accelerator="cpu", precision="32-true", max_steps=5, callbacks=[spoil, guard], logger=False,
                      limit_val_batches=0, enable_progress_bar=False, enable_model_summary=False,
                      val_check_interval=100, enable_checkpointing=False, default_root_dir=tmp_path,
                      accumulate_grad_batches=2)  # fmt: skip
    model = make_model(dropout=0.1)
    try:
        trainer.fit(model, datamodule=make_data())
    finally:
        guard.now = model.state_dict()  # type: ignore[attr-defined]
    return guard, spoil


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_step_is_left_out_and_counted(
    what: str, tmp_path: Path, make_data: Any, make_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, spoil = fit(tmp_path, make_data, make_model, "skip", what)
    steps = spoil.weights[1::2]
    changes = [not all(torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(steps)]
    assert changes == [True, False, True, True]  # 1 to 2, 2 to BAD, ...
    assert all(torch.isfinite(value).all() for value in steps[-1].values())
    assert guard.skipped == 1
    assert guard.state_dict() == {"skipped": 1}
    assert f"step {BAD}: loss " in capsys.readouterr().err


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_step_stops_the_run_with_all_that_led_to_it(
    what: str, tmp_path: Path, make_data: Any, make_model: Any
) -> None:
    with pytest.raises(NonFiniteError, match=rf"^step {BAD}: loss .*, gradient norm (nan|inf); "):
        fit(tmp_path, make_data, make_model, "stop", what)
    record = torch.load(tmp_path / "nonfinite" / f"step-{BAD}-rank-0.pt", weights_only=True)
    data = make_data()
    assert len(record["batches"]) == len(record["seeds"]) == len(record["losses"]) == 2
    assert record["seeds"][0] != record["seeds"][1]
    assert all(torch.isfinite(value).all() for value in record["state_dict"].values())
    model = make_model(dropout=0.1)
    model.load_state_dict(record["state_dict"])
    batch = Batch(**record["batches"][0])
    assert batch.tokens_BT.shape[0] == data.batch_size
    torch.manual_seed(record["seeds"][0])
    loss = model.train().nll(batch).sum() / (batch.targets_BT >= 0).sum()
    if what == "gradient":
        assert loss.item() == pytest.approx(record["losses"][0], rel=1e-6)


def test_an_action_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match="expected stop or skip"):
        NonFinite("ignore")  # type: ignore[arg-type]
