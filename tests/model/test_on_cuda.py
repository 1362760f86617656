"""What only a GPU can show: steps that do not wait, compiled graphs that stay, and kernels that are there."""

import pytest
import torch

from lightning_metatok.data import Batch, next_token_targets
from lightning_metatok.lit import targets
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.attention import BACKENDS, patterns
from lightning_metatok.model.attention.backends import flex, try_backends
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.meta import MetaBlocks, attend_blocks
from lightning_metatok.model.attention.sight import Sight

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 64, "vocab_size": 512, "max_positions": 256}


def batch(seed: int, *, alike: bool = True, documents: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(511, (4, 128), generator=generator)
    drawn_BT = torch.rand(4, 128, generator=generator)
    mask_BT = drawn_BT.argsort(dim=1) < 12 if alike else drawn_BT < 0.1
    ids_BT = (torch.rand(4, 128, generator=generator) < 0.03).cumsum(dim=1) * documents
    of_targets = next_token_targets(tokens_BT, mask_BT, document_ids_BT=ids_BT)
    one = Batch(tokens_BT, of_targets, mask_BT, ids_BT, torch.arange(128).expand(4, -1).contiguous())
    return one.pin_memory().to("cuda", non_blocking=True)


def step(model: MetaTransformer, one: Batch, *, documents: bool = False) -> torch.Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        rows = targets.Rows.of(model, one, separate_documents=documents)
        loss = targets.summed(model, rows).sum / len(rows)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("documents", [True, False])
@pytest.mark.parametrize("mechanism", ["none", "meta", "own_qkv", "matched"])
def test_a_step_does_not_wait(alike: bool, documents: bool, mechanism: str) -> None:
    model = MetaTransformer(TransformerConfig(**SHAPE, mechanism=mechanism), seed=1).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batches = [batch(seed, alike=alike, documents=documents) for seed in range(3)]
    step(model, batches[0], documents=documents)  # kernels are looked for once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in batches[1:]:
            step(model, one, documents=documents)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mechanism", ["none", "meta"])
def test_compiled_graphs_stay(mechanism: str) -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    model = MetaTransformer(TransformerConfig(**SHAPE, mechanism=mechanism), seed=1).cuda()
    plain = [step(model, batch(seed)) for seed in range(6)]
    model.compile()
    compiled = [step(model, batch(seed)) for seed in range(2)]
    before = counters["stats"]["unique_graphs"]
    compiled += [step(model, batch(seed)) for seed in range(2, 6)]
    assert counters["stats"]["unique_graphs"] == before
    torch.testing.assert_close(torch.stack(compiled), torch.stack(plain), atol=2e-2, rtol=0)


def test_a_mask_of_blocks_is_compiled_once() -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    rule = patterns.build("window_meta", w=9)
    graphs = []
    for seed in range(4):
        extra_BT = (torch.rand(2, 512, generator=torch.Generator().manual_seed(seed)) < 0.1).cuda()
        sight = Sight(rule, Facts.of(512, extra_BT, device=torch.device("cuda")), slice(0, 512))
        x = torch.randn(2, 2, 512, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        flex.attend(x, x, x, sight=sight).sum().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1:] == [graphs[1]] * 3, graphs


@pytest.mark.parametrize("name", ["sdpa", "blocked", "varlen", "xformers"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_blocks_of_meta_rows_equal_the_reference(name: str, share: float) -> None:
    job = {"device": torch.device("cuda"), "dtype": torch.bfloat16, "dense_mask": False, "score": False}
    if (reason := BACKENDS[name].why_not(**job)) is not None:
        pytest.skip(f"{name}: {reason}")
    torch.manual_seed(0)
    found = MetaBlocks.find(torch.rand(3, 67, device="cuda") < share)
    inputs = [torch.randn(len(found.rows_R), 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]

    def both(backend: str) -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = attend_blocks(*leaves, found, backend=backend)
        return [out.detach(), *torch.autograd.grad(out.sum(), leaves, allow_unused=True)]

    if len(found.rows_R):
        torch.testing.assert_close(both(name), both("reference"), atol=3e-2, rtol=3e-2)


def test_every_backend_says_how_it_is() -> None:
    found = try_backends("cuda")
    print(found)
    assert {name: found[name] for name in ("reference", "sdpa", "blocked")} == dict.fromkeys(
        ("reference", "sdpa", "blocked"), "ok"
    )
