"""What an attention ends with: the denominator of its softmax, and a gate of its output."""

import math

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, TransformerConfig
from lightning_metatok.model.attention.backends import blocked, reference
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.layers import Projections
from lightning_metatok.model.recording import recorded

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 30, "max_positions": 64}
ENDS = [{"denominator": "one"}, {"denominator": "sink"}, {"gate": "head"}, {"gate": "element"}]


def naive(q: Tensor, k: Tensor, v: Tensor, sink_N: Tensor) -> Tensor:
    """Row by row, key by key; causal."""
    B, N, T, H = q.shape
    out = []
    for b in range(B):
        for n in range(N):
            for i in range(T):
                exps = [((q[b, n, i] * k[b, n, j]).sum() / math.sqrt(H)).exp() for j in range(i + 1)]
                total = sum(exps) + sink_N[n].exp()
                out.append(sum(e / total * v[b, n, j] for j, e in enumerate(exps)))
    return torch.stack(out).view(B, N, T, H)


def case() -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    return inputs, torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("backend", ["reference", "blocked", "by blocks"])
def test_a_sink_is_one_more_term_of_the_sum(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, sink_N = case()
    expected = naive(*inputs, sink_N)
    wrt = [*inputs, sink_N]
    gradients = torch.autograd.grad(expected.sin().sum(), wrt)
    if backend == "by blocks":
        monkeypatch.setattr(blocked, "BLOCK", 16)  # several blocks of rows
    attend = reference.attend if backend == "reference" else blocked.attend
    out = attend(*inputs, score=Score(None, (sink_N,), sink_N))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.sin().sum(), wrt), gradients)


def test_its_gradient_is_the_published_one() -> None:
    """db_h = -sum_i p_sink,i (g_i . o_i)"""
    inputs, sink_N = case()
    out = reference.attend(*inputs, score=Score(None, (sink_N,), sink_N))
    g = torch.randn_like(out)
    (found,) = torch.autograd.grad((out * g).sum(), [sink_N])
    scores = reference.masked_scores(*inputs[:2])
    p_sink = 1 - reference.weights(scores, sink_N).sum(dim=-1)
    torch.testing.assert_close(found, -(p_sink * (g * out).sum(dim=-1)).sum(dim=(0, 2)))


def test_a_sink_that_nobody_wants_is_the_plain_softmax() -> None:
    inputs, _ = case()
    nothing = torch.full((2,), -1e4, dtype=torch.float64)
    torch.testing.assert_close(reference.attend(*inputs, score=Score(None, (), nothing)), reference.attend(*inputs))


def test_a_sink_of_0_is_a_key_and_value_of_zeros() -> None:
    inputs, _ = case()
    q, k, v = (inputs[0], *(torch.cat((torch.zeros_like(x[:, :, :1]), x), dim=2) for x in inputs[1:]))
    seen = torch.ones(5, 6, dtype=torch.bool).tril(1)
    zero = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(
        reference.attend(*inputs, score=Score(None, (), zero)), reference.attend(q, k, v, mask=seen)
    )


@pytest.mark.parametrize("gate", ["head", "element"])
def test_a_gate_multiplies_what_a_head_gives(gate: str) -> None:
    torch.manual_seed(0)
    weights = Projections(TransformerConfig(**SHAPE, gate=gate)).double()
    heads, x = torch.randn(3, 5, 2, 8, dtype=torch.float64), torch.randn(3, 5, 16, dtype=torch.float64)
    found = weights.gated(heads, x)
    for b in range(3):
        for t in range(5):
            for n in range(2):
                row = weights.gate.weight[n] if gate == "head" else weights.gate.weight[8 * n : 8 * n + 8]
                open_ = 1 / (1 + (-(row @ x[b, t])).exp())
                torch.testing.assert_close(found[b, t, 8 * n : 8 * n + 8], heads[b, t, n] * open_)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(next(iter(end.items()))))
@pytest.mark.parametrize("mechanism", ["none", "meta", "own_qkv", "matched", "landmark"])
@pytest.mark.parametrize("pattern", ["causal", "window_meta"])
def test_step_by_step_equals_the_full_pass(end: dict[str, str], mechanism: str, pattern: str) -> None:
    torch.manual_seed(1)
    options = {"pattern_options": {"w": 4}} if pattern == "window_meta" else {}
    config = TransformerConfig(**SHAPE, **end, mechanism=mechanism, pattern=pattern, **options)
    model = MetaTransformer(config, seed=3).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sink_N"):
                parameter.copy_(torch.randn_like(parameter))
    tokens_BT, extra_BT = torch.randint(30, (2, 16)), torch.rand(2, 16) < 0.3
    whole = model(tokens_BT, extra_BT)
    cache, parts = KVCache(2), []
    for first, end_ in ((0, 5), *((t, t + 1) for t in range(5, 16))):
        parts.append(model(tokens_BT[:, first:end_], extra_BT[:, first:end_], cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(next(iter(end.items()))))
@pytest.mark.parametrize("mechanism", ["none", "meta"])
def test_all_of_it_learns_and_counts(end: dict[str, str], mechanism: str) -> None:
    """Every weight has a gradient, and FLOPs count the gate."""
    torch.manual_seed(2)
    plain = MetaTransformer(TransformerConfig(**SHAPE, mechanism=mechanism), seed=1)
    model = MetaTransformer(TransformerConfig(**SHAPE, **end, mechanism=mechanism), seed=1)
    model(torch.randint(30, (2, 16)), torch.rand(2, 16) < 0.3).logsumexp(dim=-1).sin().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    width = {"head": 2, "element": 16}.get(end.get("gate", ""), 0)
    share = 1 + (0.1 if mechanism == "meta" else 0)
    more = model.flops_per_token(16, 0.1) - plain.flops_per_token(16, 0.1)
    assert more == pytest.approx(6 * 2 * 16 * width * share)


def test_recorded_probabilities_are_those_of_the_pass() -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE, denominator="one"), seed=1).eval()
    with recorded(model) as recording:
        model(torch.randint(30, (2, 16)))
    sums = recording.layers[0]["self_attention"].probs_BNTT.sum(dim=-1)
    assert bool((sums < 1).all()), "a part of each row goes to nothing"
    torch.testing.assert_close(sums[:, :, 0], torch.full_like(sums[:, :, 0], 0.5), atol=0.1, rtol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"model.denominator='snk': expected one of sum, one, sink.*sink"):
        TransformerConfig(**SHAPE, denominator="snk")
    with pytest.raises(UserError, match=r"model.gate='heads': expected one of none, head, element.*head"):
        TransformerConfig(**SHAPE, gate="heads")
    with pytest.raises(UserError, match=r"model.attention_backend='sdpa': expected one of auto, reference, blocked"):
        TransformerConfig(**SHAPE, denominator="sink", attention_backend="sdpa")
