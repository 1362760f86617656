"""Which tokens lose their positions, and since when."""

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, TransformerConfig

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 30, "max_positions": 64}


def read(config: TransformerConfig, weights: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    torch.manual_seed(1)
    tokens_BT, extra_BT = torch.randint(30, (2, 16)), torch.rand(2, 16) < 0.3
    model = MetaTransformer(config, seed=3).double().eval()
    if weights is not None:
        model.load_state_dict(weights, strict=False)
    out: torch.Tensor = model(tokens_BT, extra_BT)
    return out


@pytest.mark.parametrize("position", ["rotary", "alibi", "fire", "t5"])
@pytest.mark.parametrize("mechanism", ["none", "meta"])
def test_without_any_positions_it_is_the_model_that_has_none(position: str, mechanism: str) -> None:
    """NoPE, but for what a family's learned weights make of no distance."""
    dropped = TransformerConfig(**SHAPE, position=position, mechanism=mechanism, drop_positions="both", drop_at="all")
    never = TransformerConfig(**SHAPE, position="none", mechanism=mechanism)
    torch.testing.assert_close(read(dropped), read(never))


@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_the_choices_are_four_models(position: str) -> None:
    outs = [read(TransformerConfig(**SHAPE, position=position))]
    outs += [
        read(TransformerConfig(**SHAPE, position=position, drop_positions="both", drop_at=at))
        for at in ("extra", "text", "all")
    ]
    for i, one in enumerate(outs):
        assert all(not torch.allclose(one, other) for other in outs[:i])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("at", ["extra", "text", "all"])
@pytest.mark.parametrize("position", ["rotary", "alibi", "t5"])
@pytest.mark.parametrize("mechanism", ["none", "meta", "matched"])
def test_step_by_step_equals_the_full_pass(at: str, position: str, mechanism: str) -> None:
    torch.manual_seed(1)
    config = TransformerConfig(**SHAPE, position=position, mechanism=mechanism, drop_positions="both", drop_at=at)
    model = MetaTransformer(config, seed=3).double().eval()
    tokens_BT, extra_BT = torch.randint(30, (2, 16)), torch.rand(2, 16) < 0.3
    cache, parts = KVCache(2), []
    for first, end in ((0, 5), *((t, t + 1) for t in range(5, 16))):
        parts.append(model(tokens_BT[:, first:end], extra_BT[:, first:end], cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens_BT, extra_BT))


def test_text_alone_has_text_alone_dropped() -> None:
    """In rotary an extra token that keeps its position turns, and text does not."""
    torch.manual_seed(1)
    tokens_1T, extra_1T = torch.randint(30, (1, 6)), torch.tensor([[0, 0, 1, 0, 0, 1]]).bool()
    config = TransformerConfig(**SHAPE, mechanism="none", drop_positions="both", drop_at="text")
    model = MetaTransformer(config, seed=3).double().eval()
    ids_1T = torch.arange(6)[None]
    moved = ids_1T + torch.where(extra_1T, 0, 7)  # what text has is not looked at
    torch.testing.assert_close(model(tokens_1T, extra_1T, moved), model(tokens_1T, extra_1T, ids_1T))
    moved = ids_1T + torch.where(extra_1T, 7, 0)
    assert not torch.allclose(model(tokens_1T, extra_1T, moved), model(tokens_1T, extra_1T, ids_1T))


def test_from_a_step_on_they_are_dropped_and_a_checkpoint_knows() -> None:
    config = TransformerConfig(**SHAPE, drop_positions="both", drop_at="all", drop_from=3)
    model = MetaTransformer(config, seed=3).eval()
    tokens_BT = torch.randint(30, (2, 16))
    assert model.follows_steps
    outs = []
    for step in (0, 2, 3, 9):
        model.at_step(step)
        outs.append(model(tokens_BT))
        other = MetaTransformer(config, seed=4).eval()
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(tokens_BT), outs[-1])
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[2], outs[3])
    assert not torch.allclose(outs[1], outs[2])
    kept = MetaTransformer(TransformerConfig(**SHAPE), seed=3).eval()
    assert torch.equal(kept(tokens_BT), outs[0])


def test_mistakes_are_named() -> None:
    for changes, message in (
        ({"drop_at": "texts"}, r"model.drop_at='texts': expected one of extra, text, all.*text"),
        ({"drop_at": "all"}, r"model.drop_at='all': expected model.drop_positions to say where"),
        ({"drop_from": 3}, r"model.drop_from=3: expected model.drop_positions to say where"),
        ({"drop_from": -1, "drop_positions": "both"}, r"model.drop_from=-1: expected a step, 0 or more"),
        (
            {"drop_at": "all", "drop_positions": "both", "position": "learned"},
            r"model.drop_at='all': expected 'extra' with model.position='learned'",
        ),
    ):
        with pytest.raises(UserError, match=message):
            TransformerConfig(**SHAPE, **changes)
