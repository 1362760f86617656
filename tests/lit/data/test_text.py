"""Evaluation blocks of every length and of every arm read the same text, and mistakes in the options are named."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_metatok.data.scored import windows_of_batches
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule


def _source(batches: list) -> torch.Tensor:
    return torch.cat([batch.tokens_BT[~batch.meta_mask_BT] for batch in batches])


@pytest.mark.parametrize(("length", "tokens"), [("within", 144), ("grow", 160)])
def test_contexts_of_every_length_read_the_same_text(make_data: Any, length: str, tokens: int) -> None:
    """36 source tokens in 40, 72 in 80, 144 in 160: no rounding here, so the texts are equal token for token."""
    data = make_data(meta_length=length)
    texts = [_source(data.context_batches(m, windows=3, largest=4)) for m in (1, 2, 4)]
    assert len(texts[0]) == 3 * tokens
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0], texts[2])


def test_contexts_hold_the_training_share_of_meta_tokens(make_data: Any) -> None:
    data = make_data()
    for multiple in (1, 2, 4):
        for batch in data.context_batches(multiple, windows=3, largest=4):
            assert batch.tokens_BT.shape[1] == 44 * multiple
            assert (batch.meta_mask_BT.sum(1) == 4 * multiple).all()


def test_a_text_shorter_than_a_window_gives_no_batches(make_data: Any) -> None:
    assert make_data().context_batches(2, windows=3, largest=100_000) == []


def test_validation_is_spread_over_the_text_and_always_the_same(make_data: Any) -> None:
    data = make_data(validation_blocks=5)
    first, second = (list(data.val_dataloader()) for _ in range(2))
    assert sum(len(b.tokens_BT) for b in first) == 5
    assert all(torch.equal(a.tokens_BT, b.tokens_BT) for a, b in zip(first, second, strict=True))
    stream = torch.tensor(data.store.stream("validation").astype("int64"))
    last_block = first[-1].tokens_BT[-1][~first[-1].meta_mask_BT[-1]]
    assert torch.equal(last_block, stream[-len(last_block) :])


def test_blocks_grow_by_their_meta_tokens(make_data: Any) -> None:
    data = make_data()
    batch = next(iter(data.val_dataloader()))
    assert data.block_length == batch.tokens_BT.shape[1] == 44
    assert (batch.meta_mask_BT.sum(1) == 4).all()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"block_size": 0}, r"data\.block_size=0"),
        ({"batch_size": -1}, r"data\.batch_size=-1"),
        ({"num_workers": -1}, r"data\.num_workers=-1"),
        ({"block_size": 2, "meta_fraction": 0.5, "meta_length": "within"}, r"data\.block_size=2"),
        ({"block_size": 1}, r"data\.block_size=1"),
        ({"test_fraction": 1.0}, r"data\.test_fraction=1\.0: expected a share from 0"),
        ({"meta_fraction": 0.7}, r"data\.meta_fraction=0\.7"),
        ({"shuffle_buffer": 0, "tokenizer": "gpt2"}, r"data\.shuffle_buffer=0: expected 1 block"),
        ({"shuffle_buffer": 8}, r"data\.shuffle_buffer=8: expected a data\.tokenizer"),
        ({"shuffle_buffer": 8, "tokenizer": "gpt2", "held_out_documents": 0}, r"data\.held_out_documents=0"),
        ({"held_out_documents": 9}, r"data\.held_out_documents=9: goes with data\.shuffle_buffer"),
        ({"meta_placement": "rnadom"}, r"did you mean 'random'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        MetaTokenDataModule(**options)


ARMS: dict[str, dict[str, Any]] = {
    "meta": {},
    "much": {"meta_fraction": 0.5},
    "periodic": {"meta_placement": "periodic"},
    "punctuation": {"meta_placement": "punctuation"},
    "fixed": {"meta_placement": "fixed", "meta_placement_options": {"slots": [0, 20]}},
}


def _texts(data: MetaTokenDataModule) -> dict[str, Any]:
    """What a run reads and is scored on."""
    contexts = [data.context_batches(m, windows=3, largest=4) for m in (1, 2, 4)]
    return {
        "scored": data.scored_text(),
        "trained": data.trained_text(64),
        "contexts": [[(s.tolist(), t.tolist()) for s, t in windows_of_batches(batches)] for batches in contexts],
        "tested": [(s.tolist(), t.tolist()) for s, t in windows_of_batches(data.test_dataloader())],
        "pairs": [(before.tolist(), target.tolist()) for before, target in data.scored_pairs()],
    }


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_the_text_of_the_plain_one(make_data: Any, arm: str, separate: bool) -> None:
    plain, other = (make_data(separate_documents=separate, **one) for one in ({"meta_fraction": 0.0}, ARMS[arm]))
    assert _texts(other) == _texts(plain)


def test_the_baseline_is_scored_on_what_models_are(make_data: Any) -> None:
    for separate in (False, True):
        data = make_data(separate_documents=separate)
        scored = [scored.tolist() for _, scored in windows_of_batches(data.val_dataloader())]
        assert [target.tolist() for _, target in data.scored_pairs()] == scored


@pytest.mark.parametrize(
    "other", [{"meta_length": "within"}, {"retarget": True}, {"separate_documents": True}, {"block_size": 41}]
)
def test_what_is_scored_on_other_text_has_another_fingerprint(make_data: Any, other: dict[str, Any]) -> None:
    first, second = make_data().scored_text(), make_data(**other).scored_text()
    assert first.fingerprint != second.fingerprint


def test_a_fingerprint_says_how_much_is_scored(make_data: Any) -> None:
    data = make_data()
    found = data.scored_text()
    targets = torch.cat([batch.targets_BT[batch.targets_BT >= 0] for batch in data.val_dataloader()])
    assert found.targets == len(targets)
    assert found.bytes_per_target == pytest.approx(data.tokenizer.bytes_V[targets].double().mean().item())
    assert found == make_data(seed=2).scored_text(), "the seed chooses what is read first, not what is scored"
    assert data.trained_text(64) != make_data(seed=2).trained_text(64)


def test_test_text_is_neither_validated_nor_trained_on(make_data: Any) -> None:
    data = make_data(validation_blocks=None)
    streams = {split: data.store.stream(split) for split in ("train", "validation", "test")}
    assert min(map(len, streams.values())) > 1000
    documents = {
        split: {tuple(part) for part in np.split(stream, data.store.document_starts(split)[1:])}
        for split, stream in streams.items()
    }
    assert not documents["test"] & (documents["train"] | documents["validation"])
    assert _source(list(data.test_dataloader()))[:40].tolist() == streams["test"][:40].tolist()
    assert make_data(test_fraction=0.0).store.splits == ("train", "validation")
    assert np.array_equal(make_data(test_fraction=0.0).store.stream("train"), streams["train"])
