"""Compiled, or computed twice to save memory, a model is the model that it was."""

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.model.helpers import batch, tiny


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(n_layers=1), batch()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens_BT, meta_mask_BT), model(tokens_BT, meta_mask_BT), atol=1e-5, rtol=1e-5)


def test_a_run_with_as_many_meta_tokens_in_each_batch_is_compiled_once() -> None:
    """Wherever they stand. Compiled by the tracer alone: what it guards is what a recompilation would come from."""
    model = tiny(n_layers=2).train()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for _ in range(5):
        meta_mask_BT = torch.rand(3, 20, generator=generator).argsort(dim=1) < 4
        tokens_BT = torch.randint(50, (3, 20), generator=generator)
        torch.testing.assert_close(compiled(tokens_BT, meta_mask_BT), model(tokens_BT, meta_mask_BT))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[-1] == graphs[0]


@pytest.mark.parametrize(
    "arm", [{}, {"mechanism": "none", "dropout": 0.3}, {"mechanism": "matched", "position": "fire"}], ids=str
)
def test_blocks_that_are_computed_again_have_the_same_gradients(arm: dict[str, Any]) -> None:
    tokens_BT, meta_mask_BT = batch()
    found, kept = [], []
    for again in (False, True):
        model = tiny(activation_checkpointing=again, **arm).train()
        torch.manual_seed(5)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            loss = model(tokens_BT, meta_mask_BT).square().sum()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        kept.append(sum(saved))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    assert kept[1] < 0.6 * kept[0]
