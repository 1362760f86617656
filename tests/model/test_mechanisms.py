"""Mechanisms: what is added to a block by name alone, and what the rest of the house makes of a branch it never saw."""

import ast
import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_metatok.model
from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, TransformerConfig, generate, mechanisms, positions
from lightning_metatok.model.attention import patterns, plan
from lightning_metatok.model.attention.layers import Attention, GatheredAttention, Plan
from lightning_metatok.model.attention.plan import Forward, Plans, Transform
from lightning_metatok.model.branch import Branch
from lightning_metatok.model.interventions import Intervention, intervened
from lightning_metatok.model.mechanisms import Between, Mechanism
from lightning_metatok.model.recording import recorded
from tests.model.helpers import VOCABULARY, batch, tiny

MODEL = Path(lightning_metatok.model.__file__).parent
SHAPE: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": VOCABULARY}


@pytest.mark.parametrize("name", ["transformer.py", "block.py"])
def test_transformer_and_block_know_no_encoding_pattern_or_mechanism_by_name(name: str) -> None:
    tree = ast.parse((MODEL / name).read_text())
    axes = (positions.AXIS, patterns.AXIS, mechanisms.AXIS)
    named = {value for axis in axes for value in axis.known} - {"none"}  # the word for nothing, of torch's GELU too
    classes = {kind.__name__ for axis in axes for kind in axis.known.values()}
    rules = {kind.__name__ for kind in (patterns.SameDocument, patterns.Extra, patterns.MetaToMeta, patterns.Sinks)}
    branches = {branch for value in mechanisms.MECHANISMS for branch in mechanisms.build(value).names(0)}
    assert "meta_attention" in branches
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)
            and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            quoted = set(re.findall(r"'(\w+)'", node.value)) | {node.value}
            assert not quoted & (named | branches), (node.lineno, node.value)
        for word in (getattr(node, "id", None), getattr(node, "attr", None)):
            assert word not in classes | rules | branches, (node.lineno, word)
        if isinstance(node, ast.ImportFrom):
            assert not re.search(r"\.(positions|patterns|mechanisms)\.", f"{node.module}."[:-1] + "."), node.module
            assert not {alias.name for alias in node.names} & (classes | rules), node.lineno


@pytest.mark.parametrize("name", mechanisms.MECHANISMS)
def test_a_mechanism_says_which_branches_its_blocks_have(name: str) -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE, mechanism=name))
    for layer, block in enumerate(model.blocks):
        names = [branch.name for branch in block.branches]
        assert names == ["self_attention", *model.config.added(layer), "mlp"]
        assert [branch.name for branch in block.branches if branch.added] == list(model.config.added(layer))
    added = model.weights_of_mechanism()
    plain = MetaTransformer(TransformerConfig(**SHAPE, mechanism="none"))
    assert model.state_dict().keys() - plain.state_dict().keys() == added.keys()


def test_an_unknown_mechanism_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"model\.mechanism='machted': expected one of .*did you mean 'matched'"):
        mechanisms.build("machted")


def test_a_mechanism_that_does_nothing_says_so() -> None:
    assert mechanisms.build("none").idle
    assert mechanisms.build("meta", layers=[]).idle
    assert not mechanisms.build("meta").idle
    assert mechanisms.build("meta", fill=-1e9, shared=True, layers=[3, 1]).says() == [
        "fill -1e+09", "shared", "layers 1 3",
    ]  # fmt: skip


# -- a mechanism of somebody else: two branches, one of all rows and one of extra rows, in this order

OTHER = [
    Branch("echo", "echo", "norm_echo", "echo", remembers=False),
    Branch("among", "among", "norm_among", "among"),
]


class Echo(nn.Module):
    """A branch that is no attention."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.line = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x_BTD: Tensor, plan: Any = None, memory: Any = None) -> Tensor:
        out: Tensor = self.line(x_BTD)
        return out


class TwoBranches(Mechanism):
    """Adds both to every block."""

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale

    @property
    def idle(self) -> bool:
        return False

    def names(self, layer: int) -> tuple[str, ...]:
        return ("echo", "among")

    def branches(self, config: TransformerConfig, layer: int, attention: Attention) -> list[tuple[Branch, nn.Module]]:
        return [(OTHER[0], Echo(config.d_model)), (OTHER[1], GatheredAttention(config, layer=layer))]

    def plans(self, forward: Forward) -> Plans:
        return {"echo": Plan(), "among": forward.over_extra("among")}


class Mean(Between):
    """Adds a learned share of the mean of all states so far: causal, as each place sees itself alone."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, states: Sequence[Tensor], layer: int, plans: Plans, memories: Any = None) -> Tensor:
        assert len(states) == layer + 2
        assert {"self_attention", "mlp"} <= plans.keys()
        return states[-1] + self.share * torch.stack(list(states)).mean(dim=0)


