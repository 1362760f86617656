"""A config that cannot work is refused with one line that names the key, the value and what was expected."""

import dataclasses
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig, mechanisms, positions
from lightning_metatok.model.attention import patterns
from tests.model.test_transformer import DistanceBias

MECHANISMS, PATTERNS = (", ".join(known) for known in (mechanisms.MECHANISMS, patterns.PATTERNS))
SHAPE: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 50}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"n_layers": 0}, "model.n_layers=0: expected a positive integer"),
        ({"d_ff": -1}, "model.d_ff=-1: expected a positive integer"),
        ({"n_heads": 3}, "model.n_heads=3: expected a divisor of d_model=16"),
        ({"d_model": 18, "n_heads": 6}, "model.d_model=18: expected an even d_model / n_heads"),
        ({"position": "rotery"}, "did you mean 'rotary'?"),
        ({"activation": "swish"}, "model.activation='swish': expected one of gelu, gelu_tanh, relu"),
        ({"attention_backend": "spda"}, "did you mean 'sdpa'?"),
        ({"dropout": 1.0}, "model.dropout=1.0: expected a number in [0, 1)"),
        ({"position_options": {"base": 1.0}}, "model.position_options.base=1.0: expected a number above 1"),
        ({"position_options": {"base": "big"}}, "model.position_options.base='big': expected a number above 1"),
        ({"position_options": {"bas": 1.0}}, "model.position_options.bas=1.0: expected one of pairing"),
        ({"position_options": {"bas": 1.0}}, "did you mean 'base'?"),
        ({"position": "none", "position_options": {"base": 2.0}}, "expected no options for model.position='none'"),
        ({"norm": "mid"}, "model.norm='mid': expected one of pre, post"),
        ({"mechanism": "mta"}, f"model.mechanism='mta': expected one of {MECHANISMS}; did you mean 'meta'?"),
        ({"mechanism": "mta"}, "did you mean 'meta'?"),
        ({"pattern": "casual"}, f"model.pattern='casual': expected one of {PATTERNS}; did you mean 'causal'?"),
        ({"pattern": "window", "pattern_options": {"w": 0}}, "model.pattern_options.w=0: expected 1 or more"),
        ({"pattern_options": {"w": 4}}, "model.pattern_options.w=4: expected no options for model.pattern='causal'"),
        (
            {"mechanism_options": {"layers": [2]}},
            "mechanism_options.layers=[2]: expected different block numbers from 0",
        ),
        ({"mechanism_options": {"layers": [0, 0]}}, "model.mechanism_options.layers=[0, 0]"),
        (
            {"mechanism_options": {"layers": [True]}},
            "model.mechanism_options.layers=[True]: expected a list of integers",
        ),
        ({"mechanism_options": {"layers": 1}}, "model.mechanism_options.layers=1: expected a list of integers"),
        ({"mechanism_options": {"layer": [1]}}, "did you mean 'layers'?"),
        ({"mechanism_options": {"shared": 1}}, "model.mechanism_options.shared=1: expected true or false"),
        (
            {"mechanism_options": {"layers": [1]}, "shared_layers": True},
            "model.mechanism_options.layers=[1]: expected no value with model.shared_layers=True",
        ),
        ({"mechanism_options": {"fill": 1.0}}, "model.mechanism_options.fill=1.0: expected a finite negative number"),
        ({"mechanism_options": {"fill": float("-inf")}}, "model.mechanism_options.fill=-inf"),
        (
            {"mechanism_options": {"fill": -1e4}, "mechanism": "matched"},
            "model.mechanism_options.fill=-10000.0: expected one of layers, shared for model.mechanism='matched'",
        ),
        (
            {"mechanism_options": {"fill": -1e4}, "attention_backend": "xformers"},
            "model.attention_backend='xformers': expected one of auto, reference, sdpa, blocked, flex, because "
            "model.mechanism_options.fill=-10000.0 needs a mask",
        ),
        ({"mechanism": "none", "mechanism_options": {"layers": [1]}}, "no options for model.mechanism='none'"),
        (
            {"pattern": "window", "attention_backend": "xformers"},
            "model.attention_backend='xformers': expected one of auto, reference, sdpa, blocked, flex, because "
            "pattern='window' needs a mask",
        ),
        ({"drop_positions": "all"}, "model.drop_positions='all': expected one of none,"),
        ({"position": "learned", "drop_positions": "meta_attention"}, "expected 'none' or 'both'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        TransformerConfig(**{**SHAPE, **change})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_is_described_below_it() -> None:
    import inspect

    source = inspect.getsource(TransformerConfig)
    for field in dataclasses.fields(TransformerConfig):
        after = source.split(f"\n    {field.name}: ")[1].split("\n", 1)[1]
        assert after.startswith('    """'), field.name


def test_mlp_is_four_times_as_wide_unless_given() -> None:
    assert TransformerConfig(**SHAPE).mlp_dim == 64
    assert TransformerConfig(**SHAPE, d_ff=10).mlp_dim == 10


def test_a_backend_that_cannot_transform_scores_is_refused_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(positions.FAMILIES, "distance", DistanceBias)
    with pytest.raises(UserError, match=r"attention_backend='sdpa': expected one of auto, reference.*'distance'"):
        TransformerConfig(**SHAPE, position="distance", attention_backend="sdpa")
    TransformerConfig(**SHAPE, position="distance", attention_backend="reference")


def test_what_a_family_cannot_do_is_refused_with_the_families_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(positions.FAMILIES, "distance", DistanceBias)
    monkeypatch.setattr(DistanceBias, "cannot", {"documents": "it counts from the first token"})
    config = TransformerConfig(**SHAPE, position="distance")
    config.check_can("cache")
    with pytest.raises(UserError, match=r"'distance' cannot pack documents: it counts.*; expected one of .*learned"):
        config.check_can("documents")
    monkeypatch.setattr(mechanisms.MECHANISMS["matched"], "cannot", {"cache": "it looks again"})
    monkeypatch.setattr(patterns.PATTERNS["window"], "cannot", {"compile": "it moves"})
    TransformerConfig(**SHAPE).check_can("cache")
    able = ", ".join(name for name in mechanisms.MECHANISMS if name != "matched")
    with pytest.raises(UserError, match=rf"mechanism='matched' cannot generate.*: it looks again; .* of {able}"):
        TransformerConfig(**SHAPE, mechanism="matched").check_can("cache")
    with pytest.raises(UserError, match=r"model.pattern='window' cannot be compiled: it moves; expected one of causal"):
        TransformerConfig(**SHAPE, pattern="window").check_can("compile")
    tokens_BT = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(UserError, match="cannot pack documents"):
        MetaTransformer(config)(tokens_BT, document_ids_BT=tokens_BT)
