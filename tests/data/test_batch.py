"""Targets: meta-tokens are never predicted, and what they predict is scored."""

from dataclasses import fields

import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_metatok.data.batch import NOT_SCORED, Batch, next_token_targets

META = 1
rows = st.lists(st.booleans(), min_size=1, max_size=24)


def tokens_and_mask(is_meta: list[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    mask_BT = torch.tensor([is_meta])
    return torch.where(mask_BT, META, torch.arange(10, 10 + len(is_meta))), mask_BT


def test_the_example_in_the_docstring() -> None:
    tokens_BT, mask_BT = tokens_and_mask([False, False, True, False, False])
    assert next_token_targets(tokens_BT, mask_BT).tolist() == [[11, NOT_SCORED, 13, 14, NOT_SCORED]]
    assert next_token_targets(tokens_BT, mask_BT, retarget=True).tolist() == [[11, 13, 13, 14, NOT_SCORED]]


@given(rows)
def test_all_but_meta_targets_and_the_last_position_are_scored(is_meta: list[bool]) -> None:
    targets_BT = next_token_targets(*tokens_and_mask(is_meta))
    assert int((targets_BT != NOT_SCORED).sum()) == len(is_meta) - 1 - sum(is_meta[1:])
    assert META not in targets_BT


@given(rows)
def test_retargeting_scores_the_next_source_token_over_runs_of_metas(is_meta: list[bool]) -> None:
    tokens_BT, mask_BT = tokens_and_mask(is_meta)
    expected = []
    for t in range(len(is_meta)):
        later = [int(tokens_BT[0, u]) for u in range(t + 1, len(is_meta)) if not is_meta[u]]
        expected.append(later[0] if later else NOT_SCORED)
    assert next_token_targets(tokens_BT, mask_BT, retarget=True).tolist() == [expected]


def test_a_batch_moves_as_a_whole_and_counts_its_source_tokens() -> None:
    tokens_BT, mask_BT = tokens_and_mask([True, False, False, True])
    batch = Batch(tokens_BT, next_token_targets(tokens_BT, mask_BT), mask_BT, tokens_BT * 0, tokens_BT)
    assert batch.n_source_tokens == 2
    moved = batch.to("meta")
    assert all(getattr(moved, f.name).device.type == "meta" for f in fields(Batch))
    assert moved.meta_mask_BT.dtype == torch.bool
