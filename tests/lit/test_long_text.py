"""Long documents: every way of reading scores the same tokens once, with the context that it says."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.lit import long_text
from lightning_metatok.lit.long_text import Found, Stretch, Way
from lightning_metatok.model import MetaTransformer, TransformerConfig
from tests.system.helpers import documents

LENGTH, TRAINED = 48, 12


@pytest.fixture(scope="module")
def tokenizer() -> MetaTokenizer:
    return MetaTokenizer.train(documents(20), 300)


@pytest.fixture(scope="module")
def texts_DN(tokenizer: MetaTokenizer) -> torch.Tensor:
    return long_text.long_documents(documents(5), tokenizer, LENGTH, 3)


def model(**options: object) -> MetaTransformer:
    sizes = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 300, "max_positions": 128}
    return MetaTransformer(TransformerConfig(**{**sizes, **options}), seed=1).eval()  # type: ignore[arg-type]


@given(length=st.integers(2, 60), window=st.integers(2, 60), stride=st.integers(1, 59))
def test_windows_score_each_token_once_and_none_without_context(length: int, window: int, stride: int) -> None:
    window = min(window, length)
    way, seen = Way("some", window, min(stride, window - 1)), []
    for start, first in way.windows(length):
        assert 0 <= start < first < start + window <= length
        seen += range(first, start + window)
    assert seen == list(range(1, length))


def test_documents_begin_behind_the_end_of_another_and_are_of_one_length(tokenizer: MetaTokenizer) -> None:
    texts = ["short", *documents(4)]
    found_DN = long_text.long_documents(texts, tokenizer, LENGTH, 2)
    assert found_DN.shape == (2, LENGTH)
    assert found_DN[:, 0].tolist() == [tokenizer.eos_id] * 2
    assert found_DN[0, 1:].tolist() == tokenizer.encode(texts[1])[: LENGTH - 1]
    assert long_text.long_documents(["short"], tokenizer, LENGTH, 2).shape == (0, LENGTH)


@pytest.mark.parametrize("way", long_text.ways(TRAINED, LENGTH, 5), ids=lambda way: way.name)
def test_losses_are_those_of_each_window_by_hand(way: Way, tokenizer: MetaTokenizer, texts_DN: torch.Tensor) -> None:
    net = model()
    found = long_text.read(net, tokenizer, texts_DN, way, trained=TRAINED, rule=None, batch_size=2)
    by_hand_DN = torch.zeros(texts_DN.shape, dtype=torch.float64)
    with torch.no_grad():
        for start, first in way.windows(LENGTH):
            logits = net(texts_DN[:, start : start + way.window])
            for place in range(first, start + way.window):
                nats = F.cross_entropy(logits[:, place - start - 1].double(), texts_DN[:, place], reduction="none")
                by_hand_DN[:, place] = nats
    assert [(one.low, one.high) for one in found.stretches] == [(0, 6), (6, 12), (12, 24), (24, 48)]
    for one in found.stretches:
        assert one.nats == pytest.approx(float(by_hand_DN[:, max(1, one.low) : one.high].mean()), abs=1e-5)
    assert found.whole.nats == pytest.approx(float(by_hand_DN[:, 1:].mean()), abs=1e-5)
    n_bytes = sum(len(tokenizer.decode(ids[1:]).encode()) for ids in texts_DN.tolist())
    assert found.whole.bits_per_byte == pytest.approx(float(by_hand_DN.sum()) / math.log(2) / n_bytes, rel=1e-5)


@pytest.mark.parametrize("placement", ["random", "periodic"])
def test_meta_tokens_go_in_and_the_batch_size_does_not_count(
    placement: str, tokenizer: MetaTokenizer, texts_DN: torch.Tensor
) -> None:
    rule, net = InjectionRule(fraction=0.2, placement=placement), model()
    batch = long_text.batch_of(texts_DN, tokenizer, rule, 0, 0)
    assert batch.meta_mask_BT.sum(dim=1).tolist() == [9] * 3
    assert (batch.targets_BT >= 0).sum(dim=1).tolist() == [LENGTH - 1] * 3
    way = Way(long_text.SLIDING, TRAINED, 5)
    one, all_at_once = (
        long_text.read(net, tokenizer, texts_DN, way, trained=TRAINED, rule=rule, batch_size=n) for n in (1, 3)
    )
    assert one.whole.nats == pytest.approx(all_at_once.whole.nats, abs=1e-6)
    plain = long_text.read(net, tokenizer, texts_DN, way, trained=TRAINED, rule=None)
    assert one.whole.nats != pytest.approx(plain.whole.nats, abs=1e-4)


def test_what_a_model_cannot_read_is_said(tokenizer: MetaTokenizer, texts_DN: torch.Tensor) -> None:
    way = Way("whole", LENGTH, LENGTH)
    with pytest.raises(UserError, match=r"model\.max_positions=20: 48 positions are read at once"):
        long_text.read(model(position="learned", max_positions=20), tokenizer, texts_DN, way, trained=12, rule=None)


def test_effective_length_is_measured_against_the_same_tokens() -> None:
    """Later text is easier here; read whole it is 0.1 nats worse at 2x and 0.2 at 4x, of which 0.163 are allowed."""
    edges = [(0, 6), (6, 12), (12, 24), (24, 48)]

    def found(*nats: float) -> Found:
        stretches = tuple(Stretch(*edge, one, 1.0) for edge, one in zip(edges, nats, strict=True))
        return Found(Way("some", 2, 1), Stretch(0, 48, 1.0, 1.0), stretches)

    control = found(4.0, 3.5, 3.0, 2.0)
    assert long_text.effective(found(4.0, 3.5, 3.1, 2.2), control, TRAINED) == 2.0
    assert long_text.effective(found(4.0, 3.5, 3.1, 2.1), control, TRAINED) == 4.0
    assert long_text.effective(found(4.0, 3.5, 3.2, 2.0), control, TRAINED) == 1.0
