"""Hidden tokens: how many, where, what is read in their place, and that all of it follows from seed and index."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_metatok.data import NOT_SCORED, Batch, BatchBuilder, InjectionRule, Masking, PackedBlocks, TokenStore
from lightning_metatok.data.corpora import Corpus
from lightning_metatok.data.injection import remove_meta
from lightning_metatok.data.tokenizer import MASK, MetaTokenizer
from lightning_metatok.data.writing import prepare_tokens

SEED, S = 5, 40
TEXT_IDS = np.arange(10, 90)


def masking(fraction: float = 0.15, **changes: Any) -> Masking:
    return Masking(**{"fraction": fraction, "mask_id": 99, "text_ids": TEXT_IDS, "seed": SEED, **changes})


def blocks(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(10, 90, size=(n, S)))


@pytest.mark.parametrize(("fraction", "n"), [(0.15, 6), (0.5, 20), (0.29, 11), (0.001, 1)])
def test_so_many_are_hidden_and_scored_on_what_stood_there(fraction: float, n: int) -> None:
    source_BS = blocks(50)
    masked = masking(fraction).apply(source_BS, np.arange(50))
    chosen_BS = masked.targets_BS != NOT_SCORED
    assert (chosen_BS.sum(dim=1) == n).all()
    assert torch.equal(masked.targets_BS[chosen_BS], source_BS[chosen_BS])
    assert torch.equal(masked.tokens_BS[~chosen_BS], source_BS[~chosen_BS])


def test_of_ten_hidden_eight_are_masks_one_is_another_and_one_stays() -> None:
    """400 x 6 chosen: three standard deviations of a share are below 0.03."""
    source_BS = blocks(400)
    masked = masking().apply(source_BS, np.arange(400))
    chosen_BS = masked.targets_BS != NOT_SCORED
    read, was = masked.tokens_BS[chosen_BS], source_BS[chosen_BS]
    is_mask, stays = read == 99, read == was
    shares = [float(x.float().mean()) for x in (is_mask, stays, ~is_mask & ~stays)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
    others = read[~is_mask & ~stays]
    assert set(others.tolist()) <= set(TEXT_IDS.tolist())
    assert len(set(others.tolist())) > 60, "any of the ids"
    places_S = chosen_BS.float().mean(dim=0)
    assert float(places_S.max()) < 0.15 + 3 * 0.018 + 0.01
    assert float(places_S.min()) > 0.15 - 3 * 0.018 - 0.01


def test_a_row_follows_from_seed_and_index_alone() -> None:
    source_BS = blocks(8)
    whole = masking().apply(source_BS, np.arange(8))
    for b in (0, 5):
        alone = masking().apply(source_BS[b : b + 1], np.array([b]))
        assert torch.equal(alone.tokens_BS[0], whole.tokens_BS[b])
        assert torch.equal(alone.targets_BS[0], whole.targets_BS[b])
    for other in (masking().apply(source_BS, np.arange(8, 16)), masking(seed=6).apply(source_BS, np.arange(8))):
        assert ((other.targets_BS >= 0) != (whole.targets_BS >= 0)).any(dim=1).all()


@pytest.fixture(scope="module")
def masks(tokenizer: MetaTokenizer) -> MetaTokenizer:
    return tokenizer.with_mask()


@pytest.fixture(scope="module")
def store(corpus: Corpus, masks: MetaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return prepare_tokens(corpus, masks, tmp_path_factory.mktemp("cache"))


def builder(store: TokenStore, masks: MetaTokenizer, fraction: float = 0.2, **options: Any) -> BatchBuilder:
    rule = InjectionRule(fraction=fraction, placement=options.pop("placement", "random"))
    assert masks.mask_id is not None
    hides = masking(mask_id=masks.mask_id, text_ids=masks.bytes_V.nonzero().flatten().numpy())
    given = {"batch_size": 4, "seed": SEED, "meta_id": masks.meta_id, "after_ids": masks.punctuation_ids}
    return BatchBuilder(PackedBlocks(store, "train", 20), rule, 20, masking=hides, **{**given, **options})


def scored(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the text is read as, and its targets, without meta-tokens."""
    assert (batch.targets_BT[batch.meta_mask_BT] == NOT_SCORED).all()
    return remove_meta(batch.tokens_BT, batch.meta_mask_BT), remove_meta(batch.targets_BT, batch.meta_mask_BT)


@pytest.mark.parametrize("placement", ["random", "punctuation"])
def test_meta_tokens_stand_between_and_change_nothing_of_what_is_scored(
    store: TokenStore, masks: MetaTokenizer, placement: str
) -> None:
    with_meta, plain = (builder(store, masks, f, placement=placement).batch(3) for f in (0.2, 0.0))
    assert with_meta.tokens_BT.shape == (4, 24)
    for one, other in zip(scored(with_meta), scored(plain), strict=True):
        assert torch.equal(one, other)


def test_training_hides_other_places_in_each_epoch_and_validation_the_same(
    store: TokenStore, masks: MetaTokenizer
) -> None:
    train = builder(store, masks, 0.0, batch_size=1)
    n = len(train.blocks)
    order = [[int(train.shuffled(np.array([g]))[0]) for g in range(e * n, (e + 1) * n)] for e in (0, 1)]
    first, second = (train.batch(e * n + order[e].index(0)) for e in (0, 1))
    assert not torch.equal(first.targets_BT, second.targets_BT)
    validation = [builder(store, masks, shuffle=False) for _ in range(2)]
    for step in range(2):
        one, other = (build.batch(step) for build in validation)
        assert torch.equal(one.tokens_BT, other.tokens_BT)
        assert torch.equal(one.targets_BT, other.targets_BT)


def test_the_mask_has_the_next_free_id_and_no_text_spells_it(tokenizer: MetaTokenizer, masks: MetaTokenizer) -> None:
    assert tokenizer.mask_id is None
    assert (masks.mask_id, masks.vocab_size) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)
    text = f"the {MASK} cat"
    assert masks.encode(text) == tokenizer.encode(text)
    assert masks.mask_id not in masks.encode(text)
    assert masks.encode_prompt(text).count(masks.mask_id) == 1
    assert masks.decode(masks.encode_prompt(text)) == text
    assert int(masks.bytes_V[masks.mask_id]) == 0
    again = MetaTokenizer.from_json(masks.to_json())
    assert (again.mask_id, again.fingerprint()) == (masks.mask_id, masks.fingerprint())
    assert again.with_mask() is again
