"""Interventions: one that changes nothing changes nothing, masks do what taking tokens away does, and on models whose
answer takes one known path each of them finds that path."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.branch import Place
from lightning_metatok.model.interventions import Intervention, Patch, intervened
from lightning_metatok.model.recording import Recording, recorded
from tests.model.handmade import Kind, hand_made, tokenizer
from tests.model.test_recording import ARMS, META, SELF, make, prompts, updated


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


# -- patches, at every place of a layer


def places_of(model: MetaTransformer, layer: int) -> list[Place]:
    branches = model.blocks[layer % len(model.blocks)].branches
    return [Place(), *(Place(b.name) for b in branches), *(Place(b.name, values=True) for b in branches if b.remembers)]


def donor_and_receiver(model: MetaTransformer) -> tuple[tuple[Tensor, Tensor], Recording, Tensor]:
    """The receiver's batch; the recording and the outputs of a donor with other tokens at the same places."""
    tokens_BT, meta_mask_BT = prompts()
    with recorded(model) as recording:
        out = model(torch.where(meta_mask_BT, tokens_BT, (tokens_BT + 7) % 30), meta_mask_BT)
    return (tokens_BT, meta_mask_BT), recording, out


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_own_states_at_any_place_change_no_bit(arm: str) -> None:
    model, batch = make(**ARMS[arm]), prompts()
    with recorded(model, attention=False) as recording:
        before = model(*batch)
    for layer in (0, 1):
        for place in places_of(model, layer):
            states_BTD = recording.layers[layer].at(place)
            assert states_BTD is not None
            with intervened(model, Intervention({layer: Patch(torch.ones_like(batch[1]), states_BTD, place)})):
                assert torch.equal(model(*batch), before), place
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_the_whole_stream_of_a_donor_gives_its_outputs(arm: str) -> None:
    """Nothing goes past the stream, wherever it is patched; some rows of it give neither one's."""
    model = make(**ARMS[arm])
    batch, donor, expected = donor_and_receiver(model)
    own = model(*batch)
    assert not torch.equal(own, expected)
    some_BT = torch.zeros_like(batch[1])
    some_BT[:, 2:5] = True
    for layer in (0, 1):
        for place in (place for place in places_of(model, layer) if not place.values):
            states_BTD = donor.layers[layer].at(place)
            assert states_BTD is not None
            with intervened(model, Intervention({layer: Patch(torch.ones_like(some_BT), states_BTD, place)})):
                assert torch.equal(model(*batch), expected), place
            patch = Patch(some_BT, states_BTD, place)
            with intervened(model, Intervention({layer: patch})), recorded(model, attention=False) as recording:
                out = model(*batch)
            assert not torch.equal(out, own)
            assert not torch.equal(out, expected)
            found = recording.layers[layer].at(place)
            if place != Place():  # what enters is recorded by a hook that was there before
                assert found is not None
                assert torch.equal(found[some_BT], states_BTD[some_BT]), "what is patched is recorded as patched"


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "plain"])
@pytest.mark.parametrize("name", [SELF, META])
@torch.no_grad()
def test_values_of_one_attention_are_patched_and_nothing_else(arm: str, name: str) -> None:
    """Weights may be lent: those of the other attention stay. float32, sums in another order: 1e-4."""
    model = make(**ARMS[arm])
    batch, donor, _ = donor_and_receiver(model)
    with recorded(model) as own:
        model(*batch)
    values_BTD = donor.layers[1].at(Place(name, values=True))
    assert values_BTD is not None
    rows_BT = torch.zeros_like(batch[1])
    rows_BT[:, 1:5] = True
    patch = Patch(rows_BT, values_BTD, Place(name, values=True))
    with intervened(model, Intervention({1: patch})), recorded(model) as changed:
        model(*batch)
    mixed_BTD = torch.where(rows_BT.unsqueeze(-1), values_BTD, own.layers[1][name].values_BTD)
    found = changed.layers[1][name]
    assert torch.equal(found.values_BTD, mixed_BTD)
    assert torch.equal(found.scores_BNTT, own.layers[1][name].scores_BNTT)
    block = model.blocks[1 % len(model.blocks)]
    out = getattr(block, "attention" if name == SELF else "meta_attention").weights.out
    seen_BT1 = (found.probs_BNTT.sum(dim=(1, 3)) > 0).unsqueeze(-1)
    torch.testing.assert_close(
        updated(found.probs_BNTT, mixed_BTD, out) * seen_BT1, found.update_BTD, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(changed.layers[0].after_BTD, own.layers[0].after_BTD)
    if name == META:
        assert torch.equal(changed.layers[1][SELF].update_BTD, own.layers[1][SELF].update_BTD)


@torch.no_grad()
def test_behind_a_branch_without_work_the_stream_is_that_before_it() -> None:
    model, (tokens_BT, meta_mask_BT) = make(), prompts()
    with recorded(model, attention=False) as recording:
        model(tokens_BT)
    layer = recording.layers[0]
    assert META not in layer.branches
    assert torch.equal(layer.at(Place(META)), layer.at(Place(SELF)))
    assert layer.at(Place(META, values=True)) is None
    with intervened(model, Intervention({0: Patch(torch.ones_like(meta_mask_BT), layer.before_BTD * 2, Place(META))})):
        assert not torch.equal(model(tokens_BT), model.logits(recording.hidden_BTD))


# -- masks


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
