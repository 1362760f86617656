"""Encodings that act on scores: each equals its naive twin, its published numbers, and what it reduces to."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions
from lightning_metatok.model.attention import masks
from lightning_metatok.model.attention.backends import blocked, reference
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.positions import PositionEncoding
from lightning_metatok.model.positions.alibi import slopes
from lightning_metatok.model.positions.t5 import bucket
from tests.model.helpers import batch, same_document, tiny
from tests.model.positions import naive_scores as naive

ADDED = {
    "alibi": naive.alibi,
    "kerple_log": naive.kerple_log,
    "kerple_power": naive.kerple_power,
    "sandwich": naive.sandwich,
    "fire": naive.fire,
    "t5": naive.t5,
}
TWINS: list[tuple[str, dict[str, Any], Any]] = [
    *((name, {}, naive.added(bias)) for name, bias in ADDED.items()),
    ("t5", {"per_layer": True, "n_buckets": 6, "max_distance": 50}, naive.added(naive.t5)),
    ("t5", {"scaled": False, "temperature": 0.7}, naive.t5_unscaled(0.7)),
    ("fire", {"per_layer": False, "threshold": 9.0, "width": 3}, naive.added(naive.fire)),
    ("dape", {"over": "alibi", "width": 3}, naive.dape(naive.alibi)),
    ("dape", {"over": "kerple", "width": 3}, naive.dape(naive.kerple_log)),
    ("dape", {"over": "fire", "width": 2}, naive.dape(naive.fire)),
    ("dape", {"over": "fire", "width": 2, "fire_activation": "leaky_relu"}, naive.dape(naive.leaky_fire)),
    ("fire", {"activation": "leaky_relu", "width": 3}, naive.added(naive.leaky_fire)),
    ("dape", {"over": "alibi", "width": 2, "kernel": 3}, naive.dape(naive.alibi)),
    ("transformer_xl", {}, naive.transformer_xl),
]


def make(name: str, n_heads: int = 3, head_dim: int = 4, seed: int = 1, **options: Any) -> PositionEncoding:
    """A family of two layers in float64, none of whose parameters is at a special value."""
    sizes = {"n_heads": n_heads, "head_dim": head_dim, "d_model": n_heads * head_dim, "max_positions": 64}
    torch.manual_seed(seed)
    family = positions.build(name, n_layers=2, **sizes, **options).double()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return family


def score_of(family: PositionEncoding, ids_BT: Tensor, keep_BT: Tensor | None, layer: int = 0) -> Score:
    return Score(
        lambda scores, rows: family.score(scores, ids_BT, keep_BT, layer=layer, rows=rows), tuple(family.parameters())
    )


def leaves(n: int = 2, n_heads: int = 3, length: int = 7, width: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, n, n_heads, length, width)
    return [x.clone().requires_grad_() for x in torch.randn(shape, generator=generator, dtype=torch.float64)]


@pytest.mark.parametrize(("name", "choices", "twin"), TWINS, ids=lambda x: str(x) if not callable(x) else "")
def test_a_family_equals_its_naive_twin_in_outputs_and_gradients(
    name: str, choices: dict[str, Any], twin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd lengths, ids with gaps that also go back, documents that restart, and kept beside dropped positions."""
    family, (q, k, v) = make(name, **choices), leaves()
    ids_BT = torch.tensor([[0, 1, 3, 40, 7, 8, 60], [2, 3, 9, 0, 1, 2, 30]])
    documents_BT = torch.tensor([[0] * 7, [0, 0, 0, 1, 1, 1, 1]])
    keep_BT = torch.tensor([[True, True, False, True, True, True, False], [True, False, True, True, True, False, True]])
    mask = (masks.causal(7) & same_document(documents_BT))[:, None]
    twins = []
    for b in range(2):
        case = naive.Case(ids_BT[b].tolist(), keep_BT[b].tolist(), mask[b, 0], q[b], k[b], layer=1)
        twins.append(naive.attention(twin(family), case, v[b]))
    expected, wrt, score = torch.stack(twins), [q, k, v, *family.parameters()], score_of(family, ids_BT, keep_BT, 1)

    def gradients(out: Tensor) -> tuple[Tensor, ...]:
        weights = torch.arange(out.numel(), dtype=out.dtype).view_as(out).sin()
        return torch.autograd.grad((out * weights).sum(), wrt, allow_unused=True, materialize_grads=True)

    theirs = gradients(expected)
    for block in (2**21, 40):  # all scores at once, and by rows
        monkeypatch.setattr(blocked, "BLOCK", block)
        out = blocked.attend(q, k, v, mask=mask, score=score)
        torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-10)
        ours = gradients(out)
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-9)
        assert all(gradient.abs().max() > 0 for gradient in ours[:3])


