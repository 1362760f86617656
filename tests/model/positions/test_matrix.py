"""Every family of positions with everything that a model can be asked to do; what one cannot do, it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, TransformerConfig
from lightning_metatok.model.attention import BACKENDS, supports
from lightning_metatok.model.attention.backends import blocked
from lightning_metatok.model.positions import FAMILIES, Rows
from tests.model.helpers import VOCABULARY, batch, tiny

LENGTH = 21
Check = Callable[[str, pytest.MonkeyPatch], None]


def gradients(model: MetaTransformer, *inputs: Tensor | None, **options: str) -> list[Tensor]:
    """Logits, and the gradients of a weighted sum of them in all parameters."""
    model.zero_grad()
    logits = model(*inputs, **options)
    (logits * torch.arange(logits.numel()).view_as(logits).sin()).sum().backward()
    return [logits.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters())]


def both_attentions(name: str, _: pytest.MonkeyPatch) -> None:
    """Positions reach both attentions, all weights learn, and no token reads a later one."""
    model, (tokens_BT, meta_mask_BT) = tiny(position=name, n_layers=1), batch()
    ids_BT = torch.arange(LENGTH).expand(3, LENGTH)
    full, *grads = gradients(model, tokens_BT, meta_mask_BT, ids_BT)
    assert full.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)
    changed = tokens_BT.clone()
    changed[:, 13:] = (changed[:, 13:] + 1) % VOCABULARY
    torch.testing.assert_close(model(changed, meta_mask_BT, ids_BT)[:, :13], full[:, :13], atol=1e-5, rtol=1e-5)
    family = FAMILIES[name]
    if not (family.rotates or family.transforms_scores):
        return
    dropped = model(tokens_BT, meta_mask_BT, ids_BT, drop_positions="meta_attention")
    difference = (full - dropped).abs().amax(-1)
    assert difference[meta_mask_BT].max() > 1e-3
    assert difference[~meta_mask_BT].max() == 0


@torch.no_grad()
def ablation(name: str, _: pytest.MonkeyPatch) -> None:
    """With positions dropped, those of meta-tokens do not matter; without, they do."""
    model, (tokens_BT, meta_mask_BT) = tiny(position=name), batch()
    ids_BT = torch.arange(LENGTH).expand(3, LENGTH)
    moved_BT = torch.where(meta_mask_BT, ids_BT + 5, ids_BT)
    dropped, same = (model(tokens_BT, meta_mask_BT, ids, drop_positions="both") for ids in (ids_BT, moved_BT))
    assert torch.equal(dropped, same)
    if name != "none":
        kept, other = (model(tokens_BT, meta_mask_BT, ids) for ids in (ids_BT, moved_BT))
        assert (kept - other).abs().max() > 1e-3
        assert (kept - dropped).abs().max() > 1e-3


@torch.no_grad()
def documents(name: str, _: pytest.MonkeyPatch) -> None:
    """Documents packed into one block, whose positions restart, are read as each alone."""
    model, (tokens_BT, meta_mask_BT) = tiny(position=name), batch()
    border = 9
    ids_BT = torch.cat((torch.arange(border), torch.arange(LENGTH - border))).expand(3, LENGTH)
    documents_BT = (torch.arange(LENGTH) >= border).long().expand(3, LENGTH)
    packed = model(tokens_BT, meta_mask_BT, ids_BT, documents_BT)
    alone = [
        model(tokens_BT[:, part], meta_mask_BT[:, part], ids_BT[:, part])
        for part in (slice(0, border), slice(border, LENGTH))
    ]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def cache(name: str, _: pytest.MonkeyPatch) -> None:
    """Token by token with a cache is the full pass, with positions kept and dropped."""
    model, (tokens_BT, meta_mask_BT) = tiny(position=name), batch()
    for drop in ("none", "both"):
        memory = KVCache(model.config.n_layers)
        steps = [
            model(tokens_BT[:, t : t + 1], meta_mask_BT[:, t : t + 1], cache=memory, drop_positions=drop)
            for t in range(LENGTH)
        ]
        full = model(tokens_BT, meta_mask_BT, drop_positions=drop)
        torch.testing.assert_close(torch.cat(steps, dim=1), full, atol=2e-5, rtol=1e-5)


def compiled(name: str, _: pytest.MonkeyPatch) -> None:
    """torch.compile traces the hooks as one graph each, which computes the same; making code of it is torch's part."""
    family, (q, k) = tiny(position=name).positions, torch.randn(2, 1, 2, LENGTH, 8)
    ids_BT, keep_BT = torch.arange(LENGTH)[None], torch.rand(1, LENGTH) < 0.7

    def hooks(q: Tensor, k: Tensor, ids_BT: Tensor, keep_BT: Tensor) -> list[Tensor]:
        embedded, rotated = family.embed(ids_BT, keep_BT), family.rotate(q, k, ids_BT, keep_BT)
        rows = Rows(0, *rotated)
        scores = family.score(rotated[0] @ rotated[1].mT, ids_BT, keep_BT, layer=1, rows=rows)
        return [scores] if embedded is None else [scores, embedded]

    torch._dynamo.reset()
    for ours, theirs in zip(
        torch.compile(hooks, backend="eager", fullgraph=True)(q, k, ids_BT, keep_BT),
        hooks(q, k, ids_BT, keep_BT),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def bf16(name: str, _: pytest.MonkeyPatch) -> None:
    """In bfloat16, by autocast and throughout, logits are those of float32 within bfloat16's rounding."""
    model, (tokens_BT, meta_mask_BT) = tiny(position=name), batch()
    full = model(tokens_BT, meta_mask_BT)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(tokens_BT, meta_mask_BT)
    throughout = model.bfloat16()(tokens_BT, meta_mask_BT)
    # 2^-8 of logits of size 5 or so, through two layers of three branches.
    for rounded in (mixed, throughout):
        assert (rounded.float() - full).abs().mean() < 0.02 * full.abs().max()


@torch.no_grad()
def state_dict(name: str, _: pytest.MonkeyPatch) -> None:
    """Weights alone make another model the same."""
    model, other, (tokens_BT, meta_mask_BT) = tiny(position=name), tiny(position=name, seed=1), batch()
    expected = model(tokens_BT, meta_mask_BT)
    assert not torch.equal(other(tokens_BT, meta_mask_BT), expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(tokens_BT, meta_mask_BT), expected)


def every_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends that take the family agree in logits and gradients; the others are refused when the model is built."""
    tokens_BT, meta_mask_BT = batch()
    monkeypatch.setattr(blocked, "BLOCK", 400)  # a few rows
    expected = gradients(tiny(position=name, attention_backend="reference"), tokens_BT, meta_mask_BT)
    takes_scores = FAMILIES[name].transforms_scores
    for backend in ("auto", *BACKENDS):
        if backend != "auto" and takes_scores and not BACKENDS[backend].TAKES_SCORES:
            with pytest.raises(UserError, match=f"attention_backend='{backend}': expected one of auto, reference, "):
                tiny(position=name, attention_backend=backend)
        elif backend == "auto" or supports(backend, device=torch.device("cpu"), score=takes_scores):
            ours = gradients(tiny(position=name, attention_backend=backend), tokens_BT, meta_mask_BT)
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def checkpoint_of_dropout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, dropout draws the same in the backward pass of a block as in its forward pass."""
    tokens_BT, meta_mask_BT = batch()
    monkeypatch.setattr(blocked, "BLOCK", 400)
    model = tiny(position=name, dropout=0.3, attention_backend="blocked").double().train()
    torch.manual_seed(5)
    _, *grads = gradients(model, tokens_BT, meta_mask_BT)
    weight = model.blocks[0].attention.projections.qkv.weight
    grad = grads[[id(p) for p in model.parameters()].index(id(weight))]
    direction, step, losses = torch.randn_like(weight), 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
            torch.manual_seed(5)
            logits = model(tokens_BT, meta_mask_BT)
            losses.append((logits * torch.arange(logits.numel()).view_as(logits).sin()).sum())
            weight -= sign * step * direction
    slope = (losses[0] - losses[1]) / (2 * step)
    torch.testing.assert_close((grad * direction).sum(), slope, atol=1e-4, rtol=1e-5)


CHECKS: dict[str, Check] = {
    "both_attentions": both_attentions,
    "ablation": ablation,
    "documents": documents,
    "cache": cache,
    "compile": compiled,
    "bf16": bf16,
    "state_dict": state_dict,
    "every_backend": every_backend,
    "dropout": checkpoint_of_dropout,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_works_with(name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if check in FAMILIES[name].cannot:
        config = TransformerConfig(n_layers=1, n_heads=2, d_model=16, vocab_size=VOCABULARY, position=name)
        with pytest.raises(UserError, match=r"cannot .*; expected one of "):
            config.check_can(check)
    else:
        CHECKS[check](name, monkeypatch)
