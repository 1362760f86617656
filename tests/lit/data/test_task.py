"""Batches of a task: pure functions of the step, the same with any workers and ranks, and little filling."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_metatok.data import Batch, MetaTokenizer
from lightning_metatok.data.examples import ANSWER, META, Examples
from lightning_metatok.errors import UserError
from lightning_metatok.lit import TaskDataModule
from lightning_metatok.lit.data import fits
from lightning_metatok.lit.data.fits import check_fits
from lightning_metatok.lit.data.loaders import OnceEach, StepLoader
from lightning_metatok.tasks.stream import STEPS, FiniteSource, Windows, count
from tests.model.helpers import tiny

OPTIONS = {"n_lists": [2, 4], "list_length": [2, 6], "pool": 16, "n_queries": 3}


def make(task: str = "list_recall", options: dict[str, Any] | None = None, **given: Any) -> TaskDataModule:
    """A data module that is ready to fit."""
    defaults = {"batch_size": 4, "train_examples": None, "test_examples": 50, "validation_examples": 30}
    data = TaskDataModule(task, OPTIONS if options is None else options, **{**defaults, **given})
    data.setup("fit")
    return data


def loader(
    data: TaskDataModule, first: int = 0, rank: int = 0, world_size: int = 1, every: int = 1, num_workers: int = 0
) -> StepLoader:
    """The training batches of a rank."""
    windows = [Windows(source, data.seed, data.batch_size, rank, world_size) for source in data._sources]
    return StepLoader(windows, data.schedule, first, every, num_workers, data._counts)


def rows(batch: Batch) -> set[tuple[int, ...]]:
    """The prompts of a batch, without filling."""
    lengths = (batch.document_ids_BT >= 0).sum(dim=1).tolist()
    return {tuple(row[:n]) for row, n in zip(batch.tokens_BT.tolist(), lengths, strict=True)}


def prompts(examples: Examples) -> set[tuple[int, ...]]:
    """All prompts, as tokens."""
    return {tuple(examples[i].tokens.tolist()) for i in range(len(examples))}


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.tokens_BT, b.tokens_BT)
        assert torch.equal(a.targets_BT, b.targets_BT)
        assert torch.equal(a.meta_mask_BT, b.meta_mask_BT)


def test_what_sees_whole_prompts_may_see_no_answer_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(meta_placement="after")
    reader, decoder = (tiny(vocab_size=1024, mechanism="none", pattern=name) for name in ("prefix_lm", "causal"))
    for model in (reader, decoder):
        model.positions.max_positions = None
        check_fits(model, data)
    monkeypatch.setattr(fits, "answers_before_marks", lambda examples: np.arange(len(examples)) == 3)
    check_fits(decoder, data)
    with pytest.raises(
        UserError, match=r"^data.task=list_recall: an answer stands before the first meta-token of its pro"
    ):
        check_fits(reader, data)


# -- training batches


@pytest.mark.parametrize("train_examples", [None, 100])
def test_a_batch_follows_from_its_step_alone(train_examples: int | None) -> None:
    whole = list(islice(loader(make(train_examples=train_examples)), 40))
    for first in (1, 15, 16, 33):
        assert_same(list(islice(loader(make(train_examples=train_examples), first), 4)), whole[first : first + 4])
    assert not rows(whole[0]) & rows(whole[1])


@pytest.mark.parametrize("train_examples", [None, 100])
def test_worker_processes_do_not_change_the_batches(train_examples: int | None) -> None:
    alone = list(islice(loader(make(train_examples=train_examples), 5), 40))
    assert_same(list(islice(loader(make(train_examples=train_examples), 5, num_workers=2), 40)), alone)


@pytest.mark.parametrize("train_examples", [None, 500])
def test_two_ranks_see_together_what_one_sees(train_examples: int | None) -> None:
    one = list(islice(loader(make(train_examples=train_examples, batch_size=8)), 20))
    data = make(train_examples=train_examples, batch_size=4)
    halves = [list(islice(loader(data, rank=rank, world_size=2), 20)) for rank in (0, 1)]
    for whole, left, right in zip(one, *halves, strict=True):
        assert rows(left) | rows(right) == rows(whole)
        assert len(rows(left)) == len(rows(right)) == 4


def test_an_epoch_holds_every_prompt_once_and_the_next_one_in_another_order() -> None:
    data = make(train_examples=4 * STEPS * 2)  # two windows
    source = data._sources[0]
    assert isinstance(source, FiniteSource)
    batches = list(islice(loader(data), 4 * STEPS))
    for epoch in (batches[: 2 * STEPS], batches[2 * STEPS :]):
        assert set.union(*map(rows, epoch)) == prompts(source.examples)
        assert sum(len(rows(batch)) for batch in epoch) == len(source.examples)
    assert rows(batches[0]) != rows(batches[2 * STEPS])


def test_another_seed_gives_other_prompts_and_the_same_held_out_ones() -> None:
    one, other = make(seed=1), make(seed=2)
    assert not rows(next(iter(loader(one)))) & rows(next(iter(loader(other))))
    assert prompts(one._validation()) == prompts(other._validation())


def test_prompts_of_similar_length_share_a_batch() -> None:
    batches = list(islice(loader(make(batch_size=16)), 2 * STEPS))
    filling = [float((batch.document_ids_BT < 0).float().mean()) for batch in batches]
    assert 0 < np.mean(filling) < 0.08  # unsorted prompts of these sizes are filled up by a quarter
    lengths = [batch.tokens_BT.shape[1] for batch in batches[:STEPS]]
    assert lengths != sorted(lengths)


def test_counts_are_those_of_all_ranks_without_filling() -> None:
    data = make()
    per_rank = [list(islice(loader(data, rank=rank, world_size=2), 20)) for rank in (0, 1)]
    for step in (15, 19):
        both = [batches[step] for batches in per_rank]
        counts = data.counts(step)
        assert counts.tokens == sum(int((batch.document_ids_BT >= 0).sum()) for batch in both)
        assert counts.tokens - counts.source_tokens == sum(int(batch.meta_mask_BT.sum()) for batch in both)
        assert counts.scored == sum(int((batch.targets_BT >= 0).sum()) for batch in both)


def without_marks(batch: Batch) -> list[list[int]]:
    """The prompts of a batch in order, without filling and meta-tokens."""
    kept = (batch.document_ids_BT >= 0) & ~batch.meta_mask_BT
    return [row[keep].tolist() for row, keep in zip(batch.tokens_BT, kept, strict=True)]


SAME: dict[str, dict[str, Any]] = {
    "list_recall": OPTIONS,
    "segment_counting": {"n_queries": 2},
    "copying": {"n_spans": [1, 3], "n_words": [20, 40]},
    "parity": {"n_labels": [1, 4]},
    "multi_query_recall": {},
    "needle": {"n_hay": [30, 60]},
    "variable_tracking": {},
    "addition": {},
    "list_recall of a level": {"level": "medium", "marks_count": False},
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("train_examples", [None, 100])
@pytest.mark.parametrize("name", SAME)
def test_every_arm_sees_the_same_prompts_at_every_step(name: str, train_examples: int | None) -> None:
    task, keyless = name.partition(" ")[0], name == "addition"
    asked = {**SAME[name], "question_mark": "before_answer" if keyless else "after_key"}
    given = {"train_examples": train_examples, "task": task}
    plain = list(islice(loader(make(options=SAME[name], meta_fraction=0, **given)), STEPS + 2))
    assert not any(batch.meta_mask_BT.any() for batch in plain)
    for placement in ("hint", "every", "random", "none"):
        for options in (SAME[name], asked):
            marked = loader(make(options=options, meta_placement=placement, **given))
            for step, batch in enumerate(islice(marked, STEPS + 2)):
                assert without_marks(batch) == without_marks(plain[step]), f"{placement}, step {step}"
                if placement != "random":  # a tenth of a short body is no mark at all
                    assert bool(batch.meta_mask_BT.any()) == (placement != "none")
                scored = batch.targets_BT[batch.targets_BT >= 0]
                assert torch.equal(scored, plain[step].targets_BT[plain[step].targets_BT >= 0])


# -- phases


SHORT, LONG = ({"n_lists": [n, n], "list_length": [k, k]} for n, k in ((2, 3), (4, 6)))
"""At most 27 tokens (with marks and questions), at least 42."""


def test_phases_have_their_own_options_and_prompts() -> None:
    curriculum = [{"options": SHORT, "steps": 5}, {"options": LONG}]
    for train_examples in (None, 60):
        data = make(curriculum=curriculum, train_examples=train_examples)
        batches = list(islice(loader(data), 10))
        lengths = [[len(row) for row in rows(batch)] for batch in batches]
        assert max(map(max, lengths[:5])) < 30 < min(map(min, lengths[5:]))
        assert_same(list(islice(loader(data, 3), 4)), batches[3:7])
        assert_same(list(islice(loader(data, 3, num_workers=2), 4)), batches[3:7])
    assert [len(source.examples) for source in data._sources if isinstance(source, FiniteSource)] == [30, 30]
    assert data.target.size == (4, 4)
    assert set(data._validation().slices["n_lists"].tolist()) == {4}
    assert set(data.phase_examples(0).slices["n_lists"].tolist()) == {2}


def test_a_phase_changes_between_optimiser_steps_when_batches_are_accumulated() -> None:
    data = make(curriculum=[{"options": SHORT, "steps": 3}, {"options": LONG}])
    lengths = [batch.tokens_BT.shape[1] for batch in islice(loader(data, every=2), 12)]
    assert max(lengths[:6]) < 30 < min(lengths[6:])


# -- held-out prompts


def test_validation_and_test_hold_every_prompt_once_and_no_prompt_twice() -> None:
    data = make()
    data.setup("test")
    validation, test = ([*loader_] for loader_ in (data.val_dataloader(), data.test_dataloader()))
    assert sum(len(batch.tokens_BT) for batch in validation) == 30
    assert set.union(*map(rows, validation)) == prompts(data._validation())
    assert set.union(*map(rows, test)) == prompts(data._test())
    assert not prompts(data._validation()) & prompts(data._test())
    assert (count(data._test(), ANSWER) == 1).all()  # one question each
    assert (count(data._sample, ANSWER) > 1).any()


def test_ranks_share_held_out_prompts() -> None:
    examples = make().evaluation_examples(n=31)
    shares = [list(OnceEach(examples, 4, rank, 3)) for rank in range(3)]
    assert [[len(batch.tokens_BT) for batch in share] for share in shares] == [[4, 4, 2]] * 3
    found = [row for share in shares for batch in share for row in rows(batch)]
    assert len(found) == len(set(found)) == 30


def test_sets_are_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path), "train_examples": 40}
    first = make(**options)
    folders = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_dir()}
    assert len(folders) == 2  # train, validation
    again = make(**options)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_dir()} == folders
    assert prompts(again._validation()) == prompts(first._validation())
    make(**options, meta_placement="every")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 4


def test_evaluation_prompts_are_longer_and_always_the_same() -> None:
    data = make()
    assert data.evaluation_examples(2.0, 20) is data.evaluation_examples(2.0, 20)
    assert prompts(data.evaluation_examples(2.0, 20)) == prompts(make(seed=5).evaluation_examples(2.0, 20))
    for multiple, n_lists in ((1.0, 4), (2.0, 8)):
        examples = data.evaluation_examples(multiple, 20)
        assert set(examples.slices["n_lists"].tolist()) == {n_lists}
        assert (count(examples, ANSWER) == 1).all()
        assert data.evaluation_task(multiple).size == (n_lists, n_lists)


# -- marks


@pytest.mark.parametrize(
    ("options", "marks"),
    [
        ({}, 2),
        ({"meta_placement": "none"}, 0),
        ({"meta_fraction": 0.0}, 0),
        ({"meta_fraction": 0.0, "meta_placement": "random"}, 0),
    ],
)
def test_a_fraction_of_zero_means_no_marks(options: dict[str, Any], marks: int) -> None:
    data = make(**options)
    assert data.marks_per_prompt == marks
    assert data.meta_share == pytest.approx(marks / data.mean_length)
    assert {int(n) for n in next(iter(loader(data))).meta_mask_BT.sum(dim=1)} == {marks}


def test_marks_at_every_list_and_at_random_places() -> None:
    data = make(meta_placement="every")
    sample = data._sample
    assert (count(sample, META) == 2 * sample.slices["n_lists"]).all()
    body = make(meta_placement="random", meta_fraction=0.25)
    assert 0.1 < body.meta_share < 0.25  # of the body; there are none in the questions


# -- text


def test_text_is_rendered_with_the_tokenizer_of_the_checkpoint_and_symbols_touch_no_corpus(corpus: Path) -> None:
    trained = MetaTokenizer.train(corpus.read_text().splitlines(), 400)
    data = TaskDataModule("list_recall", {"rendering": "text", "n_lists": [2, 2]}, corpus="nowhere.txt",
                          train_examples=None, validation_examples=8)  # fmt: skip
    data.carried = trained
    data.setup("fit")
    assert data.tokenizer is trained
    assert "<|meta|>" in data.target.text(data._validation()[0])
    symbols = make(corpus="nowhere.txt")
    assert symbols.tokenizer.vocab_size < 1000
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        make(options={"rendering": "text", "n_lists": [2, 2]}, corpus="nowhere.txt")


def test_a_needle_hides_in_the_corpus(corpus: Path) -> None:
    options = {"rendering": "text", "n_hay": [24, 32]}
    data = make("needle", options, corpus=str(corpus), vocab_size=300, validation_fraction=0.3)
    words = data.target.text(data._validation()[0])
    assert "special number" in words
    assert any(word in words for word in ("birds", "cat", "dog", "rain", "house"))


# -- what cannot work


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"task": "list_recal"}, "data.task='list_recal': expected one of .*did you mean 'list_recall'"),
        ({"meta_placement": "hnt"}, "data.meta_placement=hnt: expected one of .*did you mean 'hint'"),
        ({"meta_fraction": 0.7}, "data.meta_fraction=0.7: expected a share between 0 and 0.5"),
        ({"batch_size": 0}, "data.batch_size=0: expected a positive number"),
        ({"train_examples": 0}, "data.train_examples=0: expected a positive number"),
        ({"num_workers": -1}, "data.num_workers=-1: expected 0 or more"),
        ({"options": {"n_list": [2, 3]}}, "data.task_options.n_list: .*did you mean 'n_lists'"),
        ({"options": {"rendering": "txt"}}, "data.task_options.rendering=txt: .*did you mean 'text'"),
        ({"options": {"placement": "none"}}, "data.task_options.placement=none: expected data.meta_placement"),
        ({"options": {"n_lists": [30, 30], "level": "medium"}}, "do not fit level medium"),
        ({"curriculum": [{"steps": 3, "options": {"n_list": 2}}, {}]}, r"data.curriculum\[0\].options.n_list: "),
        ({"curriculum": [{"steps": 3, "options": {"pool": 999}}, {}]}, r"data.curriculum\[0\].options.pool=999"),
        ({"curriculum": [{"steps": 3, "options": {"rendering": "text"}}, {}]}, "expected symbols, one for all phases"),
        ({"curriculum": [{"steps": 1}] * 9 + [{}], "train_examples": 5}, "expected at least one for each phase"),
    ],
)
def test_options_that_cannot_work_are_named(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        make(**given)
