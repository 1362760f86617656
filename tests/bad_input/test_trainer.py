"""What Lightning's trainer cannot do with these data or on this machine is one line, and its precisions all train."""

from pathlib import Path

import pytest
import torch

from tests.bad_input.conftest import Refused
from tests.system.helpers import run


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("val_check_interval=0.5", "trainer.val_check_interval=0.5: expected a positive number of steps"),
        ("limit_train_batches=0.5", "trainer.limit_train_batches=0.5: expected "),
        ("overfit_batches=2", "trainer.overfit_batches=2: expected 0"),
        ("overfit_batches=0.5", "trainer.overfit_batches=0.5: expected 0"),
        ("accelerator=tpu", "trainer.accelerator=tpu: expected one that this machine has"),
        ("strategy=xla", "trainer.strategy=xla: Requirement 'torch_xla"),
        ("precision=transformer-engine", "trainer.precision=transformer-engine: Requirement 'transformer_engine"),
        *(
            (f"strategy={name}", f"trainer.strategy='{name}': expected ddp, which starts its processes anew")
            for name in ("ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_fork_find_unused_parameters_false")
        ),
    ],
)
def test_a_trainer_that_cannot_work_is_refused(option: str, expected: str, fit: list[str], refused: Refused) -> None:
    assert expected in refused(*fit, f"--trainer.{option}")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_every_precision_of_the_list_trains(precision: str, dtype: torch.dtype, fit: list[str], tmp_path: Path) -> None:
    few = [
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--ablation.multiples=[1]",
        "--ablation.windows=1",
    ]
    outcome = run(*fit, *few, f"--trainer.precision={precision}")
    assert outcome.code == 0, outcome
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {weight.dtype for weight in state.values() if weight.is_floating_point()} == {dtype}


def test_half_precision_is_refused_where_no_kernel_has_it(fit: list[str], refused: Refused) -> None:
    assert "trainer.precision=16-true: expected bf16-mixed or 32-true on a CPU" in refused(
        *fit, "--trainer.accelerator=cpu", "--trainer.precision=16-true"
    )
