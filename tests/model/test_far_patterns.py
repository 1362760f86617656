"""Dilated and blockwise attention: pair by pair, in each layer, in generation, and what memory they need."""

import itertools
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Blockwise, Dilated, SameDocument, Window
from lightning_metatok.model.attention.reach import reach
from lightning_metatok.model.memory import Memory, cache_of
from tests.model.helpers import batch, tiny
from tests.model.test_memory import step_by_step

SHAPES: list[dict[str, Any]] = [
    {"pattern": "dilated", "pattern_options": {"chunk": 2}},
    {"pattern": "dilated", "pattern_options": {"chunk": 3}, "shared_layers": True},
    {"pattern": "blockwise", "pattern_options": {"block": 4}},
    {"pattern": "blockwise", "pattern_options": {"block": 4}, "position": "xpos"},
]


@pytest.mark.parametrize("chunk", [2, 3, 5])
@pytest.mark.parametrize("layer", [0, 1, 2, 40])
def test_a_layer_sees_chunk_tokens_its_own_stride_apart(chunk: int, layer: int) -> None:
    rule = Dilated(chunk=chunk).at(layer, 41)
    mask_TT = rule.mask(Facts.of(60))[0]
    for i in range(60):
        assert mask_TT[i].nonzero().flatten().tolist() == sorted(
            i - m * chunk**layer for m in range(chunk) if i >= m * chunk**layer
        )


def test_the_first_layer_is_a_window_and_each_reaches_chunk_times_as_far() -> None:
    rule = Dilated(chunk=3)
    assert rule.at(0, 4) is rule
    assert rule.at(2, 4) is rule.at(2, 4), "one object a layer: plans are shared by it"
    assert torch.equal(rule.mask(Facts.of(20)), Window(w=3).mask(Facts.of(20)))
    text_T = torch.zeros(200, dtype=torch.bool)
    found = [reach([[rule.at(layer, n)] for layer in range(n)], text_T).all for n in (1, 2, 3, 4)]
    assert found == [3**n - 1 for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("block", [1, 3, 4, 50])
def test_a_token_sees_its_block_and_the_one_before(block: int) -> None:
    mask_TT = Blockwise(block=block).mask(Facts.of(23))[0]
    for i, j in itertools.product(range(23), repeat=2):
        assert bool(mask_TT[i, j]) == (j <= i and i // block - j // block <= 1), (i, j)


@pytest.mark.parametrize("rule", [Blockwise(block=3), *(Dilated(chunk=2).at(layer, 3) for layer in range(3))], ids=repr)
def test_a_packed_document_sees_what_it_sees_alone(rule: Any) -> None:
    ids_1T = torch.tensor([[0] * 7 + [1] * 11 + [2] * 5])
    packed_TT = (rule & SameDocument()).mask(Facts.of(23, None, ids_1T))[0]
    alone = [rule.mask(Facts.of(n))[0] for n in (7, 11, 5)]
    assert torch.equal(packed_TT, torch.block_diag(*alone).bool())


@pytest.mark.parametrize("mechanism", ["none", "meta"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_generation_sees_what_training_saw(mechanism: str, shape: dict[str, Any]) -> None:
    model = tiny(n_layers=3, mechanism=mechanism, **shape)
    for inputs in (batch(), batch(length=40, fraction=0.1)):
        full = model(*inputs)
        torch.testing.assert_close(step_by_step(model, Memory(), inputs), full, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["sdpa", "blocked"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backends_equal_the_reference_in_outputs_and_gradients(backend: str, shape: dict[str, Any]) -> None:
    found = {}
    for name in ("reference", backend):
        model = tiny(n_layers=3, attention_backend=name, **shape)
        out = model(*batch(length=40))
        out.sin().sum().backward()
        found[name] = [out, *(parameter.grad for parameter in model.parameters())]
    for ours, right in zip(found[backend], found["reference"], strict=True):
        torch.testing.assert_close(ours, right, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("shape", "rows"), [(SHAPES[0], 4), (SHAPES[2], 8)], ids=str)
@torch.no_grad()
def test_memory_is_bounded(shape: dict[str, Any], rows: int) -> None:
    """The last of three layers of chunk 2 looks 4 back; two blocks of 4. Beside these, what waits for a page."""
    model, page = tiny(n_layers=3, mechanism="none", **shape), 4
    cache = cache_of(model, page=page)
    for t in range(60):
        model(torch.tensor([[t % 50]]), torch.zeros(1, 1, dtype=torch.bool), cache=cache)
        assert cache.layers[0]["self_attention"].n <= rows + page, t


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dilated", {"chunk": 1}, r"model.pattern_options.chunk=1: expected 2 or more"),
        ("dilated", {"chunk": 2.5}, r"model.pattern_options.chunk=2.5: expected"),
        ("dilated", {"stride": 2}, r"model.pattern_options.stride=2: expected one of chunk"),
        ("blockwise", {"block": 0}, r"model.pattern_options.block=0: expected 1 or more"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        TransformerConfig(2, 2, 16, 50, pattern=name, pattern_options=options)
    assert "\n" not in str(error.value)
