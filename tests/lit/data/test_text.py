"""Evaluation blocks of every length read the same text, and mistakes in the options are named."""

from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule


def _source(batches: list) -> torch.Tensor:
    return torch.cat([batch.tokens_BT[~batch.meta_mask_BT] for batch in batches])


def test_contexts_of_every_length_read_the_same_text(make_data: Any) -> None:
    """36 source tokens in 40, 72 in 80, 144 in 160: no rounding here, so the texts are equal token for token."""
    data = make_data()
    texts = [_source(data.context_batches(m, windows=3, largest=4)) for m in (1, 2, 4)]
    assert len(texts[0]) == 3 * 144
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0], texts[2])


def test_contexts_hold_the_training_share_of_meta_tokens(make_data: Any) -> None:
    data = make_data()
    for multiple in (1, 2, 4):
        for batch in data.context_batches(multiple, windows=3, largest=4):
            assert batch.tokens_BT.shape[1] == 40 * multiple
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


def test_validation_source_is_the_validation_text_without_meta_tokens(make_data: Any) -> None:
    data = make_data(validation_blocks=5)
    expected = _source(list(data.val_dataloader()))
    assert torch.equal(torch.cat([torch.from_numpy(s) for s in data.validation_source()]), expected)


def test_blocks_grow_when_asked(make_data: Any) -> None:
    data = make_data(meta_length="grow")
    batch = next(iter(data.val_dataloader()))
    assert data.block_length == batch.tokens_BT.shape[1] == 44
    assert (batch.meta_mask_BT.sum(1) == 4).all()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"block_size": 0}, r"data\.block_size=0"),
        ({"batch_size": -1}, r"data\.batch_size=-1"),
        ({"num_workers": -1}, r"data\.num_workers=-1"),
        ({"block_size": 2, "meta_fraction": 0.5}, r"data\.block_size=2"),
        ({"meta_fraction": 0.7}, r"data\.meta_fraction=0\.7"),
        ({"meta_placement": "rnadom"}, r"did you mean 'random'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        MetaTokenDataModule(**options)
