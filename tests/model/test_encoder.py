"""The pattern `bidirectional`: a token sees all of its document, and what counts on earlier tokens alone refuses it."""

from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache
from tests.model.helpers import batch, tiny


@pytest.mark.parametrize("mechanism", ["none", "matched", "own_qkv", "omninet"])
@pytest.mark.parametrize("documents", [False, True])
def test_an_encoder_depends_on_all_of_its_own_document(mechanism: str, documents: bool) -> None:
    model = tiny(mechanism=mechanism, pattern="bidirectional")
    (tokens_BT, extra_BT), embedded = batch(), list[torch.Tensor]()
    ids_BT = (torch.arange(21) // 7).expand(3, -1) if documents else None
    model.dropout.register_forward_hook(lambda _, __, out: embedded.append(out))
    out = model(tokens_BT, extra_BT, None, ids_BT)
    for t in (0, 10, 20):
        (gradient,) = torch.autograd.grad(out[:, t].square().sum(), embedded, retain_graph=True)
        own_T = torch.arange(21) // 7 == t // 7 if documents else torch.ones(21, dtype=torch.bool)
        assert torch.equal(gradient.any(dim=-1), own_T.expand(3, -1))


@torch.no_grad()
def test_every_backend_that_takes_masks_computes_an_encoder() -> None:
    options: dict[str, Any] = {"pattern": "bidirectional", "mechanism": "none"}
    outs = [tiny(**options, attention_backend=name)(*batch()) for name in ("auto", "reference", "sdpa", "blocked")]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_encoder_keeps_nothing_and_predicts_no_next_token() -> None:
    model, (tokens_BT, extra_BT) = tiny(pattern="bidirectional", mechanism="none"), batch()
    with pytest.raises(UserError, match=r"'bidirectional' cannot generate.*: what a token sees comes later, too; exp"):
        model(tokens_BT, extra_BT, cache=KVCache(2))
    with pytest.raises(UserError, match=r"model.pattern='bidirectional' cannot predict the next token: a token sees"):
        model.config.check_causal()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "model.mechanism='meta' cannot see later tokens: meta-attention is causal among meta-tokens; expected"),
        ({"mechanism": "landmark"}, "model.mechanism='landmark' cannot see later tokens"),
        ({"mechanism": "unfold"}, "model.mechanism='unfold' cannot see later tokens"),
        ({"mechanism": "none", "position": "alibi"}, "model.position='alibi': expected one that does not transform"),
        ({"mechanism": "none", "position": "xpos"}, "model.position='xpos' cannot see later tokens: its scores grow"),
    ],
    ids=str,
)
def test_what_sees_earlier_tokens_alone_has_no_encoder_form(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(pattern="bidirectional", **change)
    assert str(caught.value).startswith(expected)
