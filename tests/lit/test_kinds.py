"""Kinds of meta-tokens in training: each learns, none is a target, and no other weight begins elsewhere for them."""

from typing import Any

import pytest
import torch

from lightning_metatok.data import remove_meta
from lightning_metatok.errors import UserError
from lightning_metatok.lit import TaskDataModule
from lightning_metatok.lit.live import LiveModel
from lightning_metatok.lit.long_text import batch_of
from lightning_metatok.model import MetaTransformer, TransformerConfig

KSA: dict[str, Any] = {"meta_placement": "chunk_end", "meta_placement_options": {"c": 8, "n": 3}}
ROWS = {"vocab_size": 322, "kinds_from": 320}


@pytest.mark.parametrize("mechanism", ["meta", "none", "own_qkv"])
def test_each_kind_has_a_gradient_of_its_own_and_none_is_scored(
    make_data: Any, make_model: Any, mechanism: str
) -> None:
    data, module = make_data(meta_kinds=3, **KSA), make_model(mechanism=mechanism, tied_head=False, **ROWS)
    one = make_data(**KSA)
    batch, alone = (next(iter(of.val_dataloader())) for of in (data, one))
    ids = list(data.tokenizer.meta_ids)
    assert torch.equal(batch.meta_mask_BT, alone.meta_mask_BT)
    assert torch.equal(batch.targets_BT, alone.targets_BT)
    assert torch.equal(batch.meta_mask_BT, torch.isin(batch.tokens_BT, torch.tensor(ids)))
    assert not torch.isin(batch.targets_BT, torch.tensor(ids)).any()
    assert torch.equal(*(remove_meta(of.tokens_BT, of.meta_mask_BT) for of in (batch, alone)))
    assert data.scored_text() == one.scored_text()
    module.nll(batch).sum().backward()
    of_kinds = module.model.embedding.weight.grad[ids]
    assert (of_kinds.abs().sum(dim=1) > 0).all()
    assert not torch.equal(of_kinds[0], of_kinds[1])


@pytest.mark.parametrize(
    "options",
    [{}, {"tied_head": False}, {"position": "sinusoidal", "position_options": {"scaling": "noscale"}},
     {"recurrence": "rmt", "recurrence_options": {"segment": 8, "memory": 2}}],
)  # fmt: skip
def test_no_other_weight_begins_elsewhere(options: dict[str, Any]) -> None:
    shape: dict[str, Any] = {"n_layers": 1, "n_heads": 2, "d_model": 16, "max_positions": 64, **options}
    kind = TransformerConfig(**shape, vocab_size=300).built_recurrence.kind()
    plain = kind(TransformerConfig(**shape, vocab_size=300), seed=3)
    kinds = kind(TransformerConfig(**shape, vocab_size=302, kinds_from=300), seed=3)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, kinds.state_dict()[name][: len(weight)] if weight.ndim else kinds.state_dict()[name])
    own = kinds.embedding.weight[300:]
    assert not torch.equal(own[0], own[1])
    assert own.std() > 0


def test_a_task_has_kinds_too_and_conditions_move_them(make_model: Any) -> None:
    data = TaskDataModule("list_recall", meta_kinds=2, meta_placement="every", train_examples=64, batch_size=8,
                          validation_examples=8)  # fmt: skip
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    ids = torch.tensor(data.tokenizer.meta_ids)
    assert torch.equal(batch.meta_mask_BT, torch.isin(batch.tokens_BT, ids))
    for row_T, mask_T in zip(batch.tokens_BT, batch.meta_mask_BT, strict=True):
        assert row_T[mask_T].tolist() == [int(ids[i % 2]) for i in range(int(mask_T.sum()))]
    with pytest.raises(UserError, match=r"^data\.meta_kinds=3: expected up to 2, the meta-tokens of a prompt$"):
        TaskDataModule("list_recall", meta_kinds=3, train_examples=64, validation_examples=8).setup("fit")
    with pytest.raises(UserError, match=r"^data\.meta_kinds=2: expected 1, as a prompt has no meta-tokens$"):
        TaskDataModule(
            "list_recall", meta_kinds=2, meta_placement="none", train_examples=64, validation_examples=8
        ).setup("fit")


def test_long_text_and_harnesses_put_kinds_in_by_the_same_rule(make_data: Any) -> None:
    data = make_data(meta_kinds=3, **KSA)
    tokenizer = data.tokenizer
    source = torch.tensor([tokenizer.encode("the cat sat on the mat where birds sing all day; " * 3)[:16]])
    batch = batch_of(source, tokenizer, data.rule, 0, 0)
    marks = batch.tokens_BT[batch.meta_mask_BT].tolist()
    assert marks == [*tokenizer.meta_ids] * 2
    model = MetaTransformer(TransformerConfig(n_layers=1, n_heads=2, d_model=16, **ROWS), seed=1)
    live = LiveModel(model, tokenizer, rule=data.rule)
    row = live._with_extra(source[0].tolist(), data.rule)
    assert row == batch.tokens_BT[0].tolist()
    assert live._with_extra(row, data.rule) == row
    assert torch.isfinite(live._hidden([row])).all()
