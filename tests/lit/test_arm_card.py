"""The arm card says what an arm is and costs, and the budget what was spent, resumed or not."""

import json
from pathlib import Path
from typing import Any

import lightning
import pytest

from lightning_metatok.data import Batch
from lightning_metatok.lit import MetaTokenLM, TaskDataModule
from lightning_metatok.lit.ablations import PositionAblation
from lightning_metatok.lit.callbacks.arm_card import ArmCard, arm_card, arm_name, differences
from lightning_metatok.lit.run.loggers import run_loggers
from lightning_metatok.lit.spending import training_flops
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.tasks import symbol_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs

SHAPE: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": symbol_tokenizer().vocab_size}


def prompts(tmp_path: Path, **options: Any) -> TaskDataModule:
    """A small recall task, made in `tmp_path`."""
    defaults: dict[str, Any] = {
        "task": "list_recall",
        "task_options": {"n_lists": [2, 4], "list_length": [2, 4]},
        "batch_size": 4,
        "train_examples": 64,
        "validation_examples": 8,
        "cache_dir": str(tmp_path / "cache"),
    }
    data = TaskDataModule(**{**defaults, **options})
    data.setup("fit")
    return data


class Watch(lightning.Callback):
    """Keep the batches that a model was trained on."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.batches.append(batch)


def fit(
    folder: Path,
    model: MetaTokenLM,
    data: Any,
    *callbacks: lightning.Callback,
    resume: Path | None = None,
    **options: Any,
) -> lightning.Trainer:
    """Train as the command line does: event and line loggers in `folder`."""
    trainer = lightning.Trainer(
        **{"accelerator": "cpu", "max_steps": 6, "log_every_n_steps": 2, "val_check_interval": 3, **options},
        num_sanity_val_steps=1,
        use_distributed_sampler=False,
        callbacks=[ArmCard(), *callbacks],
        logger=run_loggers(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return trainer


def budgets(folder: Path) -> list[tuple[int, float, float]]:
    """Every (step, source tokens, FLOPs) that was logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(n["step"], n["budget/source_tokens"], n["budget/flops"]) for n in lines if "budget/flops" in n]


def test_text_spends_source_tokens_and_the_flops_of_all_positions(
    tmp_path: Path, make_data: Any, make_model: Any
) -> None:
    data, model = make_data(meta_length="within"), make_model()
    fit(tmp_path, model, data)
    card = json.loads((tmp_path / "arm.json").read_text())
    assert (card["arm"], card["meta_share"], card["marks_per_prompt"], card["mean_length"]) == ("meta", 0.1, 4, 40)
    each = model.model.flops_per_token(40, 0.1)
    assert card["flops_per_token"] == each
    assert card["flops_per_source_token"] == pytest.approx(each / 0.9)
    assert card["parameters"] == model.model.n_parameters()
    # At every second step, at the validation of step 3 and at the end, each step once: blocks of 36 and 4 tokens.
    assert [step for step, _, _ in budgets(tmp_path)] == [2, 3, 4, 6]
    for step, source_tokens, flops in budgets(tmp_path):
        assert source_tokens == step * 4 * 36
        assert flops == pytest.approx(step * 4 * 40 * each)
        assert flops == pytest.approx(source_tokens * card["flops_per_source_token"])


def test_a_card_has_the_facts_that_callbacks_offer(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    data, model = make_data(), make_model(drop_positions="both")
    fit(tmp_path, model, data, PositionAblation(multiples=[1], windows=1, readings=["kept", "dropped", "shuffled"]))
    card = json.loads((tmp_path / "arm.json").read_text())
    assert (card["readings"], card["read_as_trained"]) == (["kept", "dropped", "shuffled"], "dropped")


def test_prompts_spend_what_their_batches_hold_and_filling_counts_nowhere(tmp_path: Path) -> None:
    data, model = prompts(tmp_path), MetaTokenLM(**SHAPE)
    watch = Watch()
    fit(tmp_path / "run", model, data, watch, accumulate_grad_batches=2, val_check_interval=12)
    batches = watch.batches
    assert len(batches) == 12, "two a step"
    assert any((batch.document_ids_BT < 0).any() for batch in batches), "some batch was filled up"
    seen = [int(((batch.document_ids_BT == 0) & ~batch.meta_mask_BT).sum()) for batch in batches]
    spent = budgets(tmp_path / "run")
    assert [(step, tokens) for step, tokens, _ in spent] == [(step, sum(seen[: 2 * step])) for step in (2, 4, 6)]
    # Of one batch by hand: logits at answers only.
    first = batches[0]
    tokens, scored = int((first.document_ids_BT == 0).sum()), int((first.targets_BT >= 0).sum())
    share, length = 1 - seen[0] / tokens, round(tokens / 4)
    by_hand = model.model.flops_per_token(length, share) * tokens - 6 * model.config.vocab_size * 16 * (tokens - scored)
    counted = training_flops(model.model, tokens=tokens, source_tokens=seen[0], scored=scored, length=tokens / 4)
    assert counted == pytest.approx(by_hand)
    # The card's cost a source token is that of the batches, but for which prompts these were.
    card = json.loads((tmp_path / "run" / "arm.json").read_text())
    assert spent[-1][2] / spent[-1][1] == pytest.approx(card["flops_per_source_token"], rel=0.1)


@pytest.mark.slow
def test_a_resumed_run_goes_on_counting(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    first = fit(tmp_path / "run", make_model(), make_data(), max_steps=3)
    first.save_checkpoint(tmp_path / "three.ckpt")
    fit(tmp_path / "run", make_model(), make_data(), resume=tmp_path / "three.ckpt")
    fit(tmp_path / "whole", make_model(), make_data())
    assert budgets(tmp_path / "run") == budgets(tmp_path / "whole")
    assert [step for step, _, _ in budgets(tmp_path / "run")] == [2, 3, 4, 6]


def test_the_card_of_prompts_without_marks_has_no_share_and_says_plain(tmp_path: Path) -> None:
    data = prompts(tmp_path, meta_fraction=0.0)
    card = arm_card(MetaTransformer(TransformerConfig(**SHAPE, mechanism="none")), data)
    assert (card["arm"], card["meta_share"], card["marks_per_prompt"]) == ("plain", 0, 0)
    assert card["differs"]["placement"] == "none"
    assert card["flops_per_token"] == card["flops_per_source_token"]


def test_the_card_of_prompts_counts_their_marks(tmp_path: Path) -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE))
    hint, every = (arm_card(model, prompts(tmp_path, meta_placement=name)) for name in ("hint", "every"))
    assert (hint["arm"], every["arm"]) == ("meta", "meta (every)")
    assert hint["marks_per_prompt"] == 2  # around the target
    assert 4 < every["marks_per_prompt"] < 8  # around each of 2 to 4 lists
    assert hint["mean_length"] - 2 == pytest.approx(every["mean_length"] - every["marks_per_prompt"])
    assert hint["meta_share"] == pytest.approx(2 / hint["mean_length"])
    assert hint["flops_per_source_token"] < every["flops_per_source_token"]


