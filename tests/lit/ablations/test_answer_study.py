"""Ablations of a trained model: what is asked, that it is asked once, and where the results go."""

import csv
import json
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM, TaskDataModule
from lightning_metatok.lit.ablations import answer_study
from lightning_metatok.lit.ablations.answer_ablation import AnswerAblation
from lightning_metatok.lit.ablations.answer_position_ablation import AnswerPositionAblation
from lightning_metatok.lit.ablations.answer_study import AnswerStudy
from lightning_metatok.lit.ablations.embedding_ablation import EmbeddingAblation
from lightning_metatok.lit.ablations.length_generalisation import LengthGeneralisation
from lightning_metatok.lit.ablations.placement_ablation import PlacementAblation
from lightning_metatok.lit.answers.ask import ask
from lightning_metatok.lit.answers.conditions import FULL
from lightning_metatok.lit.answers.report import error_kinds
from lightning_metatok.lit.run.loggers import run_loggers
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.checks import check_drop_positions

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs

ALL = ["full", "no_positions_self_attention", "no_positions_meta_attention", "no_positions"]
ALL += ["no_embedding", "no_embedding_no_positions"]
ALL += ["marks_random", "marks_wrong_segment", "marks_removed", "marks_doubled"]


def data(**options: Any) -> TaskDataModule:
    sizes = {"n_lists": [2, 3], "list_length": [2, 3], "pool": 12}
    defaults: dict[str, Any] = {"train_examples": None, "validation_examples": 16, "test_examples": 16, "batch_size": 8}
    return TaskDataModule(task="list_recall", task_options=sizes, **{**defaults, **options})


def model(**options: Any) -> MetaTokenLM:
    torch.manual_seed(0)
    return MetaTokenLM(**{"n_layers": 1, "n_heads": 2, "d_model": 16, "vocab_size": 652, **options})


def trainer(tmp_path: Path, *callbacks: lightning.Callback, steps: int = 2, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=2,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **{"logger": False, **options},
    )


def ablations(multiples: list[float], n: int = 30) -> list[AnswerAblation]:
    kinds: list[type[Any]] = [AnswerPositionAblation, EmbeddingAblation, PlacementAblation]
    return [kind(multiples=multiples, n=n) for kind in kinds]


def study(tmp_path: Path, *asked: AnswerAblation, built: MetaTokenLM | None = None, **options: Any) -> AnswerStudy:
    asking = AnswerStudy()
    trainer(tmp_path, *asked, asking).fit(built or model(), datamodule=data(**options))
    return asking


def conditions(asking: AnswerStudy, multiple: float = 1) -> list[str]:
    return [cell.condition for cell in asking.cells if cell.multiple == multiple]


def test_every_condition_is_asked_once_at_its_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counting(trainer: Any, module: Any, examples: Any, **options: Any) -> Any:
        asked.append(len(examples))
        return ask(trainer, module, examples, **options)

    monkeypatch.setattr(answer_study, "ask", counting)
    asking = study(tmp_path, LengthGeneralisation(multiples=[1, 2, 4], n=20), *ablations([1, 2]))
    assert conditions(asking, 1) == conditions(asking, 2) == ALL
    assert conditions(asking, 4) == ["full"]
    assert asked == [30] * 20 + [20], "where several ask, the largest number; the undisturbed prompts once"


