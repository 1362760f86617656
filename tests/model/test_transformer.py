"""The model's promises: parameter counts, no leaks, meta-attention on meta rows only, and its switches."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig, positions
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Causal, MetaToMeta
from lightning_metatok.model.positions import PositionEncoding
from tests.model.helpers import VOCABULARY, batch, tiny

ARMS: list[dict[str, Any]] = [
    {},
    {"position": "learned", "bias": True},
    {"position": "none", "norm": "post", "activation": "relu"},
    {"mechanism": "matched", "tied_head": False},
    {"mechanism_options": {"fill": -1e4}},
    {"mechanism_options": {"shared": True, "layers": [1]}},
    {"norm": "post", "mechanism_options": {"shared": True}, "d_ff": 24},
]


@pytest.mark.parametrize(
    ("position", "meta", "bias", "count"),
    [
        ("learned", False, False, 124_337_664),
        ("learned", False, True, 124_439_808),
        ("learned", True, False, 152_658_432),
        ("learned", True, True, 152_806_656),
        ("rotary", True, False, 151_872_000),
        ("rotary", True, True, 152_020_224),
    ],
)
def test_gpt2_small_has_the_paper_s_parameter_counts(position: str, meta: bool, bias: bool, count: int) -> None:
    config = TransformerConfig(12, 12, 768, 50257, position=position, mechanism="meta" if meta else "none", bias=bias)
    with torch.device("meta"):
        assert MetaTransformer(config).n_parameters() == count


@pytest.mark.parametrize("arm", ARMS, ids=str)
@torch.no_grad()
def test_no_logit_depends_on_a_later_token(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm), batch()
    before = model(tokens_BT, meta_mask_BT)
    for t in (1, 10, 20):
        changed, mask = tokens_BT.clone(), meta_mask_BT.clone()
        changed[:, t:] = (changed[:, t:] + 1) % VOCABULARY
        # Whether later tokens are meta-tokens must not matter either. Sums may be ordered otherwise: 1e-5.
        mask[:, t:] = ~mask[:, t:]
        torch.testing.assert_close(model(changed, mask)[:, :t], before[:, :t], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model(changed, mask)[:, t:], before[:, t:], atol=1e-3)


@pytest.mark.parametrize("arm", ARMS, ids=str)
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm), batch(n=4)
    meta_mask_BT[1], meta_mask_BT[2] = False, True
    together = model(tokens_BT, meta_mask_BT)
    assert together.isfinite().all()
    for i in range(4):
        alone = model(tokens_BT[i : i + 1], meta_mask_BT[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arm", ARMS, ids=str)
@torch.no_grad()
def test_packed_documents_are_as_if_alone(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm), batch(n=2)
    lengths = [6, 11, 4]
    document_ids_BT = torch.arange(3).repeat_interleave(torch.tensor(lengths)).expand(2, -1)
    position_ids_BT = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    packed = model(tokens_BT, meta_mask_BT, position_ids_BT, document_ids_BT)
    start = 0
    for n in lengths:
        part = slice(start, start + n)
        alone = model(tokens_BT[:, part], meta_mask_BT[:, part])
        torch.testing.assert_close(packed[:, part], alone, atol=1e-5, rtol=1e-5)
        start += n


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_without_meta_tokens_it_is_the_plain_model_bit_for_bit(norm: str) -> None:
    model, (tokens_BT, _) = tiny(norm=norm), batch()
    plain = MetaTransformer(dataclasses.replace(model.config, mechanism="none")).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "meta" not in k})
    expected = plain(tokens_BT)
    assert torch.equal(model(tokens_BT), expected)
    assert torch.equal(model(tokens_BT, torch.zeros_like(tokens_BT, dtype=torch.bool)), expected)


@torch.no_grad()
def test_a_block_s_meta_attention_changes_meta_rows_only() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(n_layers=1), batch()
    out = model(tokens_BT, meta_mask_BT)
    changed_BT = (out != model(tokens_BT)).any(dim=-1)
    assert torch.equal(changed_BT, meta_mask_BT)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_gathered_block_equals_the_dense_formula_in_gradients(norm: str) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(n_layers=1, norm=norm, position="none").double(), batch()
    block = model.blocks[0]

    def attend(weights: torch.nn.Module, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = weights.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        # -1e300 is -inf to float64's softmax, but has gradients; rows that see nothing are discarded below.
        scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~seen[:, None], -1e300)
        return weights.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))

    x = model.embedding(tokens_BT)
    facts = Facts.of(21, meta_mask_BT)
    causal, meta = Causal().mask(facts).expand(3, 21, 21), (Causal() & MetaToMeta()).mask(facts)
    for norm_layer, weights, seen in (
        (block.norm_attention, block.attention.projections, causal),
        (block.norm_meta, block.meta_attention.projections, meta),
    ):
        update = attend(weights, norm_layer(x) if norm == "pre" else x, seen)
        new = x + update if norm == "pre" else norm_layer(x + update)
        x = new if seen is causal else torch.where(meta_mask_BT[..., None], new, x)
    x = x + block.mlp(block.norm_mlp(x)) if norm == "pre" else block.norm_mlp(x + block.mlp(x))
    dense, sparse = model.logits(model.norm(x)), model(tokens_BT, meta_mask_BT)
    torch.testing.assert_close(sparse, dense)  # float64: to 1e-7
    weights_V = torch.randn(VOCABULARY, dtype=torch.float64)
    ours, oracle = (torch.autograd.grad((x @ weights_V).sum(), list(model.parameters())) for x in (sparse, dense))
    torch.testing.assert_close(ours, oracle)


def test_the_residual_update_in_place_passes_gradcheck() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(d_model=4, n_layers=1).double(), batch(n=2, length=5)
    weight = model.blocks[0].attention.projections.out.weight.detach()

    def run(w: Tensor) -> Tensor:
        swapped = {"blocks.0.attention.projections.out.weight": w}
        out: Tensor = torch.func.functional_call(model, swapped, (tokens_BT, meta_mask_BT))
        return out

    assert meta_mask_BT.any()
    assert torch.autograd.gradcheck(run, (weight.clone().requires_grad_(),))


@torch.no_grad()
def test_meta_over_all_is_a_second_causal_attention_of_the_same_size() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism="matched"), batch()
    assert model.n_parameters() == tiny().n_parameters()
    assert torch.equal(model(tokens_BT, meta_mask_BT), model(tokens_BT))
    meta = MetaTransformer(dataclasses.replace(model.config, mechanism="meta")).eval()
    meta.load_state_dict(model.state_dict())
    torch.testing.assert_close(meta(tokens_BT, torch.ones_like(meta_mask_BT)), model(tokens_BT), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_finite_fill_changes_ordinary_rows_and_leaves_meta_rows_nearly_alone() -> None:
    zero, (tokens_BT, meta_mask_BT) = tiny(n_layers=1), batch()
    filled = MetaTransformer(dataclasses.replace(zero.config, mechanism_options={"fill": -1e4})).eval()
    filled.load_state_dict(zero.state_dict())
    difference_BT = (filled(tokens_BT, meta_mask_BT) - zero(tokens_BT, meta_mask_BT)).abs().amax(dim=-1)
    # exp(-1e4) is 0 in float32, so a meta row that sees a meta-token sees nothing else.
    assert difference_BT[meta_mask_BT].max() < 1e-4
    assert difference_BT[~meta_mask_BT].min() > 1e-3


def test_shared_weights_add_norms_only_and_chosen_layers_add_those_layers_only() -> None:
    plain = tiny(mechanism="none").n_parameters()
    assert tiny(mechanism_options={"shared": True}).n_parameters() == plain + 2 * 16
    assert tiny(mechanism_options={"layers": [1]}).n_parameters() == plain + 4 * 16**2 + 16
    assert tiny(mechanism_options={"layers": []}).n_parameters() == plain
    assert not any("meta_attention" in name for name in tiny(mechanism_options={"shared": True}).state_dict())


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_every_parameter_learns(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm, dropout=0.1).train(), batch()
    logits_BTV = model(tokens_BT, meta_mask_BT)
    torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_batch_without_meta_tokens_still_gives_every_parameter_a_gradient() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(), batch()
    model(tokens_BT, torch.zeros_like(meta_mask_BT)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_dropping_positions_from_self_attention_makes_meta_positions_irrelevant() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(), batch()
    ids_BT = torch.arange(21).expand(3, 21)
    moved_BT = torch.where(meta_mask_BT, ids_BT + 5, ids_BT)
    for drop, indifferent in (("both", True), ("self_attention", False), ("meta_attention", False)):
        here = model(tokens_BT, meta_mask_BT, ids_BT, drop_positions=drop)
        there = model(tokens_BT, meta_mask_BT, moved_BT, drop_positions=drop)
        assert torch.equal(here, there) == indifferent, drop
        assert not torch.allclose(here, model(tokens_BT, meta_mask_BT, ids_BT), atol=1e-3), drop


@torch.no_grad()
def test_where_positions_are_dropped_is_exact() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(n_layers=1), batch()
    plain = model(tokens_BT, meta_mask_BT)
    dropped = model(tokens_BT, meta_mask_BT, drop_positions="meta_attention")
    assert torch.equal((dropped != plain).any(dim=-1) & ~meta_mask_BT, torch.zeros_like(meta_mask_BT))
    # In self-attention alone: the same as position 0 for the meta slots there, true positions in
    # meta-attention.
    no_meta = MetaTransformer(dataclasses.replace(model.config, mechanism="none")).eval()
    no_meta.load_state_dict({k: v for k, v in model.state_dict().items() if "meta" not in k})
    zeroed = no_meta(tokens_BT, meta_mask_BT, torch.arange(21).expand(3, 21) * ~meta_mask_BT)
    torch.testing.assert_close(no_meta(tokens_BT, meta_mask_BT, drop_positions="self_attention"), zeroed)


@torch.no_grad()
def test_the_config_s_drop_positions_holds_unless_the_call_says_otherwise() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(position="learned"), batch()
    configured = MetaTransformer(dataclasses.replace(model.config, drop_positions="both")).eval()
    configured.load_state_dict(model.state_dict())
    dropped = configured(tokens_BT, meta_mask_BT)
    assert torch.equal(dropped, model(tokens_BT, meta_mask_BT, drop_positions="both"))
    full = configured(tokens_BT, meta_mask_BT, drop_positions="none")
    assert torch.equal(full, model(tokens_BT, meta_mask_BT))
    assert not torch.equal(dropped, full)
    with pytest.raises(UserError, match="did you mean 'both'"):
        model(tokens_BT, meta_mask_BT, drop_positions="bth")


def test_a_sequence_longer_than_the_table_is_refused() -> None:
    model, tokens_BT = tiny(position="learned", max_positions=8), torch.zeros(1, 9, dtype=torch.long)
    with pytest.raises(UserError, match=r"T=9 is larger than model\.max_positions=8"):
        model(tokens_BT)
    with pytest.raises(UserError, match=r"T=9 is larger than model\.max_positions=8"):
        model(tokens_BT[:, :2], position_ids_BT=torch.tensor([[0, 8]]))
    assert tiny(max_positions=8)(tokens_BT).shape == (1, 9, VOCABULARY)


class DistanceBias(PositionEncoding):
    """A bias of -distance on the scores, 0 where a key's or query's position is dropped."""

    transforms_scores = True

    def __init__(self, sizes: positions.Sizes) -> None:
        super().__init__()

    def score(self, scores_BNTT: Tensor, position_ids_BT: Tensor, keep_BT: Tensor | None, **_: Any) -> Tensor:
        n = scores_BNTT.shape[-2]
        bias = -(position_ids_BT[:, -n:, None] - position_ids_BT[:, None]).abs().to(scores_BNTT.dtype)
        if keep_BT is not None:
            bias = bias * (keep_BT[:, -n:, None] & keep_BT[:, None])
        return scores_BNTT + bias[:, None]


@torch.no_grad()
def test_a_family_that_transforms_scores_reaches_both_attentions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(positions.FAMILIES, "distance", DistanceBias)
    model, (tokens_BT, meta_mask_BT) = tiny(position="distance", n_layers=1), batch()
    ids_BT = torch.arange(21).expand(3, 21)
    outs = {
        drop: model(tokens_BT, meta_mask_BT, ids_BT, drop_positions=drop)
        for drop in ("none", "self_attention", "meta_attention", "both")
    }
    only_meta = (outs["none"] - outs["meta_attention"]).abs().amax(dim=-1)
    assert not only_meta[~meta_mask_BT].any()
    assert only_meta[meta_mask_BT].max() > 1e-3
    moved = torch.where(meta_mask_BT, ids_BT + 3, ids_BT)
    assert torch.equal(model(tokens_BT, meta_mask_BT, moved, drop_positions="both"), outs["both"])
    # A distance is the same from anywhere.
    shifted = model(tokens_BT, meta_mask_BT, ids_BT + 100)
    torch.testing.assert_close(shifted, outs["none"], atol=1e-5, rtol=1e-5)


def test_hidden_states_give_the_logits() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(tied_head=False), batch()
    hidden_BTD = model(tokens_BT, meta_mask_BT, return_hidden=True)
    assert hidden_BTD.shape == (3, 21, 16)
    assert torch.equal(model.logits(hidden_BTD), model(tokens_BT, meta_mask_BT))


def test_initial_weights_are_nanogpt_s() -> None:
    torch.manual_seed(0)
    model = MetaTransformer(TransformerConfig(4, 4, 256, 2000, bias=True))
    block = model.blocks[1]
    # Standard deviations of 65,536 draws and more are right to 1 %.
    for part in (model.embedding, block.attention.projections.qkv, block.meta_attention.projections.qkv):
        assert float(part.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    for part in (block.attention.projections.out, block.meta_attention.projections.out, block.mlp.down):
        assert float(part.weight.detach().std()) == pytest.approx(0.02 / 8**0.5, rel=0.02)
    assert not block.mlp.up.bias.any()


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_bfloat16_autocast_stays_near_float32(arm: dict[str, Any]) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "d_model": 32, "vocab_size": VOCABULARY}
    model, (tokens_BT, meta_mask_BT) = MetaTransformer(TransformerConfig(**{**shape, **arm})), batch()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(tokens_BT, meta_mask_BT)
        low.float().square().sum().backward()
    full = model(tokens_BT, meta_mask_BT)
    assert low.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; errors of some roundings add up over the layers.
    assert (low - full).abs().max() < 0.04 * full.abs().max()


@pytest.mark.parametrize("arm", ARMS, ids=str)
@torch.no_grad()
def test_zeroing_the_meta_embedding_equals_a_model_whose_row_is_zero(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT), meta_id = tiny(**arm), batch(), VOCABULARY - 1
    # The mask says which tokens are meta-tokens, and all of them, and no other, have this id.
    tokens_BT = torch.where(meta_mask_BT, meta_id, tokens_BT % meta_id)
    full = model(tokens_BT, meta_mask_BT, return_hidden=True)
    zeroed = model(tokens_BT, meta_mask_BT, zero_meta_embedding=True, return_hidden=True)
    model.embedding.weight[meta_id] = 0
    assert torch.equal(zeroed, model(tokens_BT, meta_mask_BT, return_hidden=True))
    assert not torch.allclose(zeroed, full, atol=1e-2)
    without = model(tokens_BT, return_hidden=True)
    assert torch.equal(model(tokens_BT, zero_meta_embedding=True, return_hidden=True), without)
    nowhere = torch.zeros_like(meta_mask_BT)
    assert torch.equal(
        model(tokens_BT, nowhere, zero_meta_embedding=True), model(tokens_BT, nowhere, zero_meta_embedding=False)
    )