@pytest.mark.parametrize(
    ("options", "placement", "name"),
    [
        ({"mechanism": "none"}, "none", "plain"),
        ({"mechanism_options": {"layers": []}}, "none", "plain"),
        ({"mechanism": "none"}, "hint", "pause"),
        ({"mechanism": "none"}, "random", "pause (random)"),
        ({}, "hint", "meta"),
        ({}, "none", "meta (no marks)"),
        ({}, "every", "meta (every)"),
        ({"mechanism": "matched"}, "hint", "matched"),
        ({"mechanism": "matched"}, "none", "matched (no marks)"),
        ({"mechanism_options": {"fill": -1e9}}, "hint", "meta (fill -1e+09)"),
        ({"mechanism_options": {"shared": True}}, "hint", "meta (shared)"),
        ({"mechanism_options": {"layers": [1, 0], "shared": True}}, "every", "meta (every, shared, layers 0 1)"),
    ],
)
def test_an_arm_is_named_by_what_makes_it_differ(options: dict[str, Any], placement: str, name: str) -> None:
    assert arm_name(differences(TransformerConfig(**SHAPE, **options), placement), "hint") == name


def test_the_flops_of_the_arms_are_ordered_as_their_files_say() -> None:
    def cost(**options: Any) -> float:
        model = MetaTransformer(TransformerConfig(**SHAPE, **options))
        return training_flops(model, tokens=100, source_tokens=90, scored=100, length=50)

    pause, meta = cost(mechanism="none"), cost()
    assert pause < cost(mechanism_options={"layers": [1]}) < meta < cost(mechanism="matched")
    assert cost(mechanism_options={"layers": [1]}) - pause == pytest.approx((meta - pause) / 2)
    assert cost(mechanism_options={"shared": True}) == meta
    assert cost(mechanism_options={"fill": -1e9}) == cost(mechanism="matched")
    plain = MetaTransformer(TransformerConfig(**SHAPE, mechanism="none"))
    unmarked = training_flops(plain, tokens=90, source_tokens=90, scored=90, length=45)
    assert unmarked < pause, "the same source tokens without marks cost less"


ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pause": ({"mechanism": "none"}, {}),
    "meta": ({}, {}),
    "matched": ({"mechanism": "matched"}, {}),
    "meta (much, behind punctuation)": ({}, {"meta_fraction": 0.4, "meta_placement": "punctuation"}),
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_says_that_it_is_scored_on_the_text_of_the_plain_one(make_data: Any, arm: str) -> None:
    model, marks = ARMS[arm]
    plain = arm_card(MetaTransformer(TransformerConfig(**SHAPE, mechanism="none")), make_data(meta_fraction=0.0))
    other = arm_card(MetaTransformer(TransformerConfig(**SHAPE, **model)), make_data(**marks))
    within = arm_card(MetaTransformer(TransformerConfig(**SHAPE, **model)), make_data(**marks, meta_length="within"))
    assert set(plain["scored_text"]) == {"fingerprint", "targets", "bytes_per_target"}
    for key in ("scored_text", "trained_text"):
        assert other[key] == plain[key]
        assert within[key]["fingerprint"] != plain[key]["fingerprint"]


@pytest.mark.parametrize("placement", ["hint", "every", "random"])
def test_prompts_without_marks_are_the_same_in_every_arm(tmp_path: Path, placement: str) -> None:
    plain, other = prompts(tmp_path, meta_placement="none"), prompts(tmp_path, meta_placement=placement)
    assert other.scored_text() == plain.scored_text()
    assert other.trained_text(64) == plain.trained_text(64)
    assert prompts(tmp_path, validation_examples=9).scored_text() != plain.scored_text()
    assert prompts(tmp_path, task_options={"n_lists": [2, 5]}).scored_text() != plain.scored_text()
