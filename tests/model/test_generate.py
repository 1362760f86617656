"""Generation: the cache changes nothing, and sampling keeps to its options."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, generate, positions
from tests.model.helpers import VOCABULARY, batch, tiny
from tests.model.test_transformer import ARMS, DistanceBias


@pytest.mark.parametrize("arm", [*ARMS, {"drop_positions": "both"}], ids=str)
@given(cuts=st.sets(st.integers(1, 20)), fraction=st.sampled_from([0.0, 0.3, 1.0]))
@settings(deadline=None, max_examples=8)
@torch.no_grad()
def test_any_chunking_equals_the_full_pass(arm: dict[str, Any], cuts: set[int], fraction: float) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm), batch(fraction=fraction)
    meta_mask_BT[0] = False
    cache, borders = KVCache(model.config.n_layers), [0, *sorted(cuts), 21]
    pieces = [model(tokens_BT[:, a:b], meta_mask_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)]
    assert cache.length == 21
    full = model(tokens_BT, meta_mask_BT)
    # Float32 sums in another order, at logits of size 1 to 10; the fill of -1e4 rounds scores to 1e-3.
    atol = 1e-5 if "fill" not in arm.get("mechanism_options", {}) else 5e-3
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, atol=atol, rtol=1e-5)


@torch.no_grad()
def test_token_by_token_equals_the_full_pass_where_scores_are_transformed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(positions.FAMILIES, "distance", DistanceBias)
    model, (tokens_BT, meta_mask_BT) = tiny(position="distance"), batch()
    for drop in ("none", "both"):
        cache = KVCache(model.config.n_layers)
        steps = [
            model(tokens_BT[:, t : t + 1], meta_mask_BT[:, t : t + 1], cache=cache, drop_positions=drop)
            for t in range(21)
        ]
        full = model(tokens_BT, meta_mask_BT, drop_positions=drop)
        torch.testing.assert_close(torch.cat(steps, dim=1), full, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_cache_keeps_meta_keys_apart_and_only_those() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(), batch()
    cache = KVCache(2)
    model(tokens_BT, meta_mask_BT, cache=cache)
    self_keys, meta_keys = cache.layers[0]["self_attention"].k, cache.layers[0]["meta_attention"].k
    assert self_keys is not None
    assert meta_keys is not None
    assert self_keys.shape == (3, 2, 21, 8)
    counts = meta_mask_BT.sum(-1)
    assert meta_keys.shape == (3, 2, int(counts.max()), 8)
    assert [int(k.any(-1)[0].sum()) for k in meta_keys] == counts.tolist()


@pytest.mark.parametrize("arm", ARMS, ids=str)
@torch.no_grad()
def test_greedy_generation_is_the_argmax_of_full_passes(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm), batch()
    out = generate(model, tokens_BT, meta_mask_BT, max_new_tokens=6, temperature=0)
    grown, mask = tokens_BT, meta_mask_BT
    for _ in range(6):
        grown = torch.cat((grown, model(grown, mask)[:, -1:].argmax(-1)), dim=1)
        mask = torch.nn.functional.pad(mask, (0, 1))
    assert torch.equal(out, grown)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    model, (tokens_BT, _) = tiny(), batch()
    first, second, other = (generate(model, tokens_BT, max_new_tokens=12, seed=s) for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_forbidden_ids_never_appear_and_the_mode_is_left_alone() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(dropout=0.5).train(), batch()
    forbidden = [i for i in range(VOCABULARY) if i % 3]
    for temperature in (0.0, 5.0):
        out = generate(
            model,
            tokens_BT,
            meta_mask_BT,
            max_new_tokens=20,
            temperature=temperature,
            forbidden_ids=forbidden,
        )
        assert out.shape == (3, 41)
        assert not (out[:, 21:] % 3).any()
    assert model.training


@torch.no_grad()
def test_top_k_and_top_p_keep_the_likeliest_tokens_only() -> None:
    model, (tokens_BT, _) = tiny(), batch(n=1)
    tokens_BT = tokens_BT.expand(200, -1)
    probabilities = (model(tokens_BT[:1])[0, -1] / 3).softmax(-1)
    ranked = probabilities.argsort(descending=True)
    likely = generate(model, tokens_BT, max_new_tokens=1, temperature=3, top_k=4, seed=0)[:, -1]
    assert set(likely.tolist()) == set(ranked[:4].tolist())
    needed = int((probabilities[ranked].cumsum(0) < 0.5).sum()) + 1
    nucleus = generate(model, tokens_BT, max_new_tokens=1, temperature=3, top_p=0.5, seed=0)[:, -1]
    assert 1 < needed < VOCABULARY
    assert set(nucleus.tolist()) <= set(ranked[:needed].tolist())
    assert len(set(nucleus.tolist())) > 1
    first = generate(model, tokens_BT, max_new_tokens=1, top_p=1e-6, seed=0)[:, -1]
    assert set(first.tolist()) == {int(ranked[0])}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-45, 1e-38, 1e-30, 1e-8])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 3, "top_p": 0.9}], ids=str)
@torch.no_grad()
def test_a_temperature_near_zero_takes_the_likeliest_token(temperature: float, options: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(), batch()
    forbidden = [0, 7, 30]
    greedy, cold = (
        generate(
            model, tokens_BT, meta_mask_BT, max_new_tokens=6, temperature=t, seed=0, forbidden_ids=forbidden, **options
        )
        for t in (0.0, temperature)
    )
    assert torch.equal(cold, greedy)


@pytest.mark.parametrize("temperature", [1e30, 3.5e38, 1e39, 1.7e308, float("inf")])
def test_a_temperature_near_infinity_takes_any_token_that_is_not_forbidden(temperature: float) -> None:
    model, (tokens_BT, _) = tiny(), batch(n=1)
    allowed = {3, 4, 11}
    out = generate(
        model,
        tokens_BT.expand(100, -1),
        max_new_tokens=1,
        temperature=temperature,
        seed=0,
        forbidden_ids=sorted({*range(VOCABULARY)} - allowed),
    )
    assert set(out[:, -1].tolist()) == allowed


def test_a_stopped_sample_is_filled_with_the_stop_id() -> None:
    model, (tokens_BT, _) = tiny(), batch(n=8)
    free = generate(model, tokens_BT, max_new_tokens=30, temperature=0)[:, 21:]
    stop = int(free[0, 3])
    out = generate(model, tokens_BT, max_new_tokens=30, temperature=0, stop_id=stop)[:, 21:]
    assert out.shape == free.shape
    for stopped, unstopped in zip(out.tolist(), free.tolist(), strict=True):
        n = unstopped.index(stop) + 1 if stop in unstopped else 30
        assert stopped == unstopped[:n] + [stop] * (30 - n)


def test_a_table_too_short_is_refused_before_the_first_token() -> None:
    model, (tokens_BT, _) = tiny(position="learned", max_positions=24), batch()
    assert generate(model, tokens_BT, max_new_tokens=4, temperature=0).shape == (3, 25)
    with pytest.raises(UserError, match=r"T=25 is larger than model\.max_positions=24"):
        generate(model, tokens_BT, max_new_tokens=5, temperature=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected at least 1"),
        ({"temperature": -1.0}, "temperature=-1.0: expected 0"),
        ({"top_k": 0}, "top_k=0: expected at least 1"),
        ({"top_p": 0.0}, "top_p=0.0: expected a number in"),
    ],
)
def test_an_option_out_of_range_is_named(option: dict[str, Any], message: str) -> None:
    model, (tokens_BT, _) = tiny(), batch()
    with pytest.raises(UserError, match=message):
        generate(model, tokens_BT, **{"max_new_tokens": 1, **option})