def test_cells_hold_what_the_model_answers_after_training(tmp_path: Path) -> None:
    # Two layers: what meta-attention writes at marks reaches the answer in the next one.
    built, module, asking = model(n_layers=2, optimizer={"lr": 1e-3, "min_lr": 1e-4}), data(), AnswerStudy()
    with torch.no_grad():  # large weights, so that every prompt gets another answer
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    run = trainer(tmp_path, *ablations([2], n=200), asking)
    run.fit(built, datamodule=module)
    prompts = module.evaluation_examples(2, 200)
    options: dict[str, dict[str, Any]] = {
        "full": {},
        "no_positions": {"drop_positions": "both"},
        "no_positions_self_attention": {"drop_positions": "self_attention"},
        "no_embedding": {"zero_meta_embedding": True},
        "no_embedding_no_positions": {"drop_positions": "both", "zero_meta_embedding": True},
    }
    cells = {cell.condition: cell for cell in asking.cells}
    assert all(cell.tokens == prompts.lengths.mean() for cell in asking.cells[:6])
    assert cells["marks_removed"].tokens == prompts.lengths.mean() - 2
    assert cells["marks_doubled"].tokens == prompts.lengths.mean() + 2
    said = {name: ask(run, built, prompts, **option) for name, option in options.items()}
    for name, answers in said.items():
        kinds = np.bincount(error_kinds(prompts, answers), minlength=4) / 200
        cell = cells[name]
        assert [cell.exact, cell.in_target, cell.in_prompt, cell.outside] == kinds.tolist()
        difference = answers.exact.mean() - said["full"].exact.mean()
        assert cell.difference == (None if name == "full" else pytest.approx(difference))
    # Between two marks, positions in meta-attention hardly matter: with or without them is the same here.
    del said["no_positions"]
    assert len({answers.wrong.tobytes() for answers in said.values()}) == len(said), "conditions that differ"


def test_results_go_to_files_figures_scalars_and_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = AnswerStudy()
    callbacks = [LengthGeneralisation(multiples=[1, 2], n=30), PlacementAblation(multiples=[1], n=30), asking]
    run = trainer(tmp_path, *callbacks, logger=run_loggers(tmp_path))
    module = data()
    run.fit(model(), datamodule=module)
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert [(row["condition"], float(row["multiple"])) for row in rows] == [
        (cell.condition, cell.multiple) for cell in asking.cells
    ]
    assert len((tmp_path / "slices.csv").read_text().splitlines()) == 1 + len(asking.slices) > 50
    for name in ("answers_by_length", "answers_by_place", "answers_errors"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    logged: dict[str, Any] = {}
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        logged |= json.loads(line)
    answered = {tag for tag in logged if tag.startswith(("answers/", "answer_tokens/"))}
    assert answered == {tag for cell in asking.cells for tag in cell.scalars}
    assert logged["answers/marks_removed_1x"] == next(c.exact for c in asking.cells if c.condition == "marks_removed")
    assert "marks removed" in capsys.readouterr().out
    for path in tmp_path.glob("*.*"):
        path.unlink()
    run.test(run.lightning_module, datamodule=module, verbose=False)
    assert (tmp_path / "answers.csv").is_file()
    assert "marks removed" in capsys.readouterr().out


def test_asking_in_training_shows_at_its_validations_and_changes_nothing(tmp_path: Path) -> None:
    weights = []
    for every in (None, 2):
        built, folder = model(dropout=0.1), tmp_path / str(every)
        lengths = LengthGeneralisation(multiples=[1], n=20, every_n_validations=every)
        trainer(tmp_path, lengths, AnswerStudy(), steps=8, logger=run_loggers(folder)).fit(built, datamodule=data())
        weights.append(built.state_dict())
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "answers/full_1x" in line]
        assert steps == ([8] if every is None else [4, 8, 8])  # the last one at the end of training
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_resumed_study_goes_on_counting_validations(tmp_path: Path) -> None:
    first, second = AnswerStudy(), AnswerStudy()
    trainer(tmp_path, first, steps=6).fit(model(), datamodule=data())
    assert first.state_dict() == {"validations": 3}
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()


def test_a_length_that_cannot_be_made_or_read_is_left_out_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = model(position="learned", max_positions=24)  # 1x has at most 21 tokens, 2x more than 24
    lengths = LengthGeneralisation(multiples=[1, 2, 100], n=20, every_n_validations=1)
    asking = study(tmp_path, lengths, AnswerPositionAblation([1, 2], 20), built=built)
    assert [(cell.condition, cell.multiple) for cell in asking.cells] == [("full", 1), ("no_positions", 1)]
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(lines) == 2
    assert "as trained at 2x: prompts of" in lines[0]
    assert "model.max_positions=24" in lines[0]
    assert "100x: data.task_options.n_lists=[300, 300]: expected" in lines[1]