class Largest(TorchDispatchMode):
    """Watches how many elements the largest tensor has that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        out = function(*arguments, **(options or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                stored = x.untyped_storage().nbytes() // x.element_size()
                self.elements = max(self.elements, min(stored, x.numel()))
        return out


@pytest.mark.one_in(3)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", [*ADDED, "dape", "transformer_xl"])
def test_no_tensor_holds_all_scores_of_every_head(name: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "BLOCK", 2**10)
    length, family = 96, make(name)
    (q, k, v), ids = leaves(n=1, length=length), torch.arange(length)[None]
    mask = masks.causal(length)[None, None] if masked else None  # made here, not watched
    with Largest() as largest:
        blocked.attend(q, k, v, mask=mask, score=score_of(family, ids, None)).sum().backward()
    # A block, what a network of width 32 makes of it, the mask of all heads, T rows of Sandwich's 128: not all scores.
    assert largest.elements <= 128 * length < 3 * length**2 / 2
    assert all(x.grad is not None for x in (q, k, v))


@pytest.mark.parametrize("n_heads", [1, 2, 3, 8, 12, 20])
def test_alibi_is_hugging_face_s_for_any_number_of_heads(n_heads: int) -> None:
    theirs = build_alibi_tensor(torch.ones(1, 9), n_heads, torch.float32).view(n_heads, 9)
    family = make("alibi", n_heads=n_heads)
    scores = torch.zeros(1, n_heads, 9, 9)
    ours = family.score(scores, torch.arange(9)[None], None)[0]
    # Bloom adds slope * j, the same in a row up to a constant, which softmax does not see.
    shifted = theirs[:, None] - ours
    hidden = ~masks.causal(9)
    constant = shifted.masked_fill(hidden, 0).amax(-1, keepdim=True)
    torch.testing.assert_close(shifted.masked_fill(hidden, 0), constant.expand(-1, 9, 9).masked_fill(hidden, 0))


def test_alibi_s_slopes_are_the_published_ones() -> None:
    eight = [1 / 2**i for i in range(1, 9)]
    assert slopes(8) == eight
    assert slopes(12) == pytest.approx([*eight, 0.70710678, 0.35355339, 0.17677670, 0.08838835])


def test_t5_buckets_are_hugging_face_s() -> None:
    distances = torch.arange(3000)
    for n_buckets, longest in ((32, 128), (16, 1000), (7, 20)):
        theirs = T5Attention._relative_position_bucket(-distances, False, n_buckets, longest)
        assert torch.equal(bucket(distances, n_buckets, longest), theirs)


def test_sandwich_is_the_published_sum_of_cosines() -> None:
    family = make("sandwich", n_heads=8)
    scores, ids = torch.zeros(1, 8, 1, 4, dtype=torch.float64), torch.tensor([[100, 99, 90, 0]])
    rows = positions.Rows(0, scores, scores)
    # Head 1 of 8 multiplies by 1; the value at distance 0 was subtracted.
    sums = family.score(scores, ids, None, rows=rows)[0, 0, 0] + 64
    torch.testing.assert_close(
        sums, torch.tensor([64, 62.553381, 44.659094, 30.681086], dtype=sums.dtype), atol=1e-6, rtol=0
    )
    halved = make("sandwich", n_heads=8, heads="divide").score(scores, ids, None, rows=rows)[0, 1, 0] + 32
    torch.testing.assert_close(2 * halved, sums)
    assert not torch.allclose(
        make("sandwich", n_heads=8, first=0).score(scores, ids, None, rows=rows)[0, 0, 0] + 64, sums
    )


def test_kerple_power_with_exponent_one_is_alibi() -> None:
    power, alibi, scores = make("kerple_power"), make("alibi"), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        power.a[1].copy_(torch.tensor(alibi.slopes))
        power.p[1].fill_(1)
    ids = torch.tensor([[0, 1, 2, 7, 8]])
    ours, theirs = power.score(scores, ids, None, layer=1), alibi.score(scores, ids, None)
    # The second of three slopes is 2^-8, below the 0.01 that KERPLE does not let a fall under.
    assert alibi.slopes[1] == 2**-8
    torch.testing.assert_close(ours[:, [0, 2]], theirs[:, [0, 2]], atol=1e-14, rtol=0)


def test_kerple_power_has_finite_gradients_at_distance_zero() -> None:
    family, ids = make("kerple_power"), torch.zeros(1, 3, dtype=torch.long)
    family.score(torch.zeros(1, 3, 3, 3), ids, None).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (family.a[0], family.p[0]))


@pytest.mark.parametrize("over", ["alibi", "kerple", "fire"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_dape_with_a_zero_last_layer_is_its_static_bias(over: str, kernel: int) -> None:
    family, scores = make("dape", over=over, kernel=kernel), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        family.f[1].weights[1].zero_()
        family.f[1].biases[1].zero_()
    ids, keep = torch.tensor([[0, 4, 5, 6, 20]]), torch.tensor([[True, True, False, True, True]])
    expected = family.static.score(scores, ids, keep, layer=1)
    assert torch.equal(family.score(scores, ids, keep, layer=1), expected)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_no_score_of_the_future_or_of_another_document_leaks_through_dape(kernel: int) -> None:
    family = make("dape", kernel=kernel)
    scores = torch.randn(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    seen = masks.causal(6) & same_document(torch.tensor([0, 0, 0, 1, 1, 1]))
    rows = positions.Rows(0, scores, scores, seen[None, None])
    adapted = family.score(scores, torch.arange(6)[None], None, rows=rows)
    for i, j in seen.nonzero().tolist():
        (gradient,) = torch.autograd.grad(adapted[0, :, i, j].sum(), scores, retain_graph=True)
        read = gradient[0].abs().amax(0) > 0
        assert not read[~seen].any()
        assert read[i, j]
        neighbours = [x for x in range(6) if seen[i, x] and abs(x - j) <= 2 * (kernel // 2)]
        assert read.nonzero().tolist() == [[i, x] for x in neighbours]


def test_transformer_xl_without_its_weights_is_plain_attention() -> None:
    family, (q, k, v) = make("transformer_xl"), leaves(length=5)
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.zero_()
    ids = torch.arange(5)[None]
    torch.testing.assert_close(
        reference.attend(q, k, v, score=score_of(family, ids, None)), reference.attend(q, k, v), atol=1e-14, rtol=0
    )


@pytest.mark.parametrize("name", ["alibi", "t5", "kerple_log", "kerple_power", "sandwich", "dape", "transformer_xl"])
@torch.no_grad()
def test_scores_depend_on_distances_alone(name: str) -> None:
    family, (q, k, v) = make(name), leaves(length=6)
    ids = torch.tensor([[0, 1, 5, 6, 7, 30]])
    here, there = (reference.attend(q, k, v, score=score_of(family, x, None)) for x in (ids, ids + 1000))
    torch.testing.assert_close(here, there, atol=1e-9, rtol=0)


def test_biases_keep_neighbouring_distances_apart_in_bfloat16() -> None:
    for name in ("alibi", "kerple_log", "kerple_power", "sandwich"):
        family = positions.build(name, n_layers=1, n_heads=2, head_dim=4, d_model=8, max_positions=8).bfloat16()
        scores, ids = torch.zeros(1, 2, 1, 3, dtype=torch.bfloat16), torch.tensor([[0, 1, 1000]])
        bias = family.score(scores, ids, None)
        assert bias.dtype == torch.float32
        assert (bias[..., 0] < bias[..., 1]).all(), name


def test_the_embedding_scalings_are_those_of_csordas() -> None:
    expected = {"noscale": (1.0, 1.0), "opennmt": (8.0, (2 / (50 + 64)) ** 0.5), "downscaled": (1.0, (2 / 64) ** 0.5)}
    for scaling, (scale, deviation) in expected.items():
        torch.manual_seed(0)
        sizes = {"n_layers": 1, "n_heads": 1, "d_model": 64, "vocab_size": 50, "max_positions": 8}
        config = positions_config(sizes, {"embedding": scaling})
        model = config()
        # 3,200 draws: a standard deviation is right to 1.3 %.
        assert float(model.embedding.weight.detach().std()) == pytest.approx(deviation, rel=0.05), scaling
        assert model.positions.token_scale == scale
        tokens = torch.tensor([[3]])
        hooked: list[Tensor] = []
        model.blocks[0].register_forward_pre_hook(lambda _, args, seen=hooked: seen.append(args[0]))
        model(tokens)
        torch.testing.assert_close(hooked[0][0, 0], model.embedding.weight[3] * scale)


def positions_config(sizes: dict[str, int], options: dict[str, Any]) -> Any:
    from lightning_metatok.model import MetaTransformer, TransformerConfig

    return lambda: MetaTransformer(TransformerConfig(**sizes, position="transformer_xl", position_options=options))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("t5", {"n_bucket": 3}, "n_bucket=3: expected one of n_buckets, max_distance.*did you mean 'n_buckets'"),
        ("t5", {"n_buckets": 1}, "n_buckets=1: expected 2 or more"),
        ("t5", {"n_buckets": 64, "max_distance": 32}, "max_distance=32: expected more than 32, half of n_buckets"),
        ("t5", {"temperature": 0}, "temperature=0: expected a number above 0"),
        ("t5", {"per_layer": 1}, "per_layer=1: expected true or false"),
        ("alibi", {"slope": 1}, "slope=1: expected no options for model.position='alibi'"),
        ("sandwich", {"dim": 3}, "dim=3: expected an even number above 0"),
        ("sandwich", {"heads": "multiplied"}, "heads='multiplied': expected one of multiply, divide.*mean 'multiply'"),
        ("dape", {"over": "rotary"}, "over='rotary': expected one of alibi, kerple, fire"),
        ("dape", {"kernel": 2}, "kernel=2: expected an odd number above 0"),
        ("dape", {"fire_activation": "leaky_relu"}, "fire_activation='leaky_relu': expected over=fire beside it"),
        ("fire", {"activation": "leaky"}, "activation='leaky': expected one of relu, leaky_relu.*mean 'leaky_relu'"),
        ("transformer_xl", {"embedding": "scaled"}, "embedding='scaled': expected one of noscale, opennmt, downscaled"),
    ],
)
def test_an_option_that_cannot_work_is_named(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=r"model\.position_options\." + expected):
        make(name, **options)


@torch.no_grad()
def test_layers_that_share_their_weights_are_one_block_applied_again_and_again() -> None:
    model = tiny(position="kerple_log", shared_layers=True, n_layers=3)
    once = tiny(position="kerple_log", n_layers=1)
    deep = tiny(position="kerple_log", n_layers=3)
    assert model.n_parameters() == once.n_parameters() == sum(p.numel() for p in set(model.parameters()))
    weights = {name: x for name, x in model.state_dict().items()}
    for name in deep.state_dict():
        parts = name.split(".")
        index = 1 if parts[0] == "blocks" else 2 if parts[0] == "positions" else None
        source = name if index is None else ".".join([*parts[:index], "0", *parts[index + 1 :]])
        deep.state_dict()[name].copy_(weights[source])
    tokens_BT, meta_mask_BT = batch()
    torch.testing.assert_close(model(tokens_BT, meta_mask_BT), deep(tokens_BT, meta_mask_BT))
    assert model.flops_per_token(21) == deep.flops_per_token(21)
