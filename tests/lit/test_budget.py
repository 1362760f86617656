"""A budget sets how long a run is and where its schedule ends, for each arm by what its steps cost."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM, TaskDataModule, Trainer
from lightning_metatok.lit.budget import Budget, Cost, read_budget
from lightning_metatok.lit.callbacks import ArmCard
from lightning_metatok.lit.optim import OptimizerConfig
from tests.system.helpers import curve, run, succeed, write_corpus

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
CONF = Path(__file__).resolve().parents[2] / "conf"
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
OPTIMIZER = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, decay_steps=1000)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"flops": 1, "source_tokens": 2},
            "trainer.budget.source_tokens=2, trainer.budget.flops=1: expected one of them",
        ),
        ({"flops": 0}, "trainer.budget.flops=0: expected a positive number"),
        ({"source_tokens": -5}, "trainer.budget.source_tokens=-5: expected a positive number"),
        ({"flops": float("nan")}, "trainer.budget.flops=nan: expected a positive number"),
        ({"flops": float("inf")}, "trainer.budget.flops=inf: expected a positive number"),
        ({"flops": "many"}, "trainer.budget.flops='many': expected a positive number"),
        ({"flop": 1.0}, "trainer.budget.flop: expected one of source_tokens, flops; did you mean 'flops'?"),
        (3, "trainer.budget=3: expected {source_tokens: N} or {flops: N}"),
    ],
)
def test_a_budget_that_is_none_is_refused_in_one_line(given: Any, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        Trainer(budget=given, **QUIET)
    assert str(refused.value).startswith(expected)
    assert "\n" not in str(refused.value)


def test_it_pays_for_whole_steps_alone() -> None:
    cost = Cost(source_tokens=100, flops=1e6)
    assert Budget(source_tokens=1000).steps(cost) == 10
    assert Budget(source_tokens=1099).steps(cost) == 10
    assert Budget(flops=1e6).steps(cost) == 1
    with pytest.raises(
        UserError, match=r"^trainer\.budget\.source_tokens=99: expected 100 or more, what one .* costs$"
    ):
        Budget(source_tokens=99).steps(cost)
    assert read_budget(None) == read_budget({"flops": None}) == Budget()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("arm", ["plain", "meta"])
@pytest.mark.parametrize("unit", ["source_tokens", "flops"])
def test_a_run_spends_it_to_within_a_step_and_ends_annealed(
    unit: str, arm: str, accumulate: int, make_data: Any, make_model: Any
) -> None:
    plain = arm == "plain"
    data = make_data(meta_fraction=0.0 if plain else 0.2, validation_blocks=2)
    module: MetaTokenLM = make_model(optimizer=OPTIMIZER, mechanism="none" if plain else "meta")
    card = ArmCard()
    amount = {"source_tokens": 4000, "flops": 8e8}[unit]
    options = {"val_check_interval": 100 * accumulate, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = Trainer(
        budget={unit: amount}, accumulate_grad_batches=accumulate, accelerator="cpu", precision="32-true",
        callbacks=[card], **QUIET, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    spent = getattr(card, unit)
    assert spent <= amount < spent * (1 + 1 / trainer.global_step)
    assert trainer.global_step == module.optimizer_config.decay_steps > OPTIMIZER.warmup_steps
    # The schedule is asked once more, for a step that is not made: that one has the end.
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(OPTIMIZER.min_lr)
    assert "loss/val" in trainer.callback_metrics, "the last step is validated, whatever the interval"


def test_for_a_task_it_is_what_prompts_cost_on_average() -> None:
    data = TaskDataModule(task="copying", batch_size=16, train_examples=None, validation_examples=4)
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    sizes = {"n_layers": 1, "n_heads": 2, "d_model": 16, "max_positions": 512}
    module, card = MetaTokenLM(vocab_size=data.tokenizer.vocab_size, optimizer=OPTIMIZER, **sizes), ArmCard()
    trainer = Trainer(
        budget=Budget(source_tokens=30_000), accelerator="cpu", callbacks=[card], limit_val_batches=0, **QUIET
    )
    trainer.fit(module, datamodule=data)
    assert card.source_tokens == pytest.approx(30_000, rel=0.05)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a small run on text."""
    corpus = write_corpus(tmp_path_factory.mktemp("corpus") / "stories.jsonl", count=40)
    small = [
        "--data.vocab_size=300",
        "--ablation.windows=1",
        "--sample.max_new_tokens=2",
        "--trainer.log_every_n_steps=1",
    ]
    return [f"--config={CONF / 'debug.yaml'}", f"--data.corpus={corpus}", *small]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "value"), [("source_tokens", 3000), ("flops", 2_000_000_000)])
def test_arms_of_one_budget_end_where_it_is_spent(kind: str, value: int, text: list[str], tmp_path: Path) -> None:
    steps = {}
    for arm in ("plain", "meta"):
        folder = tmp_path / arm
        budget = [f"--trainer.budget.{kind}={value}", f"--run_dir={folder}"]
        out = succeed("fit", *text, f"--config={CONF / 'arm' / f'{arm}.yaml'}", *budget)
        steps[arm], spent = curve(folder, f"budget/{kind}")[-1]
        (said,) = [line for line in out.splitlines() if line.startswith("budget: ")]
        assert f" give {steps[arm]} steps of " in said
        assert spent <= value < spent * (1 + 1 / steps[arm])
        assert curve(folder, "loss/val")[-1][0] == steps[arm]
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == checkpoint["hyper_parameters"]["optimizer"]["decay_steps"] == steps[arm]
        config = (folder / "config.yaml").read_text()
        assert f"max_steps: {steps[arm]}" in config
        assert json.loads((folder / "arm.json").read_text())["arm"] == arm
    # A block is the same text in both arms; what it costs is not.
    assert (steps["plain"] == steps["meta"]) == (kind == "source_tokens")


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_end(text: list[str], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    budget = ["--trainer.budget.source_tokens=3000", "--checkpoint.every_n_steps=4", "--checkpoint.keep_last=9"]
    succeed("fit", *text, *budget, f"--run_dir={whole}")
    first = whole / "checkpoints" / "step-4.ckpt"
    succeed("fit", *text, *budget, f"--run_dir={parts}", f"--ckpt_path={first}")
    assert curve(parts, "loss/val")[-1] == curve(whole, "loss/val")[-1]
    changed = run("fit", *text, "--trainer.budget.source_tokens=5000", f"--ckpt_path={first}", f"--run_dir={parts}")
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "trainer.budget.source_tokens=5000.0 (was 3000.0)" in changed.err


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--trainer.budget.flops=3", "trainer.budget.flops=3: expected "),
        ("--trainer.budget.source_tokens=0", "trainer.budget.source_tokens=0: expected a positive number"),
        ("--trainer.budget.flop=3", "did you mean 'trainer.budget.flops'?"),
    ],
)
def test_the_command_line_refuses_in_one_line_and_leaves_nothing(
    option: str, expected: str, text: list[str], tmp_path: Path
) -> None:
    refused = run("fit", *text, option, f"--run_dir={tmp_path}/run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert expected in refused.err
    assert not (tmp_path / "run").exists()
