"""Which position an extra token has: the map of ids, and what the model makes of it, at once and step by step."""

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, TransformerConfig
from lightning_metatok.model.extra_position import places_of

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 30, "max_positions": 64}
CHOICES = ("own", "last", "next")


def naive(choice: str, extra_T: list[bool], documents_T: list[int]) -> list[int]:
    """Token by token: text counts itself; an extra token takes what its neighbour has."""
    ids: list[int] = []
    for t, extra in enumerate(extra_T):
        before = [s for s in range(t) if documents_T[s] == documents_T[t]]
        text = sum(not extra_T[s] for s in before)
        own = {"own": len(before), "last": max(text - 1, 0), "next": text}[choice]
        ids.append(own if extra or choice == "own" else text)
    return ids


@pytest.mark.parametrize("choice", CHOICES)
def test_ids_are_those_of_a_count_token_by_token(choice: str) -> None:
    torch.manual_seed(0)
    extra_BT = torch.rand(20, 30) < 0.3
    documents_BT = (torch.rand(20, 30) < 0.1).cumsum(dim=1)
    rows = list(zip(extra_BT, documents_BT, strict=True))
    counted_BT = torch.tensor([naive("own", e.tolist(), d.tolist()) for e, d in rows])
    expected_BT = torch.tensor([naive(choice, e.tolist(), d.tolist()) for e, d in rows])
    assert torch.equal(places_of(choice, counted_BT, extra_BT, documents_BT), expected_BT)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("position", ["rotary", "alibi", "learned"])
@pytest.mark.parametrize("mechanism", ["none", "meta"])
def test_step_by_step_equals_the_full_pass(choice: str, position: str, mechanism: str) -> None:
    torch.manual_seed(1)
    config = TransformerConfig(**SHAPE, position=position, mechanism=mechanism, extra_position=choice)
    model = MetaTransformer(config, seed=3).double().eval()
    tokens_BT, extra_BT = torch.randint(30, (3, 24)), torch.rand(3, 24) < 0.3
    whole = model(tokens_BT, extra_BT)
    cache, parts = KVCache(2), []
    for first, end in ((0, 7), *((t, t + 1) for t in range(7, 24))):
        parts.append(model(tokens_BT[:, first:end], extra_BT[:, first:end], cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("choice", ["last", "next"])
@pytest.mark.parametrize("position", ["rotary", "learned", "alibi", "t5"])
def test_text_reads_text_as_if_there_were_no_extra_tokens(choice: str, position: str) -> None:
    """Extra tokens that nobody sees leave text as it is; with positions of their own they push it apart."""
    torch.manual_seed(2)
    own = TransformerConfig(**SHAPE, position=position, mechanism="none")
    counted = TransformerConfig(**SHAPE, position=position, mechanism="none", extra_position=choice)
    text_1S = torch.randint(29, (1, 12))
    extra_1T = torch.zeros(1, 16, dtype=torch.bool)
    extra_1T[0, [3, 4, 9, 12]] = True
    tokens_1T = torch.full((1, 16), 29).masked_scatter(~extra_1T, text_1S)
    alone = MetaTransformer(own, seed=3).double().eval()(text_1S)
    # Each extra token is a document of its own: it is counted by position, and not seen.
    for config, alike in ((counted, True), (own, False)):
        model = MetaTransformer(config, seed=3).double().eval()
        mapped_1T = places_of(config.extra_position, torch.arange(16)[None], extra_1T)
        read = MetaTransformer(own, seed=3).double().eval()
        read.load_state_dict(model.state_dict())
        hidden = read(tokens_1T, None, mapped_1T, torch.where(extra_1T, torch.arange(16) + 1, 0))
        assert torch.allclose(hidden[~extra_1T], alone[0]) == alike


def test_it_matters() -> None:
    torch.manual_seed(3)
    tokens_BT, extra_BT = torch.randint(30, (2, 20)), torch.rand(2, 20) < 0.3
    read = {
        choice: MetaTransformer(TransformerConfig(**SHAPE, extra_position=choice), seed=3).eval()(tokens_BT, extra_BT)
        for choice in CHOICES
    }
    assert not torch.allclose(read["own"], read["last"])
    assert not torch.allclose(read["next"], read["last"])


def test_a_choice_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match=r"model.extra_position='lst': expected one of own, last, next.*last"):
        TransformerConfig(**SHAPE, extra_position="lst")


def test_ids_of_a_task_are_not_counted_again() -> None:
    with pytest.raises(UserError, match=r"model.extra_position='last': expected 'own' with model.position='coupled'"):
        TransformerConfig(**SHAPE, position="coupled", extra_position="last")
