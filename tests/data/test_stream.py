"""A batch is a pure function of its step: whatever runs it, however often it starts."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_metatok.data.batch import NOT_SCORED, Batch
from lightning_metatok.data.blocks import PackedBlocks, TokenStore
from lightning_metatok.data.corpora import Corpus, Split
from lightning_metatok.data.injection import InjectionRule, remove_meta
from lightning_metatok.data.placement import positions_within
from lightning_metatok.data.scored import windows_of_batches
from lightning_metatok.data.stream import BatchBuilder, StepDataset, StepSampler
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.data.writing import prepare_tokens
from lightning_metatok.errors import UserError

T = 20
RULE = InjectionRule(fraction=0.2, length="within")


@pytest.fixture(scope="module")
def store(corpus: Corpus, tokenizer: MetaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return prepare_tokens(corpus, tokenizer, tmp_path_factory.mktemp("cache"))


def builder(store: TokenStore, split: Split = "train", rule: InjectionRule = RULE, **options: Any) -> BatchBuilder:
    blocks = PackedBlocks(store, split, rule.source_length(T))
    return BatchBuilder(blocks, rule, block_length=T, **{"batch_size": 4, "seed": 1, "meta_id": 1, **options})


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch))


def rows(batches: list[Batch]) -> list[list[int]]:
    return sorted(row for batch in batches for row in batch.tokens_BT.tolist())


def sources(batches: list[Batch]) -> list[list[int]]:
    return sorted(row for b in batches for row in remove_meta(b.tokens_BT, b.meta_mask_BT).tolist())


def all_blocks(store: TokenStore, split: Split) -> list[list[int]]:
    blocks = PackedBlocks(store, split, RULE.source_length(T))
    return sorted(blocks.tokens(np.arange(len(blocks))).tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_a_start_in_the_middle_change_nothing(store: TokenStore, workers: int) -> None:
    build = builder(store)
    loader = DataLoader(StepDataset(build), sampler=StepSampler(7, 12), batch_size=None, num_workers=workers)
    batches = list(loader)
    assert len(loader) == len(batches) == 5
    assert all(equal(batch, builder(store).batch(step)) for step, batch in enumerate(batches, 7))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_two_ranks_see_together_what_one_sees(store: TokenStore, split: Split) -> None:
    shuffle = split == "train"
    one = builder(store, split, batch_size=8, shuffle=shuffle)
    two = builder(store, split, batch_size=4, shuffle=shuffle)
    assert one.n_steps() == two.n_steps(world_size=2)
    for step in range(one.n_steps()):
        together = [two.batch(step, rank, world_size=2) for rank in range(2)]
        assert rows(together) == rows([one.batch(step)])


def test_an_epoch_sees_every_block_once_in_a_new_order_with_new_slots(store: TokenStore) -> None:
    build = builder(store, batch_size=1)
    n = len(build.blocks)
    first = [build.batch(step) for step in range(n)]
    second = [build.batch(step) for step in range(n, 2 * n)]
    assert sources(first) == sources(second) == all_blocks(store, "train")
    assert [b.tokens_BT.tolist() for b in first] != [b.tokens_BT.tolist() for b in second]
    assert rows(first) != rows(second)


def test_a_batch_larger_than_the_corpus_spans_epochs(store: TokenStore) -> None:
    one = builder(store, batch_size=1)
    n = 2 * len(one.blocks) + 3
    assert rows([builder(store, batch_size=n).batch(0)]) == rows([one.batch(step) for step in range(n)])


def test_the_seed_changes_order_and_slots(store: TokenStore) -> None:
    assert not equal(builder(store, seed=1).batch(0), builder(store, seed=2).batch(0))


def test_validation_sees_every_block_once_in_order_and_always_the_same(store: TokenStore) -> None:
    for batch_size in (1, 4, 7, 1000):
        build = builder(store, "validation", batch_size=batch_size, shuffle=False)
        batches = [build.batch(step) for step in range(build.n_steps())]
        assert sources(batches) == all_blocks(store, "validation")
        assert rows(batches) == rows([builder(store, "validation", batch_size=1000, shuffle=False).batch(0)])


def test_every_rank_has_a_row_in_every_validation_step(store: TokenStore) -> None:
    build = builder(store, "validation", batch_size=2, shuffle=False)
    for world_size in (1, 2, 3):
        batches = [
            build.batch(step, rank, world_size)
            for step in range(build.n_steps(world_size))
            for rank in range(world_size)
        ]
        assert min(len(batch.tokens_BT) for batch in batches) >= 1
        assert len(build.blocks) - sum(len(batch.tokens_BT) for batch in batches) < world_size


@pytest.mark.parametrize("placement", ["random", "periodic", "punctuation"])
@pytest.mark.parametrize("length", ["within", "grow"])
def test_a_batch_is_consistent(store: TokenStore, tokenizer: MetaTokenizer, placement: str, length: str) -> None:
    rule = InjectionRule(fraction=0.2, placement=placement, length=length)  # type: ignore[arg-type]
    batch = builder(store, rule=rule, after_ids=tokenizer.punctuation_ids, separate_documents=True).batch(3)
    assert batch.tokens_BT.shape == (4, rule.total_length(T))
    assert torch.equal(batch.meta_mask_BT, batch.tokens_BT == tokenizer.meta_id)
    assert tokenizer.meta_id not in batch.targets_BT
    # Replay each row: a document ends behind its <|endoftext|>, and metas stay with the token before them.
    for tokens, ids, positions in zip(
        batch.tokens_BT.tolist(), batch.document_ids_BT.tolist(), batch.position_ids_BT.tolist(), strict=True
    ):
        document, position, ended = 0, -1, False
        for t, token in enumerate(tokens):
            if ended and token != tokenizer.meta_id:
                document, position, ended = document + 1, -1, False
            position += 1
            assert (ids[t], positions[t]) == (document, position)
            ended = ended or token == tokenizer.eos_id


def test_without_separate_documents_a_block_is_one_document(store: TokenStore) -> None:
    batch = builder(store).batch(0)
    assert not batch.document_ids_BT.any()
    assert batch.position_ids_BT.tolist() == [list(range(T))] * 4


def test_positions_restart_in_each_document() -> None:
    assert positions_within(torch.tensor([[0, 0, 1, 2, 2, 2]])).tolist() == [[0, 1, 0, 0, 1, 2]]


def test_retargeting_reaches_the_batch(store: TokenStore) -> None:
    plain, retargeted = builder(store).batch(0), builder(store, retarget=True).batch(0)
    assert int((retargeted.targets_BT >= 0).sum()) > int((plain.targets_BT >= 0).sum())


def test_an_endless_sampler_has_no_length() -> None:
    with pytest.raises(TypeError, match="endless"):
        len(StepSampler(3))
    assert next(iter(StepSampler(3))) == 3


def test_too_few_blocks_for_one_step_say_so(store: TokenStore) -> None:
    n = len(PackedBlocks(store, "train", RULE.source_length(T)))
    with pytest.raises(UserError, match=rf"train split has {n} blocks .* one step needs {n + 1}"):
        builder(store, batch_size=n + 1).n_steps()
    with pytest.raises(UserError, match="one step needs 1000"):
        builder(store, "validation", shuffle=False).n_steps(world_size=1000)


ARMS = {
    "plain": InjectionRule(fraction=0.0),
    "a tenth": InjectionRule(fraction=0.1),
    "half": InjectionRule(fraction=0.5),
    "periodic": InjectionRule(fraction=0.2, placement="periodic"),
    "punctuation": InjectionRule(fraction=0.2, placement="punctuation"),
    "fixed": InjectionRule(placement="fixed", options={"slots": [0, 1, 9]}),
}


def text_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    return [(source.tolist(), scored.tolist()) for source, scored in windows_of_batches([batch])]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_reads_the_same_text_in_the_same_rows_and_is_scored_on_the_same(
    store: TokenStore, tokenizer: MetaTokenizer, arm: str, separate: bool, shuffle: bool
) -> None:
    def text(rule: InjectionRule) -> list[list[tuple[list[int], list[int]]]]:
        options = {"after_ids": tokenizer.punctuation_ids, "separate_documents": separate, "shuffle": shuffle}
        build = builder(store, rule=rule, **options)
        return [text_of(build.batch(step, rank, 2)) for step in (0, 1, 7) for rank in range(2)]

    assert text(ARMS[arm]) == text(ARMS["plain"])


def test_within_reads_other_text(store: TokenStore) -> None:
    within = builder(store, rule=InjectionRule(fraction=0.1, length="within")).batch(0)
    assert text_of(within) != text_of(builder(store, rule=ARMS["plain"]).batch(0))


def test_the_end_of_a_document_is_not_scored_on_the_next_unseen_one(store: TokenStore) -> None:
    for rule in (ARMS["plain"], ARMS["half"]):
        batch = builder(
            store, rule=rule, separate_documents=True, batch_size=len(PackedBlocks(store, "train", T))
        ).batch(0)
        ends_BT = batch.tokens_BT == store.eos_id
        assert ends_BT.any()
        assert (batch.targets_BT[ends_BT] == NOT_SCORED).all()
        assert (batch.targets_BT == store.eos_id).any(), "the end itself can be foreseen"
