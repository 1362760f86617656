"""Interventions: one that changes nothing changes nothing, masks do what taking tokens away does, and on models whose
answer takes one known path each of them finds that path."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.interventions import Intervention, Patch, intervened
from lightning_metatok.model.recording import recorded
from tests.model.handmade import Kind, hand_made, tokenizer
from tests.model.test_recording import ARMS, META, SELF, make, prompts


def everything(tokens_BT: Tensor) -> Tensor:
    return torch.ones(*tokens_BT.shape, tokens_BT.shape[1], dtype=torch.bool)


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_what_changes_nothing_gives_the_same_bits_and_leaves_no_hook(arm: str) -> None:
    model, batch = make(**ARMS[arm]), prompts()
    with recorded(model, attention=False) as recording:
        before = model(*batch)
    states = [layer.before_BTD for layer in recording.layers]
    for nothing in (
        Intervention(),
        Intervention(allowed_BTT=everything(batch[0])),
        Intervention(allowed_BTT=everything(batch[0]).tril()),
        Intervention({i: Patch(torch.ones_like(batch[1]), x) for i, x in enumerate(states)}),
        Intervention({0: Patch(torch.zeros_like(batch[1]), torch.zeros_like(states[0]))}),
    ):
        with intervened(model, nothing):
            assert torch.equal(model(*batch), before)
    assert torch.equal(model(*batch), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "finite fill"])
@pytest.mark.parametrize("where", [3, 4], ids=["source token", "meta-token"])
@torch.no_grad()
def test_a_token_that_nobody_may_see_might_as_well_not_be_there(arm: str, where: int) -> None:
    """float32, sums over other numbers of keys: 1e-4."""
    model, (tokens_BT, meta_mask_BT) = make(**ARMS[arm]), prompts()
    ids_1T = torch.arange(tokens_BT.shape[1])[None]
    allowed_BTT = everything(tokens_BT)
    allowed_BTT[:, :, where] = False
    with intervened(model, Intervention(allowed_BTT=allowed_BTT)):
        blocked = model(tokens_BT, meta_mask_BT, ids_1T)
    kept = torch.arange(tokens_BT.shape[1]) != where
    shorter = model(tokens_BT[:, kept], meta_mask_BT[:, kept], ids_1T[:, kept])
    if model.positions.transforms_scores:  # ALiBi reads distances off the ids, too
        assert shorter.isfinite().all()
    torch.testing.assert_close(blocked[:, kept], shorter, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arm", ["meta", "matched", "finite fill", "scores transformed"])
@torch.no_grad()
def test_blocked_pairs_have_no_weight_and_the_others_share_it(arm: str) -> None:
    model, batch = make(**ARMS[arm]), prompts()
    torch.manual_seed(1)
    allowed_BTT = torch.rand(everything(batch[0]).shape) < 0.5
    seen_BTT = allowed_BTT | torch.eye(allowed_BTT.shape[1], dtype=torch.bool)
    with recorded(model) as plain:
        model(*batch)
    with intervened(model, Intervention(allowed_BTT=allowed_BTT, layers=[0])), recorded(model) as masked:
        model(*batch)
    before, after = plain.layers[0], masked.layers[0]
    for naive, found in (
        (before[SELF].scores_BNTT, after[SELF].probs_BNTT),
        (before[META].scores_BNTT, after[META].probs_BNTT),
    ):
        exp_BNTT = (naive - naive.amax(dim=-1, keepdim=True).clamp(min=-1e4)).exp() * seen_BTT.unsqueeze(1)
        total = exp_BNTT.sum(dim=-1, keepdim=True)
        if naive is before[SELF].scores_BNTT:  # the stream that enters layer 0 is the same; behind it no more
            torch.testing.assert_close(found, exp_BNTT / total.clamp(min=1e-30))
        assert not found[~seen_BTT.unsqueeze(1).expand_as(found)].any()
    assert not torch.equal(before.after_BTD, after.after_BTD)


@torch.no_grad()
def test_layers_and_attentions_can_be_blocked_apart() -> None:
    model, batch = make(), prompts()
    nothing = torch.zeros_like(everything(batch[0]))
    outputs = [model(*batch)]
    for where in ("both", "self_attention", "meta_attention"):
        for layers in (None, [0], [1]):
            with intervened(model, Intervention(allowed_BTT=nothing, where=where, layers=layers)):
                outputs.append(model(*batch))
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("arm", ["meta", "meta in one layer", "matched", "shared layers"])
@torch.no_grad()
def test_a_silent_second_attention_adds_nothing(arm: str) -> None:
    model, batch = make(**ARMS[arm]), prompts()
    with intervened(model, Intervention(silent=[1])), recorded(model) as recording:
        model(*batch)
    assert not recording.layers[1][META].update_BTD.any()
    if arm != "meta in one layer":
        assert recording.layers[0][META].update_BTD.any()


# -- models with one known path: L0 M a4 M ? L0 1


def prompt(item: int) -> tuple[Tensor, Tensor]:
    words = tokenizer()
    tokens_BT = torch.tensor([words.encode(f"L0 <|meta|> a{item} <|meta|> ? L0 1")])
    return tokens_BT, tokens_BT == words.meta_id


def answer(model: MetaTransformer, item: int) -> str:
    return tokenizer().decode([int(model(*prompt(item))[0, -1].argmax())]).strip()


LAST, OPEN, LIST, CLOSE = 6, 1, 2, 3
PATHS: dict[Kind, dict[tuple[int, int], bool]] = {
    # (query, key): whether the answer is lost without it
    "cache": {(LAST, CLOSE): True, (CLOSE, LIST): True, (LAST, LIST): False, (LAST, OPEN): False},
    "pointer": {(LAST, CLOSE): False, (CLOSE, LIST): False, (LAST, LIST): True, (LAST, OPEN): False},
    "through": {(LAST, CLOSE): False, (CLOSE, LIST): False, (LAST, LIST): True, (LAST, OPEN): False},
}


@pytest.mark.parametrize("kind", PATHS)
@torch.no_grad()
def test_path_blocking_finds_the_path(kind: Kind) -> None:
    model = hand_made(kind)
    assert [answer(model, item) for item in range(8)] == [f"a{item}" for item in range(8)]
    for (query, key), lost in PATHS[kind].items():
        allowed_BTT = torch.ones(1, 7, 7, dtype=torch.bool)
        allowed_BTT[0, query, key] = False
        with intervened(model, Intervention(allowed_BTT=allowed_BTT)):
            right = [answer(model, item) == f"a{item}" for item in range(8)]
        assert right.count(True) <= 1 if lost else all(right), (query, key)


@pytest.mark.parametrize(
    ("kind", "place", "layer", "follows"),
    [
        ("cache", CLOSE, 0, False),  # it has read nothing yet
        ("cache", CLOSE, 1, True),
        ("cache", LIST, 0, True),
        ("cache", LIST, 1, False),  # it was read already
        ("pointer", CLOSE, 1, False),
        ("pointer", LIST, 0, True),
        ("pointer", LIST, 1, True),
        ("through", CLOSE, 1, False),
        ("through", LIST, 0, True),
        ("through", LIST, 1, False),
        ("through", LAST, 1, True),
    ],
)
@torch.no_grad()
def test_patching_finds_what_holds_the_answer(kind: Kind, place: int, layer: int, follows: bool) -> None:
    model = hand_made(kind)
    with recorded(model, attention=False) as donor:
        model(*prompt(5))
    rows_BT = torch.zeros(1, 7, dtype=torch.bool)
    rows_BT[0, place] = True
    with intervened(model, Intervention({layer: Patch(rows_BT, donor.layers[layer].before_BTD)})):
        assert answer(model, 2) == ("a5" if follows else "a2")


@torch.no_grad()
def test_where_and_layers_say_which_step_of_the_path_is_cut() -> None:
    model = hand_made("cache")

    def right(**options: Any) -> bool:
        allowed_BTT = torch.ones(1, 7, 7, dtype=torch.bool)
        allowed_BTT[0, :, LIST] = allowed_BTT[0, LAST, CLOSE] = False
        with intervened(model, Intervention(allowed_BTT=allowed_BTT, **options)):
            return answer(model, 3) == "a3"

    assert not right()
    assert not right(layers=[0])
    assert not right(layers=[1])
    assert right(where="meta_attention")
