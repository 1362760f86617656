"""Where parameters begin: a function of (seed, name, shape), not of what else the model has."""

import math

import pytest
import torch
from torch import nn

from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.positions import FAMILIES
from lightning_metatok.model.start import Start

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 50, "max_positions": 64}
OPTIONS = {"fire": [{}, {"per_layer": False}], "t5": [{}, {"per_layer": True}], "dape": [{}, {"over": "fire"}]}
MECHANISMS = [
    {"mechanism": "meta"},
    {"mechanism": "matched"},
    {"mechanism": "landmark"},
    {"mechanism": "own_qkv"},
    {"mechanism": "meta", "mechanism_options": {"shared": True}},
    {"mechanism": "meta", "mechanism_options": {"layers": [1]}},
]


def weights(seed: int = 3, **changes: object) -> dict[str, torch.Tensor]:
    """All that a model begins with."""
    torch.manual_seed(seed)
    return MetaTransformer(TransformerConfig(**{**SHAPE, "mechanism": "none", **changes})).state_dict()


def shared(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of what two models have in the same shape."""
    return [name for name in one if name in other and one[name].shape == other[name].shape]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("mechanism", MECHANISMS, ids=str)
@pytest.mark.parametrize(
    ("position", "options"), [(name, options) for name in FAMILIES for options in OPTIONS.get(name, [{}])], ids=str
)
def test_a_mechanism_changes_no_weight_that_it_does_not_add(
    position: str, options: dict[str, object], mechanism: dict[str, object]
) -> None:
    plain = weights(position=position, position_options=options)
    with_it = weights(position=position, position_options=options, **mechanism)
    assert shared(plain, with_it) == list(plain)
    for name in plain:
        assert torch.equal(plain[name], with_it[name]), name


@pytest.mark.parametrize("position", FAMILIES)
def test_what_is_drawn_differs_from_seed_to_seed_and_from_name_to_name(position: str) -> None:
    one, other = weights(3, position=position), weights(4, position=position)
    drawn = [name for name, tensor in one.items() if tensor.unique().numel() > 2]
    assert len(drawn) >= 9
    for name in drawn:
        assert not torch.equal(one[name], other[name]), name
    for i, name in enumerate(drawn):
        for second in drawn[:i]:
            same_shape = one[name].shape == one[second].shape
            assert not (same_shape and torch.equal(one[name], one[second])), (name, second)


@pytest.mark.parametrize(
    "change", [{"n_layers": 3}, {"position": "learned"}, {"d_ff": 48}, {"tied_head": False}], ids=str
)
def test_other_changes_leave_what_they_do_not_reach(change: dict[str, object]) -> None:
    one, other = weights(), weights(**change)
    both = shared(one, other)
    assert {"embedding.weight", "blocks.1.attention.projections.qkv.weight"} <= set(both)
    smaller = {
        name for name in both if "n_layers" in change and name.endswith((".projections.out.weight", "down.weight"))
    }
    for name in both:
        assert torch.equal(one[name], other[name]) == (name not in smaller), name


def test_a_model_is_that_of_its_seed_and_two_of_one_generator_differ() -> None:
    config = TransformerConfig(**SHAPE)
    one, again = (MetaTransformer(config, seed=7).state_dict() for _ in range(2))
    torch.manual_seed(0)
    first, second = (MetaTransformer(config).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(first["embedding.weight"], second["embedding.weight"])


def test_weights_have_the_spread_of_nanogpt_and_of_their_family() -> None:
    found = weights(d_model=128, vocab_size=500, n_layers=2, position="kerple_log", n_heads=64)
    assert found["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert found["blocks.0.attention.projections.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert found["blocks.1.mlp.down.weight"].std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.02)
    p, a = found["positions.p.0"], found["positions.a.0"]
    assert (p.min() >= 0, p.max() <= 2, a.min() >= 0, a.max() <= 1) == (True, True, True, True)
    assert p.mean().item() == pytest.approx(1, abs=0.25)
    assert a.mean().item() == pytest.approx(0.5, abs=0.15)


def test_another_spread_of_the_start_scales_all_weights() -> None:
    small, large = (weights(d_model=16, vocab_size=50, init_std=std) for std in (0.02, 0.06))
    drawn = [name for name in small if not name.startswith("norm") and ".norm" not in name]
    assert drawn
    for name in drawn:
        torch.testing.assert_close(large[name], 3 * small[name])


def test_a_network_over_scores_begins_as_torchs_layers_do() -> None:
    found = weights(position="dape", n_heads=8, d_model=64)
    most = 1 / math.sqrt(16)
    for name in ("weights.0", "biases.0"):
        drawn = found[f"positions.f.0.{name}"]
        assert 0.8 * most < drawn.abs().max() <= most


def test_a_draw_depends_on_seed_module_name_and_shape_alone() -> None:
    def drawn(start: Start, name: str = "weight", *shape: int) -> torch.Tensor:
        tensor = torch.empty(shape or (4, 5))
        start(name, tensor, nn.init.normal_, std=2.0)
        return tensor

    start = Start(1).under("blocks.0")
    before = torch.random.get_rng_state()
    same = drawn(start)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(same, drawn(start))
    assert torch.equal(same, drawn(Start(1).under("blocks").under("0")))
    others = [drawn(Start(2).under("blocks.0")), drawn(Start(1)), drawn(start, "bias"), drawn(start, "weight", 5, 4)]
    assert not any(torch.equal(same.flatten(), other.flatten()) for other in others)