def test_without_marks_only_the_prompts_are_asked(tmp_path: Path) -> None:
    asking = study(tmp_path, *ablations([1]), built=model(mechanism="none"), meta_fraction=0.0)
    assert conditions(asking) == ["full"]


def test_only_a_hint_can_lie(tmp_path: Path) -> None:
    asking = study(tmp_path, PlacementAblation([1], 20), meta_placement="every")
    assert conditions(asking) == ["full", "marks_random", "marks_removed", "marks_doubled"]


def test_a_condition_that_changes_no_prompt_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_list = {"n_lists": [1, 1], "list_length": [2, 3], "pool": 12}
    module = TaskDataModule(task="list_recall", task_options=one_list, train_examples=None, validation_examples=16)
    asking = AnswerStudy()
    trainer(tmp_path, PlacementAblation([1], 20, marks=["wrong_segment"]), asking).fit(model(), datamodule=module)
    assert conditions(asking) == ["full"]
    assert "left out wrong segment at 1x: these prompts stay as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, ["self_attention", "meta_attention", "both"]),
        ({"mechanism": "none"}, ["both"]),
        ({"position": "learned"}, ["both"]),
        ({"position": "none"}, []),
        ({"drop_positions": "both"}, ["self_attention", "meta_attention", "none"]),
        ({"mechanism": "matched"}, ["self_attention", "meta_attention", "both"]),
    ],
    ids=str,
)
def test_positions_are_dropped_where_the_model_has_any(shape: dict[str, Any], expected: list[str]) -> None:
    config = TransformerConfig(**{"n_layers": 1, "n_heads": 2, "d_model": 16, "vocab_size": 50, **shape})
    found = AnswerPositionAblation().conditions(config, "hint")
    assert [condition.drop_positions for condition in found] == expected
    assert len({condition.name for condition in (FULL, *found)}) == 1 + len(found)
    for condition in found:
        check_drop_positions(config, str(condition.drop_positions))
    both = [c for c in EmbeddingAblation().conditions(config, "hint") if c.drop_positions]
    assert len(both) == (0 if config.position == "none" or config.drop_positions == "both" else 1)


def test_options_choose_conditions() -> None:
    config = TransformerConfig(n_layers=1, n_heads=2, d_model=16, vocab_size=50)
    assert [c.name for c in AnswerPositionAblation(where=["both"]).conditions(config, "hint")] == ["no_positions"]
    assert [c.name for c in EmbeddingAblation(with_positions=False).conditions(config, "hint")] == ["no_embedding"]
    assert [c.name for c in PlacementAblation(marks=["removed"]).conditions(config, "hint")] == ["marks_removed"]


def test_no_lengths_switch_an_ablation_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asking = study(tmp_path, LengthGeneralisation(multiples=[]), PlacementAblation(multiples=[]))
    assert asking.cells == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LengthGeneralisation(multiples=[1, -2]),
            r"LengthGeneralisation\.multiples=\[1, -2\]: expected positive",
        ),
        (lambda: PlacementAblation(n=0), r"PlacementAblation\.n=0: expected at least 1"),
        (lambda: LengthGeneralisation(every_n_validations=0), r"every_n_validations=0: expected at least 1"),
    ],
)
def test_options_out_of_range_are_one_clear_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_ablations_need_a_study_and_a_study_needs_a_task(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    with pytest.raises(UserError, match="expected AnswerStudy beside it"):
        trainer(tmp_path, LengthGeneralisation()).fit(model(), datamodule=data())
    with pytest.raises(UserError, match=r"expected data\.task="):
        trainer(tmp_path, AnswerStudy()).fit(make_model(), datamodule=make_data())


def test_the_same_prompts_are_disturbed_in_the_same_way_in_every_run(tmp_path: Path) -> None:
    """Runs of other seeds are asked the same, so that their cells can be compared."""
    tokens = []
    for seed in (1, 2):
        module = data(seed=seed)
        module.prepare_data()
        condition = PlacementAblation().conditions(model().config, "hint")[0]
        tokens.append(condition.change(module.evaluation_examples(1, 30), module.tokenizer.meta_id).tokens)
    assert np.array_equal(*tokens)
