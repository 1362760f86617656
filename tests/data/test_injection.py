"""Meta-tokens go where the rule says, exactly M of them, and depend on (seed, index) alone."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from lightning_metatok.data.injection import InjectionRule, floor_of_fraction, inject, remove_meta
from lightning_metatok.data.placement import Placement, Sources, build
from lightning_metatok.errors import UserError

META = 1
PLACEMENTS = ("random", "periodic", "punctuation")


def source(B: int, S: int) -> Tensor:
    """Rows of ids from 2 on, all different within a row."""
    return torch.arange(2, 2 + S).repeat(B, 1) + torch.arange(B)[:, None]


def after_ids(placement: str, ids: range = range(2, 400, 7)) -> list[int]:
    return list(ids) if placement == "punctuation" else []


@given(
    B=st.integers(1, 5),
    T=st.integers(1, 80),
    fraction=st.floats(0, 0.5),
    placement=st.sampled_from(PLACEMENTS),
    seed=st.integers(0, 2**64 - 1),
    index=st.integers(0, 2**40),
)
def test_removing_what_was_injected_gives_back_the_source_prefix(
    B: int, T: int, fraction: float, placement: str, seed: int, index: int
) -> None:
    tokens_BS = source(B, T)
    M = floor_of_fraction(fraction, T)
    for crop_to, kept in ((T, T - M), (None, T)):
        injected = inject(
            tokens_BS,
            fraction=fraction,
            placement=placement,
            meta_id=META,
            seed=seed,
            index=index,
            crop_to=crop_to,
            after_ids=after_ids(placement),
        )
        assert injected.tokens_BT.shape == (B, kept + M)
        assert (injected.meta_mask_BT.sum(dim=1) == M).all()
        assert torch.equal(injected.meta_mask_BT, injected.tokens_BT == META)
        assert torch.equal(remove_meta(injected.tokens_BT, injected.meta_mask_BT), tokens_BS[:, :kept])


@pytest.mark.parametrize(
    ("fraction", "length", "expected"),
    [(0.1, 1024, 102), (0.3, 10, 3), (0.29, 100, 29), (0.1, 1000, 100), (1e-05, 100_000, 1), (0.0, 64, 0)],
)
def test_the_floor_is_that_of_the_decimal_fraction(fraction: float, length: int, expected: int) -> None:
    assert floor_of_fraction(fraction, length) == expected


@given(st.permutations(list(range(12))), st.sampled_from(PLACEMENTS), st.integers(0, 1000))
def test_a_row_does_not_depend_on_the_other_rows_of_its_batch(order: list[int], placement: str, seed: int) -> None:
    options = {"fraction": 0.2, "placement": placement, "meta_id": META, "seed": seed, "crop_to": 30}
    options["after_ids"] = after_ids(placement)
    tokens_BS = source(12, 30)
    together = inject(tokens_BS, index=torch.arange(100, 112), **options).tokens_BT
    part = order[:5]
    apart = inject(tokens_BS[part], index=np.array(part) + 100, **options).tokens_BT
    assert torch.equal(apart, together[part])
    alone = inject(tokens_BS[3:4], index=103, **options).tokens_BT
    assert torch.equal(alone, together[3:4])


def test_seed_and_index_both_change_the_slots() -> None:
    def slots(seed: int, index: int) -> Tensor:
        return inject(source(1, 64), count=6, meta_id=META, seed=seed, index=index, crop_to=64).meta_mask_BT

    assert torch.equal(slots(0, 0), slots(0, 0))
    assert not torch.equal(slots(0, 0), slots(0, 1))
    assert not torch.equal(slots(0, 0), slots(1, 0))
    assert not torch.equal(slots(0, 1), slots(1, 0))


def test_random_slots_are_uniform_alone_and_in_pairs() -> None:
    # One fixed seed, so the outcome is fixed too; p-values below 1e-3 would be chance in 1 of 1,000 seeds.
    n, T, M = 20_000, 20, 2
    injected = inject(source(n, T), count=M, meta_id=META, seed=7, index=0, crop_to=T)
    slots = injected.meta_mask_BT.nonzero()[:, 1].view(n, M).numpy()
    assert chisquare(np.bincount(slots.reshape(-1), minlength=T)).pvalue > 1e-3
    pairs = np.bincount(slots[:, 0] * T + slots[:, 1])
    pairs = pairs[pairs > 0]
    assert len(pairs) == T * (T - 1) // 2
    assert chisquare(pairs).pvalue > 1e-3
    # Neighbouring samples are independent: where one has its first slot says nothing about the next one.
    successive = np.histogram2d(slots[:-1, 0], slots[1:, 0], bins=(3, 3))[0]
    expected = successive.sum(1, keepdims=True) * successive.sum(0, keepdims=True) / successive.sum()
    assert chisquare(successive.reshape(-1), expected.reshape(-1), ddof=4).pvalue > 1e-3


@given(st.integers(1, 40), st.integers(0, 40))
def test_periodic_slots_lie_evenly(M: int, extra: int) -> None:
    T = M + extra
    mask_BT = inject(source(1, T), count=M, placement="periodic", meta_id=META, seed=0, index=0, crop_to=T).meta_mask_BT
    gaps = mask_BT[0].nonzero()[:, 0].diff()
    assert ((gaps == T // M) | (gaps == -(-T // M))).all()


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_punctuation_comes_first_and_the_rest_is_drawn_elsewhere(seed: int, M: int) -> None:
    tokens_BS = source(1, 40)
    stops = [4, 11, 12, 20]
    injected = inject(
        tokens_BS,
        count=M,
        placement="punctuation",
        meta_id=META,
        seed=seed,
        index=0,
        crop_to=None,
        after_ids=stops,
    )
    before = injected.tokens_BT[0, injected.meta_mask_BT[0].nonzero()[:, 0] - 1].tolist()
    assert META not in before
    assert len(set(before)) == M
    assert len(set(before) & set(stops)) == min(M, len(stops))


def test_each_punctuation_is_equally_likely() -> None:
    n, stops = 6000, [4, 11, 12, 20, 33, 41]
    tokens_BS = torch.arange(2, 44).repeat(n, 1)
    injected = inject(tokens_BS, count=2, placement="punctuation", meta_id=META, seed=3, index=0, after_ids=stops)
    before = injected.tokens_BT.roll(1, dims=1)[injected.meta_mask_BT].numpy()
    assert chisquare([int((before == stop).sum()) for stop in stops]).pvalue > 1e-3


def test_fixed_positions_are_slots_of_the_result() -> None:
    fixed = build("fixed", {"slots": [0, 5, 7]})
    injected = inject(source(2, 8), placement=fixed, meta_id=META, seed=0, index=0, crop_to=8)
    assert injected.tokens_BT[0].tolist() == [META, 2, 3, 4, 5, META, 6, META]


def test_a_source_with_meta_tokens_is_refused() -> None:
    with pytest.raises(AssertionError, match="already contains"):
        inject(torch.tensor([[2, META, 3]]), count=1, meta_id=META, seed=0, index=0)


def test_a_source_too_short_to_fill_the_block_is_refused() -> None:
    with pytest.raises(AssertionError, match="cannot fill"):
        inject(source(1, 5), count=1, meta_id=META, seed=0, index=0, crop_to=8)


@given(
    fraction=st.floats(0, 0.5),
    placement=st.sampled_from(PLACEMENTS),
    length=st.sampled_from(["within", "grow"]),
    block_length=st.integers(1, 100),
)
def test_a_rule_makes_blocks_of_the_length_that_it_says(
    fraction: float, placement: str, length: str, block_length: int
) -> None:
    rule = InjectionRule(fraction=fraction, placement=placement, length=length)
    injected = rule.apply(
        source(2, rule.source_length(block_length)),
        block_length=block_length,
        meta_id=META,
        seed=0,
        index=0,
        after_ids=after_ids("punctuation"),
    )
    T = rule.total_length(block_length)
    assert injected.tokens_BT.shape == (2, T)
    assert (injected.meta_mask_BT.sum(dim=1) == rule.n_meta(block_length)).all()
    assert (block_length if length == "within" else block_length + rule.n_meta(block_length)) == T


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.6}, r"data\.meta_fraction=0\.6: expected a share between 0 and 0\.5"),
        ({"fraction": float("nan")}, r"data\.meta_fraction=nan"),
        ({"placement": "periodical"}, r"data\.meta_placement='periodical'.*did you mean 'periodic'\?"),
        ({"length": "grown"}, r"data\.meta_length='grown'.*did you mean 'grow'\?"),
        (
            {"placement": "fixed"},
            r"data\.meta_placement='fixed': expected data\.meta_placement_options\.slots",
        ),
        ({"options": {"slots": [1]}}, r"data\.meta_placement_options\.slots=\[1\]: expected no options .*'random'"),
        ({"placement": "fixed", "options": {"slots": [1, 1]}}, r"options\.slots=\[1, 1\]: expected distinct"),
        ({"placement": "fixed", "options": {"slots": []}}, r"options\.slots=\[\]: expected distinct"),
        ({"placement": "fixed", "options": {"slots": "1"}}, r"options\.slots='1': expected distinct"),
        ({"placement": "fixed", "options": {"slot": [1]}}, r"options\.slot=\[1\]: expected one of slots .*'slots'"),
        ({"placement": "nowhere.Places"}, r"data\.meta_placement=nowhere\.Places: nowhere cannot be imported"),
        ({"placement": "tests.data.test_injection.source"}, r"expected a class that derives from .*Placement"),
    ],
)
def test_a_wrong_rule_names_its_key_and_the_nearest_right_value(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        InjectionRule(**options)


def test_fixed_slots_outside_the_block_are_named() -> None:
    rule = InjectionRule(placement="fixed", length="within", options={"slots": [2, 99]})
    with pytest.raises(UserError, match=r"data\.meta_placement_options\.slots: slot 99 lies outside a block of 16"):
        rule.apply(source(1, 14), block_length=16, meta_id=META, seed=0, index=0)


@pytest.mark.parametrize("slots", [[0], [0, 15], [15], [7, 0]])
def test_fixed_slots_may_be_the_first_and_the_last(slots: list[int]) -> None:
    rule = InjectionRule(placement="fixed", length="within", options={"slots": slots})
    injected = rule.apply(source(2, 16), block_length=16, meta_id=META, seed=0, index=0)
    for mask_T in injected.meta_mask_BT:
        assert mask_T.nonzero()[:, 0].tolist() == sorted(slots)


@pytest.mark.parametrize("slot", [-1, 16])
def test_fixed_slots_beyond_either_end_are_refused(slot: int) -> None:
    with pytest.raises(UserError, match=r"^data\.meta_placement_options\.slots"):
        InjectionRule(placement="fixed", length="within", options={"slots": [0, slot]}).apply(
            source(1, 16), block_length=16, meta_id=META, seed=0, index=0
        )


@pytest.mark.parametrize(("length", "block", "expected"), [("grow", 10, "abcxdefxghixj"), ("within", 8, "abcxdefx")])
def test_a_chunk_ends_with_its_extra_token(length: str, block: int, expected: str) -> None:
    rule = InjectionRule(placement="chunk_end", length=length, options={"c": 3})
    injected = rule.apply(source(2, 10), block_length=block, meta_id=META, seed=0, index=0)
    for row in injected.tokens_BT.tolist():
        letters = iter("abcdefghij")
        assert "".join("x" if token == META else next(letters) for token in row) == expected
    assert rule.total_length(block) == len(expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (InjectionRule(placement="chunk_end", options={"c": 3}), "abcxdefxg"),
        (InjectionRule(placement="chunk_end", options={"c": 16}), "abcdefg"),
        (InjectionRule(placement="fixed", options={"slots": [0]}), "abcdefg"),
        (InjectionRule(placement="prefix", options={"n": 2}), "xxabcdefg"),
        (InjectionRule(placement="suffix", options={"n": 3}), "abcdefgxxx"),
        (InjectionRule(fraction=0.15, placement="periodic", length="within"), "abcdxefg"),
    ],
)
def test_a_prompt_of_any_length_gets_what_a_text_of_its_length_gets(rule: InjectionRule, expected: str) -> None:
    (row,) = rule.in_prompt(source(1, 7), meta_id=META, seed=0, index=0).tokens_BT.tolist()
    letters = iter("abcdefg")
    assert "".join("x" if token == META else next(letters) for token in row) == expected


def test_a_chunk_longer_than_its_block_is_refused() -> None:
    rule = InjectionRule(placement="chunk_end", options={"c": 64})
    with pytest.raises(UserError, match=r"data\.meta_placement_options\.c=64: expected a chunk that a block of 16 "):
        rule.apply(source(1, 16), block_length=16, meta_id=META, seed=0, index=0)


@pytest.mark.parametrize("length", ["grow", "within"])
def test_ends_of_a_block_hold_what_they_are_asked_for(length: str) -> None:
    for name, first in (("prefix", 0), ("suffix", -3)):
        rule = InjectionRule(placement=name, length=length, options={"n": 3})
        mask_BT = rule.apply(source(2, 10), block_length=10, meta_id=META, seed=0, index=0).meta_mask_BT
        assert mask_BT.sum(dim=1).tolist() == [3, 3]
        assert mask_BT[:, first : first + 3 or None].all()
        assert mask_BT.shape[1] == rule.total_length(10) == (13 if length == "grow" else 10)
        wide = InjectionRule(placement=name, length="within", options={"n": 16})
        with pytest.raises(UserError, match=r"meta_placement_options\.n=16: expected fewer extra tokens than a block"):
            wide.apply(source(1, 16), block_length=16, meta_id=META, seed=0, index=0)


class AtTheStart(Placement):
    """A placement of somebody else's."""

    def mask(self, blocks: Sources) -> np.ndarray:
        return np.tile(np.arange(blocks.T) < blocks.M, (len(blocks.source_BS), 1))


