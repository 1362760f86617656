"""Weights by columns: the same model, the same text, and everything as it was afterwards."""

import copy

import pytest
import torch

from lightning_metatok.model import MetaTransformer, TransformerConfig, layout
from lightning_metatok.model.generate import generate

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 40, "max_positions": 256}


@pytest.mark.parametrize("tied_head", [True, False])
def test_it_is_the_same_model_and_is_left_as_it_was(tied_head: bool) -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE, tied_head=tied_head), seed=1).eval()
    before = copy.deepcopy(model.state_dict())
    parameters = dict(model.named_parameters())
    tokens_BT = torch.randint(40, (1, 9))
    with torch.no_grad():
        expected = model(tokens_BT)
        with layout.by_columns(model):
            assert not model.blocks[0].attention.projections.qkv.weight.is_contiguous()
            assert not model.head_weight.is_contiguous()
            torch.testing.assert_close(model(tokens_BT), expected)
        assert torch.equal(model(tokens_BT), expected)
    assert all(parameters[name] is weight for name, weight in model.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.is_contiguous() for weight in model.parameters())


def test_what_fails_in_there_leaves_it_as_it_was_too() -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE), seed=1)
    with pytest.raises(ZeroDivisionError), layout.by_columns(model):
        _ = 1 / 0
    assert all(weight.is_contiguous() for weight in model.parameters())


def test_long_texts_are_written_so_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE), seed=1)
    tokens_BT, used = torch.randint(40, (1, 9)), []
    by_columns = layout.by_columns
    monkeypatch.setattr(layout, "by_columns", lambda model: used.append(1) or by_columns(model))
    long = generate(model, tokens_BT, max_new_tokens=layout.PAYS_FROM, temperature=0)
    assert used == [1]
    short = generate(model, tokens_BT, max_new_tokens=8, temperature=0)
    assert used == [1]
    assert torch.equal(long[:, :17], short)
    assert not layout.pays(model, rows=4, new=1000)
