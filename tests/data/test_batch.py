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
def test_each_source_token_but_the_first_is_scored_once_wherever_meta_tokens_stand(is_meta: list[bool]) -> None:
    tokens_BT, mask_BT = tokens_and_mask(is_meta)
    targets_BT = next_token_targets(tokens_BT, mask_BT)
    assert targets_BT[targets_BT != NOT_SCORED].tolist() == tokens_BT[~mask_BT].tolist()[1:]


@given(rows)
def test_retargeting_scores_the_next_source_token_over_runs_of_metas(is_meta: list[bool]) -> None:
    tokens_BT, mask_BT = tokens_and_mask(is_meta)
    expected = []
    for t in range(len(is_meta)):
        later = [int(tokens_BT[0, u]) for u in range(t + 1, len(is_meta)) if not is_meta[u]]
        foreseeable = later and not all(is_meta[: t + 1])
        expected.append(later[0] if foreseeable else NOT_SCORED)
    assert next_token_targets(tokens_BT, mask_BT, retarget=True).tolist() == [expected]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=24), st.booleans())
def test_the_first_token_of_a_document_that_sees_no_other_is_not_scored(
    row: list[tuple[bool, bool]], retarget: bool
) -> None:
    """Nothing tells a model which it is: neither the end of the document before, nor a meta-token behind that."""
    tokens_BT, mask_BT = tokens_and_mask([is_meta for is_meta, _ in row])
    starts_BT = torch.tensor([[start and not is_meta for is_meta, start in row]])
    documents_BT = starts_BT.cumsum(dim=1)
    targets_BT = next_token_targets(tokens_BT, mask_BT, retarget, documents_BT)
    scored = targets_BT[targets_BT != NOT_SCORED].tolist()
    first = (~mask_BT).cumsum(dim=1) == 1
    expected = tokens_BT[~mask_BT & ~starts_BT & ~first].tolist()
    assert (sorted(set(scored)) if retarget else scored) == expected


def test_a_batch_moves_as_a_whole_and_counts_its_source_tokens() -> None:
    tokens_BT, mask_BT = tokens_and_mask([True, False, False, True])
    batch = Batch(tokens_BT, next_token_targets(tokens_BT, mask_BT), mask_BT, tokens_BT * 0, tokens_BT)
    assert batch.n_source_tokens == 2
    moved = batch.to("meta")
    assert all(getattr(moved, f.name).device.type == "meta" for f in fields(Batch))
    assert moved.meta_mask_BT.dtype == torch.bool
