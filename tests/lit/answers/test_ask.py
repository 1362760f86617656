"""Asking gives what the model says, however prompts are put into batches."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from lightning_metatok import tasks
from lightning_metatok.data import Batch
from lightning_metatok.data.examples import ANSWER, META, Examples
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.lit.answers.ask import ask
from lightning_metatok.model.generate import generate

TASK = tasks.build("list_recall", n_lists=(2, 4), list_length=(2, 5), pool=12, n_queries=2)
EXAMPLES = TASK.examples(40, seed=0, split="test")


def model(**options: Any) -> MetaTokenLM:
    """Random weights, so large that every prompt gets another answer."""
    torch.manual_seed(0)
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": TASK.lexicon.tokenizer.vocab_size}
    built = MetaTokenLM(**{**shape, **options})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return built


def trainer(tmp_path: Path, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path, **options
    )


def greedy(built: MetaTokenLM, examples: Examples) -> tuple[Examples, np.ndarray]:
    """Examples whose answers are what greedy decoding writes, every second one with a token changed, and which."""
    tokens, spoilt = examples.tokens.copy(), np.arange(len(examples)) % 2 == 1
    for i in range(len(examples)):
        piece = slice(examples.offsets[i], examples.offsets[i + 1])
        flags = examples.flags[piece]
        start = int(np.flatnonzero(flags & ANSWER)[0])
        new = len(flags) - start
        prompt_BT = torch.from_numpy(tokens[piece][:start].astype(np.int64))[None]
        mask_BT = torch.from_numpy((flags[:start] & META) > 0)[None]
        written = generate(built.model, prompt_BT, mask_BT, max_new_tokens=new, temperature=0)[0, start:].numpy()
        if spoilt[i]:
            written[(i // 2) % new] += 1
        tokens[piece][start:] = written
    flags = examples.flags.copy()
    return Examples(tokens, flags, examples.offsets, examples.slices), spoilt


def long_answers() -> Examples:
    """Examples with the last three tokens as the answer."""
    examples = tasks.build("list_recall", n_lists=(2, 4), list_length=(2, 5), pool=12).examples(24, 0, "test")
    flags = examples.flags & ~ANSWER
    for end in examples.offsets[1:]:
        flags[end - 3 : end] |= ANSWER
    return Examples(examples.tokens, flags, examples.offsets, examples.slices)


@pytest.mark.parametrize("options", [{}, {"drop_positions": "both", "zero_meta_embedding": True}], ids=str)
def test_asking_equals_one_prompt_at_a_time_with_all_logits(tmp_path: Path, options: dict[str, Any]) -> None:
    built = model().eval()
    answers = ask(trainer(tmp_path), built, EXAMPLES, max_tokens=200, **options)
    for i in range(len(EXAMPLES)):
        batch: Batch = EXAMPLES.batch([i])
        with torch.no_grad():
            said = built.model(batch.tokens_BT, batch.meta_mask_BT, **options).argmax(dim=-1)[0]
        targets = batch.targets_BT[0]
        right = [bool(said[t] == targets[t]) for t in range(len(targets)) if targets[t] >= 0]
        wrong = [int(said[t]) for t in range(len(targets)) if targets[t] >= 0 and said[t] != targets[t]]
        assert (answers.n_right[i], answers.n_tokens[i], answers.exact[i]) == (sum(right), len(right), all(right))
        assert answers.wrong[i] == (wrong[0] if wrong else -1)
    assert answers.token_accuracy == answers.n_right.sum() / answers.n_tokens.sum()


def test_an_answer_is_exact_if_and_only_if_greedy_decoding_writes_it(tmp_path: Path) -> None:
    built = model()
    examples, spoilt = greedy(built, long_answers())
    answers = ask(trainer(tmp_path), built, examples)
    assert np.array_equal(answers.exact, ~spoilt)
    assert (answers.n_tokens == 3).all()
    assert (answers.n_right[spoilt] < 3).all()
    assert ((answers.wrong >= 0) == spoilt).all()


def test_batches_make_no_difference(tmp_path: Path) -> None:
    built = model()
    examples, _ = greedy(built, long_answers())
    one, many = (ask(trainer(tmp_path), built, examples, max_tokens=most) for most in (1, 100_000))
    for name in ("n_right", "n_tokens", "wrong"):
        assert np.array_equal(getattr(one, name), getattr(many, name))


def test_asking_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    built, state = model(dropout=0.5).train(), torch.random.get_rng_state()
    answers = [ask(trainer(tmp_path), built, EXAMPLES) for _ in range(2)]
    assert built.training
    assert built.model.dropout.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(answers[0].wrong, answers[1].wrong), "no dropout"
    assert all(parameter.grad is None for parameter in built.parameters())
    built.eval()
    ask(trainer(tmp_path), built, EXAMPLES)
    assert not built.training


def test_the_trainer_s_precision_is_used(tmp_path: Path) -> None:
    built, seen = model(), []
    built.model.blocks[0].register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    ask(trainer(tmp_path, precision="bf16-mixed"), built, EXAMPLES)
    ask(trainer(tmp_path), built, EXAMPLES)
    assert seen == [True, False]


def test_a_position_table_that_is_too_short_is_named(tmp_path: Path) -> None:
    built = model(position="learned", max_positions=10)
    with pytest.raises(UserError, match=r"model\.max_positions=10"):
        ask(trainer(tmp_path), built, EXAMPLES)
    assert built.training


def test_two_ranks_share_the_prompts_and_both_get_all_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two halves add up to the whole; the sum over processes itself is the strategy's."""
    built, run = model(), trainer(tmp_path)
    whole = ask(run, built, EXAMPLES, max_tokens=100)
    sizes, parts = [], []
    built.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))

    def keep(given: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        parts.append(given)
        return sum(parts, torch.zeros_like(given))

    monkeypatch.setattr(run.strategy, "reduce", keep)
    monkeypatch.setattr(type(run), "world_size", 2)
    for rank in (0, 1):
        monkeypatch.setattr(type(run), "global_rank", rank)
        answers = ask(run, built, EXAMPLES, max_tokens=100)
    assert sum(sizes) == len(EXAMPLES)
    for name in ("n_right", "n_tokens", "wrong"):
        assert np.array_equal(getattr(answers, name), getattr(whole, name))
