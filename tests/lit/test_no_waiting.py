"""A training step of a batch whose counts the host knows asks the device for nothing: no kernel waits for the host.

Tensors without values stand in for a device: whoever asks one for a number, or for a shape that depends on values,
fails at once.
"""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from lightning_metatok.data import Batch, next_token_targets
from lightning_metatok.data.batch import OnHost
from lightning_metatok.lit import targets
from lightning_metatok.model import MetaTransformer, TransformerConfig

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 30, "max_positions": 64}


def batch(*, alike: bool, documents: bool) -> Batch:
    """Four rows with as many meta-tokens each, or not; one document a row, or several."""
    torch.manual_seed(0)
    tokens_BT = torch.randint(29, (4, 40))
    mask_BT = torch.rand(4, 40).argsort(dim=1) < 6 if alike else torch.rand(4, 40) < 0.2
    ids_BT = (torch.rand(4, 40) < 0.1).cumsum(dim=1) if documents else torch.zeros_like(tokens_BT)
    targets_BT = next_token_targets(tokens_BT, mask_BT, document_ids_BT=ids_BT)
    return Batch(tokens_BT, targets_BT, mask_BT, ids_BT, torch.arange(40).expand(4, -1).clone())


def known(one: Batch, counts: OnHost | None) -> Batch:
    object.__setattr__(one, "_on_host", counts)
    return one


def loss_of(model: MetaTransformer, one: Batch, documents: bool) -> torch.Tensor:
    rows = targets.Rows.of(model, one, separate_documents=documents)
    return targets.summed(model, rows).sum


@pytest.mark.one_in(2)
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("documents", [True, False])
@pytest.mark.parametrize("mechanism", ["none", "meta", "own_qkv", "matched"])
def test_a_step_asks_for_nothing(alike: bool, documents: bool, mechanism: str) -> None:
    one = batch(alike=alike, documents=documents)
    counts = OnHost.of(one)
    config = TransformerConfig(**SHAPE, mechanism=mechanism)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model = MetaTransformer(config, seed=1)
        fake = Batch(*(mode.from_tensor(x) for x in vars(one).values()))
        loss_of(model, known(fake, counts), documents).backward()
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            loss_of(model, known(fake, None), documents)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("documents", [True, False])
def test_what_is_known_changes_nothing(alike: bool, documents: bool) -> None:
    one = batch(alike=alike, documents=documents)
    model = MetaTransformer(TransformerConfig(**SHAPE), seed=1)
    losses = [loss_of(model, known(one, counts), documents) for counts in (None, OnHost.of(one))]
    gradients = [torch.autograd.grad(loss, tuple(model.parameters())) for loss in losses]
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_counts_are_taken_where_a_batch_leaves_the_host() -> None:
    one = batch(alike=False, documents=True)
    assert one.on_host is None
    moved = one.to("meta")
    assert moved.on_host == OnHost.of(one)
    assert sum(moved.on_host.extra_of_documents) == int(one.meta_mask_BT.sum())
    assert Batch(**vars(moved)).on_host is None, "another batch of the same tensors may have others"
