"""Phases: when they begin, by steps and by accuracy, and that a run that goes on in the middle of one ends the same."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule

from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM, TaskDataModule, Trainer
from lightning_metatok.lit.callbacks import Curriculum, RunCheckpoint
from lightning_metatok.lit.optim import OptimizerConfig
from lightning_metatok.lit.run.loggers import JsonlLogger
from lightning_metatok.tasks.curriculum import Phase, Schedule, read_phases

# -- the schedule


def test_phases_follow_from_limits_in_steps() -> None:
    schedule = Schedule((Phase(steps=3), Phase(steps=2, accuracy=0.9), Phase()))
    assert schedule.begins() == [0, 3, 5]
    assert [schedule.phase_at(step) for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]


def test_an_accuracy_begins_the_next_phase_earlier_and_moves_those_after_it() -> None:
    schedule = Schedule((Phase(accuracy=0.5), Phase(steps=4, accuracy=0.5), Phase(steps=3), Phase()))
    assert [schedule.phase_at(step) for step in (0, 1000)] == [0, 0]
    schedule.begin_next(0, 11)
    assert schedule.begins() == [0, 11, 15, 18]
    schedule.begin_next(1, 13)
    assert schedule.begins() == [0, 11, 13, 16]
    schedule.begin_next(1, 14)  # it has begun already
    assert schedule.begins() == [0, 11, 13, 16]


def test_an_accuracy_never_makes_a_phase_longer() -> None:
    schedule = Schedule((Phase(steps=4, accuracy=0.5), Phase()))
    schedule.begin_next(0, 9)
    assert schedule.begins() == [0, 4]


def test_without_a_curriculum_there_is_one_phase() -> None:
    assert read_phases(None) == read_phases([]) == (Phase(),)
    assert Schedule(read_phases(None)).phase_at(10**9) == 0


@pytest.mark.parametrize(
    ("curriculum", "expected"),
    [
        ([{"stps": 3}, {}], r"data.curriculum\[0\]: unknown key 'stps', expected .*did you mean 'steps'"),
        (["easy", {}], r"data.curriculum\[0\]=easy: expected a phase"),
        ([{"steps": 0}, {}], r"data.curriculum\[0\].steps=0: expected a positive number"),
        ([{"steps": "many"}, {}], r"data.curriculum\[0\].steps=many"),
        ([{"accuracy": 90}, {}], r"data.curriculum\[0\].accuracy=90: expected a share"),
        ([{}, {}], r"data.curriculum\[0\]: expected steps or accuracy"),
        ([{"steps": 3}, {"steps": 3}], r"data.curriculum\[1\]: steps=3.*expected neither"),
        ([{"steps": 3, "options": [1]}, {}], r"data.curriculum\[0\].options=\[1\]: expected options of the task"),
    ],
)
def test_a_phase_that_cannot_work_is_named(curriculum: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        read_phases(curriculum)


# -- training

CURRICULUM = [
    {"options": {"n_lists": [2, 2]}, "accuracy": 0.2},  # two items: a half is right by guessing
    {"options": {"n_lists": [3, 3]}, "steps": 5},
    {"options": {"n_lists": [4, 4]}},
]
STEPS, EVERY = 24, 4


class Seen(Callback):
    """How many lists the prompts of each step had."""

    def __init__(self) -> None:
        self.n_lists: dict[int, int] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        longest = int((batch.document_ids_BT >= 0).sum(dim=1).max())
        self.n_lists[trainer.global_step] = (longest - 6) // 2  # name and item each; two marks, ? 1 name answer


def fit(folder: Path, max_steps: int = STEPS, ckpt_path: Path | None = None, num_workers: int = 0) -> dict[str, Any]:
    """Train and return weights, the schedule, and what each step saw."""
    torch.manual_seed(0)
    data = TaskDataModule(
        "list_recall", {"list_length": [1, 1], "pool": 2}, batch_size=8, train_examples=None, validation_examples=40,
        curriculum=CURRICULUM, num_workers=num_workers,
    )  # fmt: skip
    optimizer = OptimizerConfig(lr=2e-2, min_lr=2e-2, warmup_steps=0, decay_steps=STEPS)
    model = MetaTokenLM(n_layers=1, n_heads=2, d_model=16, vocab_size=672, optimizer=optimizer)
    seen = Seen()
    trainer = Trainer(
        precision="32-true", max_steps=max_steps, accelerator="cpu", val_check_interval=EVERY,
        logger=JsonlLogger(folder), log_every_n_steps=1, callbacks=[seen, Curriculum(), RunCheckpoint(keep_best=-1)],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    with warnings.catch_warnings():
        for message in ("does not have many workers", "isinstance.*LeafSpec", "Checkpoint directory", "not resumable"):
            warnings.filterwarnings("ignore", f".*{message}.*")
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    assert trainer.checkpoint_callback is not None
    checkpoints = Path(trainer.checkpoint_callback.dirpath)  # type: ignore[attr-defined]
    return {"weights": model.state_dict(), "begins": data.schedule.begins(), "seen": seen.n_lists, "at": checkpoints}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of all steps."""
    return fit(tmp_path_factory.mktemp("whole"))


def test_phases_begin_by_accuracy_and_by_steps(whole: dict[str, Any]) -> None:
    first, second, third = whole["begins"]
    assert (first, second % EVERY, third - second) == (0, 1, 5)  # one step after the validation that decided
    assert second < third < STEPS
    assert whole["seen"] == {step: 2 if step < second else 3 if step < third else 4 for step in range(STEPS)}


def test_the_phase_and_its_accuracy_are_logged(whole: dict[str, Any], tmp_path: Path) -> None:
    lines = JsonlLogger(next(path for path in whole["at"].parents if (path / "metrics.jsonl").is_file())).read()
    phases = [(line["step"], line["curriculum/phase"]) for line in lines if "curriculum/phase" in line]
    assert [step for step, _ in phases] == list(range(EVERY, STEPS + 1, EVERY))
    assert [phase for _, phase in phases] == [
        1 + sum(begin <= step for begin in whole["begins"][1:]) for step, _ in phases
    ]
    reached = [line["curriculum/accuracy"] for line in lines if line.get("curriculum/phase") == 1]
    assert reached[-1] >= 0.2 > max([0.0, *reached[:-1]])
    last = lines[-1]["curriculum/accuracy"]
    assert last == pytest.approx([line["accuracy/exact/val"] for line in lines if "accuracy/exact/val" in line][-1])


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_goes_on_from_any_validation_ends_with_the_same_bits(
    num_workers: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    decided, third = whole["begins"][1] - 1, whole["begins"][2]
    # The validation that switched by accuracy; one in the middle of the phase that ends by steps; one in the last.
    middle = next(step for step in range(decided + EVERY, STEPS, EVERY) if step < third)
    for stop in (decided, middle, STEPS - EVERY):
        folder = tmp_path / str(stop)
        part = fit(folder, max_steps=stop, num_workers=num_workers)
        rest = fit(folder, ckpt_path=part["at"] / f"step-{stop}.ckpt", num_workers=num_workers)
        assert rest["begins"] == whole["begins"]
        assert {**part["seen"], **rest["seen"]} == whole["seen"]
        assert min(rest["seen"]) == stop
        for name, weight in whole["weights"].items():
            assert torch.equal(rest["weights"][name], weight), name