def test_a_dotted_path_names_a_placement_of_another_package() -> None:
    rule = InjectionRule(fraction=0.25, placement="tests.data.test_injection.AtTheStart", length="grow")
    injected = rule.apply(source(2, 8), block_length=8, meta_id=META, seed=0, index=0)
    assert injected.tokens_BT[0].tolist() == [META, META, *range(2, 10)]


@pytest.mark.parametrize(
    ("placement", "digest"),
    [("random", "fe73e7f252ef1a92"), ("periodic", "be436db36711aa81"), ("punctuation", "ab863f1a3debc69b")],
)
def test_meta_tokens_are_where_they_have_always_been(placement: str, digest: str) -> None:
    injected = inject(
        source(7, 61), fraction=0.13, placement=placement, meta_id=META, seed=1234567, index=99, crop_to=61,
        after_ids=after_ids("punctuation"),
    )  # fmt: skip
    assert hashlib.sha256(injected.tokens_BT.numpy().tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("placement", ["random", "periodic", "punctuation", "chunk_end", "prefix", "suffix"])
@pytest.mark.parametrize("length", ["grow", "within"])
def test_a_fraction_of_0_means_none_wherever_they_stood(placement: str, length: str) -> None:
    """An arm without meta-tokens is laid over an experiment whose placement says itself how many there are."""
    rule = InjectionRule(fraction=0.0, placement=placement, length=length)
    assert rule.n_meta(64) == 0
    assert rule.total_length(64) == rule.source_length(64) == 64
    blocks = torch.arange(128).view(2, 64)
    injected = rule.apply(blocks, block_length=64, meta_id=999, seed=1, index=0)
    assert torch.equal(injected.tokens_BT, blocks)
    assert not injected.meta_mask_BT.any()
    assert not rule.in_prompt(blocks[:1, :9], meta_id=999, seed=1, index=0).meta_mask_BT.any()