class Across(TwoBranches):
    """Acts between blocks, too, and on scores."""

    transforms_scores = True

    def between(self, config: TransformerConfig) -> Between:
        return Mean()

    def transform(self, forward: Forward) -> Transform:
        def halved(scores: Tensor, *, layer: int, rows: Any) -> Tensor:
            return scores * 0.5

        return halved


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each had a line in the registry."""
    monkeypatch.setitem(mechanisms.MECHANISMS, "two", TwoBranches)
    monkeypatch.setitem(mechanisms.MECHANISMS, "across", Across)


ARMS: list[dict[str, Any]] = [
    {"mechanism": "two"},
    {"mechanism": "two", "norm": "post"},
    {"mechanism": "across"},
    {"mechanism": "across", "position": "alibi", "pattern": "window", "pattern_options": {"w": 6}},
]


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_branches_of_others_train_generate_record_and_are_changed(arm: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**arm), batch()
    logits_BTV = model(tokens_BT, meta_mask_BT)
    torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    with torch.no_grad():
        cache = KVCache(2)
        pieces = [model(tokens_BT[:, a:b], meta_mask_BT[:, a:b], cache=cache) for a, b in ((0, 9), (9, 10), (10, 21))]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits_BTV, atol=1e-5, rtol=1e-5)
        assert cache.layers[1].by_branch.keys() == {"self_attention", "among"}, "the echo remembers nothing"
        generate(model, tokens_BT, meta_mask_BT, max_new_tokens=2, seed=1)
        with recorded(model) as recording:
            assert torch.equal(model(tokens_BT, meta_mask_BT), logits_BTV)
        for layer in recording.layers:
            assert list(layer.branches) == ["self_attention", "echo", "among", "mlp"]
            assert layer["echo"].scores_BNTT is None
            rows_BT = layer["among"].update_BTD.any(dim=-1)
            assert torch.equal(rows_BT, meta_mask_BT)
            for one, then in zip(list(layer.branches.values()), list(layer.branches.values())[1:], strict=False):
                assert torch.equal(one.after_BTD, then.before_BTD)
        with intervened(model, Intervention(silent=[0])), recorded(model, attention=False) as silenced:
            model(tokens_BT, meta_mask_BT)
        assert not any(silenced.layers[0][name].update_BTD.any() for name in ("echo", "among"))
        assert silenced.layers[1]["echo"].update_BTD.any()
        ids_BT = torch.arange(21).expand(3, 21)
        moved_BT = torch.where(meta_mask_BT, ids_BT + 5, ids_BT)
        if model.positions.rotates:  # ALiBi drops what it says of pairs, and has no ids to move
            dropped = [model(tokens_BT, meta_mask_BT, ids, drop_positions="among") for ids in (ids_BT, moved_BT)]
            assert not torch.equal(dropped[0], logits_BTV)
            assert not torch.equal(*dropped), "self-attention keeps its own"
            both = [model(tokens_BT, meta_mask_BT, ids, drop_positions="both") for ids in (ids_BT, moved_BT)]
            assert torch.equal(*both)


def test_states_between_blocks_reach_every_earlier_one() -> None:
    """Without the module between blocks, and with its share at 0, the model is another and the same."""
    across, (tokens_BT, meta_mask_BT) = tiny(mechanism="across"), batch()
    assert across.weights_of_mechanism()["between.share"] == ("across between blocks", None)
    out = across(tokens_BT, meta_mask_BT)
    with torch.no_grad():
        across.between.share.zero_()
    changed = across(tokens_BT, meta_mask_BT)
    assert not torch.allclose(out, changed, atol=1e-2)
    across.between = None
    assert torch.equal(across(tokens_BT, meta_mask_BT), changed)


def test_states_that_others_hold_are_not_changed_in_place() -> None:
    """A branch that adds at some rows adds in place, but never to the stream that entered the block."""
    model, (_tokens_BT, meta_mask_BT) = tiny(), batch()
    block = model.blocks[0]
    block.branches = [branch for branch in block.branches if branch.name == "meta_attention"]
    x_BTD = torch.randn(3, 21, 16)
    before = x_BTD.clone()
    forward = Forward(
        model.positions, model.pattern, meta_mask_BT, torch.arange(21)[None], None, "none", torch.float32, 21
    )
    after = block(x_BTD, plans=plan.build(forward, model.mechanism, 2)[0])
    assert torch.equal(x_BTD, before)
    assert torch.equal((after != before).any(dim=-1), meta_mask_BT)


def test_a_mechanism_that_transforms_scores_needs_a_backend_that_can() -> None:
    expected = r"attention_backend='sdpa': expected one of auto, reference, blocked, because mechanism='across'"
    with pytest.raises(UserError, match=expected):
        TransformerConfig(**SHAPE, mechanism="across", attention_backend="sdpa")


def test_positions_and_mechanism_compose_in_scores() -> None:
    """Halved scores of ALiBi: the bias is halved, too, because the mechanism comes behind the positions."""
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism="across", position="alibi", n_layers=1), batch()
    plain = tiny(mechanism="two", position="alibi", n_layers=1)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("between")})
    with recorded(model) as halved, torch.no_grad():
        model(tokens_BT, meta_mask_BT)
    with recorded(plain) as whole, torch.no_grad():
        plain(tokens_BT, meta_mask_BT)
    torch.testing.assert_close(
        halved.layers[0]["self_attention"].scores_BNTT, whole.layers[0]["self_attention"].scores_BNTT * 0.5
    )


# -- self-attention itself, and layers that see differently


class OwnQueries(Attention):
    """Extra tokens have queries, keys and values of their own inside the one attention."""

    def __init__(self, config: TransformerConfig, *, layer: int) -> None:
        super().__init__(config, layer=layer)
        self.own = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, plan: Any, memory: Any = None) -> Tensor:
        if plan.extra_BT is not None:
            x_BTD = torch.where(plan.extra_BT.unsqueeze(-1), self.own(x_BTD), x_BTD)
        return super().forward(x_BTD, plan, memory)


class OwnWeights(Mechanism):
    """Of extra tokens, as in KSA and Activation Beacon."""

    def attention(self, config: TransformerConfig, layer: int) -> Attention:
        return OwnQueries(config, layer=layer)


@torch.no_grad()
def test_a_mechanism_may_bring_its_own_self_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mechanisms.MECHANISMS, "own", OwnWeights)
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism="own"), batch()
    plain = tiny(mechanism="none")
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".own." not in k})
    full = model(tokens_BT, meta_mask_BT)
    assert torch.equal(model(tokens_BT), plain(tokens_BT))
    assert not torch.allclose(full, plain(tokens_BT, meta_mask_BT), atol=1e-2)
    cache = KVCache(2)
    pieces = [model(tokens_BT[:, a:b], meta_mask_BT[:, a:b], cache=cache) for a, b in ((0, 7), (7, 8), (8, 21))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, atol=1e-5, rtol=1e-5)


class EverySecond(patterns.Window):
    """A window in every second layer, everything in the others."""

    def at(self, layer: int, n_layers: int) -> patterns.Pattern:
        return self if layer % 2 else WHOLE


WHOLE = patterns.Causal()


@torch.no_grad()
def test_layers_of_a_pattern_may_see_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(patterns.PATTERNS, "second", EverySecond)
    model, inputs = tiny(pattern="second", pattern_options={"w": 3}), batch()
    with recorded(model) as recording:
        full = model(*inputs)
    seen = [layer["self_attention"].scores_BNTT.isfinite().sum(dim=-1)[0, 0] for layer in recording.layers]
    assert seen[0].tolist() == list(range(1, 22))
    assert seen[1].tolist() == [1, 2, *[3] * 19]
    causal, window = tiny(), tiny(pattern="window", pattern_options={"w": 3})
    assert window.flops_per_token(20) < model.flops_per_token(20) < causal.flops_per_token(20)
    cache = KVCache(2)
    pieces = [model(inputs[0][:, a:b], inputs[1][:, a:b], cache=cache) for a, b in ((0, 7), (7, 8), (8, 21))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_copy_of_a_model_that_shares_weights_shares_its_own() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism_options={"shared": True}), batch()
    twin = copy.deepcopy(model)
    expected = model(tokens_BT, meta_mask_BT)
    assert torch.equal(twin(tokens_BT, meta_mask_BT), expected)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(twin(tokens_BT, meta_mask_BT), expected)
